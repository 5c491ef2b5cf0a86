//! Directories for names: fresh, mode 0700, removed at the end however it comes.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ipc_process::Process;

use crate::board::{Fd, leash};

/// Removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

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

impl Scratch {
    pub(crate) fn new() -> Self {
        let mut janitor = JANITOR
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        janitor.process.get_or_insert_with(start);
        janitor.made += 1;
        let path =
            std::env::temp_dir().join(format!("{}{}", prefix(std::process::id()), janitor.made));
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .expect("a fresh directory");
        janitor.open += 1;
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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
    let process = Process::new(tidy, (reader, std::process::id()))
        .name("janitor")
        .daemon(false)
        .start()
        .unwrap_or_else(|error| panic!("the janitor was not started: {error}"));
    (process, writer)
}

fn tidy(leash: Fd, pid: u32) {
    // Its own session: a Ctrl-C that ends the tests must not end the janitor first.
    let _ = rustix::process::setsid();
    while rustix::io::read(&leash, &mut [0; 1]) == Err(rustix::io::Errno::INTR) {}
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(&prefix(pid))
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
