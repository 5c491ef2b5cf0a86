use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use ipc_core::wait::{Interest, Stop, complete};
use ipc_core::{Custody, Limits, OpenError, Pollable, SendError, Wait, Waiter};
use rustix::io::Errno;

use crate::Options;
use crate::frame::{self, HEADER, PIPE_BUF, SHORT};
use crate::notes::Notes;
use crate::sys::Descriptor;

/// The writing end of a pipe.
#[derive(Debug)]
pub struct Sender {
    pub(crate) pipe: Descriptor,
    pub(crate) notes: Notes,
    pub(crate) waiter: Waiter,
    pub(crate) max_message: usize,
    pub(crate) capacity: usize,
    /// Other senders write to this pipe: only short frames keep apart from theirs.
    pub(crate) shared: bool,
    /// The long frame that was left short at its deadline; the rest of it goes out before
    /// anything else.
    pub(crate) abandoned: Option<Abandoned>,
    pub(crate) custody: Custody,
    /// Short frames are put together here, so that one write carries them.
    scratch: Box<[u8; PIPE_BUF]>,
}

/// How far a long frame got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abandoned {
    /// Length of its payload.
    pub(crate) len: usize,
    /// Bytes of the frame that are in the pipe.
    pub(crate) done: usize,
}

impl Sender {
    pub(crate) fn new(pipe: Descriptor, notes: Notes, options: &Options) -> Self {
        let capacity = rustix::pipe::fcntl_getpipe_size(&pipe).unwrap_or(PIPE_BUF);
        Self {
            pipe,
            notes,
            waiter: Waiter::new(options.strategy),
            max_message: options.max_message,
            capacity,
            shared: false,
            abandoned: None,
            custody: Custody::new(),
            scratch: Box::new([0; PIPE_BUF]),
        }
    }

    /// A second sender of the same channel, for another thread or process. From now on both carry
    /// messages up to `PIPE_BUF - 4` bytes only, which the kernel writes whole; longer ones would
    /// run into each other.
    ///
    /// # Errors
    /// `Io` when descriptors run out; `Invalid` while a long message that missed its deadline is
    /// still half in the pipe: send another first.
    pub fn try_clone(&mut self) -> Result<Self, OpenError> {
        if self.abandoned.is_some() {
            return Err(OpenError::Invalid {
                what: "a message that missed its deadline is half in the pipe; send again first",
            });
        }
        let pipe = self
            .pipe
            .try_clone()
            .map_err(|e| OpenError::io("fcntl", e))?;
        let notes = self.notes.try_clone()?;
        notes.sender_opened()?;
        self.shared = true;
        Ok(Self {
            pipe,
            notes,
            waiter: Waiter::new(self.waiter.strategy()),
            max_message: self.max_message,
            capacity: self.capacity,
            shared: true,
            abandoned: None,
            custody: Custody::new(),
            scratch: Box::new([0; PIPE_BUF]),
        })
    }

    fn max(&self) -> usize {
        if self.shared {
            self.max_message.min(SHORT)
        } else {
            self.max_message
        }
    }

    /// Puts the first `len` bytes of the scratch into the pipe, whole.
    #[inline]
    fn write_short(&mut self, len: usize, wait: Wait) -> Result<(), SendError> {
        if self.abandoned.is_some() {
            self.settle(wait)?;
        }
        let buffers = [IoSlice::new(&self.scratch[..len])];
        // A write of at most PIPE_BUF bytes is never partial (pipe(7)).
        match write_some(&self.pipe, &mut self.waiter, &buffers, wait) {
            Ok(_) => Ok(()),
            Err(stop) => Err(self.explain(stop)),
        }
    }

    fn write_long(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        self.settle(wait)?;
        let whole = HEADER + message.len() + 1;
        if wait == Wait::Never && !self.has_room(whole)? {
            return Err(SendError::Full);
        }
        let header = frame::header(message.len());
        let verdict = [frame::COMPLETE];
        let mut done = 0;
        while done < whole {
            let buffers = [
                IoSlice::new(header.get(done..).unwrap_or(&[])),
                IoSlice::new(message.get(done.saturating_sub(HEADER)..).unwrap_or(&[])),
                IoSlice::new(&verdict),
            ];
            match write_some(&self.pipe, &mut self.waiter, &buffers, wait) {
                Ok(written) => done += written,
                Err(stop) => {
                    let len = message.len();
                    self.abandoned = (done > 0).then_some(Abandoned { len, done });
                    return Err(self.explain(stop));
                }
            }
        }
        Ok(())
    }

    /// Whether a long frame fits at once. The kernel's buffer is made of pages that may be part
    /// full, so only an empty pipe promises its whole capacity.
    fn has_room(&self, whole: usize) -> Result<bool, SendError> {
        let unread = rustix::io::ioctl_fionread(&self.pipe)
            .map_err(|e| SendError::io("ioctl(FIONREAD)", e))?;
        Ok(unread == 0 && whole <= self.capacity)
    }

    /// Fills up the frame that was left half-way with zeros; its verdict, the last byte, is
    /// [`frame::ABANDONED`], also a zero. The kernel may have split even its header.
    fn settle(&mut self, wait: Wait) -> Result<(), SendError> {
        const { assert!(frame::ABANDONED == 0) }
        const ZEROS: [u8; PIPE_BUF] = [0; PIPE_BUF];
        while let Some(Abandoned { len, done }) = self.abandoned {
            let header = frame::header(len);
            let header = header.get(done..).unwrap_or(&[]);
            let filling = HEADER + len + 1 - done - header.len();
            let rest = [
                IoSlice::new(header),
                IoSlice::new(&ZEROS[..filling.min(PIPE_BUF)]),
            ];
            let written = write_some(&self.pipe, &mut self.waiter, &rest, wait);
            let done = done + written.map_err(|stop| self.explain(stop))?;
            self.abandoned = (done < HEADER + len + 1).then_some(Abandoned { len, done });
        }
        Ok(())
    }

    #[cold]
    fn explain(&self, stop: Stop) -> SendError {
        match stop {
            Stop::WouldWait => SendError::Full,
            Stop::TimedOut => SendError::TimedOut,
            Stop::Failed(Errno::PIPE) if self.notes.is_receiver_closed() => SendError::Closed,
            Stop::Failed(Errno::PIPE) => SendError::PeerDied,
            Stop::Failed(error) => SendError::io("write", error),
        }
    }
}

/// Writes something of `buffers`, waiting for room as the strategy and `wait` say.
#[inline]
fn write_some(
    pipe: &Descriptor,
    waiter: &mut Waiter,
    buffers: &[IoSlice<'_>],
    wait: Wait,
) -> Result<usize, Stop> {
    complete(pipe.as_fd(), Interest::Write, waiter, wait, |sleep| {
        pipe.write(buffers, sleep)
    })
}

impl ipc_core::Sender for Sender {
    #[inline]
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let (len, max) = (message.len(), self.max());
        if len > max {
            return Err(SendError::TooLong { len, max });
        }
        if len > SHORT {
            return self.write_long(message, wait);
        }
        self.scratch[..HEADER].copy_from_slice(&frame::header(len));
        self.scratch[HEADER..HEADER + len].copy_from_slice(message);
        self.write_short(HEADER + len, wait)
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: self.max(),
            depth_messages: None,
            depth_bytes: Some(self.capacity),
        }
    }

    /// As many frames as fit into `PIPE_BUF` go out in one write.
    fn send_batch_with(&mut self, batch: &[IoSlice<'_>], wait: Wait) -> Result<usize, SendError> {
        let mut sent = 0;
        while sent < batch.len() {
            let wait = if sent == 0 { wait } else { Wait::Never };
            let (mut filled, mut count) = (0, 0);
            for message in &batch[sent..] {
                let end = filled + HEADER + message.len();
                if end > PIPE_BUF || message.len() > self.max() {
                    break;
                }
                self.scratch[filled..filled + HEADER]
                    .copy_from_slice(&frame::header(message.len()));
                self.scratch[filled + HEADER..end].copy_from_slice(message);
                (filled, count) = (end, count + 1);
            }
            let outcome = if count == 0 {
                count = 1;
                self.send_with(&batch[sent], wait)
            } else {
                self.write_short(filled, wait)
            };
            match outcome {
                Ok(()) => sent += count,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }
}

impl Pollable for Sender {
    fn interest(&self) -> Interest {
        Interest::Write
    }

    fn longest_ready(&self) -> usize {
        // One free slot is enough for it, and a pipe without one wakes its writers when it has.
        SHORT
    }
}

impl ipc_core::TryClone for Sender {
    fn try_clone(&mut self) -> Result<Self, OpenError> {
        Self::try_clone(self)
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.custody.is_ours() {
            self.notes.sender_closed();
        }
    }
}
