use std::fmt::{Debug, Display};
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::str::FromStr;
use std::time::Duration;

use crate::{Capabilities, Handoff, Limits, OpenError, RecvError, SendError, Wait};

/// The sending end of a channel.
pub trait Sender {
    /// Sends one message whole, or nothing of it. `Ok` means *committed*: it arrives even if this
    /// process dies now.
    ///
    /// # Errors
    /// `Full` only with [`Wait::Never`], `TimedOut` only with [`Wait::Until`]; the others as
    /// [`SendError`] says.
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError>;

    /// What this channel carries.
    fn limits(&self) -> Limits;

    /// Sends messages from the front of `batch`, with as few system calls as the mechanism can,
    /// and says how many: at least one of a batch that is not empty. Waits for the first only.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with), and then no message of the batch was sent.
    fn send_batch_with(&mut self, batch: &[IoSlice<'_>], wait: Wait) -> Result<usize, SendError> {
        let mut wait = wait;
        for (sent, message) in batch.iter().enumerate() {
            match self.send_with(message, wait) {
                Ok(()) => wait = Wait::Never,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => return Ok(sent),
            }
        }
        Ok(batch.len())
    }

    /// Sends, waiting for room as long as the receiver lives.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with).
    fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_with(message, Wait::Forever)
    }

    /// Sends if there is room now.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with); `Full` when there is no room.
    fn try_send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_with(message, Wait::Never)
    }

    /// Sends, waiting at most this long for room.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with).
    fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<(), SendError> {
        self.send_with(message, Wait::at_most(timeout))
    }

    /// Sends as many messages from the front of `batch` as there is room for, at least one,
    /// waiting for the first as long as the receiver lives.
    ///
    /// # Errors
    /// As [`send_batch_with`](Self::send_batch_with).
    fn send_batch(&mut self, batch: &[IoSlice<'_>]) -> Result<usize, SendError> {
        self.send_batch_with(batch, Wait::Forever)
    }
}

/// The receiving end of a channel.
pub trait Receiver {
    /// Copies the next message whole to the front of `buffer` and gives its length in bytes.
    ///
    /// # Errors
    /// `Empty` only with [`Wait::Never`], `TimedOut` only with [`Wait::Until`];
    /// `BufferTooSmall` leaves the message where it is; `Closed` and `PeerDied` come only after
    /// the last committed message, and again at every later call.
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError>;

    /// What this channel carries: a buffer of `limits().max_message` bytes is always enough.
    fn limits(&self) -> Limits;

    /// Receives, waiting as long as a sender lives.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with).
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        self.recv_with(buffer, Wait::Forever)
    }

    /// Receives what is there now.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with); `Empty` when nothing is there.
    fn try_recv(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        self.recv_with(buffer, Wait::Never)
    }

    /// Receives, waiting at most this long.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with).
    fn recv_timeout(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<usize, RecvError> {
        self.recv_with(buffer, Wait::at_most(timeout))
    }

    /// Receives into a vector that grows to the message; its old contents are lost. Reuse the
    /// vector and the steady state allocates nothing.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with), but never `BufferTooSmall`.
    fn recv_vec(&mut self, message: &mut Vec<u8>, wait: Wait) -> Result<(), RecvError> {
        // Not all of a large capacity, which would be filled with zeros for every small message.
        let room = message.capacity().min(message.len().max(ROOM));
        message.resize(room, 0);
        loop {
            match self.recv_with(message, wait) {
                Ok(len) => {
                    message.truncate(len);
                    return Ok(());
                }
                Err(RecvError::BufferTooSmall { needed }) => message.resize(needed, 0),
                Err(error) => {
                    message.clear();
                    return Err(error);
                }
            }
        }
    }
}

/// Bytes that [`Receiver::recv_vec`] offers, of a vector that has them, for a message of a length
/// that it does not know.
const ROOM: usize = 4 << 10;

/// An end that `poll(2)` and event loops can watch.
///
/// For a receiver, readable means that a `try_recv` is worth making; for a sender, `interest`
/// tells which event means that a `try_send` is. Readiness is a hint and may be spurious, and a
/// receiver may hold whole messages that it has already read in: call `try_recv` until `Empty`
/// before waiting.
pub trait Pollable: AsFd {
    /// The event to wait for on the descriptor.
    fn interest(&self) -> crate::wait::Interest;

    /// Of a sender: the longest message, in bytes, for which readiness tells of room. A longer one
    /// may need more room than the event promises, and its watcher would be woken in vain or
    /// never: send it with a wait.
    fn longest_ready(&self) -> usize {
        usize::MAX
    }

    /// Called after `Full` or `Empty` and before the caller sleeps on the descriptor: arms the
    /// wake-up where the mechanism has to ask for one. `true` says that something has happened
    /// meanwhile and the caller must try again instead of sleeping.
    fn arm(&mut self) -> bool {
        false
    }
}

/// An end of which one channel may have several, where
/// [`Capabilities::producers`] is [`Arity::Many`](crate::Arity::Many) or
/// [`Capabilities::consumers`] is [`Consumers::Competing`](crate::Consumers::Competing).
///
/// Each keeps its own messages in order; between two there is no order. The other side learns of
/// the end when the last of them is gone: `Closed` if each was closed, `PeerDied` otherwise.
pub trait TryClone: Sized {
    /// A second end of the same channel, for another thread or process. It may carry less than
    /// a single one: ask both for their `limits` afterwards.
    ///
    /// # Errors
    /// `Io` or `Limit` when descriptors run out; what else stands in the way, the mechanism says.
    fn try_clone(&mut self) -> Result<Self, OpenError>;
}

/// A named channel that waits for its sender.
///
/// Dropping it frees the name; receivers that were accepted live on.
pub trait Listener {
    /// The end that [`accept`](Self::accept) gives.
    type Receiver;

    /// Waits for a sender to connect.
    ///
    /// # Errors
    /// `NotFound` if none is there and `wait` is [`Wait::Never`], `TimedOut` at the deadline,
    /// `Limit` when descriptors run out. A stranger or a broken peer that knocks is turned away and
    /// does not end the wait.
    fn accept(&mut self, wait: Wait) -> Result<Self::Receiver, OpenError>;
}

/// A way to move messages between processes: a family of types with one contract, the eight
/// promises of the [crate documentation](crate).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a channel family",
    note = "the families are ipc_pipe::Pipe, ipc_socket::Socket, ipc_mqueue::MessageQueue, \
            ipc_shm::SharedMemory, ipc_signal::SignalQueue and ipc_file::FileLog"
)]
pub trait Channel: Sized + 'static {
    /// The short name of the mechanism, as reports print it.
    const NAME: &'static str;
    /// What it promises beyond the common contract.
    const CAPABILITIES: Capabilities;
    /// Capacity, wait strategy and what else the mechanism lets one choose.
    type Options: Clone + Debug + Default + Tunable;
    /// A name, which travels to the other process by argument, environment or agreement.
    type Address: Clone + Debug + Display + FromStr<Err = OpenError>;
    /// The sending end.
    type Sender: Sender + Handoff + Send + Debug + 'static;
    /// The receiving end.
    type Receiver: Receiver + Handoff + Send + Debug + 'static;
    /// The named end that waits for senders.
    type Listener: Listener<Receiver = Self::Receiver> + Debug;

    /// A nameless channel, for a process and those it starts.
    ///
    /// # Errors
    /// `Limit` when descriptors, memory or a kernel limit run out, `Invalid` for options that
    /// cannot work.
    fn pair(options: &Self::Options) -> Result<(Self::Sender, Self::Receiver), OpenError>;

    /// Takes a name, for processes that share only that. A name left by a dead process is taken
    /// over; a live one never is.
    ///
    /// # Errors
    /// `NameInUse`, `Untrusted` when what is found at the name is not ours, `Invalid`.
    fn listen(
        address: &Self::Address,
        options: &Self::Options,
    ) -> Result<Self::Listener, OpenError>;

    /// Connects to a name, waiting for somebody to listen there.
    ///
    /// # Errors
    /// `NotFound` if nobody listens and `wait` is [`Wait::Never`], `TimedOut` at the deadline,
    /// `Untrusted` when what is found at the name is not ours.
    fn connect(
        address: &Self::Address,
        options: &Self::Options,
        wait: Wait,
    ) -> Result<Self::Sender, OpenError>;
}

/// The options that every mechanism has, so that generic code can set them.
pub trait Tunable {
    /// How both ends wait.
    #[must_use]
    fn wait_strategy(self, strategy: crate::WaitStrategy) -> Self;

    /// At least this many bytes of messages fit before a sender waits, where the mechanism
    /// counts bytes; mechanisms that count messages ignore it.
    #[must_use]
    fn capacity(self, bytes: usize) -> Self;
}
