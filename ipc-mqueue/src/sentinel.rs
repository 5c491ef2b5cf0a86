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
//! it; likewise a sender's queue that is not full.
//!
//! The thread has a table of descriptors of its own. While two threads share one, the kernel takes
//! and drops a reference to the queue at every call, in all threads: a twentieth of the price of a
//! message. So what it watches comes to it through a socket, as to another process. Where the
//! kernel or a sandbox refuses such a table it shares the process's, and all else is the same.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ipc_core::lifeline::Lifeline;
use ipc_core::{OpenError, Parts, Wait};
use rustix::event::epoll;
use rustix::io::Errno;

use crate::sys::{self, Mqd, Patience};

/// The priority of the empty message that wakes a receiver; those of data lie above it.
pub(crate) const WAKE: u32 = 0;

/// How the sleep of one end is ended.
#[derive(Debug)]
pub(crate) enum Bell {
    /// Of a receiver: by a message.
    Message,
    /// Of a sender: by taking one out of a full queue, which nobody would have received. With space
    /// for the longest.
    Room(Box<[u8]>),
}

/// The watch over one end.
#[derive(Debug)]
pub(crate) struct Guard {
    id: u64,
    notice: Arc<Notice>,
    sentinel: &'static Sentinel,
}

/// What the thread lets an end know.
#[derive(Debug, Default)]
struct Notice {
    gone: AtomicBool,
    /// Whether the bell has changed the queue; locked while it is about to.
    rang: Mutex<bool>,
}

/// The thread, as the others see it.
#[derive(Debug)]
struct Sentinel {
    desk: Mutex<Desk>,
    /// A forked child has this memory, but not the thread.
    process: rustix::process::Pid,
}

/// The descriptors of an order go through the socket, the rest of it after them. In a lock, so that
/// both arrive in one order.
#[derive(Debug)]
struct Desk {
    socket: Lifeline,
    /// Its inode: who closes all descriptors of a process closes this one too, and then its number is
    /// given to another.
    inode: u64,
    orders: Sender<Order>,
}

#[derive(Debug)]
struct Order {
    /// Of the end that it is about.
    id: u64,
    what: What,
    /// Is told when it is done; dropped if it cannot be.
    done: SyncSender<()>,
}

#[derive(Debug)]
enum What {
    /// With it come the lifeline and the other side of the queue.
    Watch {
        notice: Arc<Notice>,
        bell: Bell,
    },
    Dismiss,
}

impl Guard {
    /// Watches `lifeline` on behalf of an end. `other_side` is a descriptor of its queue that can
    /// do what the bell has to. `None` where the thread cannot be had: then nobody may sleep
    /// without a deadline.
    pub(crate) fn watch(lifeline: &Lifeline, other_side: Mqd, bell: Bell) -> Option<Self> {
        // Relaxed: the number alone matters.
        static LAST: AtomicU64 = AtomicU64::new(DESK);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let sentinel = Sentinel::running()?;
        let notice = Arc::<Notice>::default();
        let what = What::Watch {
            notice: Arc::clone(&notice),
            bell,
        };
        let descriptors = vec![lifeline.try_clone().ok()?.into(), other_side.into()];
        sentinel.order(id, what, descriptors)?;
        Some(Self {
            id,
            notice,
            sentinel,
        })
    }

    /// Whether the peer has hung up, or can no longer be watched.
    #[inline]
    pub(crate) fn gone(&self) -> bool {
        self.notice.gone.load(Ordering::SeqCst)
    }

    /// Whether the bell has changed the queue: put an empty message into that of a receiver, taken
    /// one out of that of a sender. Waits for a bell that is about to.
    #[cold]
    pub(crate) fn rang(&self) -> bool {
        *lock(&self.notice.rang)
    }

    /// Ends the watch. When it returns the thread has no descriptor of the end any more. In a forked
    /// child it does nothing: there is no thread, and the socket is the parent's.
    pub(crate) fn dismiss(self) {
        if self.sentinel.is_here() {
            let _ = self.sentinel.order(self.id, What::Dismiss, Vec::new());
        }
    }
}

impl Sentinel {
    fn running() -> Option<&'static Self> {
        static SENTINEL: OnceLock<Option<Sentinel>> = OnceLock::new();
        SENTINEL
            .get_or_init(Self::start)
            .as_ref()
            .filter(|sentinel| sentinel.is_here())
    }

    fn start() -> Option<Self> {
        let (near, far) = Lifeline::pair().ok()?;
        let (orders, inbox) = mpsc::channel();
        let (begun, beginning) = mpsc::sync_channel(1);
        let far = OwnedFd::from(far);
        let number = far.as_raw_fd();
        sys::spawn_deaf("ipc-mqueue", move || {
            if let Ok(far) = sys::own_table(number)
                && let Ok(watch) = Watch::new(far, inbox)
                && begun.send(()).is_ok()
            {
                watch.keep();
            }
        })
        .ok()?;
        // Until then the number must be that of the socket.
        beginning.recv().ok()?;
        drop(far);
        Some(Self {
            desk: Mutex::new(Desk {
                inode: rustix::fs::fstat(&near).ok()?.st_ino,
                socket: near,
                orders,
            }),
            process: rustix::process::getpid(),
        })
    }

    fn is_here(&self) -> bool {
        self.process == rustix::process::getpid()
    }

    /// Has something done and waits for it.
    fn order(&self, id: u64, what: What, descriptors: Vec<OwnedFd>) -> Option<()> {
        let (done, answer) = mpsc::sync_channel(1);
        let data = Vec::new();
        let parts = Parts { descriptors, data };
        {
            let desk = lock(&self.desk);
            let inode = rustix::fs::fstat(&desk.socket).ok()?.st_ino;
            if inode != desk.inode {
                return None;
            }
            desk.socket.send_parts(&parts, Wait::Forever).ok()?;
            desk.orders.send(Order { id, what, done }).ok()?;
        }
        answer.recv().ok()
    }
}

/// The thread's own.
struct Watch {
    epoll: OwnedFd,
    desk: Lifeline,
    orders: Receiver<Order>,
    ends: BTreeMap<u64, End>,
}

struct End {
    notice: Arc<Notice>,
    lifeline: Lifeline,
    other_side: Mqd,
    bell: Bell,
}

/// The number of the desk in the `epoll(7)` instance; those of ends are higher.
const DESK: u64 = 0;

impl Watch {
    fn new(desk: OwnedFd, orders: Receiver<Order>) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let desk = Lifeline::from_fd(desk).map_err(|_| Errno::NOTSOCK)?;
        let data = epoll::EventData::new_u64(DESK);
        epoll::add(&epoll, &desk, data, epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            desk,
            orders,
            ends: BTreeMap::new(),
        })
    }

    fn keep(mut self) {
        while self.look().is_ok() {}
        self.ends.values_mut().for_each(End::abandon);
    }

    /// Waits for something to happen and sees to it. Fails where the table is the process's, and
    /// somebody closed what is in it.
    fn look(&mut self) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); 16];
        let events = match epoll::wait(&self.epoll, &mut space, None) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error),
        };
        for event in events {
            match event.data.u64() {
                // Nobody can order any more once somebody has closed the process's side of the
                // socket. What is watched remains so.
                DESK if self.obey().is_none() => epoll::delete(&self.epoll, &self.desk)?,
                DESK => {}
                // Unless an order before has dismissed it.
                id => self.ends.get_mut(&id).into_iter().for_each(End::wake),
            }
        }
        Ok(())
    }

    /// Carries out one order.
    fn obey(&mut self) -> Option<()> {
        let descriptors = match self.desk.recv_parts(Wait::Never) {
            Ok(parts) => parts.descriptors,
            Err(OpenError::NotFound) => return Some(()),
            Err(OpenError::Io { .. }) => return None,
            // There was no room for them in this table.
            Err(_) => Vec::new(),
        };
        let Order { id, what, done } = self.orders.recv().ok()?;
        let obeyed = match what {
            What::Watch { notice, bell } => self.add(id, notice, bell, descriptors),
            What::Dismiss => self.ends.remove(&id).map(|end| {
                let _ = epoll::delete(&self.epoll, &end.lifeline);
            }),
        };
        if obeyed.is_some() {
            let _ = done.send(());
        }
        Some(())
    }

    fn add(
        &mut self,
        id: u64,
        notice: Arc<Notice>,
        bell: Bell,
        descriptors: Vec<OwnedFd>,
    ) -> Option<()> {
        let [lifeline, other_side] = descriptors.try_into().ok()?;
        let end = End {
            notice,
            lifeline: Lifeline::from_fd(lifeline).ok()?,
            other_side: Mqd::from_fd(other_side).ok()?,
            bell,
        };
        // One shot: a lifeline that has hung up stays readable.
        let events = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        let data = epoll::EventData::new_u64(id);
        epoll::add(&self.epoll, &end.lifeline, data, events).ok()?;
        self.ends.insert(id, end);
        Some(())
    }
}

impl End {
    /// The peer is gone.
    fn wake(&mut self) {
        self.notice.gone.store(true, Ordering::SeqCst);
        let mut rang = lock(&self.notice.rang);
        // Neither full nor empty is an error here, see above; nor is there anybody to tell others.
        *rang = match &mut self.bell {
            Bell::Message => matches!(self.other_side.send(b"", WAKE, Patience::None), Ok(true)),
            Bell::Room(space) => {
                self.other_side.is_full()
                    && matches!(
                        self.other_side.recv(space, None, Patience::None),
                        Ok(Some(_))
                    )
            }
        };
    }

    /// The peer may be there, and is watched no more: nobody is to sleep in the queue from now on. A
    /// sender that does so sleeps on, since what was taken out here would be missed.
    fn abandon(&mut self) {
        match self.bell {
            Bell::Message => self.wake(),
            Bell::Room(_) => self.notice.gone.store(true, Ordering::SeqCst),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
