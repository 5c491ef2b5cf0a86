//! What several test targets need.
#![allow(dead_code, reason = "each target uses its part")]
#![allow(unreachable_pub, reason = "a module of test targets, not of a library")]
#![expect(
    unsafe_code,
    reason = "waits, groups and debuggers without a safe form"
)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Handoff, OpenError, Parts, Wait};
use ipc_process::{JoinError, Process, StartError, StartMethod};
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open, setrlimit};

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

/// Whether `/proc` is that of another PID namespace, where no process is found by its pid.
pub fn lacks_own_proc() -> bool {
    let own = fs::read_link("/proc/self").is_ok_and(|link| link == pid_as_path());
    if !own {
        eprintln!("skipped: this is not the /proc of this PID namespace");
    }
    !own
}

fn pid_as_path() -> PathBuf {
    PathBuf::from(std::process::id().to_string())
}

/// A child of this process that has ended and has not been reaped, if there is one. Not for PID 1,
/// whose children are also the orphans of all others.
pub fn zombies() -> Vec<i32> {
    if std::process::id() == 1 {
        return Vec::new();
    }
    // Also those whose end is no signal, as the forks of a zygote.
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: all zeroes are valid, and what it is when nothing is found.
    let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is valid for the call.
    unsafe { libc::waitid(libc::P_ALL, 0, &raw mut found, options) };
    // SAFETY: waitid fills in this part, or nothing.
    let pid = unsafe { found.si_pid() };
    Some(pid).filter(|&pid| pid != 0).into_iter().collect()
}

/// Has this process admit so many descriptors, as far as its hard limit goes.
pub fn need_descriptors(count: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        let most = limit.maximum.unwrap_or(count);
        limit.current = Some(count.min(most));
        setrlimit(Resource::Nofile, limit).unwrap();
    }
}

/// The process group of this process; 0 where that is one of another PID namespace.
pub fn own_group() -> i32 {
    // SAFETY: getpgrp cannot fail.
    unsafe { libc::getpgrp() }
}

/// Ends of all kinds, each as the number that tells it: returned 5, exited with 42, killed by 9.
pub fn ends_of_all_kinds(method: StartMethod) -> Vec<Result<i32, String>> {
    let start = |process: Result<Process<i32>, StartError>| process.unwrap();
    let exits = || -> i32 { std::process::exit(42) };
    let waits = || -> i32 { forever() };
    let returned = start(Process::new(|| 5, ()).start_method(method).start());
    let exited = start(Process::new(exits, ()).start_method(method).start());
    let killed = Process::new(waits, ()).start_method(method).daemon(true);
    let killed = start(killed.start());
    killed.kill().unwrap();
    [returned, exited, killed]
        .into_iter()
        .map(|process| match process.join() {
            Ok(value) => Ok(value),
            Err(JoinError::Exited { code }) => Ok(code),
            Err(JoinError::Killed { signal, .. }) => Ok(signal),
            Err(other) => Err(other.to_string()),
        })
        .collect()
}

/// Lowers the soft limit of the size of a file that this process writes.
pub fn limit_file_size(bytes: u64) {
    let mut limit = getrlimit(Resource::Fsize);
    limit.current = Some(bytes);
    setrlimit(Resource::Fsize, limit).unwrap();
}

/// As a function that makes a daemon of its process in the old way does.
pub fn close_everything() {
    // SAFETY: nobody uses a descriptor afterwards without being ready for it to be gone.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// A process that holds another as a debugger does, which then can end but not be reaped.
pub struct Debugger {
    process: Process<bool>,
    tell: io::PipeWriter,
}

/// Has a debugger hold a process, if that is allowed (Yama, ptrace(2)).
pub fn debug(pid: u32) -> Debugger {
    fn hold(pid: i32, says: Fd) -> bool {
        let no_argument = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: seizing changes nothing in the other process's memory.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, no_argument, no_argument) };
        fs::File::from(says.0).write_all(b"!").unwrap();
        io::stdin().read_exact(&mut [0]).unwrap();
        seized == 0
    }
    let (mut said, says) = io::pipe().unwrap();
    let (stdin, tell) = io::pipe().unwrap();
    let process = Process::new(hold, (pid.cast_signed(), Fd(OwnedFd::from(says))))
        .daemon(true)
        .stdin(OwnedFd::from(stdin))
        .start()
        .unwrap();
    said.read_exact(&mut [0]).unwrap();
    Debugger { process, tell }
}

impl Debugger {
    /// Lets it go; whether it was held.
    pub fn let_go(mut self) -> bool {
        self.tell.write_all(b"!").unwrap();
        self.process.join().unwrap()
    }
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
