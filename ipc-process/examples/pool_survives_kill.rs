//! A task that kills its worker costs its own result and nothing else.

use std::process::Command;
use std::time::Duration;

use ipc_process::Pool;
use ipc_process::pool::{Retry, TaskError};

fn half(n: u32) -> u32 {
    if n == 13 {
        // As the kernel does when memory is short.
        let pid = std::process::id().to_string();
        let _ = Command::new("kill").args(["-KILL", &pid]).status();
    }
    n / 2
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init();
    let pool = Pool::builder()
        .processes(2)
        .task_deadline(Duration::from_secs(1))
        .retry(Retry::on_lost(1))
        .build()?;

    for (n, result) in (10..17).zip(pool.imap(half, 10..17)) {
        match result {
            Ok(half) => println!("{n}: {half}"),
            Err(TaskError::Aborted { attempts, last }) => {
                let TaskError::Lost { status, .. } = *last else {
                    return Err(last.into());
                };
                let how = status.map_or("unknown".to_owned(), |status| status.to_string());
                println!("{n}: given up after {attempts} attempts, {how}");
            }
            Err(error) => println!("{n}: {error}"),
        }
    }
    let never = || -> u32 {
        loop {
            std::thread::park();
        }
    };
    println!("endless: {}", pool.apply(never, ()).unwrap_err());
    println!("and on it goes: {}", pool.apply(half, (84,))?);
    Ok(())
}
