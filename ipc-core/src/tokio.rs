//! `async` over any channel whose ends are pollable, by `tokio`'s `AsyncFd`.
//!
//! The ends stay as they are: every call here tries without waiting, and between two tries the
//! task sleeps until the descriptor is ready.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use ::tokio::io::Interest as TokioInterest;
use ::tokio::io::unix::AsyncFd;

use crate::wait::Interest;
use crate::{Limit, Pollable, Receiver, RecvError, SendError, Sender, Wait};

/// An end whose calls are `async`.
///
/// A task that finds its end ready again and again lets the others run in between
/// (`tokio::task::coop`). Cancellation is safe: a future that is dropped before it is done has sent nothing, or has taken
/// nothing away, so that `tokio::select!` may drop it and call again.
///
/// ```
/// # async fn serve<R>(mut orders: ipc_core::tokio::Async<R>, mut news: ipc_core::tokio::Async<R>)
/// #     -> Result<(), ipc_core::RecvError>
/// # where R: ipc_core::Receiver + ipc_core::Pollable {
/// let (mut order, mut item) = ([0; 64], [0; 64]);
/// loop {
///     tokio::select! {
///         len = orders.recv(&mut order) => println!("an order of {} B", len?),
///         len = news.recv(&mut item) => println!("news of {} B", len?),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Async<E> {
    end: E,
    readiness: AsyncFd<Watched>,
}

/// A duplicate of the end's descriptor, so that the reactor forgets it before the end closes.
#[derive(Debug)]
struct Watched(OwnedFd);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl<E: Pollable> Async<E> {
    /// Registers the end with the reactor of the current runtime.
    ///
    /// # Errors
    /// When descriptors run out, or the reactor refuses the descriptor.
    ///
    /// # Panics
    /// Outside a `tokio` runtime with I/O enabled, as `AsyncFd` does.
    pub fn new(end: E) -> io::Result<Self> {
        let watched = Watched(end.as_fd().try_clone_to_owned()?);
        let interest = match end.interest() {
            Interest::Read => TokioInterest::READABLE,
            Interest::Write => TokioInterest::WRITABLE,
            Interest::HangUp => TokioInterest::READABLE | TokioInterest::WRITABLE,
        };
        #[expect(
            deprecated,
            reason = "its unsafe successor asks for what an OwnedFd always keeps"
        )]
        let readiness = AsyncFd::with_interest(watched, interest)?;
        Ok(Self { end, readiness })
    }

    /// The end, no longer registered.
    pub fn into_inner(self) -> E {
        self.end
    }

    /// Tries until `attempt` gives something, sleeping between tries.
    async fn until<T, X: From<io::Error>>(
        &mut self,
        mut attempt: impl FnMut(&mut E) -> Option<Result<T, X>>,
    ) -> Result<T, X> {
        let writable = matches!(self.end.interest(), Interest::Write);
        loop {
            // Before an attempt, when nothing is lost by a drop: an end that is always ready would
            // keep all other tasks of its thread from running.
            ::tokio::task::coop::consume_budget().await;
            if let Some(outcome) = attempt(&mut self.end) {
                return outcome;
            }
            if self.end.arm() {
                continue;
            }
            let mut guard = if writable {
                self.readiness.writable().await?
            } else {
                self.readiness.readable().await?
            };
            // The edge is consumed only by an attempt after it that found nothing (AsyncFd).
            if let Some(outcome) = attempt(&mut self.end) {
                return outcome;
            }
            guard.clear_ready();
        }
    }
}

impl<S: Sender + Pollable> Async<S> {
    /// Sends, waiting for room as long as the receiver lives.
    ///
    /// # Errors
    /// As [`Sender::send_with`], and `Limit` for a message longer than
    /// [`Pollable::longest_ready`], of whose room no event tells.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        let max = self.end.longest_ready();
        if message.len() > max {
            return Err(SendError::Limit(Limit {
                name: "Pollable::longest_ready",
                value: Some(max as u64),
                advice: "split this message, or send it with a wait from a thread that may block",
            }));
        }
        self.until(|end| match end.send_with(message, Wait::Never) {
            Err(SendError::Full) => None,
            outcome => Some(outcome),
        })
        .await
    }
}

impl<R: Receiver + Pollable> Async<R> {
    /// Receives, waiting as long as a sender lives.
    ///
    /// # Errors
    /// As [`Receiver::recv_with`].
    pub async fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        self.until(|end| match end.recv_with(buffer, Wait::Never) {
            Err(RecvError::Empty) => None,
            outcome => Some(outcome),
        })
        .await
    }
}

impl From<io::Error> for SendError {
    fn from(source: io::Error) -> Self {
        Self::io("epoll", source)
    }
}

impl From<io::Error> for RecvError {
    fn from(source: io::Error) -> Self {
        Self::io("epoll", source)
    }
}
