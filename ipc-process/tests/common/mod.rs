//! What several test targets need.
#![allow(dead_code, reason = "each target uses its part")]
#![allow(unreachable_pub, reason = "a module of test targets, not of a library")]

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Handoff, OpenError, Parts, Wait};
use ipc_process::StartMethod;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub const BOTH: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::Zygote];

/// A start method as an argument.
pub fn number_of(method: StartMethod) -> u8 {
    u8::from(method == StartMethod::Zygote)
}

/// The other way.
pub fn method_of(number: u8) -> StartMethod {
    BOTH[usize::from(number)]
}

/// A bare descriptor that moves between processes as a channel end does.
#[derive(Debug)]
pub struct Fd(pub OwnedFd);

impl Handoff for Fd {
    fn to_parts(&self) -> io::Result<Parts> {
        Ok(Parts {
            descriptors: vec![self.0.try_clone()?],
            data: Vec::new(),
        })
    }

    fn release(&self) {}

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let [descriptor] =
            <[OwnedFd; 1]>::try_from(parts.descriptors).map_err(|_| OpenError::Untrusted {
                what: "not one descriptor",
            })?;
        Ok(Self(descriptor))
    }
}

ipc_core::impl_serde_handoff!(Fd);

/// State and parent of a process; `None` once it is reaped.
pub fn state_of(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The children of this process that have ended and have not been reaped.
pub fn zombies() -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| state_of(pid) == Some(('Z', std::process::id())))
        .collect()
}

/// The process group of this process; 0 where that is one of another PID namespace.
#[expect(unsafe_code, reason = "the safe form takes the 0 for a pid")]
pub fn own_group() -> i32 {
    // SAFETY: getpgrp cannot fail.
    unsafe { libc::getpgrp() }
}

/// Looks at something every 5 ms until it holds, for 5 s; for what the kernel has no event for.
pub fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let limit = Wait::at_most(Duration::from_secs(5));
    while !limit.is_over() {
        if holds() {
            return true;
        }
        poll::<0>([], Wait::at_most(Duration::from_millis(5))).unwrap();
    }
    holds()
}

/// Takes hold of a process that is not our child.
pub fn watch(pid: u32) -> OwnedFd {
    try_watch(pid).expect("the process lives when it is taken hold of")
}

/// As [`watch`], of one that may have ended and been reaped.
pub fn try_watch(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Some(pidfd),
        Err(rustix::io::Errno::SRCH) => None,
        Err(error) => panic!("pidfd_open: {error}"),
    }
}

/// Whether the process ends within 5 s.
pub fn ends(pidfd: &OwnedFd) -> bool {
    use std::os::fd::AsFd as _;
    let wait = Wait::at_most(Duration::from_secs(5));
    poll([(pidfd.as_fd(), Interest::Read)], wait) == Ok(Polled::Ready)
}

/// Until somebody ends this process. For daemons only: nothing is to stay if a test is killed.
pub fn forever() -> ! {
    loop {
        std::thread::park();
    }
}
