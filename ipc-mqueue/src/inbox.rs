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

/// What a caller wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The message.
    Message,
    /// The message and its priority.
    Priority,
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
    /// Whether another process's sentinel may have put in, or put in yet, what is no message.
    suspect: bool,
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
            suspect: false,
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

    /// Says that an inbox of this queue was watched elsewhere.
    pub(crate) fn suspect(&mut self) {
        self.suspect = true;
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
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
    ///
    /// The priority tells that, and a message which is kept has one. A message in a buffer for the
    /// longest is not kept, so there it is only read if asked for, and 0 otherwise. Then an empty
    /// message that was last in its queue is none if `rang` says that such a one was put there.
    #[inline]
    pub(crate) fn fetch(
        &mut self,
        buffer: &mut [u8],
        asked: Asked,
        patience: Patience,
        rang: impl FnOnce() -> bool,
    ) -> Result<Option<Received>, RecvError> {
        if self.held.is_some() {
            return self.hand_out(buffer);
        }
        let direct = buffer.len() >= self.own.len();
        if direct && asked == Asked::Message && !self.suspect {
            let len = receive(&self.mqd, buffer, None, patience)?;
            if len == Some(0) && rang() && self.mqd.waiting() == 0 {
                return Ok(None);
            }
            return Ok(len.map(|len| Received { len, priority: 0 }));
        }
        let mut priority = 0;
        let place = if direct {
            &mut *buffer
        } else {
            &mut self.own[..]
        };
        let Some(len) = receive(&self.mqd, place, Some(&mut priority), patience)? else {
            return Ok(None);
        };
        let Some(priority) = priority.checked_sub(self.base) else {
            return Ok(None);
        };
        let received = Received { len, priority };
        if direct {
            return Ok(Some(received));
        }
        if let (Some(front), Some(message)) = (buffer.get_mut(..len), self.own.get(..len)) {
            front.copy_from_slice(message);
            return Ok(Some(received));
        }
        self.held = Some(received);
        self.hand_out(buffer)
    }

    /// The message that is held, if it fits now.
    #[cold]
    fn hand_out(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, RecvError> {
        let Some((message, _)) = self.held() else {
            return Ok(None);
        };
        let Some(front) = buffer.get_mut(..message.len()) else {
            return Err(RecvError::BufferTooSmall {
                needed: message.len(),
            });
        };
        front.copy_from_slice(message);
        Ok(self.held.take())
    }
}

#[inline]
fn receive(
    mqd: &Mqd,
    buffer: &mut [u8],
    priority: Option<&mut u32>,
    patience: Patience,
) -> Result<Option<usize>, RecvError> {
    mqd.recv(buffer, priority, patience)
        .map_err(|error| RecvError::io("mq_timedreceive", error))
}

pub(crate) fn limits(mqd: &Mqd) -> Result<Limits, OpenError> {
    let attributes = mqd.attributes()?;
    Ok(Limits {
        max_message: attributes.max_msg_len,
        depth_messages: Some(attributes.capacity),
        depth_bytes: None,
    })
}
