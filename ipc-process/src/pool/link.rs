//! The socket between a pool and one of its workers. A byte stream, unlike the control socket, so
//! that many small frames cross in one call; a frame of its own length, with its descriptors.

mod frame;
mod outgoing;

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::{Parts, Wait, WaitStrategy, Waiter};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown,
    SocketFlags, SocketType,
};

use super::long::{self, Memfds};
use crate::control::{MAX_DESCRIPTORS, MAX_INLINE};
use crate::descriptor::Descriptor;
pub(super) use frame::{Frame, Kind};
use frame::{Header, malformed};
use outgoing::Outgoing;

/// Room for the longest frame and for the beginning of the next.
const BUFFER: usize = 2 * MAX_INLINE;

/// What [`Link::receive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Some,
    Nothing,
    /// The other side has ended.
    End {
        /// It left something unread: what was sent last did not reach it.
        unread: bool,
    },
}

/// One end of the socket, with what has been read and what could not be written yet.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    buffer: Box<[u8]>,
    /// The part of `buffer` that has been received and not been taken.
    start: usize,
    end: usize,
    /// Descriptors, those of one `sendmsg` together, in the order of the frames they belong to.
    groups: VecDeque<Vec<OwnedFd>>,
    /// Descriptors that came ahead of their frame.
    ahead: Vec<OwnedFd>,
    outgoing: Outgoing,
    memfds: Memfds,
    /// The id of the last frame that was taken, long body and all.
    taken: u64,
    /// The end of the other side, which the kernel tells but once.
    ended: Option<Received>,
    /// What looking for the next frame has brought lately.
    waiter: Waiter,
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Link {
    /// The pool's end, and the worker's on its way to the worker.
    pub(super) fn pair() -> Result<(Self, Descriptor), Errno> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self::new(a), Descriptor(b)))
    }

    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            groups: VecDeque::new(),
            ahead: Vec::new(),
            outgoing: Outgoing::default(),
            memfds: Memfds::default(),
            taken: 0,
            ended: None,
            waiter: Waiter::new(WaitStrategy::Adaptive),
        }
    }

    /// Lays a frame ready for [`flush`](Self::flush). A long body goes into a memfd, which can
    /// fail; then nothing is laid ready.
    pub(super) fn push(
        &mut self,
        kind: Kind,
        id: u64,
        word: u64,
        body: &[u8],
        mut descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let long = body.len() > MAX_INLINE;
        if long {
            descriptors.push(self.memfds.write(id, body)?);
        }
        while descriptors.len() > MAX_DESCRIPTORS {
            let rest = descriptors.split_off(MAX_DESCRIPTORS);
            let ahead = std::mem::replace(&mut descriptors, rest);
            let header = self.header(Kind::Descriptors, 0, 0, 0, &ahead);
            self.outgoing.lay(header, &[], ahead);
        }
        let mut header = self.header(kind, body.len(), id, word, &descriptors);
        header.long = long;
        let inline = if long { &[] } else { body };
        self.outgoing.lay(header, inline, descriptors);
        Ok(())
    }

    fn header(&self, kind: Kind, len: usize, id: u64, word: u64, with: &[OwnedFd]) -> Header {
        Header {
            // A body is at most MAX_MESSAGE long, descriptors are at most MAX_DESCRIPTORS.
            len: len as u32,
            kind,
            long: false,
            descriptors: with.len() as u16,
            id,
            word,
            taken: self.taken,
        }
    }

    /// Sends what there is room for; whether that was all.
    pub(super) fn flush(&mut self) -> Result<bool, Errno> {
        self.outgoing.flush(self.socket.as_fd())
    }

    /// Tells the other side that nothing more comes, also when somebody else, such as a forked
    /// child, holds this end open as well.
    pub(super) fn finish(&self) {
        // ENOTCONN: it has ended itself.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }

    /// Takes in what there is, once.
    pub(super) fn receive(&mut self) -> io::Result<Received> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if BUFFER - self.end < MAX_INLINE {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let received = loop {
            let received = rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(room)],
                &mut ancillary,
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            );
            match received {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                // It ended with frames of ours unread; what it sent before has been read, since a
                // stream reports this only then (unix(7)).
                Err(Errno::CONNRESET) => return Ok(self.end_of_other(true)),
                Err(error) => return Err(error.into()),
            }
        };
        // A read ends with the first `sendmsg` that has descriptors, so that these are of one
        // frame. With CTRUNC, RLIMIT_NOFILE did not admit all of them: the group is too small,
        // and its frame will not be read.
        let mut group = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                group.extend(descriptors);
            }
        }
        if !group.is_empty() || received.flags.contains(ReturnFlags::CTRUNC) {
            self.groups.push_back(group);
        }
        if received.bytes == 0 {
            return Ok(self.end_of_other(false));
        }
        self.end += received.bytes;
        Ok(Received::Some)
    }

    fn end_of_other(&mut self, unread: bool) -> Received {
        *self.ended.insert(Received::End { unread })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether what was sent last did not reach the other side before its end.
    pub(super) fn was_left_unread(&self) -> bool {
        self.ended == Some(Received::End { unread: true }) || !self.outgoing.is_empty()
    }

    /// [Receives](Self::receive) as soon as there is something, looking for it as long as that has
    /// paid lately. `None`: now sleep.
    pub(super) fn look(&mut self, wait: Wait) -> io::Result<Option<Received>> {
        let attempt = |link: &mut Self| match link.receive()? {
            Received::Nothing => Ok(None),
            received => Ok::<_, io::Error>(Some(received)),
        };
        if let Some(received) = attempt(self)? {
            return Ok(Some(received));
        }
        let mut waiter = self.waiter.clone();
        let found = waiter.look(wait, || attempt(self));
        self.waiter = waiter;
        found
    }

    /// The next whole frame of what has been taken in. What is no frame is an error: nothing that
    /// follows can be understood.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
            let Some((header, rest)) = unread.split_first_chunk() else {
                return Ok(None);
            };
            let header = Header::from_bytes(header)?;
            let Some(body) = rest.get(..header.inline()) else {
                return Ok(None);
            };
            let mut body = body.to_vec();
            self.start += Header::LEN + body.len();
            self.memfds.were_read(header.taken);

            let expected = usize::from(header.descriptors);
            let group = match expected {
                0 => Vec::new(),
                _ => self.groups.pop_front().ok_or_else(malformed)?,
            };
            let complete = group.len() == expected;
            self.ahead.extend(group);
            if header.kind == Kind::Descriptors {
                continue;
            }
            let mut descriptors = std::mem::take(&mut self.ahead);
            let mut arrived = if complete {
                Ok(())
            } else {
                Err("descriptors did not arrive; is RLIMIT_NOFILE reached?".to_owned())
            };
            if header.long && complete {
                let memfd = descriptors.pop().ok_or_else(malformed)?;
                match long::read(memfd, header.len as usize) {
                    Ok(read) => body = read,
                    Err(error) => arrived = Err(error.to_string()),
                }
            }
            self.taken = header.id;
            return Ok(Some(Frame {
                kind: header.kind,
                id: header.id,
                word: header.word,
                body: arrived.map(|()| Parts {
                    descriptors,
                    data: body,
                }),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use rustix::net::SendFlags;

    use super::outgoing::send_with;
    use super::*;

    fn pair() -> (Link, Link) {
        let (link, end) = Link::pair().unwrap();
        (link, Link::new(end.0))
    }

    /// Takes in all there is and the frames of it.
    fn frames(link: &mut Link) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while link.receive()? == Received::Some {
            while let Some(frame) = link.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_cross_in_order_whatever_their_size() {
        let (mut a, mut b) = pair();
        let mut received = Vec::new();
        for (id, len) in (1..).zip([0, 10, MAX_INLINE, MAX_INLINE + 1, 3, 1 << 20]) {
            a.push(Kind::Run, id, 7 * id, &vec![id as u8; len], Vec::new())
                .unwrap();
            while !a.flush().unwrap() {
                received.extend(frames(&mut b).unwrap());
            }
        }
        received.extend(frames(&mut b).unwrap());
        let lens: Vec<_> = received
            .iter()
            .map(|frame| frame.body.as_ref().unwrap().data.len())
            .collect();
        assert_eq!(lens, [0, 10, MAX_INLINE, MAX_INLINE + 1, 3, 1 << 20]);
        for (id, frame) in (1..).zip(received) {
            assert_eq!((frame.id, frame.word), (id, 7 * id));
            let data = frame.body.unwrap().data;
            assert!(data.iter().all(|&byte| byte == id as u8));
        }
    }

    #[test]
    fn many_frames_leave_in_one_packet() {
        let (mut a, mut b) = pair();
        for id in 0..100 {
            a.push(Kind::Run, id, 0, b"short", Vec::new()).unwrap();
        }
        assert_eq!(a.outgoing.packets(), 1);
        assert!(a.flush().unwrap());
        assert_eq!(b.receive().unwrap(), Received::Some);
        assert_eq!(frames_of(&mut b), 100);
    }

    fn frames_of(link: &mut Link) -> usize {
        std::iter::from_fn(|| link.next().unwrap()).count()
    }

    #[test]
    fn the_end_tells_whether_everything_was_read() {
        let (mut a, mut b) = pair();
        b.push(Kind::Returned, 1, 0, b"last words", Vec::new())
            .unwrap();
        b.flush().unwrap();
        drop(b);
        assert_eq!(frames(&mut a).unwrap().len(), 1);
        let end = Received::End { unread: false };
        assert_eq!(a.receive().unwrap(), end);
        assert_eq!(a.receive().unwrap(), end);
        assert!(!a.was_left_unread());
        a.push(Kind::Run, 1, 0, b"too late", Vec::new()).unwrap();
        assert_eq!(a.flush().unwrap_err(), Errno::PIPE);
        assert!(a.was_left_unread());

        let (mut a, b) = pair();
        a.push(Kind::Run, 1, 0, b"never read", Vec::new()).unwrap();
        a.flush().unwrap();
        drop(b);
        for _ in 0..2 {
            assert_eq!(a.receive().unwrap(), Received::End { unread: true });
        }
        assert!(a.was_left_unread());
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let header = |kind: u8, long: u8, count: u8, len: u8| {
            let mut header = [0; Header::LEN];
            [header[0], header[4], header[5], header[6]] = [len, kind, long, count];
            header
        };
        let mut too_long = header(4, 0, 0, 0);
        too_long[3] = 1;
        let hostile = [
            header(0, 0, 0, 0),
            header(99, 0, 0, 0),
            // Descriptors, and a memfd, that did not come.
            header(4, 0, 1, 0),
            header(4, 1, 0, 0),
            too_long,
        ];
        for bytes in hostile {
            let (a, mut b) = pair();
            rustix::net::send(&a.socket, &bytes, SendFlags::empty()).unwrap();
            let error = frames(&mut b).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{bytes:?}");
        }
        // Part of a frame is none yet.
        let (a, mut b) = pair();
        for byte in header(4, 0, 0, 1) {
            rustix::net::send(&a.socket, &[byte], SendFlags::empty()).unwrap();
            assert!(frames(&mut b).unwrap().is_empty());
        }
        rustix::net::send(&a.socket, b"!", SendFlags::empty()).unwrap();
        assert_eq!(frames(&mut b).unwrap().len(), 1);
        // A pipe in the place of a memfd is refused, and the next frame is fine.
        let (pipe, _writer) = io::pipe().unwrap();
        let long = header(4, 1, 1, 0);
        send_with(&a.socket, &long, &[pipe.into()], SendFlags::empty()).unwrap();
        rustix::net::send(&a.socket, &header(4, 0, 0, 0), SendFlags::empty()).unwrap();
        let frames = frames(&mut b).unwrap();
        let [refused, fine] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert!(refused.body.is_err() && fine.body.is_ok());
    }
}
