//! What could not be written yet.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::frame::Header;
use crate::control::{MAX_DESCRIPTORS, MAX_INLINE};

/// Frames that leave in one call, because only the first may have descriptors.
#[derive(Debug, Default)]
struct Packet {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Packet {
    fn cleared(mut self) -> Self {
        self.bytes.clear();
        self.sent = 0;
        self
    }
}

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    packets: VecDeque<Packet>,
    /// One that has left, for its memory.
    spare: Packet,
}

impl Outgoing {
    /// Adds one frame, whose header tells how much of the body comes with it.
    pub(super) fn lay(&mut self, header: Header, body: &[u8], descriptors: Vec<OwnedFd>) {
        let fits = |last: &Packet| descriptors.is_empty() && last.bytes.len() < MAX_INLINE;
        if !self.packets.back().is_some_and(fits) {
            self.packets.push_back(std::mem::take(&mut self.spare));
        }
        if let Some(packet) = self.packets.back_mut() {
            packet.bytes.extend_from_slice(&header.to_bytes());
            packet.bytes.extend_from_slice(body);
            packet.descriptors.extend(descriptors);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    #[cfg(test)]
    pub(super) fn packets(&self) -> usize {
        self.packets.len()
    }

    /// Sends what there is room for; whether that was all.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Errno> {
        while let Some(packet) = self.packets.front_mut() {
            let rest = packet.bytes.get(packet.sent..).unwrap_or_default();
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let sent = if packet.descriptors.is_empty() {
                rustix::net::send(socket, rest, flags)
            } else {
                send_with(socket, rest, &packet.descriptors, flags)
            };
            match sent {
                Ok(sent) => {
                    packet.sent += sent;
                    // They left with the first byte.
                    packet.descriptors.clear();
                    if packet.sent == packet.bytes.len() {
                        self.spare = self.packets.pop_front().unwrap_or_default().cleared();
                    }
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

pub(super) fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[OwnedFd],
    flags: SendFlags,
) -> Result<usize, Errno> {
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)
}
