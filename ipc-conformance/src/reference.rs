//! The least channel that keeps the contract, and the same with one flaw.
//!
//! A `SOCK_SEQPACKET` pair carries the messages and a lifeline the farewell. It crosses processes,
//! as every case does: a reference of `Mutex` and `Condvar` could only run a suite of threads, and
//! would prove nothing of the processes, the hand-off and the deaths that this suite is about.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::rendezvous::{self, RendezvousListener};
use ipc_core::wait::{Interest, poll};
use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, DeathNotice, Empty, Handoff,
    Limit, Limits, Name, OpenError, Order, Parts, Readiness, Receiver, RecvError, Retention,
    SendError, Sender, Tunable, Wait, WaitStrategy,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Below what the kernel grants a socket without asking (`net.core.wmem_default`).
const MAX_MESSAGE: usize = 64 << 10;
/// Which message of a sender suffers from its flaw.
const VICTIM: u64 = 200;
/// By how much a flawed end overruns its deadlines.
const OVERRUN: Duration = Duration::from_millis(200);

/// One way to break the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// One message is committed and never arrives.
    LosesOne,
    /// One message arrives twice.
    DuplicatesOne,
    /// One message changes places with the next.
    Reorders,
    /// One message arrives as two.
    Tears,
    /// A deadline is overrun by a fifth of a second.
    IgnoresDeadlines,
    /// The receiver waits for ever for a sender that died.
    HangsOnDeath,
    /// Every channel leaves a descriptor behind.
    LeaksDescriptors,
    /// A message is cut to the buffer.
    TruncatesSilently,
}

/// Chooses the flaw of a [`Reference`] by a type, as each channel family is one.
pub trait Flawed: Send + 'static {
    /// The flaw, if any.
    const FLAW: Option<Flaw>;
}

/// No flaw: this reference passes the suite.
#[derive(Debug)]
pub struct Sound;

impl Flawed for Sound {
    const FLAW: Option<Flaw> = None;
}

macro_rules! flaws {
    ($($flaw:ident)*) => {$(
        #[doc = concat!("See [`Flaw::", stringify!($flaw), "`].")]
        #[derive(Debug)]
        pub struct $flaw;

        impl Flawed for $flaw {
            const FLAW: Option<Flaw> = Some(Flaw::$flaw);
        }
    )*};
}

flaws!(LosesOne DuplicatesOne Reorders Tears IgnoresDeadlines HangsOnDeath LeaksDescriptors
    TruncatesSilently);

/// The reference channel, with a flaw if `F` has one.
#[derive(Debug)]
pub struct Reference<F = Sound>(PhantomData<F>);

/// Nothing to choose: it always blocks and its capacity is the kernel's.
#[derive(Clone, Debug, Default)]
pub struct ReferenceOptions {}

impl Tunable for ReferenceOptions {
    fn wait_strategy(self, _: WaitStrategy) -> Self {
        self
    }

    fn capacity(self, _: usize) -> Self {
        self
    }
}

impl<F: Flawed> Channel for Reference<F> {
    const NAME: &'static str = "reference";
    const CAPABILITIES: Capabilities = Capabilities {
        boundaries: Boundaries::Kernel,
        // A packet of no bytes cannot be told from the end of file.
        empty: Empty::Refused,
        producers: Arity::One,
        consumers: Consumers::One,
        order: Order::Fifo,
        back_pressure: BackPressure::Waits,
        death: DeathNotice::Lifeline,
        retention: Retention::Object,
        readiness: Readiness::None,
    };
    type Options = ReferenceOptions;
    type Address = Name;
    type Sender = ReferenceSender<F>;
    type Receiver = ReferenceReceiver<F>;
    type Listener = RendezvousListener<ReferenceReceiver<F>>;

    fn pair(_: &ReferenceOptions) -> Result<(Self::Sender, Self::Receiver), OpenError> {
        let (to, from) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| OpenError::io("socketpair", e))?;
        let (here, there) = Lifeline::pair().map_err(|e| OpenError::io("socketpair", e))?;
        if F::FLAW == Some(Flaw::LeaksDescriptors) {
            std::mem::forget(to.try_clone());
        }
        Ok((
            ReferenceSender {
                link: Link::new(to, here),
                sent: 0,
                held: None,
                flaw: PhantomData,
            },
            ReferenceReceiver {
                link: Link::new(from, there),
                flaw: PhantomData,
            },
        ))
    }

    fn listen(name: &Name, _: &ReferenceOptions) -> Result<Self::Listener, OpenError> {
        RendezvousListener::bind(name, Self::NAME)
    }

    fn connect(
        name: &Name,
        options: &ReferenceOptions,
        wait: Wait,
    ) -> Result<Self::Sender, OpenError> {
        let (tx, rx) = Self::pair(options)?;
        rendezvous::connect(name, Self::NAME, rx, wait)?;
        Ok(tx)
    }
}

/// What both ends are made of.
#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    lifeline: Lifeline,
    released: Cell<bool>,
}

impl Link {
    fn new(socket: OwnedFd, lifeline: Lifeline) -> Self {
        Self {
            socket,
            lifeline,
            released: Cell::new(false),
        }
    }

    fn to_parts(&self) -> io::Result<Parts> {
        let lifeline = self.lifeline.try_clone()?;
        Ok(Parts {
            descriptors: vec![self.socket.try_clone()?, lifeline.into()],
            data: Vec::new(),
        })
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let incompatible = OpenError::Incompatible {
            what: "an end has two descriptors",
        };
        let Ok([socket, lifeline]) = <[OwnedFd; 2]>::try_from(parts.descriptors) else {
            return Err(incompatible);
        };
        if rustix::net::sockopt::socket_type(&socket) != Ok(SocketType::SEQPACKET) {
            return Err(OpenError::Untrusted {
                what: "not a socket of packets",
            });
        }
        Ok(Self::new(socket, Lifeline::from_fd(lifeline)?))
    }

    /// Sleeps until there is something to do or the wait is over, which is `false`.
    fn sleep(&self, interest: Interest, wait: Wait, late: bool) -> Result<bool, Errno> {
        if wait.is_over() {
            return Ok(false);
        }
        let wait = match wait {
            Wait::Until(deadline) if late => Wait::Until(deadline + OVERRUN),
            wait => wait,
        };
        let watched = [
            (self.socket.as_fd(), interest),
            (self.lifeline.as_fd(), Interest::Read),
        ];
        poll(watched, wait).map(|_| true)
    }

    /// Whether the peer, whose socket is gone, said farewell. The kernel closes the descriptors
    /// of a dying process one after the other, so the lifeline may follow a moment later.
    fn closed(&self) -> bool {
        let _ = poll([(self.lifeline.as_fd(), Interest::Read)], Wait::Forever);
        self.lifeline.peer() == Peer::Closed
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.released.get() {
            self.lifeline.farewell();
        }
    }
}

/// The sending end of a [`Reference`].
pub struct ReferenceSender<F = Sound> {
    link: Link,
    sent: u64,
    /// Only of the flaw that reorders: the message that waits for the next.
    held: Option<Vec<u8>>,
    flaw: PhantomData<fn() -> F>,
}

/// The receiving end of a [`Reference`].
pub struct ReferenceReceiver<F = Sound> {
    link: Link,
    flaw: PhantomData<fn() -> F>,
}

impl<F: Flawed> ReferenceSender<F> {
    fn put(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        loop {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.link.socket, message, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    match self.link.lifeline.peer() {
                        Peer::Alive => {}
                        Peer::Closed => return Err(SendError::Closed),
                        Peer::Died => return Err(SendError::PeerDied),
                    }
                    let late = F::FLAW == Some(Flaw::IgnoresDeadlines);
                    match self.link.sleep(Interest::Write, wait, late) {
                        Ok(true) => {}
                        Ok(false) if wait == Wait::Never => return Err(SendError::Full),
                        Ok(false) => return Err(SendError::TimedOut),
                        Err(error) => return Err(SendError::io("ppoll", error)),
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) if self.link.closed() => {
                    return Err(SendError::Closed);
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(SendError::PeerDied),
                Err(error) => return Err(SendError::io("send", error)),
            }
        }
    }
}

impl<F: Flawed> Sender for ReferenceSender<F> {
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        if message.is_empty() {
            return Err(SendError::Limit(Limit {
                name: "SOCK_SEQPACKET",
                value: None,
                advice: "send at least one byte",
            }));
        }
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLong {
                len: message.len(),
                max: MAX_MESSAGE,
            });
        }
        let unlucky = self.sent == VICTIM;
        match F::FLAW {
            Some(Flaw::LosesOne) if unlucky => {}
            Some(Flaw::DuplicatesOne) if unlucky => {
                self.put(message, wait)?;
                self.put(message, wait)?;
            }
            Some(Flaw::Reorders) if unlucky => self.held = Some(message.to_vec()),
            Some(Flaw::Tears) if self.sent >= VICTIM && message.len() > 1 => {
                let (head, tail) = message.split_at(message.len() / 2);
                self.put(head, wait)?;
                self.put(tail, wait)?;
            }
            _ => self.put(message, wait)?,
        }
        if !unlucky && let Some(held) = self.held.take() {
            self.put(&held, wait)?;
        }
        self.sent += 1;
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: MAX_MESSAGE,
            depth_messages: None,
            depth_bytes: None,
        }
    }
}

impl<F: Flawed> ReferenceReceiver<F> {
    /// The length of the next message, `None` if there is none yet, and zero for the end.
    fn peek(&self) -> Result<Option<usize>, RecvError> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        loop {
            match rustix::net::recv(&self.link.socket, &mut [0u8; 1][..], flags) {
                Ok((_, length)) => return Ok(Some(length)),
                Err(Errno::AGAIN) => return Ok(None),
                // The peer closed its end; what it had sent is still there.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(error) => return Err(RecvError::io("recv", error)),
            }
        }
    }

    fn ended(&self) -> RecvError {
        if self.link.closed() {
            return RecvError::Closed;
        }
        if F::FLAW == Some(Flaw::HangsOnDeath) {
            let _ = poll([], Wait::Forever);
        }
        RecvError::PeerDied
    }
}

impl<F: Flawed> Receiver for ReferenceReceiver<F> {
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        loop {
            // Asked before looking for a message: what a peer had sent before its end is seen.
            let peer = self.link.lifeline.peer();
            match self.peek()? {
                Some(0) => return Err(self.ended()),
                None if peer != Peer::Alive => return Err(self.ended()),
                Some(needed)
                    if needed > buffer.len() && F::FLAW != Some(Flaw::TruncatesSilently) =>
                {
                    return Err(RecvError::BufferTooSmall { needed });
                }
                Some(_) => {
                    match rustix::net::recv(&self.link.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                        Ok((length, _)) => return Ok(length),
                        Err(Errno::INTR | Errno::CONNRESET) => {}
                        Err(error) => return Err(RecvError::io("recv", error)),
                    }
                }
                None => {
                    let late = F::FLAW == Some(Flaw::IgnoresDeadlines);
                    match self.link.sleep(Interest::Read, wait, late) {
                        Ok(true) => {}
                        Ok(false) if wait == Wait::Never => return Err(RecvError::Empty),
                        Ok(false) => return Err(RecvError::TimedOut),
                        Err(error) => return Err(RecvError::io("ppoll", error)),
                    }
                }
            }
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: MAX_MESSAGE,
            depth_messages: None,
            depth_bytes: None,
        }
    }
}

impl<F> fmt::Debug for ReferenceSender<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReferenceSender")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for ReferenceReceiver<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReferenceReceiver")
            .field("link", &self.link)
            .finish()
    }
}

impl<F: Flawed> Handoff for ReferenceSender<F> {
    fn to_parts(&self) -> io::Result<Parts> {
        self.link.to_parts()
    }

    fn release(&self) {
        self.link.released.set(true);
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let link = Link::from_parts(parts)?;
        Ok(Self {
            link,
            sent: 0,
            held: None,
            flaw: PhantomData,
        })
    }
}

impl<F: Flawed> Handoff for ReferenceReceiver<F> {
    fn to_parts(&self) -> io::Result<Parts> {
        self.link.to_parts()
    }

    fn release(&self) {
        self.link.released.set(true);
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        Ok(Self {
            link: Link::from_parts(parts)?,
            flaw: PhantomData,
        })
    }
}
