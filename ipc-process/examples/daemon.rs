//! A daemon ends with the program that started it, even if that is killed.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use ipc_process::Process;

/// Holds the write end of a pipe as its standard output, as long as it lives.
fn wait_for_ever() {
    println!("the daemon runs");
    loop {
        std::thread::park();
    }
}

/// A program with a daemon.
fn program() {
    let daemon = Process::new(wait_for_ever, ()).name("clock").daemon(true);
    let _daemon = daemon.start().expect("the daemon starts");
    std::thread::park();
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init();
    let (mut output, stdout) = std::io::pipe()?;
    let program = Process::new(program, ())
        .stdout(OwnedFd::from(stdout))
        .start()?;

    let mut line = [0; "the daemon runs\n".len()];
    output.read_exact(&mut line)?;
    std::io::stdout().write_all(&line)?;

    program.kill()?;
    println!("the program: {}", program.join().unwrap_err());
    // The pipe ends when nobody holds its other end any more.
    output.read_to_end(&mut Vec::new())?;
    println!("the daemon is gone, too");
    Ok(())
}
