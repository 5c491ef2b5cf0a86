//! The receiving side of a queue descriptor, with a place for one message that did not fit.

use ipc_core::{Limits, OpenError, RecvError};

use crate::sys::{Mqd, Patience};

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes at the front of the buffer.
    pub len: usize,
    /// The priority that it was sent with.
    pub priority: u32,
}

/// `mq_receive(3)` refuses a buffer that would not hold the longest message of the queue (EMSGSIZE),
/// whatever the length of the next one. So a shorter buffer is served from one of our own, and a
/// message that proves too long for it stays here.
#[derive(Debug)]
pub(crate) struct Inbox {
    mqd: Mqd,
    limits: Limits,
    own: Box<[u8]>,
    held: Option<Received>,
    /// The kernel's priority that counts as 0; what lies below carries no message.
    base: u32,
}

impl Inbox {
    pub(crate) fn new(mqd: Mqd, base: u32) -> Result<Self, OpenError> {
        let limits = limits(&mqd)?;
        let own = vec![0; limits.max_message].into_boxed_slice();
        Ok(Self {
            mqd,
            limits,
            own,
            held: None,
            base,
        })
    }

    /// Puts back a message that was held by this inbox's predecessor.
    pub(crate) fn hold(&mut self, message: &[u8], priority: u32) -> Result<(), OpenError> {
        let Some(place) = self.own.get_mut(..message.len()) else {
            return Err(OpenError::Untrusted {
                what: "the held message exceeds its queue",
            });
        };
        place.copy_from_slice(message);
        self.held = Some(Received {
            len: message.len(),
            priority,
        });
        Ok(())
    }

    pub(crate) fn held(&self) -> Option<(&[u8], u32)> {
        self.held.map(|held| (&self.own[..held.len], held.priority))
    }

    pub(crate) fn mqd(&self) -> &Mqd {
        &self.mqd
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The next message, or `None` if none came; also, whatever the patience, when something came
    /// that is no message.
    #[inline]
    pub(crate) fn fetch(
        &mut self,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<Option<Received>, RecvError> {
        if self.held.is_none() {
            let direct = buffer.len() >= self.own.len();
            let place = if direct {
                &mut *buffer
            } else {
                &mut self.own[..]
            };
            let received = match self.mqd.recv(place, patience) {
                Ok(Some((priority, len))) => match priority.checked_sub(self.base) {
                    Some(priority) => Received { len, priority },
                    None => return Ok(None),
                },
                Ok(None) => return Ok(None),
                Err(error) => return Err(RecvError::io("mq_timedreceive", error)),
            };
            if direct {
                return Ok(Some(received));
            }
            self.held = Some(received);
        }
        let Some(held) = self.held else {
            return Ok(None);
        };
        let Some(front) = buffer.get_mut(..held.len) else {
            return Err(RecvError::BufferTooSmall { needed: held.len });
        };
        front.copy_from_slice(&self.own[..held.len]);
        self.held = None;
        Ok(Some(held))
    }
}

pub(crate) fn limits(mqd: &Mqd) -> Result<Limits, OpenError> {
    let attributes = mqd.attributes()?;
    Ok(Limits {
        max_message: attributes.max_msg_len,
        depth_messages: Some(attributes.capacity),
        depth_bytes: None,
    })
}
