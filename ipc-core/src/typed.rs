//! Values instead of bytes over any channel, by `serde` and `postcard`.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Receiver, RecvError, SendError, Sender, Wait};

/// A sender of values of one type.
///
/// Values are encoded into a buffer that is kept, so the steady state allocates nothing. Channel
/// ends do not travel this way: they travel as arguments of processes.
#[derive(Debug)]
pub struct TypedSender<T, S> {
    sender: S,
    buffer: Vec<u8>,
    values: PhantomData<fn(&T)>,
}

/// A receiver of values of one type.
///
/// What arrives is input: a message that is no such value, or more than one, is an error and is
/// consumed, and the next is read as usual. Its buffer grows to the longest message that arrives, at
/// most to `limits().max_message`. A type whose elements take no bytes, such as `Vec<()>`, lets a
/// peer claim any number of them: send none of that kind. One that contains itself, such as a tree, is
/// decoded by recursion as deep as the message is long: let the channel's longest message be short.
///
/// ```
/// # fn read<R: ipc_core::Receiver>(receiver: R) -> Result<(), Box<dyn std::error::Error>> {
/// use ipc_core::{TypedError, TypedReceiver};
///
/// let mut prices = TypedReceiver::<(String, u64), _>::new(receiver);
/// match prices.recv() {
///     Ok((symbol, cents)) => println!("{symbol} {cents}"),
///     Err(TypedError::Channel(end)) => return Err(end.into()),
///     Err(wrong) => eprintln!("skipped: {wrong}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TypedReceiver<T, R> {
    receiver: R,
    buffer: Vec<u8>,
    values: PhantomData<fn() -> T>,
}

/// Why a value did not pass.
#[derive(Debug)]
pub enum TypedError<E> {
    /// The channel failed.
    Channel(E),
    /// The value could not be encoded, or the message is no such value.
    Codec(postcard::Error),
    /// The message is such a value and this many bytes more: another version's, perhaps.
    Trailing {
        /// Bytes after the value.
        len: usize,
    },
}

impl<E: fmt::Display> fmt::Display for TypedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(error) => error.fmt(f),
            Self::Codec(error) => write!(f, "this is no value of the channel's type: {error}"),
            Self::Trailing { len } => {
                write!(
                    f,
                    "{len} B follow the value; do both sides have the same type?"
                )
            }
        }
    }
}

impl<E: Error + 'static> Error for TypedError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Channel(error) => Some(error),
            Self::Codec(error) => Some(error),
            Self::Trailing { .. } => None,
        }
    }
}

impl<T: Serialize, S: Sender> TypedSender<T, S> {
    /// Sends values through this channel from now on.
    pub fn new(sender: S) -> Self {
        Self {
            sender,
            buffer: Vec::new(),
            values: PhantomData,
        }
    }

    /// Sends a value, waiting as `wait` says.
    ///
    /// # Errors
    /// As [`Sender::send_with`], `TooLong` with the length of the encoded value; `Codec` when the
    /// value refuses to be encoded. Nothing was sent.
    pub fn send_with(&mut self, value: &T, wait: Wait) -> Result<(), TypedError<SendError>> {
        self.buffer.clear();
        let encoded = postcard::to_extend(value, std::mem::take(&mut self.buffer));
        self.buffer = encoded.map_err(TypedError::Codec)?;
        self.sender
            .send_with(&self.buffer, wait)
            .map_err(TypedError::Channel)
    }

    /// Sends a value, waiting for room as long as the receiver lives.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with).
    pub fn send(&mut self, value: &T) -> Result<(), TypedError<SendError>> {
        self.send_with(value, Wait::Forever)
    }

    /// The channel's end.
    pub fn into_inner(self) -> S {
        self.sender
    }
}

impl<T: DeserializeOwned, R: Receiver> TypedReceiver<T, R> {
    /// Receives values from this channel from now on.
    pub fn new(receiver: R) -> Self {
        Self {
            receiver,
            buffer: Vec::new(),
            values: PhantomData,
        }
    }

    /// Receives a value, waiting as `wait` says.
    ///
    /// # Errors
    /// As [`Receiver::recv_with`], but never `BufferTooSmall`; `Codec` and `Trailing` for a
    /// message that is no `T`.
    pub fn recv_with(&mut self, wait: Wait) -> Result<T, TypedError<RecvError>> {
        self.receiver
            .recv_vec(&mut self.buffer, wait)
            .map_err(TypedError::Channel)?;
        match postcard::take_from_bytes(&self.buffer).map_err(TypedError::Codec)? {
            (value, []) => Ok(value),
            (_, rest) => Err(TypedError::Trailing { len: rest.len() }),
        }
    }

    /// Receives a value, waiting as long as a sender lives.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with).
    pub fn recv(&mut self) -> Result<T, TypedError<RecvError>> {
        self.recv_with(Wait::Forever)
    }

    /// The channel's end.
    pub fn into_inner(self) -> R {
        self.receiver
    }
}
