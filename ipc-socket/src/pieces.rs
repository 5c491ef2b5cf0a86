//! Messages that the kernel may take in several buffers: how they go out in pieces.

use std::io::IoSlice;
use std::os::fd::AsFd;

use ipc_core::wait::Interest;
use ipc_core::{Limit, SendError, Wait};
use rustix::io::Errno;

use crate::Sender;
use crate::farewell::Owed;
use crate::frame::{self, HEADER, Pieces, Run, WHOLE_MAX};
use crate::sys;
use crate::wait::{Stop, complete};

/// Slices of one `sendmsg(2)` for a message in pieces: two a piece, 1 MiB at a time.
const SLICES: usize = 34;

impl Sender {
    /// Sends one; half way at its deadline it is taken back.
    pub(crate) fn send_pieces(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let pieces = Pieces::of(message.len());
        if wait == Wait::Never && message.len() > WHOLE_MAX {
            self.expect_room(pieces.total())?;
        }
        let mut sent = 0;
        while sent < pieces.total() {
            match self.push(message, pieces, sent, wait) {
                Ok(bytes) => sent += bytes,
                Err(stop) => {
                    if sent > 0 {
                        self.owed = Owed::after(pieces, sent);
                    }
                    return Err(self.explain(stop));
                }
            }
        }
        Ok(())
    }

    /// Whether a message can be sent without waiting. Beginning one that cannot would fill the
    /// buffer with pieces to be taken back, again at every attempt, and never get through.
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

    /// Gives the kernel what stands at `sent` and after it.
    fn push(
        &mut self,
        message: &[u8],
        pieces: Pieces,
        sent: usize,
        wait: Wait,
    ) -> Result<usize, Stop> {
        let mut headers = [[0; HEADER]; SLICES];
        let mut runs = [None; SLICES];
        let mut offset = sent;
        for (run, header) in runs.iter_mut().zip(&mut headers) {
            *run = pieces.at(offset);
            match *run {
                Some(Run::Header { piece, .. }) => *header = frame::part(piece),
                Some(Run::Verdict { .. }) => *header = frame::END,
                Some(Run::Payload { .. }) => {}
                None => break,
            }
            offset += run.map_or(0, Run::len);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for ((slice, run), header) in slices.iter_mut().zip(runs).zip(&headers) {
            *slice = match run {
                Some(Run::Header { from, .. } | Run::Verdict { from }) => {
                    IoSlice::new(&header[from..])
                }
                Some(Run::Payload { from, to }) => IoSlice::new(&message[from..to]),
                None => break,
            };
            count += 1;
        }
        let (socket, slices) = (self.socket.as_fd(), &slices[..count]);
        complete(
            &self.socket,
            Interest::Write,
            &mut self.waiter,
            wait,
            |sleep| sys::send_slices(socket, slices, sleep),
        )
    }
}
