use std::time::Duration;

use crate::{Channel, OpenError, Receiver, RecvError, SendError, Sender, Wait};

/// Two channels in opposite directions, as one end holds them: send here, receive there.
///
/// ```
/// # fn ask<S: ipc_core::Sender, R: ipc_core::Receiver>(
/// #     mut server: ipc_core::Duplex<S, R>,
/// # ) -> Result<(), ipc_core::RequestError> {
/// let mut reply = [0; 64];
/// let len = server.request(b"what is the time?", &mut reply, ipc_core::Wait::Forever)?;
/// println!("{}", String::from_utf8_lossy(&reply[..len]));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Duplex<S, R> {
    /// The way out.
    pub sender: S,
    /// The way in.
    pub receiver: R,
}

/// One end of a duplex over the channel `C`.
pub type DuplexOf<C> = Duplex<<C as Channel>::Sender, <C as Channel>::Receiver>;

/// Why a request had no reply.
#[derive(Debug)]
pub enum RequestError {
    /// It was not sent.
    Send(SendError),
    /// It was sent, but no reply came. The peer may have acted on it; a late reply stays in the
    /// channel, where the next request would take it for its own: drop the duplex.
    Recv(RecvError),
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send(error) => write!(f, "the request was not sent: {error}"),
            Self::Recv(error) => write!(f, "the request had no reply: {error}"),
        }
    }
}

impl std::error::Error for RequestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Send(error) => Some(error),
            Self::Recv(error) => Some(error),
        }
    }
}

/// Both ends of a new duplex over the channel `C`.
///
/// # Errors
/// As [`Channel::pair`].
pub fn duplex<C: Channel>(options: &C::Options) -> Result<(DuplexOf<C>, DuplexOf<C>), OpenError> {
    let (there, from_here) = C::pair(options)?;
    let (back, from_there) = C::pair(options)?;
    Ok((
        Duplex {
            sender: there,
            receiver: from_there,
        },
        Duplex {
            sender: back,
            receiver: from_here,
        },
    ))
}

impl<S: Sender, R: Receiver> Duplex<S, R> {
    /// Sends a request and waits for its reply; gives the reply's length. One at a time: with
    /// nothing in a message that says which request it answers, order is what pairs them.
    ///
    /// # Errors
    /// [`RequestError`] tells whether the request left.
    pub fn request(
        &mut self,
        request: &[u8],
        reply: &mut [u8],
        wait: Wait,
    ) -> Result<usize, RequestError> {
        self.sender
            .send_with(request, wait)
            .map_err(RequestError::Send)?;
        self.receiver
            .recv_with(reply, wait)
            .map_err(RequestError::Recv)
    }

    /// As [`request`](Self::request), within this time for both ways.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn request_timeout(
        &mut self,
        request: &[u8],
        reply: &mut [u8],
        timeout: Duration,
    ) -> Result<usize, RequestError> {
        self.request(request, reply, Wait::at_most(timeout))
    }
}
