use std::cell::RefCell;
use std::os::fd::OwnedFd;

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::{Custody, Limits, OpenError, RecvError, Wait, WaitStrategy, Waiter};

use crate::notice;
use crate::post::{Found, Post};
use crate::word::{MAX_MESSAGE, Word};

/// The receiving end. See the [crate documentation](crate).
#[derive(Debug)]
pub struct Receiver {
    pub(crate) lifeline: Lifeline,
    pub(crate) notices: OwnedFd,
    pub(crate) window: u32,
    pub(crate) signal: Option<u8>,
    pub(crate) waiter: Waiter,
    pub(crate) custody: Custody,
    /// A message that did not fit the buffer.
    kept: Option<Word>,
    /// Received since the last notice of it.
    taken: u32,
    end: Option<Peer>,
    /// `None` once this copy has been released; a cell, since a release has only `&self`.
    // Last: when the sockets are closed no more signals are on their way, and it empties the queue.
    post: RefCell<Option<Post>>,
}

impl Receiver {
    /// Opens the end in this process, from the calling thread.
    pub(crate) fn open(
        lifeline: Lifeline,
        notices: OwnedFd,
        window: u32,
        strategy: WaitStrategy,
        signal: Option<u8>,
    ) -> Result<Self, OpenError> {
        let post = Post::open(signal, &notices, &lifeline)?;
        Ok(Self {
            post: RefCell::new(Some(post)),
            lifeline,
            notices,
            window,
            signal,
            waiter: Waiter::new(strategy),
            custody: Custody::new(),
            kept: None,
            taken: 0,
            end: None,
        })
    }

    /// Stops receiving here, because the end lives on elsewhere. The sender learns of it before
    /// the new owner can announce itself.
    pub(crate) fn release_post(&self) {
        if let Some(mut post) = self.post.take() {
            let arrived = post.close();
            // Nobody listens any more: then nothing is sent here either.
            let _ = notice::withdraw(&self.notices, arrived, post.nonce);
        }
        self.custody.release();
    }

    #[inline]
    fn fetch(&mut self, wait: Wait) -> Result<Word, RecvError> {
        if let Some(word) = self.kept {
            return Ok(word);
        }
        let found = match (self.end, self.post.get_mut()) {
            (None, Some(post)) => post.next(&self.lifeline, &mut self.waiter, wait)?,
            (Some(end), _) => Found::End(end),
            (None, None) => Found::End(Peer::Closed),
        };
        match found {
            Found::Word(word) => Ok(word),
            Found::End(end) => {
                self.end = Some(end);
                Err(if end == Peer::Closed {
                    RecvError::Closed
                } else {
                    RecvError::PeerDied
                })
            }
        }
    }

    /// Tells the sender of every eighth of the window, so that it never waits for more.
    #[inline]
    fn count(&mut self) {
        self.taken += 1;
        if self.taken >= (self.window / 8).max(1)
            && let Some(post) = self.post.get_mut()
            && notice::taken(&self.notices, self.taken, post.nonce).is_ok()
        {
            self.taken = 0;
        }
    }
}

impl ipc_core::Receiver for Receiver {
    #[inline]
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        let word = self.fetch(wait)?;
        let Some(len) = word.copy_to(buffer) else {
            self.kept = Some(word);
            return Err(RecvError::BufferTooSmall {
                needed: word.as_bytes().len(),
            });
        };
        self.kept = None;
        self.count();
        Ok(len)
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: MAX_MESSAGE,
            depth_messages: usize::try_from(self.window).ok(),
            depth_bytes: None,
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.custody.is_ours() {
            self.lifeline.farewell();
        } else if let Some(post) = self.post.get_mut() {
            // A release would have taken it: this is a forked child's copy.
            post.forsake();
        }
    }
}
