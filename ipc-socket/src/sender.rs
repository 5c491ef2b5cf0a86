use std::fmt;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::wait::{Interest, Stop, complete};
use ipc_core::{Custody, Limit, Limits, Pollable, SendError, Wait, Waiter};
use rustix::io::Errno;

use crate::farewell::{self, Gone};
use crate::frame::{HEADER, Header, RIGHTS_MAX, WHOLE_MAX};
use crate::long::Abandoned;
use crate::sys::{self, MAX_DESCRIPTORS, Transport};
use crate::{Credentials, Options, credentials};

/// The sending end of a socket channel. Dropping it closes the channel in good order.
pub struct Sender {
    pub(crate) socket: OwnedFd,
    pub(crate) transport: Transport,
    pub(crate) max_message: usize,
    pub(crate) descriptors: bool,
    /// Size of the send buffer as the kernel counts.
    pub(crate) buffer: usize,
    pub(crate) waiter: Waiter,
    /// Where small messages are put together with their headers, for one `send(2)`.
    pub(crate) scratch: Box<[u8]>,
    /// The long message that was left short at its deadline; what it owes to the stream goes out
    /// before anything else.
    pub(crate) abandoned: Option<Abandoned>,
    pub(crate) gone: Option<Gone>,
    pub(crate) custody: Custody,
}

/// Up to here a copy beside the header is cheaper than a second slice.
pub(crate) const COPY_MAX: usize = 4 << 10;

impl Sender {
    pub(crate) fn new(
        socket: OwnedFd,
        transport: Transport,
        buffer: usize,
        options: &Options,
    ) -> Self {
        Self {
            socket,
            transport,
            max_message: options.max_message,
            descriptors: options.descriptors,
            buffer,
            waiter: Waiter::new(options.wait_strategy),
            scratch: vec![0; HEADER + WHOLE_MAX].into_boxed_slice(),
            abandoned: None,
            gone: None,
            custody: Custody::new(),
        }
    }

    /// Sends a message together with copies of descriptors, both or neither. The receiver takes
    /// them by [`Receiver::recv_with_descriptors`](crate::Receiver::recv_with_descriptors).
    ///
    /// # Errors
    /// As [`ipc_core::Sender::send_with`]; `TooLong` above 32,763 B; `Limit` for more than 253
    /// descriptors, for a channel made without
    /// [`Options::descriptors`](crate::Options::descriptors), or for too many descriptors under
    /// way (ETOOMANYREFS).
    pub fn send_with_descriptors(
        &mut self,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> Result<(), SendError> {
        if !self.descriptors {
            return Err(SendError::Limit(Limit {
                name: "Options::descriptors",
                value: Some(0),
                advice: "open the channel with descriptors(true), over a Unix socket",
            }));
        }
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(SendError::Limit(Limit {
                name: "SCM_MAX_FD",
                value: Some(MAX_DESCRIPTORS as u64),
                advice: "send the descriptors in several messages",
            }));
        }
        let max = RIGHTS_MAX.min(self.max_message);
        self.check(message.len(), max)?;
        self.settle(wait)?;
        let header = Header::Rights(message.len()).encode();
        let count = [descriptors.len() as u8];
        let slices = [
            IoSlice::new(&header),
            IoSlice::new(&count),
            IoSlice::new(message),
        ];
        let socket = self.socket.as_fd();
        let outcome = complete(
            self.socket.as_fd(),
            Interest::Write,
            &mut self.waiter,
            wait,
            |sleep| {
                if descriptors.is_empty() {
                    sys::send_slices(socket, &slices, sleep)
                } else {
                    sys::send_rights(socket, &slices, descriptors, sleep)
                }
            },
        );
        outcome.map(drop).map_err(|stop| self.explain(stop))
    }

    /// Who made the other end, as the kernel recorded it when the two were connected. Of a
    /// [`pair`](ipc_core::Channel::pair) that is the process that called it, not the one that
    /// uses the other end now. `None` over TCP.
    #[must_use]
    pub fn peer_credentials(&self) -> Option<Credentials> {
        Credentials::of(self.socket.as_fd(), self.transport)
    }

    /// A descriptor of the process that [`peer_credentials`](Self::peer_credentials) names: readable
    /// once that process has ended, and good for signals to it and nobody else (`pidfd_open(2)`).
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 6.5, ESRCH or EINVAL when an older kernel has forgotten that process,
    /// EMFILE; `Unsupported` over TCP.
    pub fn peer_pidfd(&self) -> std::io::Result<OwnedFd> {
        credentials::pidfd(self.socket.as_fd(), self.transport)
    }

    fn check(&self, len: usize, max: usize) -> Result<(), SendError> {
        if let Some(gone) = self.gone {
            return Err(gone.to_send());
        }
        if len > max {
            return Err(SendError::TooLong { len, max });
        }
        Ok(())
    }

    /// One frame in one buffer of the kernel: all of it or nothing, and one system call.
    #[inline]
    fn send_whole(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let header = Header::Whole(message.len());
        let outcome = if header.total() <= COPY_MAX {
            let length = header.put(message, &mut self.scratch);
            self.push_copied(0..length, wait)
        } else {
            let (header, socket) = (header.encode(), self.socket.as_fd());
            let slices = [IoSlice::new(&header), IoSlice::new(message)];
            complete(
                self.socket.as_fd(),
                Interest::Write,
                &mut self.waiter,
                wait,
                |sleep| sys::send_slices(socket, &slices, sleep),
            )
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(stop) => Err(self.explain(stop)),
        }
    }

    #[cold]
    pub(crate) fn explain(&mut self, stop: Stop) -> SendError {
        match stop {
            Stop::WouldWait => SendError::Full,
            Stop::TimedOut => SendError::TimedOut,
            Stop::Failed(Errno::PIPE | Errno::CONNRESET | Errno::TIMEDOUT) => {
                let gone = farewell::ask(self.socket.as_fd());
                self.gone = Some(gone);
                gone.to_send()
            }
            Stop::Failed(Errno::TOOMANYREFS) => SendError::Limit(Limit {
                name: "RLIMIT_NOFILE",
                value: None,
                advice: "let the receiver take the descriptors that are under way",
            }),
            Stop::Failed(Errno::NOBUFS | Errno::NOMEM) => SendError::Limit(Limit {
                name: "memory",
                value: None,
                advice: "free memory or raise the limit of the control group",
            }),
            Stop::Failed(error) => SendError::io("sendmsg", error),
        }
    }
}

impl ipc_core::Sender for Sender {
    #[inline]
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        self.check(message.len(), self.max_message)?;
        if self.abandoned.is_some() {
            self.settle(wait)?;
        }
        // TCP takes any number of bytes, so there no message is sure to go out as one.
        if self.transport == Transport::Unix && message.len() <= WHOLE_MAX {
            self.send_whole(message, wait)
        } else {
            self.send_long(message, wait)
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: self.max_message,
            depth_messages: None,
            depth_bytes: Some(sys::uncharge(self.buffer)),
        }
    }

    /// As many messages as fit into 32 KiB with their frames go in one `send(2)`: over a Unix socket
    /// all of them or none, over TCP as many as there is room for.
    fn send_batch_with(&mut self, batch: &[IoSlice<'_>], wait: Wait) -> Result<usize, SendError> {
        let mut sent = 0;
        let mut wait = wait;
        while sent < batch.len() {
            match self.send_together(&batch[sent..], wait) {
                Ok(count) => sent += count,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
            wait = Wait::Never;
        }
        Ok(sent)
    }
}

impl Sender {
    /// Sends the first messages of a batch that is not empty: how many.
    fn send_together(&mut self, batch: &[IoSlice<'_>], wait: Wait) -> Result<usize, SendError> {
        if let Some(gone) = self.gone {
            return Err(gone.to_send());
        }
        self.settle(wait)?;
        let frame = match self.transport {
            Transport::Unix => Header::Whole,
            Transport::Tcp => Header::Long,
        };
        let (mut count, mut length) = (0, 0);
        for message in batch {
            let header = frame(message.len());
            let end = length + header.total();
            if end > self.scratch.len() || message.len() > self.max_message {
                break;
            }
            header.put(message, &mut self.scratch[length..]);
            (count, length) = (count + 1, end);
        }
        if count < 2 {
            return ipc_core::Sender::send_with(self, &batch[0], wait).map(|()| 1);
        }
        let first = frame(batch[0].len()).total();
        let mut done = 0;
        while done < first {
            match self.push_copied(done..length, wait) {
                Ok(bytes) => done += bytes,
                Err(stop) => {
                    let len = batch[0].len();
                    self.abandoned = (done > 0).then_some(Abandoned { len, done });
                    return Err(self.explain(stop));
                }
            }
        }
        // TCP may have cut the frames anywhere.
        for (sent, message) in batch[..count].iter().enumerate() {
            let len = message.len();
            let total = frame(len).total();
            if done < total {
                self.abandoned = (done > 0).then_some(Abandoned { len, done });
                return Ok(sent);
            }
            done -= total;
        }
        Ok(count)
    }
}

impl Pollable for Sender {
    fn interest(&self) -> Interest {
        Interest::Write
    }

    fn longest_ready(&self) -> usize {
        // The kernel takes it in one buffer whenever the socket is writable.
        WHOLE_MAX
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.gone.is_none() && self.custody.is_ours() {
            farewell::say(self.socket.as_fd(), self.abandoned);
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("socket", &self.socket)
            .field("transport", &self.transport)
            .field("max_message", &self.max_message)
            .finish_non_exhaustive()
    }
}
