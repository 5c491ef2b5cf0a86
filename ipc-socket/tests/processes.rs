//! Two processes: names, deaths, descriptors, and peers that mean harm.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipc_conformance::Scratch;
use ipc_core::{
    Channel, Handoff, Listener as _, OpenError, Parts, Receiver as _, RecvError, SendError,
    Sender as _, Tunable, Wait, WaitStrategy,
};
use ipc_process::Process;
use ipc_socket::{Address, Options, Receiver, Sender, Socket};

ipc_process::test_support!();

/// Long enough that only a hang exceeds it.
const PATIENCE: Duration = Duration::from_secs(10);

fn patience() -> Wait {
    Wait::at_most(PATIENCE)
}

fn pair() -> (Sender, Receiver) {
    Socket::pair(&Options::default()).unwrap()
}

fn socket_in(scratch: &Scratch) -> PathBuf {
    scratch.path().join("socket")
}

fn address_in(scratch: &Scratch) -> Address {
    socket_in(scratch).to_str().unwrap().parse().unwrap()
}

/// A receiver whose peer is this raw socket, which may write what it likes.
fn receiver_of(options: &Options) -> (UnixStream, Receiver) {
    let (tx, rx) = Socket::pair(options).unwrap();
    let mut parts = tx.into_parts().unwrap();
    (UnixStream::from(parts.descriptors.remove(0)), rx)
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

// Deaths.

fn count_up(mut tx: Sender, mut committed: Sender) {
    // Sizes on both sides of what goes in one frame.
    let message = vec![1; 200_000];
    for number in 0u64.. {
        let len = [8, 3000, 40_000, 200_000][number as usize % 4];
        let mut message = message[..len].to_vec();
        message[..8].copy_from_slice(&number.to_le_bytes());
        if tx.send(&message).is_err() || committed.try_send(&number.to_le_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn what_a_killed_sender_committed_arrives_and_nothing_in_part() {
    for round in 0..20 {
        let (tx, mut rx) = pair();
        let (log_tx, mut log) = pair();
        let child = Process::new(count_up, (tx, log_tx)).start().unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut received = 0u64;
        let end = loop {
            if received == 50 + round * 7 {
                child.kill().unwrap();
            }
            match rx.recv_with(&mut buffer, patience()) {
                Ok(len) => {
                    assert_eq!(len, [8, 3000, 40_000, 200_000][received as usize % 4]);
                    assert_eq!(buffer[..8], received.to_le_bytes());
                    received += 1;
                }
                Err(end) => break end,
            }
        };
        assert!(matches!(end, RecvError::PeerDied), "{end:?}");
        let mut committed = 0;
        while log.recv_with(&mut buffer, patience()).is_ok() {
            committed += 1;
        }
        assert!(
            committed <= received,
            "{committed} committed, {received} arrived"
        );
        assert!(matches!(rx.recv(&mut buffer), Err(RecvError::PeerDied)));
        assert!(child.join().is_err());
    }
}

fn hold(_rx: Receiver, mut ready: Sender) {
    ready.send(b"ready").unwrap();
    loop {
        ipc_core::wait::poll([], Wait::at_most(PATIENCE)).unwrap();
    }
}

#[test]
fn a_sender_learns_of_a_killed_receiver_within_100_ms_also_asleep() {
    for asleep in [false, true] {
        let (mut tx, rx) = pair();
        let (ready_tx, mut ready) = pair();
        let child = Process::new(hold, (rx, ready_tx)).start().unwrap();
        ready.recv_with(&mut [0; 8], patience()).unwrap();
        if asleep {
            while tx.try_send(&[0; 1000]).is_ok() {}
        }
        child.kill().unwrap();
        let killed = Instant::now();
        let end = loop {
            let wait = if asleep { patience() } else { Wait::Never };
            match tx.send_with(b"anybody there?", wait) {
                Ok(()) | Err(SendError::Full) => assert!(killed.elapsed() < PATIENCE),
                Err(end) => break end,
            }
        };
        assert!(matches!(end, SendError::PeerDied), "{end:?}");
        assert!(
            killed.elapsed() < Duration::from_millis(100),
            "{:?}",
            killed.elapsed()
        );
        assert!(matches!(tx.try_send(b""), Err(SendError::PeerDied)));
    }
}

#[test]
fn a_stopped_peer_is_alive() {
    let (tx, mut rx) = pair();
    let (ready_tx, mut ready) = pair();
    let child = Process::new(hold_sender, (tx, ready_tx)).start().unwrap();
    ready.recv_with(&mut [0; 8], patience()).unwrap();
    child.signal(19).unwrap(); // SIGSTOP
    let soon = Wait::at_most(Duration::from_millis(150));
    assert!(matches!(
        rx.recv_with(&mut [], soon),
        Err(RecvError::TimedOut)
    ));
    child.kill().unwrap();
    assert!(matches!(
        rx.recv_with(&mut [], patience()),
        Err(RecvError::PeerDied)
    ));
}

fn hold_sender(_tx: Sender, mut ready: Sender) {
    ready.send(b"ready").unwrap();
    loop {
        ipc_core::wait::poll([], Wait::at_most(PATIENCE)).unwrap();
    }
}

// Names.

fn listen_for_ever(address: String, mut ready: Sender) {
    let _listener = Socket::listen(&address.parse().unwrap(), &Options::default()).unwrap();
    ready.send(b"ready").unwrap();
    loop {
        ipc_core::wait::poll([], Wait::at_most(PATIENCE)).unwrap();
    }
}

#[test]
fn a_name_is_kept_by_the_living_and_taken_over_from_the_dead() {
    let scratch = Scratch::new();
    let abstract_name = format!("abstract:ipc-socket-test-{}", std::process::id());
    for address in [address_in(&scratch).to_string(), abstract_name] {
        let (ready_tx, mut ready) = pair();
        let child = Process::new(listen_for_ever, (address.clone(), ready_tx))
            .start()
            .unwrap();
        ready.recv_with(&mut [0; 8], patience()).unwrap();
        let parsed = address.parse().unwrap();
        let options = Options::default();
        let live = Socket::listen(&parsed, &options);
        assert!(matches!(live, Err(OpenError::NameInUse)), "{live:?}");
        child.kill().unwrap();
        child.wait().unwrap();

        let mut listener = Socket::listen(&parsed, &options).unwrap();
        let mut tx = Socket::connect(&parsed, &options, Wait::Never).unwrap();
        tx.send(b"to the successor").unwrap();
        let mut rx = listener.accept(patience()).unwrap();
        assert_eq!(rx.recv(&mut [0; 64]).unwrap(), 16);
        assert_eq!(rx.peer_credentials().unwrap().process, std::process::id());
        assert_eq!(tx.peer_credentials().unwrap().process, std::process::id());
        drop(listener);
        let gone = Socket::connect(&parsed, &options, Wait::Never);
        assert!(matches!(gone, Err(OpenError::NotFound)), "{gone:?}");
    }
    assert!(!socket_in(&scratch).exists());
}

#[test]
fn the_socket_file_is_for_this_user_only_and_a_squatted_name_is_refused() {
    let scratch = Scratch::new();
    let options = Options::default();
    let listener = Socket::listen(&address_in(&scratch), &options).unwrap();
    let mode = std::fs::metadata(socket_in(&scratch))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(listener);

    std::fs::write(socket_in(&scratch), "not a socket").unwrap();
    let refused = Socket::listen(&address_in(&scratch), &options);
    assert!(
        matches!(refused, Err(OpenError::Untrusted { .. })),
        "{refused:?}"
    );
    let refused = Socket::connect(&address_in(&scratch), &options, Wait::Never);
    assert!(
        matches!(refused, Err(OpenError::Untrusted { .. })),
        "{refused:?}"
    );
    assert_eq!(std::fs::read(socket_in(&scratch)).unwrap(), b"not a socket");

    std::fs::remove_file(socket_in(&scratch)).unwrap();
    let _open_to_all = UnixListener::bind(socket_in(&scratch)).unwrap();
    std::fs::set_permissions(socket_in(&scratch), PermissionsExt::from_mode(0o777)).unwrap();
    let refused = Socket::connect(&address_in(&scratch), &options, Wait::Never);
    assert!(
        matches!(refused, Err(OpenError::Untrusted { .. })),
        "{refused:?}"
    );
}

#[test]
fn visitors_that_do_not_greet_are_turned_away_and_hold_nobody_up_for_long() {
    let scratch = Scratch::new();
    let options = Options::default();
    let mut listener = Socket::listen(&address_in(&scratch), &options).unwrap();
    let mut liar = UnixStream::connect(socket_in(&scratch)).unwrap();
    liar.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(UnixStream::connect(socket_in(&scratch)).unwrap());
    let _silent = UnixStream::connect(socket_in(&scratch)).unwrap();
    let greedy = options.clone().max_message(2 << 20);
    let _greedy = Socket::connect(&address_in(&scratch), &greedy, Wait::Never).unwrap();
    let mut tx = Socket::connect(&address_in(&scratch), &options, Wait::Never).unwrap();
    tx.send(b"polite").unwrap();
    let started = Instant::now();
    let mut rx = listener.accept(patience()).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(rx.recv(&mut [0; 8]).unwrap(), 6);
    let soon = Wait::at_most(Duration::from_millis(10));
    assert!(matches!(listener.accept(soon), Err(OpenError::TimedOut)));
}

fn connect_and_stay(address: String, mut ready: Sender) {
    let _tx = Socket::connect(
        &address.parse().unwrap(),
        &Options::default(),
        Wait::at_most(PATIENCE),
    )
    .unwrap();
    ready.send(b"ready").unwrap();
    loop {
        ipc_core::wait::poll([], Wait::at_most(PATIENCE)).unwrap();
    }
}

#[test]
fn the_pidfd_of_a_peer_is_its_own_and_tells_of_its_end() {
    use ipc_core::wait::{Interest, Polled, poll};
    let scratch = Scratch::new();
    let mut listener = Socket::listen(&address_in(&scratch), &Options::default()).unwrap();
    let (ready_tx, mut ready) = pair();
    let child = Process::new(
        connect_and_stay,
        (address_in(&scratch).to_string(), ready_tx),
    )
    .start()
    .unwrap();
    let rx = listener.accept(patience()).unwrap();
    ready.recv_with(&mut [0; 8], patience()).unwrap();
    assert_eq!(rx.peer_credentials().unwrap().process, child.pid());
    let pidfd = match rx.peer_pidfd() {
        Ok(pidfd) => pidfd,
        // ENOPROTOOPT.
        Err(error) if error.raw_os_error() == Some(92) => {
            eprintln!("skipped: SO_PEERPIDFD needs Linux 6.5");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd_number(&pidfd))).unwrap();
    assert!(
        info.lines().any(|line| line
            .split_whitespace()
            .eq(["Pid:", &child.pid().to_string()])),
        "{info}"
    );
    let flags = rustix::io::fcntl_getfd(&pidfd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let watched = || [(pidfd.as_fd(), Interest::Read)];
    assert_eq!(poll(watched(), Wait::Never), Ok(Polled::TimedOut), "alive");
    child.kill().unwrap();
    assert_eq!(poll(watched(), patience()), Ok(Polled::Ready), "ended");
}

fn fd_number(fd: &OwnedFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}

/// Gives whether this process could become another user, and what became of its channel.
fn connect_as_nobody(address: String) -> Option<String> {
    let nobody = rustix::thread::Uid::from_raw(65534);
    if rustix::process::geteuid() == nobody {
        return None;
    }
    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).ok()?;
    let connected = Socket::connect(
        &address.parse().unwrap(),
        &Options::default(),
        Wait::at_most(PATIENCE),
    );
    let mut tx = match connected {
        Ok(tx) => tx,
        Err(error) => return Some(error.to_string()),
    };
    // Turned away, it finds nobody at the other end.
    Some(loop {
        if let Err(error) = tx.send_timeout(&[0; 1000], PATIENCE) {
            break error.to_string();
        }
    })
}

#[test]
fn no_mode_keeps_a_stranger_from_an_abstract_name_but_the_listener_does() {
    let address = format!("abstract:ipc-socket-stranger-{}", std::process::id());
    let parsed = address.parse().unwrap();
    let options = Options::default();
    let mut listener = Socket::listen(&parsed, &options).unwrap();
    let stranger = Process::new(connect_as_nobody, (address,)).start().unwrap();
    // Whom it connects after that stranger, it accepts, and nobody before.
    let admitted = std::thread::spawn(move || listener.accept(patience()).unwrap());
    let outcome = stranger.join().unwrap();
    let mut tx = Socket::connect(&parsed, &options, Wait::at_most(PATIENCE)).unwrap();
    tx.send(b"a friend").unwrap();
    let mut rx = admitted.join().unwrap();
    let mut buffer = [0; 2000];
    assert_eq!(rx.recv_with(&mut buffer, patience()).unwrap(), 8);
    match outcome {
        // Turned away before or after its greeting.
        Some(outcome) => {
            let gone = ["died", "closed", "Broken pipe", "reset"];
            assert!(gone.iter().any(|word| outcome.contains(word)), "{outcome}");
        }
        None => eprintln!("skipped: only root can pose as another user"),
    }
}

// Descriptors.

fn write_into(mut rx: Receiver) {
    let mut files = Vec::new();
    let len = rx
        .recv_with_descriptors(&mut [0; 64], &mut files, patience())
        .unwrap();
    assert_eq!((len, files.len()), (10, 2));
    for (number, file) in files.into_iter().enumerate() {
        assert!(
            rustix::io::fcntl_getfd(&file)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        write!(File::from(file), "file {number}").unwrap();
    }
}

#[test]
fn descriptors_travel_with_their_message() {
    let options = Options::default().descriptors(true);
    let (mut tx, rx) = Socket::pair(&options).unwrap();
    let files = [0; 2].map(|_| File::from(rustix::fs::memfd_create("f", MEMFD).unwrap()));
    let child = Process::new(write_into, (rx,)).start().unwrap();
    let rights = files.each_ref().map(AsFd::as_fd);
    tx.send_with_descriptors(b"two files.", &rights, patience())
        .unwrap();
    child.join().unwrap();
    for (number, mut file) in files.into_iter().enumerate() {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("file {number}"));
    }
}

const MEMFD: rustix::fs::MemfdFlags = rustix::fs::MemfdFlags::CLOEXEC;

/// In a process of its own, because it counts and limits the descriptors of the whole process.
fn no_descriptor_leaks() {
    let options = Options::default()
        .descriptors(true)
        .wait_strategy(WaitStrategy::Block);
    let (mut tx, mut rx) = Socket::pair(&options).unwrap();
    let file = rustix::fs::memfd_create("f", MEMFD).unwrap();
    let rights = [file.as_fd(); 253];
    let before = open_descriptors();
    let mut received = Vec::new();
    let mut buffer = vec![0; 32 << 10];

    // Mixed with messages before and after; taken, not taken, handed off while they wait.
    for count in [0, 1, 7, 253] {
        tx.send(b"before").unwrap();
        tx.send_with_descriptors(&[1; 32_763], &rights[..count], patience())
            .unwrap();
        tx.send_with_descriptors(b"", &rights[..1], patience())
            .unwrap();
        tx.send(b"after").unwrap();
        assert_eq!(rx.recv(&mut buffer).unwrap(), 6);
        assert!(matches!(
            rx.recv(&mut []),
            Err(RecvError::BufferTooSmall { needed: 32_763 })
        ));
        rx = Receiver::from_parts(rx.into_parts().unwrap()).unwrap();
        let len = rx
            .recv_with_descriptors(&mut buffer, &mut received, patience())
            .unwrap();
        assert_eq!((len, received.len()), (32_763, count));
        received.clear();
        assert_eq!(rx.recv(&mut buffer).unwrap(), 0);
        assert_eq!(rx.recv(&mut buffer).unwrap(), 5);
        assert_eq!(open_descriptors(), before, "{count}");
    }
    assert!(matches!(
        tx.send_with_descriptors(b"", &[file.as_fd(); 254], patience()),
        Err(SendError::Limit(limit)) if limit.name == "SCM_MAX_FD"
    ));

    // No room for them: an error that says so, at every later call, and none stays.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let tight = rustix::process::Rlimit {
        current: Some(before as u64 + 3),
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, tight).unwrap();
    tx.send_with_descriptors(b"too many", &rights[..20], patience())
        .unwrap();
    for _ in 0..2 {
        let lost = rx.recv_with_descriptors(&mut buffer, &mut received, patience());
        assert!(
            matches!(&lost, Err(RecvError::Limit(limit)) if limit.name == "RLIMIT_NOFILE"),
            "{lost:?}"
        );
    }
    assert!(received.is_empty());
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    assert_eq!(open_descriptors(), before);

    // More than any message announced.
    let (peer, mut rx) = receiver_of(&options);
    let before = open_descriptors();
    let frame = [1, 0, 0, 0, b'x'];
    for _ in 0..10 {
        send_raw(&peer, &frame, &rights);
    }
    let end = loop {
        match rx.recv_with(&mut buffer, Wait::Never) {
            Ok(1) => {}
            other => break other,
        }
    };
    assert!(matches!(end, Err(RecvError::Corrupt { .. })), "{end:?}");
    assert_eq!(open_descriptors(), before);

    // To a channel that takes none, they never come.
    let (peer, mut rx) = receiver_of(&Options::default());
    let before = open_descriptors();
    send_raw(&peer, &frame, &rights);
    assert_eq!(rx.recv(&mut buffer).unwrap(), 1);
    assert_eq!(open_descriptors(), before);
}

fn send_raw(peer: &UnixStream, bytes: &[u8], rights: &[BorrowedFd<'_>]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(rights)));
    let slices = [std::io::IoSlice::new(bytes)];
    rustix::net::sendmsg(peer, &slices, &mut ancillary, SendFlags::empty()).unwrap();
}

#[test]
fn no_descriptor_leaks_on_any_path() {
    Process::new(no_descriptor_leaks, ())
        .start()
        .unwrap()
        .join()
        .unwrap();
}

// Peers that mean harm.

/// A generator whose numbers are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn no_bytes_make_a_receiver_panic_hang_or_read_astray() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let options = Options::default().max_message(100_000);
    let mut buffer = vec![0; 100_000];
    for _ in 0..2000 {
        let (mut peer, mut rx) = receiver_of(&options);
        peer.set_nonblocking(true).unwrap();
        for _ in 0..numbers.next() % 20 {
            // Mostly headers that almost make sense, so that the deeper states are reached.
            let length =
                [0, 1, 4, 300, 32_764, 32_765, 65_536, 65_537][numbers.next() as usize % 8] as u32;
            let kind = [0, 0, 1, 2, 3, 0x80, 0x80, 0x81][numbers.next() as usize % 8];
            let [a, b, c, _] = length.to_le_bytes();
            // A receiver that found the channel broken reads no more: what is cut off is fine too.
            let _ = peer.write(&[a, b, c, kind]);
            let body = numbers.next() as usize % 3 * length as usize / 2;
            // A verdict and the body of a message alike.
            let filler = (numbers.next() % 3) as u8;
            let _ = peer.write(&vec![filler; body]);
            while let Ok(len) = rx.recv_with(&mut buffer, Wait::Never) {
                assert!(len <= 100_000);
            }
        }
        drop(peer);
        let end = loop {
            match rx.recv_with(&mut buffer, patience()) {
                Ok(_) => {}
                Err(end) => break end,
            }
        };
        assert!(
            matches!(
                end,
                RecvError::Corrupt { .. } | RecvError::PeerDied | RecvError::Closed
            ),
            "{end:?}"
        );
    }
}

#[test]
fn half_a_frame_keeps_nobody_beyond_the_deadline() {
    for half in [
        &[9][..],
        &[8, 0, 0],
        &[8, 0, 0, 0, 1, 2],
        &[8, 0, 0, 0x80, 1, 2],
    ] {
        let (mut peer, mut rx) = receiver_of(&Options::default());
        peer.write_all(half).unwrap();
        assert!(matches!(rx.try_recv(&mut [0; 64]), Err(RecvError::Empty)));
        let started = Instant::now();
        let soon = Wait::at_most(Duration::from_millis(50));
        assert!(matches!(
            rx.recv_with(&mut [0; 64], soon),
            Err(RecvError::TimedOut)
        ));
        assert!(started.elapsed() >= Duration::from_millis(50));
        drop(peer);
        assert!(matches!(rx.recv(&mut [0; 64]), Err(RecvError::PeerDied)));
    }
}

#[test]
fn a_flood_of_what_never_becomes_a_message_keeps_nobody_beyond_the_deadline() {
    let (mut peer, mut rx) = receiver_of(&Options::default());
    let flood = std::thread::spawn(move || {
        // Messages that are taken back, again and again, until nobody reads any more.
        let abandoned = [1, 0, 0, 0x80, 7, 0].repeat(8192);
        while peer.write_all(&abandoned).is_ok() {}
    });
    for _ in 0..5 {
        let started = Instant::now();
        assert!(matches!(
            rx.recv_timeout(&mut [], SOON),
            Err(RecvError::TimedOut)
        ));
        assert!(
            started.elapsed() < SOON + Duration::from_millis(50),
            "{:?}",
            started.elapsed()
        );
        assert!(matches!(rx.try_recv(&mut []), Err(RecvError::Empty)));
    }
    drop(rx);
    flood.join().unwrap();
}

const SOON: Duration = Duration::from_millis(20);

#[test]
fn a_receiver_that_answers_with_noise_is_no_farewell() {
    let (tx, rx) = pair();
    let mut parts = rx.into_parts().unwrap();
    let mut peer = UnixStream::from(parts.descriptors.remove(0));
    peer.write_all(b"noise").unwrap();
    drop(peer);
    let mut tx = tx;
    assert!(matches!(tx.send(b"x"), Err(SendError::PeerDied)));
}

// Hand-off.

#[test]
fn parts_that_were_tampered_with_are_refused_or_harmless() {
    let mut numbers = Numbers(7);
    for _ in 0..500 {
        let (mut tx, mut rx) = pair();
        tx.send(&[7; 30]).unwrap();
        tx.send(&[8; 40]).unwrap();
        rx.recv(&mut [0; 64]).unwrap();
        let (tx_parts, rx_parts) = (tx.into_parts().unwrap(), rx.into_parts().unwrap());
        for (parts, of_sender) in [(tx_parts, true), (rx_parts, false)] {
            let Parts {
                descriptors,
                mut data,
            } = parts;
            let place = numbers.next() as usize % data.len();
            data[place] ^= 1 << (numbers.next() % 8);
            data.truncate(data.len() - numbers.next() as usize % 2);
            let parts = Parts { descriptors, data };
            if of_sender {
                if let Ok(mut tx) = Sender::from_parts(parts) {
                    let _ = tx.try_send(b"x");
                }
            } else if let Ok(mut rx) = Receiver::from_parts(parts) {
                let _ = rx.try_recv(&mut [0; 64]);
            }
        }
    }
    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    let data = pair().1.to_parts().unwrap().data;
    let refused = Receiver::from_parts(Parts {
        descriptors: vec![file],
        data,
    });
    assert!(
        matches!(refused, Err(OpenError::Untrusted { .. })),
        "{refused:?}"
    );
}

fn pass_on(mut rx: Receiver, third: Sender) -> u64 {
    let mut buffer = vec![0; 1 << 20];
    let first = rx.recv_with(&mut buffer, patience()).unwrap();
    assert_eq!(first, 4);
    Process::new(drain, (rx, third))
        .start()
        .unwrap()
        .join()
        .unwrap()
}

fn drain(mut rx: Receiver, mut third: Sender) -> u64 {
    let mut buffer = vec![0; 1 << 20];
    let mut sum = 0;
    loop {
        match rx.recv_with(&mut buffer, patience()) {
            Ok(len) => sum += len as u64,
            Err(end) => {
                assert!(matches!(end, RecvError::Closed), "{end:?}");
                third.send(b"drained").unwrap();
                return sum;
            }
        }
    }
}

#[test]
fn a_receiver_passes_from_process_to_process_with_all_that_it_had_read_in() {
    let (mut tx, rx) = pair();
    let (third_tx, mut third) = pair();
    for len in [4, 10, 20_000, 100_000] {
        tx.send(&vec![1; len]).unwrap();
    }
    drop(tx);
    let child = Process::new(pass_on, (rx, third_tx)).start().unwrap();
    assert_eq!(third.recv_with(&mut [0; 64], patience()).unwrap(), 7);
    assert_eq!(child.join().unwrap(), 120_010);
}

#[test]
fn silent_visitors_hold_nobody_beyond_the_deadline() {
    let scratch = Scratch::new();
    let mut unix = Socket::listen(&address_in(&scratch), &Options::default()).unwrap();
    let _silent: Vec<UnixStream> = (0..8)
        .map(|_| UnixStream::connect(socket_in(&scratch)).unwrap())
        .collect();
    let local = "tcp:127.0.0.1:0".parse().unwrap();
    let mut tcp = Socket::listen(&local, &Options::default()).unwrap();
    let port = tcp.tcp_address().unwrap();
    let _distant: Vec<std::net::TcpStream> = (0..8)
        .map(|_| std::net::TcpStream::connect(port).unwrap())
        .collect();
    for listener in [&mut unix, &mut tcp] {
        let start = Instant::now();
        let none = listener.accept(Wait::Never);
        assert!(matches!(none, Err(OpenError::NotFound)), "{none:?}");
        let none = listener.accept(Wait::at_most(Duration::from_millis(10)));
        assert!(matches!(none, Err(OpenError::TimedOut)), "{none:?}");
        assert!(start.elapsed() < Duration::from_millis(800));
    }
}
