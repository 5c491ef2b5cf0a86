//! The private socket between a process and the one that started it. `SOCK_SEQPACKET`: a frame
//! arrives whole or not at all, and the end of the other side is an empty read.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use rustix::fs::{FileType, MemfdFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

pub(crate) use crate::frame::{Frame, Kind};
use crate::limits::check_memfd;

/// The kernel passes at most `SCM_MAX_FD` = 253 descriptors a message (unix(7)).
pub(crate) const MAX_DESCRIPTORS: usize = 250;

/// A longer body travels in a memfd, so that a frame always fits into the socket's buffer
/// (`net.core.wmem_default`, 208 KiB) and its sender never waits for a reader: a process can
/// leave its result behind and end.
pub(crate) const MAX_INLINE: usize = 64 * 1024;

const HEADER: usize = 2;

/// One end of the control socket.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Control {
    pub(crate) fn pair() -> Result<(Self, Self), Errno> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    pub(crate) fn from_fd(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a frame; `wait` is called whenever the socket has no room and may give up.
    pub(crate) fn send(
        &self,
        frame: Frame,
        mut wait: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let Frame {
            kind,
            mut body,
            mut descriptors,
        } = frame;
        let in_memfd = body.len() > MAX_INLINE;
        if in_memfd {
            descriptors.push(memfd(&body)?);
            body.clear();
        }
        let last = descriptors.len() - descriptors.len() % MAX_DESCRIPTORS;
        let (ahead, with_body) = descriptors.split_at(last);
        for chunk in ahead.chunks(MAX_DESCRIPTORS) {
            self.send_packet(&[Kind::Descriptors as u8, 0], &[], chunk, &mut wait)?;
        }
        self.send_packet(
            &[kind as u8, u8::from(in_memfd)],
            &body,
            with_body,
            &mut wait,
        )
    }

    fn send_packet(
        &self,
        header: &[u8; HEADER],
        body: &[u8],
        descriptors: &[OwnedFd],
        wait: &mut impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        loop {
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !borrowed.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
            }
            let sent = rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(header), IoSlice::new(body)],
                &mut ancillary,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            );
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => wait()?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives the next frame: `Ok(None)` at the end of the other side, `TimedOut` when the wait is
    /// over first.
    pub(crate) fn recv(&self, wait: Wait) -> io::Result<Option<Frame>> {
        let mut pending = Vec::new();
        loop {
            match self.try_recv(&mut pending) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if poll([(self.as_fd(), Interest::Read)], wait)? == Polled::TimedOut {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }

    /// Receives the next frame if all of it is there: `Ok(None)` at the end of the other side,
    /// `WouldBlock` if there is nothing yet. `pending` keeps what came ahead of a frame.
    pub(crate) fn try_recv(&self, pending: &mut Vec<OwnedFd>) -> io::Result<Option<Frame>> {
        loop {
            let Some(length) = self.next_length()? else {
                return Ok(None);
            };
            let mut buffer = vec![0; length.min(HEADER + MAX_INLINE)];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut ancillary,
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            );
            let received = match received {
                Ok(received) => received,
                Err(Errno::INTR | Errno::CONNRESET) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    pending.extend(descriptors);
                }
            }
            if received
                .flags
                .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
            {
                // CTRUNC: the kernel had descriptors for us that RLIMIT_NOFILE did not admit.
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a control frame was cut short; is RLIMIT_NOFILE reached?",
                ));
            }
            let packet = buffer.get(..received.bytes).unwrap_or_default();
            let [kind, in_memfd, body @ ..] = packet else {
                return Err(malformed());
            };
            let kind = Kind::from_byte(*kind).ok_or_else(malformed)?;
            if kind == Kind::Descriptors {
                continue;
            }
            let mut descriptors = std::mem::take(pending);
            let body = match in_memfd {
                0 => body.to_vec(),
                _ => read_memfd(descriptors.pop().ok_or_else(malformed)?)?,
            };
            return Ok(Some(Frame {
                kind,
                body,
                descriptors,
            }));
        }
    }

    /// How long the next packet is; `None` at the end.
    fn next_length(&self) -> io::Result<Option<usize>> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        loop {
            match rustix::net::recv(&self.socket, &mut [0_u8; 0], flags) {
                Ok((_, 0)) => return Ok(None),
                Ok((_, length)) => return Ok(Some(length)),
                // CONNRESET: a side that ended with unread frames; it comes before what that side
                // had sent itself, and once.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a malformed control frame")
}

fn memfd(body: &[u8]) -> io::Result<OwnedFd> {
    check_memfd(body.len())?;
    let mut file = File::from(rustix::fs::memfd_create(
        "ipc-process",
        MemfdFlags::CLOEXEC,
    )?);
    file.write_all(body)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads what the other side left in a memfd: as long as it is now, whatever happens to it
/// meanwhile. Only regular files: a pipe in its place could block us.
fn read_memfd(descriptor: OwnedFd) -> io::Result<Vec<u8>> {
    let stat = rustix::fs::fstat(&descriptor)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(malformed());
    }
    let len = u64::try_from(stat.st_size).map_err(|_| malformed())?;
    let mut body = Vec::new();
    File::from(descriptor).take(len).read_to_end(&mut body)?;
    Ok(body)
}

impl From<Control> for OwnedFd {
    fn from(control: Control) -> Self {
        control.socket
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    fn send_raw(control: &Control, bytes: &[u8], descriptors: &[OwnedFd]) {
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
        let bytes = [IoSlice::new(bytes)];
        rustix::net::sendmsg(control, &bytes, &mut ancillary, SendFlags::empty()).unwrap();
    }

    #[test]
    fn frames_that_nobody_sends_are_errors() {
        let (a, b) = Control::pair().unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        let pipe = [OwnedFd::from(pipe)];
        let cases: [(&[u8], &[OwnedFd]); 5] = [
            (&[1], &[]),
            (&[0, 0], &[]),
            (&[99, 0, 1, 2, 3], &[]),
            // A body in a memfd that did not come.
            (&[4, 1], &[]),
            // A pipe in its place, whose reading could wait for ever.
            (&[4, 1], &pipe),
        ];
        for (bytes, descriptors) in cases {
            send_raw(&a, bytes, descriptors);
            let error = b.try_recv(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{bytes:?}");
        }
        send_raw(&a, &vec![4; HEADER + MAX_INLINE + 1], &[]);
        let error = b.try_recv(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "an oversized frame");
    }

    #[test]
    fn the_end_comes_after_the_last_frame() {
        let (a, b) = Control::pair().unwrap();
        let error = b.try_recv(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        a.send(Frame::new(Kind::Returned, vec![7; 100]), || unreachable!())
            .unwrap();
        drop(a);
        let frame = b.try_recv(&mut Vec::new()).unwrap().unwrap();
        assert_eq!((frame.kind, frame.body), (Kind::Returned, vec![7; 100]));
        assert!(b.try_recv(&mut Vec::new()).unwrap().is_none());
    }

    #[test]
    fn a_sender_without_room_asks_whether_to_go_on() {
        let (a, _b) = Control::pair().unwrap();
        let full = loop {
            let frame = Frame::new(Kind::Returned, vec![0; 30_000]);
            if let Err(error) = a.send(frame, || Err(ErrorKind::TimedOut.into())) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::TimedOut);
    }
}
