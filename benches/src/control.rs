use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::{Side, Spec};
use crate::workload::{Run, SideReport};

/// What an end needs to come into being in another process.
#[derive(Debug, Default)]
pub struct Bundle {
    /// They travel by SCM_RIGHTS.
    pub descriptors: Vec<OwnedFd>,
    /// Whatever else must be known.
    pub data: Vec<u8>,
}

/// What the supervisor asks of a side.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Take this end; its descriptors come along.
    Open {
        spec: Spec,
        side: Side,
        processor: Option<usize>,
        data: Vec<u8>,
    },
    /// Move messages.
    Run(Run),
}

/// What a side answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Reply {
    Ready,
    Unsupported { reason: String },
    Failed { reason: String },
    Done(SideReport),
}

/// A connected pair of packet sockets between the supervisor and a side: JSON text, one object a
/// packet, descriptors alongside.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
}

const PACKET_BYTES: usize = 192 * 1024;
const MAX_DESCRIPTORS: usize = 32;

impl Control {
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { socket: ours }, theirs))
    }

    /// The supervisor's socket, which it put in place of standard input.
    pub(crate) fn inherited() -> io::Result<Self> {
        Ok(Self {
            socket: io::stdin().as_fd().try_clone_to_owned()?,
        })
    }

    pub(crate) fn send(
        &self,
        packet: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let text = serde_json::to_vec(packet)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::Error::other("too many descriptors for one packet"));
        }
        let text = [IoSlice::new(&text)];
        loop {
            match rustix::net::sendmsg(&self.socket, &text, &mut ancillary, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop).map_err(Into::into),
            }
        }
    }

    /// Says that no more will come: the other side's next receipt is the end.
    pub(crate) fn hang_up(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(
            &self.socket,
            rustix::net::Shutdown::Write,
        )?)
    }

    /// The next packet; `UnexpectedEof` when the other side is gone.
    pub(crate) fn recv<T: DeserializeOwned>(&self) -> io::Result<(T, Vec<OwnedFd>)> {
        let mut text = vec![0; PACKET_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut text)];
            match rustix::net::recvmsg(
                &self.socket,
                &mut slices,
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(Errno::INTR) => {}
                received => break received?,
            }
        };
        let descriptors = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::Error::other("a packet on the control socket was cut"));
        }
        Ok((
            serde_json::from_slice(&text[..received.bytes])?,
            descriptors,
        ))
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
