//! Messages that the kernel may take in several buffers: how they go out, or are taken back.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::AsFd;

use ipc_core::wait::{Interest, Stop, complete};
use ipc_core::{Limit, SendError, Wait};
use rustix::io::Errno;

use crate::Sender;
use crate::frame::{ABANDONED, CHUNK, COMPLETE, HEADER, Header, Run, WHOLE_MAX};
use crate::sender::COPY_MAX;
use crate::sys;

/// Slices of one call for a message in chunks: two a chunk, 1 MiB at a time.
pub(crate) const SLICES: usize = 34;

/// How far a long frame got, of which at least a byte is in the stream and one is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abandoned {
    /// Length of its payload.
    pub(crate) len: usize,
    /// Bytes of the frame that are in the stream.
    pub(crate) done: usize,
}

/// The rest of a chunk and its verdict, the last byte.
static FILLER: [u8; CHUNK + 1] = [ABANDONED; CHUNK + 1];

impl Abandoned {
    /// What it owes to the stream, lest the receiver take the next header for the rest of it.
    pub(crate) fn owed<'a>(&self, header: &'a mut [u8; HEADER]) -> [IoSlice<'a>; 2] {
        *header = Header::Long(self.len).encode();
        let header = header.get(self.done..).unwrap_or(&[]);
        let filler = self.end() - self.done - header.len();
        [IoSlice::new(header), IoSlice::new(&FILLER[..filler])]
    }

    /// Where the frame ends now.
    fn end(&self) -> usize {
        Header::Long(self.len).end_of_chunk(self.done)
    }

    /// What remains after so many bytes of it were paid.
    pub(crate) fn pay(self, bytes: usize) -> Option<Self> {
        let done = self.done + bytes;
        (done < self.end()).then_some(Self { done, ..self })
    }
}

impl Sender {
    /// Sends one; half way at its deadline it is taken back.
    pub(crate) fn send_long(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let len = message.len();
        let total = Header::Long(len).total();
        if wait == Wait::Never && len > WHOLE_MAX {
            self.expect_room(total)?;
        }
        // Over TCP small messages come here too.
        let copied = total <= COPY_MAX;
        if copied {
            Header::Long(len).put(message, &mut self.scratch);
        }
        let mut done = 0;
        while done < total {
            let pushed = if copied {
                self.push_copied(done..total, wait)
            } else {
                self.push(message, done, wait)
            };
            match pushed {
                Ok(bytes) => done += bytes,
                Err(stop) => {
                    self.abandoned = (done > 0).then_some(Abandoned { len, done });
                    return Err(self.explain(stop));
                }
            }
        }
        Ok(())
    }

    /// Whether a message can be sent without waiting. Beginning one that cannot would fill the
    /// buffer with chunks to be taken back, again at every attempt, and never get through.
    fn expect_room(&mut self, bytes: usize) -> Result<(), SendError> {
        let charge = sys::charge(bytes);
        if charge > self.buffer {
            return Err(SendError::Limit(Limit {
                name: "SO_SNDBUF",
                value: Some(self.buffer as u64),
                advice: "this message exceeds the whole buffer: wait while it is sent, or ask for \
                         more capacity",
            }));
        }
        match sys::in_use(self.socket.as_fd()) {
            Ok(used) if used + charge > self.buffer => {
                // Nothing is sent, so the kernel has to be asked otherwise whether anybody reads.
                if sys::hung_up(self.socket.as_fd()) {
                    return Err(self.explain(Stop::Failed(Errno::PIPE)));
                }
                Err(SendError::Full)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(SendError::io("ioctl", error)),
        }
    }

    /// Gives the kernel what stands at `done` of the frame and after it.
    fn push(&mut self, message: &[u8], done: usize, wait: Wait) -> Result<usize, Stop> {
        let header = Header::Long(message.len()).encode();
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let runs = Header::Long(message.len()).runs(done);
        for (slice, run) in slices.iter_mut().zip(runs) {
            *slice = IoSlice::new(match run {
                Run::Header { from } => &header[from..],
                Run::Payload { from, to } => &message[from..to],
                Run::Verdict => &[COMPLETE],
            });
            count += 1;
        }
        let (socket, slices) = (self.socket.as_fd(), &slices[..count]);
        complete(
            self.socket.as_fd(),
            Interest::Write,
            &mut self.waiter,
            wait,
            |sleep| sys::send_slices(socket, slices, sleep),
        )
    }

    /// Gives the kernel what stands in this range of the scratch, or some of it.
    pub(crate) fn push_copied(&mut self, range: Range<usize>, wait: Wait) -> Result<usize, Stop> {
        let (socket, bytes) = (self.socket.as_fd(), &self.scratch[range]);
        complete(
            self.socket.as_fd(),
            Interest::Write,
            &mut self.waiter,
            wait,
            |sleep| sys::send(socket, bytes, sleep),
        )
    }

    /// Pays what is owed, before anything else may enter the stream.
    pub(crate) fn settle(&mut self, wait: Wait) -> Result<(), SendError> {
        while let Some(abandoned) = self.abandoned {
            let mut header = [0; HEADER];
            let (socket, owed) = (self.socket.as_fd(), abandoned.owed(&mut header));
            let paid = complete(
                self.socket.as_fd(),
                Interest::Write,
                &mut self.waiter,
                wait,
                |sleep| sys::send_slices(socket, &owed, sleep),
            );
            match paid {
                Ok(bytes) => self.abandoned = abandoned.pay(bytes),
                Err(stop) => return Err(self.explain(stop)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_leads_to_the_end_of_the_chunk_however_it_is_paid() {
        let len = CHUNK + 3;
        let total = Header::Long(len).total();
        let first = HEADER + CHUNK + 1;
        for done in [1, 3, 4, 5, first - 1, first, first + 1, total - 1] {
            let abandoned = Abandoned { len, done };
            let mut header = [0; HEADER];
            let owed = abandoned.owed(&mut header).map(|slice| slice.len());
            let owed = owed[0] + owed[1];
            assert_eq!(done + owed, if done < first { first } else { total });
            assert_eq!(abandoned.pay(owed), None);
            let done = done + owed - 1;
            let rest = abandoned.pay(owed - 1);
            assert_eq!(rest, Some(Abandoned { len, done }));
        }
    }
}
