//! The one permanent thread of a program that starts processes. It makes every child, because
//! `PR_SET_PDEATHSIG` is tied to the thread that did, and reaps every child the moment it ends,
//! so that no handle, dropped or kept, leaves a zombie.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::reap::Child;
use crate::spawn::{Spawn, sys};

struct Request {
    spawn: Spawn,
    reply: SyncSender<io::Result<Arc<Child>>>,
}

struct Supervisor {
    /// A child of fork(2) has this memory but not the thread.
    owner: u32,
    requests: Sender<Request>,
    wake: Arc<OwnedFd>,
}

static SUPERVISOR: Mutex<Option<Supervisor>> = Mutex::new(None);

/// The children that have not been reaped.
static CHILDREN: Mutex<Vec<Arc<Child>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The children that have not been reaped and that this process started itself.
pub(crate) fn children() -> Vec<Arc<Child>> {
    let own = lock(&SUPERVISOR)
        .as_ref()
        .is_some_and(|s| s.owner == std::process::id());
    if own {
        lock(&CHILDREN).clone()
    } else {
        Vec::new()
    }
}

/// Makes a child and keeps it until it is reaped.
pub(crate) fn start(spawn: Spawn) -> io::Result<Arc<Child>> {
    let (reply, answer) = mpsc::sync_channel(1);
    {
        let mut slot = lock(&SUPERVISOR);
        let supervisor = match &mut *slot {
            Some(running) if running.owner == std::process::id() => running,
            _ => slot.insert(launch()?),
        };
        let gone = || io::Error::other("the supervisor thread is gone");
        supervisor
            .requests
            .send(Request { spawn, reply })
            .map_err(|_| gone())?;
        rustix::io::write(&*supervisor.wake, &1_u64.to_ne_bytes())?;
    }
    answer
        .recv()
        .map_err(|_| io::Error::other("the supervisor thread is gone"))?
}

fn launch() -> io::Result<Supervisor> {
    lock(&CHILDREN).clear();
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (requests, incoming) = mpsc::channel();
    let woken = Arc::clone(&wake);
    std::thread::Builder::new()
        .name("ipc-process".to_owned())
        .spawn(move || supervise(&incoming, &woken))?;
    crate::exit_hook::register();
    Ok(Supervisor {
        owner: std::process::id(),
        requests,
        wake,
    })
}

fn supervise(requests: &Receiver<Request>, wake: &OwnedFd) {
    sys::block_signals();
    loop {
        while let Ok(Request { spawn, reply }) = requests.try_recv() {
            let daemon = spawn.dies_with_parent;
            let child = sys::spawn(&spawn).map(|(pid, pidfd)| {
                let child = Arc::new(Child::new(pid, pidfd, daemon));
                lock(&CHILDREN).push(Arc::clone(&child));
                child
            });
            // Our copy of the child's end, before the starter listens for the other's hang-up.
            drop(spawn);
            // A starter that does not listen any more leaves its child to us.
            let _ = reply.send(child.map_err(Into::into));
        }
        wait_and_reap(wake);
    }
}

/// Sleeps until a request comes or a child ends; reaps.
fn wait_and_reap(wake: &OwnedFd) {
    let children = lock(&CHILDREN).clone();
    let mut polled: Vec<_> = std::iter::once(wake.as_fd())
        .chain(children.iter().map(|child| child.as_fd()))
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    // EINTR cannot be, with every signal blocked; ENOMEM passes. Either way: look again.
    if poll(&mut polled, None).is_err() {
        pause();
        return;
    }
    let [woken, ended @ ..] = &*polled else {
        return;
    };
    if !woken.revents().is_empty() {
        // The count is of no interest, the queue tells what to do.
        let _ = rustix::io::read(wake, &mut [0_u8; 8]);
    }
    let mut reaped_all = true;
    for (child, _) in children
        .iter()
        .zip(ended)
        .filter(|(_, fd)| !fd.revents().is_empty())
    {
        match child.try_reap() {
            Ok(None) => reaped_all = false,
            // An error is final too: there is no status to be had.
            Ok(Some(_)) | Err(_) => lock(&CHILDREN).retain(|other| !Arc::ptr_eq(other, child)),
        }
    }
    if !reaped_all {
        // A tracer holds a child that has ended; no event tells when it lets go.
        pause();
    }
}

/// A short rest, for the cases in which the kernel has no event to wait for.
fn pause() {
    let rest = Timespec {
        tv_sec: 0,
        tv_nsec: Duration::from_millis(10).subsec_nanos().into(),
    };
    let _ = poll(&mut [], Some(&rest));
}
