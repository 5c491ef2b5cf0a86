//! A thread that lets a sleep inside the queue end with the peer.
//!
//! `mq_receive(3)` and `mq_send(3)` without a deadline are the cheapest way to sleep, and deaf to
//! the lifeline. So one thread a process watches the lifelines of those ends that sleep so
//! ([`WaitStrategy::Block`](ipc_core::WaitStrategy::Block) without a deadline), and when one hangs
//! up it pulls the sleeper out by the queue itself: a receiver gets an empty message of the
//! priority below all others, a sender gets room.
//!
//! No wake-up is lost. The thread sets `gone` before it touches the queue; an end looks at `gone`
//! before it sleeps. Either the end sees it, or its sleep begins before the thread's call on the
//! queue, which then ends it. Should that call find a receiver's queue full, then the receiver has
//! no cause to sleep now, and by the kernel's lock on the queue it sees `gone` once it has emptied
//! it; likewise a sender's queue that is empty.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ipc_core::lifeline::Lifeline;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::sys::{self, Mqd, Patience};

/// The priority of the empty message that wakes a receiver; those of data lie above it.
pub(crate) const WAKE: u32 = 0;

/// How to end the sleep of one end.
#[derive(Debug)]
pub(crate) enum Bell {
    /// Of a receiver: the sending side of its queue.
    Wake(Mqd),
    /// Of a sender: the receiving side of its queue, and space for its longest message. What is
    /// taken out nobody would have received.
    MakeRoom(Mqd, Box<[u8]>),
}

/// The watch over one end.
#[derive(Debug)]
pub(crate) struct Guard {
    id: u64,
    gone: Arc<AtomicBool>,
    sentinel: &'static Sentinel,
}

#[derive(Debug)]
struct Watched {
    gone: Arc<AtomicBool>,
    bell: Bell,
}

#[derive(Debug)]
struct Sentinel {
    epoll: OwnedFd,
    /// A forked child has this memory, but not the thread.
    process: rustix::process::Pid,
    /// The last number given, and the ends by number.
    watched: Mutex<(u64, BTreeMap<u64, Watched>)>,
}

static SENTINEL: OnceLock<Option<Sentinel>> = OnceLock::new();

impl Guard {
    /// `None` where the thread cannot be had: then nobody may sleep without a deadline.
    pub(crate) fn watch(lifeline: &Lifeline, bell: Bell) -> Option<Self> {
        let sentinel = Sentinel::running()?;
        let gone = Arc::new(AtomicBool::new(false));
        let mut watched = sentinel.watched();
        watched.0 += 1;
        let id = watched.0;
        // One shot: a lifeline that has hung up stays readable.
        let events = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        epoll::add(
            &sentinel.epoll,
            lifeline,
            epoll::EventData::new_u64(id),
            events,
        )
        .ok()?;
        watched.1.insert(
            id,
            Watched {
                gone: Arc::clone(&gone),
                bell,
            },
        );
        Some(Self { id, gone, sentinel })
    }

    /// Whether the peer has hung up.
    #[inline]
    pub(crate) fn gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Ends the watch, before the lifeline is closed: a handed-off copy of it would keep it. In a
    /// forked child it does nothing: the set that `epoll_ctl(2)` changes is the parent's too, and
    /// the lock may have been held by a thread that the child does not have.
    pub(crate) fn dismiss(self, lifeline: &Lifeline) {
        if !self.sentinel.is_here() {
            return;
        }
        let mut watched = self.sentinel.watched();
        let _ = epoll::delete(&self.sentinel.epoll, lifeline);
        watched.1.remove(&self.id);
    }
}

impl Sentinel {
    fn running() -> Option<&'static Self> {
        let sentinel = SENTINEL.get_or_init(|| {
            Some(Self {
                epoll: epoll::create(epoll::CreateFlags::CLOEXEC).ok()?,
                process: rustix::process::getpid(),
                watched: Mutex::new((0, BTreeMap::new())),
            })
        });
        let sentinel = sentinel.as_ref()?;
        static STARTED: OnceLock<bool> = OnceLock::new();
        let started = *STARTED
            .get_or_init(|| sys::spawn_deaf("ipc-mqueue", || sentinel.keep_watch()).is_ok());
        (started && sentinel.is_here()).then_some(sentinel)
    }

    fn is_here(&self) -> bool {
        self.process == rustix::process::getpid()
    }

    fn watched(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Watched>)> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_watch(&self) {
        let mut space = [MaybeUninit::uninit(); 16];
        loop {
            match epoll::wait(&self.epoll, &mut space, None) {
                Ok((events, _)) => {
                    let mut watched = self.watched();
                    for event in events {
                        let id = event.data.u64();
                        if let Some(end) = watched.1.get_mut(&id) {
                            end.gone.store(true, Ordering::SeqCst);
                            end.bell.ring();
                        }
                    }
                }
                Err(Errno::INTR) => {}
                // EBADF or EINVAL: somebody closed our descriptor. Those who sleep are lost to us;
                // let the others know.
                Err(_) => {
                    for end in self.watched().1.values_mut() {
                        end.gone.store(true, Ordering::SeqCst);
                        end.bell.ring();
                    }
                    return;
                }
            }
        }
    }
}

impl Bell {
    fn ring(&mut self) {
        // Neither full nor empty is an error here, see above; nor is there anybody to tell others.
        match self {
            Self::Wake(queue) => drop(queue.send(b"", WAKE, Patience::None)),
            Self::MakeRoom(queue, space) => drop(queue.recv(space, Patience::None)),
        }
    }
}
