//! Makes a zombie, shows it, and prevents it in each way.

use std::os::fd::AsFd as _;
use std::process::Command;

use ipc_core::Wait;
use ipc_core::wait::{Interest, poll};
use ipc_process::Process;
use ipc_process::zombie::{Reaper, ignore_children, reap, spawn_detached, zombies};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init();
    let show = |what: &str| -> Result<(), Box<dyn std::error::Error>> {
        let names: Vec<_> = zombies()?.into_iter().map(|z| z.name).collect();
        println!("{what}: {names:?}");
        Ok(())
    };
    let ended = || -> std::io::Result<u32> {
        let child = Command::new("true").spawn()?; // dropped without a wait
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let _ = waitid(WaitId::Pid(Pid::from_child(&child)), peek); // ECHILD while ignored
        Ok(child.id())
    };
    let pid = ended()?;
    show("a child that nobody waited for")?;
    println!("waited for: {}", reap(pid)?.ok_or("alive")?);

    let guard = ignore_children()?;
    ended()?;
    show("a child while children are ignored")?;
    drop(guard);

    let detached = spawn_detached(|| (), ())?;
    poll([(detached.as_fd(), Interest::Read)], Wait::Forever)?;
    show("a second-level child")?;

    let reaper = Reaper::start()?;
    reaper
        .run(Process::new(|| drop(spawn_detached(|| (), ())), ()))?
        .join()?;
    show("an orphan, adopted by a reaper")?;

    let process = Process::new(|| (), ()).start()?;
    process.wait()?;
    show("a process of this crate, not joined")
}
