//! A test that takes too long ends its program, and says which it was and what its children do.
#![allow(dead_code, reason = "each target uses its part")]
#![allow(unreachable_pub, reason = "a module of test targets, not of a library")]

use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

/// Watches until it is dropped.
pub struct Watchdog(Sender<()>);

/// Ends the program if the guard lives for a minute.
pub fn watch() -> Watchdog {
    watch_for(Duration::from_secs(60))
}

pub fn watch_for(limit: Duration) -> Watchdog {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let (guard, dropped) = mpsc::channel();
    std::thread::spawn(move || {
        if dropped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs; the processes of this program:");
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let read = |file| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
                let (stat, own) = (read("stat"), std::process::id().to_string());
                let parent = stat.rsplit_once(')').and_then(|(_, f)| f.split(' ').nth(2));
                if parent == Some(&own) {
                    eprintln!("{stat}");
                }
            }
            std::process::abort();
        }
    });
    Watchdog(guard)
}
