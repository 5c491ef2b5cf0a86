//! Directories for names: fresh, mode 0700, removed at the end however it comes.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use ipc_core::Wait;
use ipc_process::Process;

use crate::board::{Fd, leash};
use crate::procfs::pause;

const IN_MEMORY: &str = "/dev/shm";

/// A fresh directory of mode 0700 for what a test puts under names. It goes when this is dropped, with what
/// is mounted in it, and also when the test is killed: a process of its own, the janitor, waits for that.
#[derive(Debug)]
pub struct Scratch(PathBuf);

/// The janitor and what keeps it waiting, while there are directories. A program waits at its end
/// for the processes that it has started, so the janitor must not wait for that end.
#[derive(Debug)]
struct Janitor {
    made: u64,
    open: u32,
    process: Option<(Process<()>, Fd)>,
}

static JANITOR: Mutex<Janitor> = Mutex::new(Janitor {
    made: 0,
    open: 0,
    process: None,
});

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// Under the directory for temporary files.
    ///
    /// # Panics
    /// When the directory cannot be made or the janitor not be started.
    #[must_use]
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// In memory where there is a `/dev/shm`, for tests that sync so often that a disk would take too
    /// long; else as [`new`](Self::new).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn in_memory() -> Self {
        let shm = Path::new(IN_MEMORY);
        if shm.is_dir() {
            Self::below(shm)
        } else {
            Self::new()
        }
    }

    fn below(parent: &Path) -> Self {
        let mut janitor = JANITOR
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        janitor.process.get_or_insert_with(start);
        janitor.made += 1;
        let path = parent.join(format!("{}{}", prefix(std::process::id()), janitor.made));
        remove(&path);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .expect("a fresh directory");
        janitor.open += 1;
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
        let mut janitor = JANITOR
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        janitor.open -= 1;
        if janitor.open == 0
            && let Some((process, leash)) = janitor.process.take()
        {
            drop(leash);
            let _ = process.join();
        }
    }
}

fn prefix(pid: u32) -> String {
    format!("ipc-conformance-{pid}-")
}

/// Starts the process that tidies up if this one is killed: not a daemon, for it must outlive it.
fn start() -> (Process<()>, Fd) {
    let (reader, writer) = leash();
    let (ready, starting) = leash();
    let process = Process::new(tidy, (reader, starting, std::process::id()))
        .name("janitor")
        .daemon(false)
        .start()
        .unwrap_or_else(|error| panic!("the janitor was not started: {error}"));
    wait_for_end(&ready);
    (process, writer)
}

fn tidy(leash: Fd, starting: Fd, pid: u32) {
    // Its own session: what ends the tests, a Ctrl-C or a SIGKILL for their whole group, must not end
    // the janitor. Until that is so, nothing is made.
    let _ = rustix::process::setsid();
    drop(starting);
    wait_for_end(&leash);
    // The peers of the one who was killed die with it, but one may just be making a name.
    let patience = Wait::at_most(Duration::from_secs(10));
    while left_by(pid) && !patience.is_over() {
        pause(Duration::from_millis(1));
    }
}

/// Until nobody holds the other end.
fn wait_for_end(leash: &Fd) {
    while rustix::io::read(leash, &mut [0; 1]) == Err(rustix::io::Errno::INTR) {}
}

/// Removes what it finds of this process's, and says whether there was anything.
fn left_by(pid: u32) -> bool {
    let mut found = false;
    for parent in [std::env::temp_dir(), PathBuf::from(IN_MEMORY)] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(&prefix(pid)) {
                found = true;
                remove(&entry.path());
            }
        }
    }
    found
}

/// Removes the directory and what a test has mounted in it.
fn remove(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|mount| mount.split(' ').nth(1));
    for point in points
        .rev()
        .filter(|at| Path::new(at).starts_with(directory))
    {
        // Lazily: a process that is just starting may hold a copy of a descriptor until its execve(2).
        let _ = Command::new("umount").arg("-l").arg(point).status();
    }
    let _ = fs::remove_dir_all(directory);
}
