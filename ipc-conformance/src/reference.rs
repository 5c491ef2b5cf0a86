//! The least channel between processes that keeps the contract: a `SOCK_SEQPACKET` pair carries
//! the messages and a lifeline the farewell.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::rendezvous::{self, RendezvousListener};
use ipc_core::wait::{Interest, poll};
use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, Custody, DeathNotice, Empty,
    Handoff, Limit, Limits, Name, OpenError, Order, Parts, Pollable, Readiness, Receiver,
    RecvError, Retention, SendError, Sender, Tunable, Wait, WaitStrategy,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Below what the kernel grants a socket without asking (`net.core.wmem_default`).
const LIMITS: Limits = Limits {
    max_message: 64 << 10,
    depth_messages: None,
    depth_bytes: None,
};

/// The reference channel between processes.
#[derive(Debug)]
pub struct Reference;

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

impl Channel for Reference {
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
        // The farewell comes before the hang-up of the packets' socket, which tells of both ends.
        readiness: Readiness::Pollable,
    };
    type Options = ReferenceOptions;
    type Address = Name;
    type Sender = ReferenceSender;
    type Receiver = ReferenceReceiver;
    type Listener = RendezvousListener<ReferenceReceiver>;

    fn pair(_: &ReferenceOptions) -> Result<(Self::Sender, Self::Receiver), OpenError> {
        let (to, from) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| OpenError::io("socketpair", e))?;
        let (here, there) = Lifeline::pair().map_err(|e| OpenError::io("socketpair", e))?;
        Ok((
            ReferenceSender(Link::new(to, here)),
            ReferenceReceiver(Link::new(from, there)),
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
    custody: Custody,
}

impl Link {
    fn new(socket: OwnedFd, lifeline: Lifeline) -> Self {
        Self {
            socket,
            lifeline,
            custody: Custody::new(),
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
    fn sleep(&self, interest: Interest, wait: Wait) -> Result<bool, Errno> {
        if wait.is_over() {
            return Ok(false);
        }
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
        if self.custody.is_ours() {
            self.lifeline.farewell();
        }
    }
}

/// The sending end of a [`Reference`].
#[derive(Debug)]
pub struct ReferenceSender(Link);

/// The receiving end of a [`Reference`].
#[derive(Debug)]
pub struct ReferenceReceiver(Link);

impl Sender for ReferenceSender {
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        if message.is_empty() {
            return Err(SendError::Limit(Limit {
                name: "SOCK_SEQPACKET",
                value: None,
                advice: "send at least one byte",
            }));
        }
        if message.len() > LIMITS.max_message {
            return Err(SendError::TooLong {
                len: message.len(),
                max: LIMITS.max_message,
            });
        }
        loop {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.0.socket, message, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    match self.0.lifeline.peer() {
                        Peer::Alive => {}
                        Peer::Closed => return Err(SendError::Closed),
                        Peer::Died => return Err(SendError::PeerDied),
                    }
                    match self.0.sleep(Interest::Write, wait) {
                        Ok(true) => {}
                        Ok(false) if wait == Wait::Never => return Err(SendError::Full),
                        Ok(false) => return Err(SendError::TimedOut),
                        Err(error) => return Err(SendError::io("ppoll", error)),
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) if self.0.closed() => {
                    return Err(SendError::Closed);
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(SendError::PeerDied),
                Err(error) => return Err(SendError::io("send", error)),
            }
        }
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

impl ReferenceReceiver {
    /// The length of the next message, `None` if there is none yet, and zero for the end.
    fn peek(&self) -> Result<Option<usize>, RecvError> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        loop {
            match rustix::net::recv(&self.0.socket, &mut [0u8; 1][..], flags) {
                Ok((_, length)) => return Ok(Some(length)),
                Err(Errno::AGAIN) => return Ok(None),
                // The peer closed its end; what it had sent is still there.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(error) => return Err(RecvError::io("recv", error)),
            }
        }
    }

    fn ended(&self) -> RecvError {
        if self.0.closed() {
            RecvError::Closed
        } else {
            RecvError::PeerDied
        }
    }
}

impl Receiver for ReferenceReceiver {
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        loop {
            // Asked before looking for a message: what a peer had sent before its end is seen.
            let peer = self.0.lifeline.peer();
            match self.peek()? {
                Some(0) => return Err(self.ended()),
                None if peer != Peer::Alive => return Err(self.ended()),
                Some(needed) if needed > buffer.len() => {
                    return Err(RecvError::BufferTooSmall { needed });
                }
                Some(_) => {
                    match rustix::net::recv(&self.0.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                        Ok((length, _)) => return Ok(length),
                        Err(Errno::INTR | Errno::CONNRESET) => {}
                        Err(error) => return Err(RecvError::io("recv", error)),
                    }
                }
                None => match self.0.sleep(Interest::Read, wait) {
                    Ok(true) => {}
                    Ok(false) if wait == Wait::Never => return Err(RecvError::Empty),
                    Ok(false) => return Err(RecvError::TimedOut),
                    Err(error) => return Err(RecvError::io("ppoll", error)),
                },
            }
        }
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

macro_rules! common {
    ($end:ident, $interest:expr) => {
        impl Handoff for $end {
            fn to_parts(&self) -> io::Result<Parts> {
                self.0.to_parts()
            }

            fn release(&self) {
                self.0.custody.release();
            }

            fn from_parts(parts: Parts) -> Result<Self, OpenError> {
                Link::from_parts(parts).map(Self)
            }
        }

        impl AsFd for $end {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.socket.as_fd()
            }
        }

        impl Pollable for $end {
            fn interest(&self) -> Interest {
                $interest
            }
        }
    };
}

common!(ReferenceSender, Interest::Write);
common!(ReferenceReceiver, Interest::Read);
