//! A process type of one's own: state travels in, a typed result comes back, and it stops when
//! asked to.

use std::time::Duration;

use ipc_process::{Context, Process, Run};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Countdown {
    from: u32,
    period: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    LiftOff,
    StoppedAt(u32),
}

impl Run for Countdown {
    type Output = Outcome;

    fn run(self, context: &Context) -> Outcome {
        for n in (1..=self.from).rev() {
            println!("{n}");
            if context.wait(self.period) {
                return Outcome::StoppedAt(n);
            }
        }
        Outcome::LiftOff
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init();
    let period = Duration::from_millis(20);
    let launch = Process::of(Countdown { from: 3, period }).start()?;
    println!("{}: {:?}", launch.name().to_owned(), launch.join()?);

    let period = Duration::from_secs(3600);
    let launch = Process::of(Countdown { from: 9, period }).start()?;
    launch.terminate()?; // a question, which a process of an own type answers
    println!("the other: {:?}", launch.join()?);
    Ok(())
}
