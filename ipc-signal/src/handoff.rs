//! How an end travels.
//!
//! Data of both: version (1), kind (1), wait strategy (1), signal offset or 255 (1), window (4);
//! of a sender also: number of the signal (4), messages sent to the present receiver (4), messages
//! that wait for the next (4), nonce (8), and a record (16) for each message in flight or waiting.
//! Native byte order. Descriptors: lifeline, notices and, of a sender whose receiver has announced
//! itself, the pidfd.

use std::io;

use ipc_core::lifeline::Lifeline;
use ipc_core::{Handoff, OpenError, Parts, WaitStrategy};

use crate::history::History;
use crate::options::MAX_DEPTH;
use crate::target::Target;
use crate::word::Word;
use crate::{Receiver, Sender, notice, sys};

const VERSION: u8 = 1;
const SENDER: u8 = b'S';
const RECEIVER: u8 = b'R';
const ANY: u8 = u8::MAX;
const RECORD: usize = 16;

/// What both ends have.
struct Common {
    strategy: WaitStrategy,
    signal: Option<u8>,
    window: u32,
}

impl Common {
    fn encode(&self, kind: u8) -> Vec<u8> {
        let strategy = match self.strategy {
            WaitStrategy::Block => 0,
            WaitStrategy::Spin => 1,
            WaitStrategy::Adaptive => 2,
        };
        let mut data = vec![VERSION, kind, strategy, self.signal.unwrap_or(ANY)];
        data.extend(self.window.to_ne_bytes());
        data
    }

    /// What it is, and the data that follow.
    fn decode(data: &[u8], kind: u8) -> Result<(Self, &[u8]), OpenError> {
        let Some(([version, found, strategy, signal, window @ ..], rest)) =
            data.split_first_chunk::<8>()
        else {
            return Err(OpenError::Incompatible {
                what: "not the parts of a signal queue's end",
            });
        };
        if (*version, *found) != (VERSION, kind) {
            return Err(OpenError::Incompatible {
                what: "another version or the other end",
            });
        }
        let strategy = match strategy {
            0 => WaitStrategy::Block,
            1 => WaitStrategy::Spin,
            2 => WaitStrategy::Adaptive,
            _ => {
                return Err(OpenError::Untrusted {
                    what: "a wait strategy of no kind",
                });
            }
        };
        let window = u32::from_ne_bytes(*window);
        if !(1..=MAX_DEPTH).contains(&window) {
            return Err(OpenError::Untrusted {
                what: "a window that cannot be",
            });
        }
        let signal = (*signal != ANY).then_some(*signal);
        Ok((
            Self {
                strategy,
                signal,
                window,
            },
            rest,
        ))
    }
}

impl Handoff for Sender {
    fn to_parts(&self) -> io::Result<Parts> {
        let mut descriptors = vec![self.lifeline.try_clone()?.into(), self.notices.try_clone()?];
        let (number, nonce) = match &self.target {
            Some(target) => {
                descriptors.push(target.pidfd.try_clone()?);
                (target.number, target.nonce)
            }
            None => (0, 0),
        };
        let common = Common {
            strategy: self.waiter.strategy(),
            signal: None,
            window: self.history.window(),
        };
        let mut data = common.encode(SENDER);
        data.extend(number.to_ne_bytes());
        data.extend(self.history.sent().to_ne_bytes());
        data.extend(self.history.waiting().to_ne_bytes());
        data.extend(nonce.to_ne_bytes());
        data.extend(self.history.words().flat_map(Word::into_record));
        Ok(Parts { descriptors, data })
    }

    fn release(&self) {
        self.custody.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (common, rest) = Common::decode(&parts.data, SENDER)?;
        let Some(([n0, n1, n2, n3, s0, s1, s2, s3, w0, w1, w2, w3, nonce @ ..], rest)) =
            rest.split_first_chunk::<20>()
        else {
            return Err(OpenError::Untrusted {
                what: "a sender without its counts",
            });
        };
        let number = i32::from_ne_bytes([*n0, *n1, *n2, *n3]);
        let sent = u32::from_ne_bytes([*s0, *s1, *s2, *s3]);
        let waiting = u32::from_ne_bytes([*w0, *w1, *w2, *w3]);
        let nonce = u64::from_ne_bytes(*nonce);

        let (records, tail) = rest.as_chunks::<RECORD>();
        let words: Option<Vec<Word>> = records.iter().map(|r| Word::from_record(*r)).collect();
        let history = words
            .filter(|_| tail.is_empty())
            .and_then(|words| History::restore(common.window, sent, waiting, words.into_iter()))
            .ok_or(OpenError::Untrusted {
                what: "messages that cannot be",
            })?;

        let mut descriptors = parts.descriptors.into_iter();
        let (Some(lifeline), Some(notices), pidfd, None) = (
            descriptors.next(),
            descriptors.next(),
            descriptors.next(),
            descriptors.next(),
        ) else {
            return Err(OpenError::Untrusted {
                what: "a sender has two or three descriptors",
            });
        };
        if pidfd.is_some() && !sys::range().contains(&number) {
            return Err(OpenError::Untrusted {
                what: "no number of a real-time signal",
            });
        }
        let target = pidfd.map(|pidfd| Target::new(pidfd, number, nonce));
        let lifeline = Lifeline::from_fd(lifeline)?;
        let notices = notice::checked(notices)?;
        Ok(Self::new(
            lifeline,
            notices,
            target,
            history,
            common.strategy,
        ))
    }
}

impl Handoff for Receiver {
    /// Messages that have not been received stay behind, and are lost with the release.
    fn to_parts(&self) -> io::Result<Parts> {
        let common = Common {
            strategy: self.waiter.strategy(),
            signal: self.signal,
            window: self.window,
        };
        Ok(Parts {
            descriptors: vec![self.lifeline.try_clone()?.into(), self.notices.try_clone()?],
            data: common.encode(RECEIVER),
        })
    }

    fn release(&self) {
        self.release_post();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (common, rest) = Common::decode(&parts.data, RECEIVER)?;
        if !rest.is_empty() {
            return Err(OpenError::Incompatible {
                what: "more than the parts of a receiver",
            });
        }
        let Ok::<[_; 2], _>([lifeline, notices]) = parts.descriptors.try_into() else {
            return Err(OpenError::Untrusted {
                what: "a receiver has two descriptors",
            });
        };
        Self::open(
            Lifeline::from_fd(lifeline)?,
            notice::checked(notices)?,
            common.window,
            common.strategy,
            common.signal,
        )
    }
}

#[cfg(feature = "serde")]
ipc_core::impl_serde_handoff!(Sender, Receiver);
