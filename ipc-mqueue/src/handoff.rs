//! An end is two descriptors, the queue and the lifeline, and a few bytes: a version, which end it
//! is, the wait strategy, and for a receiver whether a sentinel has watched it (0 or 1) and the message
//! that it holds back, if any, after its priority (u32 LE).

use std::io;
use std::os::fd::OwnedFd;

use ipc_core::lifeline::Lifeline;
use ipc_core::{Handoff, OpenError, Parts, WaitStrategy};

use crate::inbox::Inbox;
use crate::queue::Access;
use crate::sender::{BASE, MAX_PRIORITY};
use crate::sys::Mqd;
use crate::{Receiver, Sender};

const VERSION: u8 = 2;
const SENDER: u8 = b'S';
const RECEIVER: u8 = b'R';

impl Handoff for Sender {
    fn to_parts(&self) -> io::Result<Parts> {
        Ok(Parts {
            descriptors: duplicate(self.mqd(), self.lifeline())?,
            data: vec![VERSION, SENDER, strategy_byte(self.strategy())],
        })
    }

    fn release(&self) {
        Self::release(self);
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (mqd, lifeline, strategy, rest) = open(&parts.data, SENDER, parts.descriptors)?;
        if !rest.is_empty() {
            return Err(OpenError::Untrusted {
                what: "a sender came with a message",
            });
        }
        Self::new(mqd, lifeline, strategy)
    }
}

impl Handoff for Receiver {
    fn to_parts(&self) -> io::Result<Parts> {
        let strategy = strategy_byte(self.strategy());
        let mut data = vec![VERSION, RECEIVER, strategy, self.is_suspect().into()];
        if let Some((message, priority)) = self.inbox().held() {
            data.extend_from_slice(&priority.to_le_bytes());
            data.extend_from_slice(message);
        }
        Ok(Parts {
            descriptors: duplicate(self.inbox().mqd(), self.lifeline())?,
            data,
        })
    }

    fn release(&self) {
        Self::release(self);
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (mqd, lifeline, strategy, rest) = open(&parts.data, RECEIVER, parts.descriptors)?;
        let mut inbox = Inbox::new(mqd, BASE)?;
        let rest = match rest {
            [0, rest @ ..] => rest,
            [1, rest @ ..] => {
                inbox.suspect();
                rest
            }
            _ => {
                return Err(OpenError::Untrusted {
                    what: "the parts of a receiver are cut off, or no parts",
                });
            }
        };
        match rest.split_first_chunk::<4>() {
            Some((priority, message)) => {
                let priority = u32::from_le_bytes(*priority);
                if priority > MAX_PRIORITY {
                    return Err(OpenError::Untrusted {
                        what: "a priority that cannot be",
                    });
                }
                inbox.hold(message, priority)?;
            }
            None if rest.is_empty() => {}
            None => {
                return Err(OpenError::Untrusted {
                    what: "the held message is cut off",
                });
            }
        }
        Ok(Self::new(inbox, lifeline, strategy))
    }
}

#[cfg(feature = "serde")]
ipc_core::impl_serde_handoff!(Sender, Receiver);

fn duplicate(mqd: &Mqd, lifeline: &Lifeline) -> io::Result<Vec<OwnedFd>> {
    Ok(vec![mqd.try_clone()?.into(), lifeline.try_clone()?.into()])
}

fn open(
    data: &[u8],
    end: u8,
    descriptors: Vec<OwnedFd>,
) -> Result<(Mqd, Lifeline, WaitStrategy, &[u8]), OpenError> {
    let Some((&[version, role, strategy], rest)) = data.split_first_chunk::<3>() else {
        return Err(OpenError::Incompatible {
            what: "the parts of a queue's end are cut off",
        });
    };
    if version != VERSION {
        return Err(OpenError::Incompatible {
            what: "another version of this channel",
        });
    }
    let access = if end == SENDER {
        Access::Send
    } else {
        Access::Receive
    };
    if role != end {
        return Err(OpenError::Incompatible {
            what: "the parts are of the other end",
        });
    }
    let strategy = match strategy {
        0 => WaitStrategy::Block,
        1 => WaitStrategy::Spin,
        2 => WaitStrategy::Adaptive,
        _ => {
            return Err(OpenError::Incompatible {
                what: "an unknown wait strategy",
            });
        }
    };
    let Ok([queue, lifeline]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err(OpenError::Untrusted {
            what: "an end is a queue and a lifeline",
        });
    };
    let mqd = Mqd::from_fd(queue)?;
    if !mqd.allows(access) {
        return Err(OpenError::Untrusted {
            what: "the queue is not open for this end's use",
        });
    }
    Ok((mqd, Lifeline::from_fd(lifeline)?, strategy, rest))
}

fn strategy_byte(strategy: WaitStrategy) -> u8 {
    match strategy {
        WaitStrategy::Block => 0,
        WaitStrategy::Spin => 1,
        WaitStrategy::Adaptive => 2,
    }
}
