//! Four processes count primes; one is killed, which the others do not notice.

use ipc_process::{JoinError, Process};

fn primes_between(from: u32, to: u32) -> usize {
    let is_prime = |n: u32| {
        n > 1
            && (2..)
                .take_while(|d| d * d <= n)
                .all(|d| !n.is_multiple_of(d))
    };
    (from..to).filter(|&n| is_prime(n)).count()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init();
    let mut workers = Vec::new();
    for part in 0..4 {
        let range = (part * 500_000, (part + 1) * 500_000);
        workers.push(
            Process::new(primes_between, range)
                .name(format!("part {part}"))
                .start()?,
        );
    }
    workers[2].kill()?;
    for worker in workers {
        let name = worker.name().to_owned();
        match worker.join() {
            Ok(count) => println!("{name}: {count} primes"),
            Err(JoinError::Killed { signal, .. }) => println!("{name}: killed by signal {signal}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
