use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};

use ipc_core::wait::{Interest, Sleep, Stop, complete};
use ipc_core::{Custody, Flood, Limits, Pacer, Pollable, RecvError, Wait, Waiter};

use crate::Options;
use crate::frame::{self, Front, HEADER, PIPE_BUF};
use crate::notes::Notes;
use crate::sys::Descriptor;

/// What one read takes in at most while frames are short: the kernel's default pipe.
const INTAKE: usize = 16 * PIPE_BUF;

/// From here on, in bytes, a frame is read straight to where the caller wants it: a copy of so much
/// costs more than a call.
const BULK: usize = INTAKE / 4;

/// Of what follows the payload of such a frame, this much is read in with it: the verdict, the next
/// header, and little that would have to be copied again.
const BESIDE: usize = PIPE_BUF;

/// The reading end of a pipe.
#[derive(Debug)]
pub struct Receiver {
    pub(crate) pipe: Descriptor,
    pub(crate) notes: Notes,
    pub(crate) waiter: Waiter,
    pub(crate) max_message: usize,
    pub(crate) capacity: usize,
    pub(crate) custody: Custody,
    /// Bytes read in and not yet handed out are `buffer[start..end]`.
    pub(crate) buffer: Vec<u8>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pacer: Pacer,
    /// Messages of the last intake that were handed out.
    handed_out: usize,
    /// Whether the last message was read straight to its place, as the next will be then.
    in_bulk: bool,
}

impl Receiver {
    pub(crate) fn new(pipe: Descriptor, notes: Notes, options: &Options) -> Self {
        let capacity = rustix::pipe::fcntl_getpipe_size(&pipe).unwrap_or(PIPE_BUF);
        Self {
            pipe,
            notes,
            waiter: Waiter::new(options.strategy),
            max_message: options.max_message,
            capacity,
            custody: Custody::new(),
            buffer: vec![0; INTAKE + BESIDE],
            start: 0,
            end: 0,
            pacer: Pacer::default(),
            handed_out: 0,
            in_bulk: false,
        }
    }

    /// Makes room for so many bytes behind `end`. Grows by doubling as bytes arrive, so that a
    /// length which a hostile sender claims makes nobody allocate.
    fn make_room(&mut self, bytes: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start > 0 && self.end + bytes > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end + bytes > self.buffer.len() {
            let longest = self.max_message + HEADER + 1;
            let len = (2 * self.end).min(longest).max(self.end + bytes);
            self.buffer.resize(len, 0);
        }
    }

    #[inline]
    fn gather(&mut self, wait: Wait) {
        let came = std::mem::take(&mut self.handed_out);
        if wait != Wait::Never {
            self.pacer.gather(came, self.waiter.strategy());
        }
    }

    /// Reads something in.
    #[inline]
    fn read_in(&mut self, needed: usize, wait: Wait) -> Result<(), RecvError> {
        self.gather(wait);
        // What is beyond the room of a bulk read would have to be moved before it.
        self.make_room(2 * BESIDE);
        let room = if self.in_bulk && needed == HEADER {
            self.end + BESIDE
        } else {
            self.buffer.len() - BESIDE
        };
        let room = &mut self.buffer[self.end..room];
        let room = &mut [IoSliceMut::new(room)];
        let outcome = read_some(&self.pipe, &mut self.waiter, room, wait);
        self.end += self.came(outcome)?;
        Ok(())
    }

    /// Reads the rest of the frame at the front straight into `payload`, and says whether it is a
    /// message. Until the frame is whole, what came of it earlier stays in front of `end`; so when
    /// the wait is over first, what came now is put behind it, and the next call may bring any
    /// other buffer.
    fn read_bulk(
        &mut self,
        payload: &mut [u8],
        flood: &mut Flood,
        wait: Wait,
    ) -> Result<bool, RecvError> {
        self.gather(wait);
        self.make_room(BESIDE);
        let earlier = self.end - self.start - HEADER;
        let mut filled = earlier;
        let outcome = loop {
            let rest = &mut payload[filled..];
            let missing = rest.len();
            let beside = &mut self.buffer[self.end..self.end + BESIDE];
            let room = &mut [IoSliceMut::new(rest), IoSliceMut::new(beside)];
            let outcome = read_some(&self.pipe, &mut self.waiter, room, wait);
            match self.came(outcome) {
                Ok(len) if len > missing => break Ok(len - missing),
                Ok(len) => filled += len,
                Err(error) => break Err(error),
            }
            if let Err(given_up) = flood.check(wait) {
                break Err(given_up);
            }
        };
        match outcome {
            Ok(beside) if frame::is_verdict(self.buffer[self.end]) => {
                let message = self.buffer[self.end] == frame::COMPLETE;
                let from = self.start + HEADER;
                payload[..earlier].copy_from_slice(&self.buffer[from..from + earlier]);
                (self.start, self.end) = (self.end + 1, self.end + beside);
                Ok(message)
            }
            Ok(_) => {
                // As the front of what was read in, it is found corrupt, now and later.
                let verdict = self.buffer[self.end];
                self.put_in(&payload[earlier..]);
                self.put_in(&[verdict]);
                Ok(false)
            }
            Err(error) => {
                self.put_in(&payload[earlier..filled]);
                Err(error)
            }
        }
    }

    /// What a read brought: how many bytes.
    #[inline]
    fn came(&self, outcome: Result<usize, Stop>) -> Result<usize, RecvError> {
        match outcome {
            // No writer is left. What there is of a frame died with its sender: none of it arrives.
            Ok(0) if self.notes.all_senders_closed() => Err(RecvError::Closed),
            Ok(0) => Err(RecvError::PeerDied),
            Ok(len) => Ok(len),
            Err(Stop::WouldWait) => Err(RecvError::Empty),
            Err(Stop::TimedOut) => Err(RecvError::TimedOut),
            Err(Stop::Failed(error)) => Err(RecvError::io("read", error)),
        }
    }

    /// Adds bytes to those that were read in.
    fn put_in(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        let end = self.end + bytes.len();
        self.buffer[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }
}

/// Reads something into `room`, waiting for it as the strategy and `wait` say.
#[inline]
fn read_some(
    pipe: &Descriptor,
    waiter: &mut Waiter,
    room: &mut [IoSliceMut<'_>],
    wait: Wait,
) -> Result<usize, Stop> {
    let mut looks = false;
    complete(pipe.as_fd(), Interest::Read, waiter, wait, |sleep| {
        if looks && sleep == Sleep::Never {
            contend_less();
        }
        looks = true;
        pipe.read(room, sleep)
    })
}

/// Half a microsecond between two looks: each takes the lock of the pipe (`anon_pipe_read`), which
/// the sender needs for the message that is looked for.
fn contend_less() {
    for _ in 0..16 {
        std::hint::spin_loop();
    }
}

impl ipc_core::Receiver for Receiver {
    #[inline]
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        let mut flood = Flood::default();
        loop {
            match frame::front(&self.buffer[self.start..self.end], self.max_message) {
                Front::Message { len, .. } if len > buffer.len() => {
                    return Err(RecvError::BufferTooSmall { needed: len });
                }
                Front::Message { len, whole } => {
                    let payload = self.start + HEADER;
                    buffer[..len].copy_from_slice(&self.buffer[payload..payload + len]);
                    self.start += whole;
                    self.handed_out += 1;
                    self.in_bulk = false;
                    return Ok(len);
                }
                Front::Skip { whole } => self.start += whole,
                Front::Corrupt { what } => return Err(RecvError::Corrupt { what }),
                Front::Partial { needed } => {
                    flood.check(wait)?;
                    let len = needed - HEADER - usize::from(needed > PIPE_BUF);
                    if needed < BULK || len > buffer.len() {
                        self.read_in(needed, wait)?;
                    } else if self.read_bulk(&mut buffer[..len], &mut flood, wait)? {
                        self.handed_out += 1;
                        self.in_bulk = true;
                        return Ok(len);
                    }
                }
            }
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: self.max_message,
            depth_messages: None,
            depth_bytes: Some(self.capacity),
        }
    }
}

impl Pollable for Receiver {
    fn interest(&self) -> Interest {
        Interest::Read
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.custody.is_ours() {
            self.notes.receiver_closed();
        }
    }
}

#[cfg(test)]
mod tests {
    use ipc_core::{Channel, Receiver as _, Sender as _};

    use super::*;
    use crate::Pipe;

    #[test]
    fn long_messages_are_not_gathered_in_the_own_buffer() {
        let (mut sender, mut receiver) = Pipe::pair(&Options::default()).unwrap();
        let message: Vec<u8> = (0..1_000_003u32).map(|i| (i % 251) as u8).collect();
        let mut buffer = vec![0; message.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| (0..4).for_each(|_| sender.send(&message).unwrap()));
            for _ in 0..4 {
                assert_eq!(receiver.recv(&mut buffer).unwrap(), message.len());
                assert!(buffer == message);
            }
        });
        assert_eq!(receiver.buffer.len(), INTAKE + BESIDE);
    }
}
