//! How an end travels.
//!
//! Data of both: version (1), kind (1), wait strategy (1), signal offset or 255 (1), window (4),
//! messages in flight (4), number of the signal (4), nonce (8), in native byte order. The last
//! three are zero for a receiver and for a sender that knows no target yet. Descriptors: lifeline,
//! notices and, of a sender that knows its target, the pidfd.

use std::io;

use ipc_core::lifeline::Lifeline;
use ipc_core::{Handoff, OpenError, Parts, WaitStrategy};

use crate::target::Target;
use crate::{Receiver, Sender, notice, sys};

const VERSION: u8 = 1;
const SENDER: u8 = b'S';
const RECEIVER: u8 = b'R';
const SIZE: usize = 24;
const ANY: u8 = u8::MAX;

struct Record {
    strategy: WaitStrategy,
    signal: Option<u8>,
    window: u32,
    in_flight: u32,
    number: i32,
    nonce: u64,
}

impl Record {
    fn encode(&self, kind: u8) -> Vec<u8> {
        let strategy = match self.strategy {
            WaitStrategy::Block => 0,
            WaitStrategy::Spin => 1,
            WaitStrategy::Adaptive => 2,
        };
        let mut data = vec![VERSION, kind, strategy, self.signal.unwrap_or(ANY)];
        data.extend(self.window.to_ne_bytes());
        data.extend(self.in_flight.to_ne_bytes());
        data.extend(self.number.to_ne_bytes());
        data.extend(self.nonce.to_ne_bytes());
        data
    }

    fn decode(data: &[u8], kind: u8) -> Result<Self, OpenError> {
        let Ok::<[u8; SIZE], _>(data) = data.try_into() else {
            return Err(OpenError::Incompatible {
                what: "not the parts of a signal queue's end",
            });
        };
        let [
            version,
            found,
            strategy,
            signal,
            w0,
            w1,
            w2,
            w3,
            f0,
            f1,
            f2,
            f3,
            rest @ ..,
        ] = data;
        let [n0, n1, n2, n3, nonce @ ..] = rest;
        if (version, found) != (VERSION, kind) {
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
        let record = Self {
            strategy,
            signal: (signal != ANY).then_some(signal),
            window: u32::from_ne_bytes([w0, w1, w2, w3]),
            in_flight: u32::from_ne_bytes([f0, f1, f2, f3]),
            number: i32::from_ne_bytes([n0, n1, n2, n3]),
            nonce: u64::from_ne_bytes(nonce),
        };
        if record.window == 0 || record.in_flight > record.window {
            return Err(OpenError::Untrusted {
                what: "a window that cannot be",
            });
        }
        Ok(record)
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
        let record = Record {
            strategy: self.waiter.strategy(),
            signal: None,
            window: self.window,
            in_flight: self.in_flight,
            number,
            nonce,
        };
        Ok(Parts {
            descriptors,
            data: record.encode(SENDER),
        })
    }

    fn release(&self) {
        self.released.set(true);
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let record = Record::decode(&parts.data, SENDER)?;
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
        if !sys::range().contains(&record.number) && pidfd.is_some() {
            return Err(OpenError::Untrusted {
                what: "no number of a real-time signal",
            });
        }
        let target = pidfd.map(|pidfd| Target {
            pidfd,
            number: record.number,
            nonce: record.nonce,
        });
        let lifeline = Lifeline::from_fd(lifeline)?;
        let notices = notice::checked(notices)?;
        let mut sender = Self::new(lifeline, notices, record.window, record.strategy);
        sender.target = target;
        sender.in_flight = record.in_flight;
        Ok(sender)
    }
}

impl Handoff for Receiver {
    /// Messages that have not been received stay behind, and are lost with the release.
    fn to_parts(&self) -> io::Result<Parts> {
        let record = Record {
            strategy: self.waiter.strategy(),
            signal: self.signal,
            window: self.window,
            in_flight: 0,
            number: 0,
            nonce: 0,
        };
        Ok(Parts {
            descriptors: vec![self.lifeline.try_clone()?.into(), self.notices.try_clone()?],
            data: record.encode(RECEIVER),
        })
    }

    fn release(&self) {
        self.release_post();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let record = Record::decode(&parts.data, RECEIVER)?;
        let Ok::<[_; 2], _>([lifeline, notices]) = parts.descriptors.try_into() else {
            return Err(OpenError::Untrusted {
                what: "a receiver has two descriptors",
            });
        };
        Self::open(
            Lifeline::from_fd(lifeline)?,
            notice::checked(notices)?,
            record.window,
            record.strategy,
            record.signal,
        )
    }
}

#[cfg(feature = "serde")]
ipc_core::impl_serde_handoff!(Sender, Receiver);
