//! What the threads of a process do with signals, from `/proc` (`proc_pid_status(5)`).

use std::path::Path;
use std::{fs, io};

use crate::sys;

/// The signal lines of one `status` file; bit `n - 1` stands for signal `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signals {
    /// The process that the thread belongs to.
    pub(crate) process: i32,
    pub(crate) asleep: bool,
    pub(crate) blocked: u64,
    pub(crate) ignored: u64,
    pub(crate) caught: u64,
}

pub(crate) fn bit(signo: i32) -> u64 {
    u32::try_from(signo - 1)
        .ok()
        .and_then(|shift| 1u64.checked_shl(shift))
        .unwrap_or(0)
}

pub(crate) fn of(status: &Path) -> io::Result<Signals> {
    parse(&fs::read_to_string(status)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(status: &str) -> Option<Signals> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let mask = |name| u64::from_str_radix(field(name)?, 16).ok();
    Some(Signals {
        process: field("Tgid:")?.parse().ok()?,
        asleep: field("State:")?.starts_with('S'),
        blocked: mask("SigBlk:")?,
        ignored: mask("SigIgn:")?,
        caught: mask("SigCgt:")?,
    })
}

/// What the other threads of this process do with real-time signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// There are none, or they sleep with all of them blocked: they have settled on that.
    Block,
    /// One blocks them and runs. It may settle, or be one that is just being started or starts
    /// another: glibc's `pthread_create(3)` blocks everything for that moment.
    Unsettled,
    /// One does not block them.
    Differ,
}

/// Looks at every thread but the calling one, at all real-time signals but those in `own`.
pub(crate) fn others(own: u64) -> io::Result<Others> {
    let all = sys::range().map(bit).fold(0, |all, bit| all | bit);
    let this = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut others = Others::Block;
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        if thread.file_name() == *this {
            continue;
        }
        match of(&thread.path().join("status")) {
            Ok(signals) if all & !(signals.blocked | own) != 0 => return Ok(Others::Differ),
            Ok(signals) if signals.asleep => {}
            // One that ended meanwhile may have started another.
            Ok(_) | Err(_) => others = Others::Unsettled,
        }
    }
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_it_needs() {
        let text = "Name:\tx\nState:\tS (sleeping)\nTgid:\t12\nPid:\t13\nSigBlk:\t0000000000000200\n\
                    SigIgn:\t0000000000001000\nSigCgt:\t8000000000000440\n";
        let signals = parse(text).unwrap();
        assert!(signals.asleep);
        assert_eq!(signals.process, 12);
        assert_eq!(signals.blocked, bit(10));
        assert_eq!(signals.ignored, bit(13));
        assert_eq!(signals.caught, bit(64) | bit(11) | bit(7));
        assert_eq!(parse("SigBlk:\tzz\n"), None);
    }
}
