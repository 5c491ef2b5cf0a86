//! What a lifeline tells, and what it refuses to take in.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ipc_core::lifeline::{Lifeline, Peer};
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{OpenError, Parts, Wait};

const PATIENCE: Duration = Duration::from_secs(5);

fn patience() -> Wait {
    Wait::at_most(PATIENCE)
}

#[test]
fn a_farewell_is_told_from_a_death_and_the_answer_stays() {
    let (here, there) = Lifeline::pair().unwrap();
    assert_eq!(here.peer(), Peer::Alive);
    there.farewell();
    assert_eq!([here.peer(), here.peer()], [Peer::Closed; 2]);
    drop(there);
    assert_eq!(
        here.peer(),
        Peer::Closed,
        "the farewell outlives the hang-up"
    );

    let (here, there) = Lifeline::pair().unwrap();
    drop(there);
    assert_eq!([here.peer(), here.peer()], [Peer::Died; 2]);
}

#[test]
fn one_copy_of_the_other_end_keeps_it_alive() {
    let (here, there) = Lifeline::pair().unwrap();
    let copy = there.try_clone().unwrap();
    drop(there);
    assert_eq!(here.peer(), Peer::Alive);
    drop(copy);
    assert_eq!(
        poll([(here.as_fd(), Interest::Read)], patience()),
        Ok(Polled::Ready)
    );
    assert_eq!(here.peer(), Peer::Died);
}

#[test]
fn parts_arrive_whole_with_their_descriptors() {
    let (here, there) = Lifeline::pair().unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let descriptors: Vec<OwnedFd> = vec![
        std::io::pipe().unwrap().0.into(),
        here.try_clone().unwrap().into(),
    ];
    let parts = Parts {
        descriptors,
        data: data.clone(),
    };
    // More than the socket holds: both sides have to be at work.
    let sending = std::thread::spawn(move || there.send_parts(&parts, patience()));
    let parts = here.recv_parts(patience()).unwrap();
    sending.join().unwrap().unwrap();
    assert_eq!(parts.data, data);
    assert_eq!(parts.descriptors.len(), 2);
    let flags = rustix::io::fcntl_getfd(&parts.descriptors[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn garbage_is_refused_before_memory_is_spent() {
    for bytes in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"IPC1\x01\0\0\0\0\0\0\0\0\0\0\0",
        b"IPC1\0\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    ] {
        let (here, there) = Lifeline::pair().unwrap();
        rustix::net::send(&there, bytes, rustix::net::SendFlags::NOSIGNAL).unwrap();
        let refused = here.recv_parts(patience());
        assert!(
            matches!(
                refused,
                Err(OpenError::Incompatible { .. } | OpenError::Untrusted { .. })
            ),
            "{refused:?}"
        );
    }
}

#[test]
fn a_peer_that_says_nothing_or_half_does_not_hang_us() {
    let (here, there) = Lifeline::pair().unwrap();
    rustix::net::send(&there, b"IPC1", rustix::net::SendFlags::NOSIGNAL).unwrap();
    assert!(matches!(
        here.recv_parts(Wait::at_most(Duration::from_millis(20))),
        Err(OpenError::TimedOut)
    ));
    drop(there);
    assert!(matches!(
        here.recv_parts(patience()),
        Err(OpenError::Io { .. })
    ));
}

#[test]
fn only_a_unix_stream_is_a_lifeline() {
    let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
    assert!(matches!(
        Lifeline::from_fd(pipe),
        Err(OpenError::Untrusted { .. })
    ));
    let datagram: OwnedFd = std::os::unix::net::UnixDatagram::unbound().unwrap().into();
    assert!(matches!(
        Lifeline::from_fd(datagram),
        Err(OpenError::Untrusted { .. })
    ));
}
