//! What this crate takes for granted about the kernel's sockets.

use std::io::{self, IoSlice, IoSliceMut, PipeReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};

fn seqpacket() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

fn send(socket: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

fn recv(socket: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT).map(|(bytes, _)| bytes)
}

fn send_rights(socket: &UnixStream, rights: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(300))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(rights)));
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(b"x")],
        &mut ancillary,
        SendFlags::empty(),
    )
}

/// Whether no copy of the writing end that belongs to `reader` is open anywhere.
fn all_closed(reader: &PipeReader) -> bool {
    let interest = ipc_core::wait::Interest::HangUp;
    ipc_core::wait::poll([(reader.as_fd(), interest)], ipc_core::Wait::Never).unwrap()
        == ipc_core::wait::Polled::Ready
}

#[test]
fn a_stream_takes_32_kib_as_one_or_not_at_all_however_full_it_is() {
    for length in [1, 500, 4096, 5000, 20_000, 32 << 10] {
        for buffer in [96 << 10, 200 << 10] {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            sockopt::set_socket_send_buffer_size(&ours, buffer / 2).unwrap();
            let (frame, filler) = (vec![1; length], [0; 777]);
            // Fillers shift where the buffer becomes full.
            loop {
                match send(&ours, &frame) {
                    Ok(sent) => assert_eq!(sent, length),
                    Err(error) => break assert_eq!(error, Errno::AGAIN),
                }
                let _ = send(&ours, &filler);
            }
        }
    }
}

#[test]
fn a_full_buffer_that_is_grown_takes_more() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    sockopt::set_socket_send_buffer_size(&ours, 64 << 10).unwrap();
    while send(&ours, &[0; 1000]).is_ok() {}
    sockopt::set_socket_send_buffer_size(&ours, 1 << 30).unwrap();
    assert_eq!(send(&ours, &[0; 1000]), Ok(1000));
}

#[test]
fn of_a_peer_that_left_something_unread_a_stream_gives_the_bytes_first() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"unread").unwrap();
    theirs.write_all(b"committed").unwrap();
    drop(theirs);
    let mut buffer = [0; 64];
    assert_eq!(recv(&ours, &mut buffer), Ok(9));
    assert_eq!(recv(&ours, &mut buffer), Err(Errno::CONNRESET));
    assert_eq!(recv(&ours, &mut buffer), Ok(0));
    assert_eq!(send(&ours, b"x"), Err(Errno::PIPE));
}

#[test]
fn of_such_a_peer_seqpacket_gives_the_error_first_so_it_is_not_used() {
    let (ours, theirs) = seqpacket();
    send(&ours, b"unread").unwrap();
    send(&theirs, b"committed").unwrap();
    drop(theirs);
    let mut buffer = [0; 64];
    assert_eq!(recv(&ours, &mut buffer), Err(Errno::CONNRESET));
    assert_eq!(recv(&ours, &mut buffer), Ok(9));
}

#[test]
fn a_plain_recv_drops_descriptors() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    send_rights(&ours, &[writer.as_fd(); 5]).unwrap();
    drop(writer);
    assert!(!all_closed(&reader));
    assert_eq!(recv(&theirs, &mut [0; 8]), Ok(1));
    assert!(all_closed(&reader));
}

#[test]
fn one_message_carries_253_descriptors_and_not_one_more() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert_eq!(send_rights(&ours, &[ours.as_fd(); 253]), Ok(1));
    assert_eq!(send_rights(&ours, &[ours.as_fd(); 254]), Err(Errno::INVAL));
}

#[test]
fn descriptors_end_a_read_so_that_no_read_brings_those_of_two_messages() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    send(&ours, b"plain").unwrap();
    send_rights(&ours, &[ours.as_fd(); 2]).unwrap();
    send_rights(&ours, &[ours.as_fd(); 3]).unwrap();
    for expected in [6, 1] {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 64];
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&theirs, slices, &mut ancillary, flags).unwrap();
        assert_eq!(got.bytes, expected);
    }
}

#[test]
fn after_truncation_what_came_all_the_same_is_closed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    send_rights(&ours, &[writer.as_fd(); 5]).unwrap();
    drop(writer);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    let slices = &mut [IoSliceMut::new(&mut bytes)];
    let got =
        rustix::net::recvmsg(&theirs, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    assert!(got.flags.contains(ReturnFlags::CTRUNC));
    assert!(!all_closed(&reader), "the kernel installed some");
    // As recv_rights does: messages dropped without a look at their descriptors.
    for message in ancillary.drain() {
        drop(message);
    }
    assert!(all_closed(&reader));
}

#[test]
fn a_pair_names_its_maker_as_the_peer() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let peer = sockopt::socket_peercred(&ours).unwrap();
    assert_eq!(peer.pid, rustix::process::getpid());
    assert_eq!(peer.uid, rustix::process::geteuid());
}

#[test]
fn bytes_that_were_sent_outlive_their_sender() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"last words").unwrap();
    drop(ours);
    let mut heard = String::new();
    theirs.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "last words");
}
