//! Waiting for a process, but not for ever.

use std::io::{PipeReader, Read as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipc_process::Process;

fn add_up_input() -> u32 {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("input");
    text.split_whitespace()
        .filter_map(|n| n.parse::<u32>().ok())
        .sum()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init();
    let (input, mut writer): (PipeReader, _) = std::io::pipe()?;
    let process = Process::new(add_up_input, ())
        .stdin(OwnedFd::from(input))
        .start()?;

    let ended = process.wait_timeout(Duration::from_millis(50))?;
    println!("after 50 ms: {ended:?}, alive: {}", process.is_alive());

    std::io::Write::write_all(&mut writer, b"20 22")?;
    drop(writer); // the end of its input
    let ended = process.wait_timeout(Duration::from_secs(5))?;
    println!("after its input ended: {}", ended.ok_or("still alive")?);
    println!("it said {}", process.join()?); // does not wait any more
    Ok(())
}
