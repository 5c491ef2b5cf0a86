use std::env;
use std::hint::spin_loop;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use crate::failure::{Failure, Outcome};
use crate::peer::{NEIGHBOUR, ROLE, die_with_the_supervisor};
use crate::placement::{pin, processors};

/// Busy processes, one on each processor that the rows use, until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(Vec<Child>);

const PROCESSOR: &str = "IPC_BENCH_PROCESSOR";

impl Neighbours {
    /// Starts them and waits until each of them runs where it should.
    pub(crate) fn move_in() -> Outcome<Self> {
        let mut all = Self::default();
        for processor in processors() {
            let mut child = Command::new(env::current_exe()?)
                .env(ROLE, NEIGHBOUR)
                .env(PROCESSOR, processor.to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?;
            let here = child.stdout.take();
            all.0.push(child);
            let mut here = here.ok_or_else(|| Failure::Failed("no pipe".into()))?;
            here.read_exact(&mut [0])?;
        }
        Ok(all)
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The whole life of a neighbour.
pub(crate) fn live() -> io::Result<()> {
    die_with_the_supervisor()?;
    let processor = env::var(PROCESSOR)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other("no processor was named"))?;
    pin(processor).map_err(|_| io::Error::other("cannot move to the processor"))?;
    // Fails, and ends this process, if the supervisor was killed before it could take it along.
    io::stdout().write_all(b"!")?;
    io::stdout().flush()?;
    loop {
        spin_loop();
    }
}
