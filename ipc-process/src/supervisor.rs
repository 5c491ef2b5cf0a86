//! The one permanent thread of a program that starts processes. It makes every child that is to
//! die with the program, because `PR_SET_PDEATHSIG` is tied to the thread that did, and reaps
//! every child the moment it ends, so that no handle, dropped or kept, leaves a zombie.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipc_core::Wait;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::reap::{Child, Role};
use crate::spawn::{self, Spawn, signals};

struct Request {
    spawn: Spawn,
    role: Role,
    reply: SyncSender<io::Result<Arc<Child>>>,
}

struct Supervisor {
    /// The kernel's id of the thread.
    thread: u32,
    requests: Sender<Request>,
    /// Makes the thread look for requests.
    wake: Arc<OwnedFd>,
    /// What the thread sleeps in: `wake` under the key 0, the children's descriptors under theirs.
    epoll: Arc<OwnedFd>,
}

/// The process whose supervisor it is: a child of fork(2) has this memory but not the thread, and
/// possibly locks that are held for ever.
// Ordering: a process sees what it stored itself; a fork is to see another number than its own.
static OWNER: AtomicU32 = AtomicU32::new(0);

static SUPERVISOR: Mutex<Option<Supervisor>> = Mutex::new(None);

/// The children that have not been reaped, by key.
static CHILDREN: Mutex<BTreeMap<u64, Arc<Child>>> = Mutex::new(BTreeMap::new());

/// Held while the supervisor's thread has a child that is not among [`CHILDREN`] yet.
static BIRTH: Mutex<()> = Mutex::new(());

const WAKE: u64 = 0;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The children that have not been reaped and that this process started itself.
pub(crate) fn children() -> Vec<Arc<Child>> {
    if is_own() {
        lock(&CHILDREN).values().cloned().collect()
    } else {
        Vec::new()
    }
}

/// Makes a child and keeps it until it is reaped.
pub(crate) fn start(spawn: Spawn, role: Role) -> io::Result<Arc<Child>> {
    if spawn.dies_with_parent {
        let (reply, answer) = mpsc::sync_channel(1);
        with_supervisor(|supervisor| {
            let request = Request { spawn, role, reply };
            supervisor.requests.send(request).map_err(|_| gone())?;
            rustix::io::write(&*supervisor.wake, &1_u64.to_ne_bytes())?;
            Ok(())
        })?;
        answer.recv().map_err(|_| gone())?
    } else {
        // Before the child exists: there must be nothing then that can fail.
        with_supervisor(|_| Ok(()))?;
        let (pid, pidfd) = spawn::spawn(&spawn)?;
        keep(Child::new(pid, pidfd, role))
    }
}

fn is_own() -> bool {
    OWNER.load(Ordering::Relaxed) == std::process::id()
}

fn gone() -> io::Error {
    io::Error::other("the supervisor thread is gone")
}

/// Keeps a child of this process until it is reaped.
pub(crate) fn keep(child: Child) -> io::Result<Arc<Child>> {
    let child = Arc::new(child);
    let watched = with_supervisor(|supervisor| {
        lock(&CHILDREN).insert(child.key, Arc::clone(&child));
        watch(&supervisor.epoll, &child)
    });
    match watched {
        Ok(()) => Ok(child),
        Err(error) => {
            lock(&CHILDREN).remove(&child.key);
            // Nobody will learn of its end: it must be over now.
            let _ = child.signal(Signal::KILL);
            let _ = child.wait(Wait::Forever);
            Err(error)
        }
    }
}

fn watch(epoll: &OwnedFd, child: &Child) -> io::Result<()> {
    epoll::add(
        epoll,
        child,
        epoll::EventData::new_u64(child.key),
        epoll::EventFlags::IN,
    )?;
    Ok(())
}

fn with_supervisor<T>(act: impl FnOnce(&Supervisor) -> io::Result<T>) -> io::Result<T> {
    let mut slot = lock(&SUPERVISOR);
    match &mut *slot {
        Some(running) if is_own() => act(running),
        _ => act(slot.insert(launch()?)),
    }
}

/// A number for a child that no other child of this process has had.
pub(crate) fn next_key() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(WAKE + 1);
    // Ordering: only the number counts.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn launch() -> io::Result<Supervisor> {
    lock(&CHILDREN).clear();
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
    let data = epoll::EventData::new_u64(WAKE);
    epoll::add(&epoll, &wake, data, epoll::EventFlags::IN)?;
    let (requests, incoming) = mpsc::channel();
    let (tell, told) = mpsc::sync_channel(1);
    let (woken, polled) = (Arc::clone(&wake), Arc::clone(&epoll));
    std::thread::Builder::new()
        .name("ipc-process".to_owned())
        .spawn(move || {
            signals::block_all();
            let _ = tell.send(rustix::thread::gettid());
            supervise(&incoming, &woken, &polled);
        })?;
    crate::exit_hook::register();
    let thread = told.recv().map_err(|_| gone())?.as_raw_pid().unsigned_abs();
    OWNER.store(std::process::id(), Ordering::Relaxed);
    Ok(Supervisor {
        thread,
        requests,
        wake,
        epoll,
    })
}

fn supervise(requests: &Receiver<Request>, wake: &OwnedFd, epoll: &OwnedFd) {
    loop {
        while let Ok(Request { spawn, role, reply }) = requests.try_recv() {
            let birth = lock(&BIRTH);
            let child = spawn::spawn(&spawn).map(|(pid, pidfd)| {
                let child = Arc::new(Child::new(pid, pidfd, role));
                lock(&CHILDREN).insert(child.key, Arc::clone(&child));
                child
            });
            drop(birth);
            // Our copy of the child's end, before the starter listens for the other's hang-up.
            drop(spawn);
            let child = child.map_err(Into::into).and_then(|child| {
                watch(epoll, &child)?;
                Ok(child)
            });
            // A starter that does not listen any more leaves its child to us.
            let _ = reply.send(child);
        }
        wait_and_reap(wake, epoll);
    }
}

/// Sleeps until a request comes or a child ends; reaps.
fn wait_and_reap(wake: &OwnedFd, epoll: &OwnedFd) {
    let mut events = Vec::with_capacity(64);
    let buffer = rustix::buffer::spare_capacity(&mut events);
    // EINTR cannot be, with every signal blocked. Either way: look again.
    if epoll::wait(epoll, buffer, None).is_err() {
        pause();
        return;
    }
    let mut reaped_all = true;
    for event in events {
        let key = event.data.u64();
        if key == WAKE {
            // The count is of no interest, the queue tells what to do.
            let _ = rustix::io::read(wake, &mut [0_u8; 8]);
            continue;
        }
        let Some(child) = lock(&CHILDREN).get(&key).cloned() else {
            continue;
        };
        match child.try_reap() {
            Ok(None) => reaped_all = false,
            // An error is final too: there is no status to be had.
            Ok(Some(_)) | Err(_) => {
                let mut children = lock(&CHILDREN);
                children.remove(&key);
                // Its handle may keep the descriptor, which stays readable.
                let _ = epoll::delete(epoll, &*child);
            }
        }
    }
    if !reaped_all {
        // A tracer holds a child that has ended; no event tells when it lets go.
        pause();
    }
}

/// Relieves the supervisor of a child as long as the caller waits for it.
pub(crate) fn leave_to_caller(child: &Child) -> Waiting<'_> {
    let mut waiting = lock(&child.waiting);
    *waiting += 1;
    if *waiting == 1 {
        // Without it the supervisor is woken for nothing.
        let _ = with_supervisor(|s| Ok(epoll::delete(&s.epoll, child)?));
    }
    drop(waiting);
    Waiting { child }
}

/// Gives the child back, or forgets it.
pub(crate) struct Waiting<'a> {
    child: &'a Child,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.child.waiting);
        *waiting -= 1;
        if self.child.is_over() {
            lock(&CHILDREN).remove(&self.child.key);
        } else if *waiting == 0 {
            let _ = with_supervisor(|s| {
                // Held: the supervisor, who may just be reaping it, would never hear the last of
                // one that is watched and forgotten.
                let children = lock(&CHILDREN);
                if children.contains_key(&self.child.key) {
                    // It was watched before, so that there is room for it.
                    watch(&s.epoll, self.child)?;
                }
                Ok(())
            });
        }
    }
}

/// Keeps the children of the supervisor's thread that nobody knows: a zygote that was killed may
/// have made one and not told of it. Other parts of the program have their children by other
/// threads. Nothing is found, and one zombie may be left, on kernels without `CONFIG_PROC_CHILDREN`.
pub(crate) fn keep_unknown_children() {
    let birth = lock(&BIRTH);
    let Some(thread) = lock(&SUPERVISOR).as_ref().map(|s| s.thread) else {
        return;
    };
    let list = format!("/proc/self/task/{thread}/children");
    let list = std::fs::read_to_string(list).unwrap_or_default();
    let known: Vec<u32> = lock(&CHILDREN).values().map(|child| child.pid).collect();
    let pids = list.split_ascii_whitespace().filter_map(|p| p.parse().ok());
    for pid in pids.filter(|&pid: &i32| !known.contains(&pid.unsigned_abs())) {
        let pidfd = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        if let Some(Ok(pidfd)) = pidfd {
            let _ = keep(Child::new(pid, pidfd, Role::Internal));
        }
    }
    drop(birth);
}

/// A short rest, for the cases in which the kernel has no event to wait for.
fn pause() {
    let _ = ipc_core::wait::poll::<0>([], Wait::at_most(Duration::from_millis(10)));
}
