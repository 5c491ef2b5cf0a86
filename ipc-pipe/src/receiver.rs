use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Limits, Pacer, Pollable, RecvError, Wait, WaitStrategy, Waiter};

use crate::Options;
use crate::frame::{self, Front, HEADER, PIPE_BUF};
use crate::notes::Notes;
use crate::sys::Descriptor;

/// What one read takes in at most while frames are short: the kernel's default pipe.
const INTAKE: usize = 16 * PIPE_BUF;

/// The reading end of a pipe.
#[derive(Debug)]
pub struct Receiver {
    pub(crate) pipe: Descriptor,
    pub(crate) notes: Notes,
    pub(crate) waiter: Waiter,
    pub(crate) max_message: usize,
    pub(crate) capacity: usize,
    pub(crate) released: Cell<bool>,
    /// Bytes read in and not yet handed out are `buffer[start..end]`.
    pub(crate) buffer: Vec<u8>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pacer: Pacer,
    /// Messages of the last intake that were handed out.
    handed_out: usize,
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
            released: Cell::new(false),
            buffer: vec![0; INTAKE],
            start: 0,
            end: 0,
            pacer: Pacer::default(),
            handed_out: 0,
        }
    }

    /// Makes room behind `end`. Grows by doubling as bytes arrive, so that a length which a
    /// hostile sender claims makes nobody allocate.
    fn make_room(&mut self, needed: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start > 0 && self.start + needed > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(
                (2 * self.end)
                    .min(self.max_message + HEADER + 1)
                    .max(INTAKE),
                0,
            );
        }
    }

    /// Reads something in. `Ok(false)`: no writer is left.
    fn read_some(&mut self, wait: Wait) -> Result<bool, RecvError> {
        // Two messages a read have room for the call that gathering costs: never more than one
        // call a message.
        if std::mem::take(&mut self.handed_out) > 1 && wait != Wait::Never {
            self.pacer.gather();
        }
        let Self {
            pipe,
            waiter,
            buffer,
            end,
            ..
        } = self;
        let pipe = &*pipe;
        let room = &mut buffer[*end..];
        let failed = |error| RecvError::io("preadv2", error);
        let len = if wait == Wait::Forever && waiter.strategy() == WaitStrategy::Block {
            pipe.read(room).map_err(|e| RecvError::io("read", e))?
        } else {
            loop {
                let mut attempt = || pipe.read_now(&mut *room).map_err(failed);
                if let Some(len) = attempt()? {
                    break len;
                }
                if wait == Wait::Never {
                    return Err(RecvError::Empty);
                }
                let look = || {
                    contend_less();
                    attempt()
                };
                if let Some(len) = waiter.look(wait, look)? {
                    break len;
                }
                if wait == Wait::Forever {
                    break pipe.read(room).map_err(|e| RecvError::io("read", e))?;
                }
                match poll([(pipe.as_fd(), Interest::Read)], wait) {
                    Ok(Polled::Ready) => {}
                    Ok(Polled::TimedOut) => return Err(RecvError::TimedOut),
                    Err(error) => return Err(RecvError::io("ppoll", error)),
                }
            }
        };
        *end += len;
        Ok(len > 0)
    }
}

/// Reads of one call that are above suspicion: several times what the longest whole message in a
/// pipe takes, since the buffer doubles.
const READS: usize = 64;
/// So long a call whose wait is over goes on with a pipe that never runs dry.
const GRACE: Duration = Duration::from_millis(20);

/// A peer that keeps sending what never becomes a message must not keep a caller beyond its
/// deadline, nor one who would not wait at all.
#[derive(Default)]
struct Flood {
    reads: usize,
    since: Option<Instant>,
}

impl Flood {
    #[inline]
    fn check(&mut self, wait: Wait) -> Result<(), RecvError> {
        self.reads += 1;
        if self.reads <= READS || !wait.is_over() {
            return Ok(());
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() < GRACE {
            return Ok(());
        }
        Err(match wait {
            Wait::Never => RecvError::Empty,
            _ => RecvError::TimedOut,
        })
    }
}

/// Half a microsecond between two looks: each takes the lock of the pipe (`anon_pipe_read`), which
/// the sender needs for the message that is looked for.
fn contend_less() {
    for _ in 0..16 {
        std::hint::spin_loop();
    }
}

impl ipc_core::Receiver for Receiver {
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
                    return Ok(len);
                }
                Front::Skip { whole } => self.start += whole,
                Front::Corrupt { what } => return Err(RecvError::Corrupt { what }),
                Front::Partial { needed } => {
                    flood.check(wait)?;
                    self.make_room(needed);
                    if !self.read_some(wait)? {
                        // What is left of a frame died with its sender: none of it arrives.
                        return Err(if self.notes.all_senders_closed() {
                            RecvError::Closed
                        } else {
                            RecvError::PeerDied
                        });
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
        if !self.released.get() {
            self.notes.receiver_closed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a pipe that never runs dry makes a call do.
    fn reads_until_given_up(wait: Wait) -> (Duration, RecvError) {
        let (start, mut flood) = (Instant::now(), Flood::default());
        loop {
            if let Err(given_up) = flood.check(wait) {
                return (start.elapsed(), given_up);
            }
            assert!(start.elapsed() < 50 * GRACE, "{wait:?} goes on for ever");
        }
    }

    #[test]
    fn a_flood_that_is_no_message_ends_with_the_wait() {
        let (took, given_up) = reads_until_given_up(Wait::Never);
        assert!(took >= GRACE && matches!(given_up, RecvError::Empty));
        // Its clock began to run before ours.
        let (took, given_up) = reads_until_given_up(Wait::at_most(Duration::from_millis(5)));
        assert!(took >= GRACE && matches!(given_up, RecvError::TimedOut));
    }

    #[test]
    fn a_long_message_is_no_flood() {
        let mut flood = Flood::default();
        assert!((0..READS).all(|_| flood.check(Wait::Never).is_ok()));
        assert!(
            flood.check(Wait::Never).is_ok(),
            "a first look at the clock"
        );
    }
}
