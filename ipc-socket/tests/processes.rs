//! Processes that die, that take over a name, and that ask who the other one is.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ipc_conformance::Scratch;
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Channel, Listener as _, OpenError, Receiver as _, RecvError, Sender as _, Wait};
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

fn address_in(scratch: &Scratch) -> Address {
    let path = scratch.path().join("socket");
    path.to_str().unwrap().parse().unwrap()
}

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

fn listen_for_ever(address: String, mut ready: Sender) {
    let _listener = Socket::listen(&address.parse().unwrap(), &Options::default()).unwrap();
    ready.send(b"ready").unwrap();
    loop {
        poll([], Wait::at_most(PATIENCE)).unwrap();
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
    assert!(!scratch.path().join("socket").exists());
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
        poll([], Wait::at_most(PATIENCE)).unwrap();
    }
}

#[test]
fn the_pidfd_of_a_peer_is_its_own_and_tells_of_its_end() {
    let scratch = Scratch::new();
    let mut listener = Socket::listen(&address_in(&scratch), &Options::default()).unwrap();
    let (ready_tx, mut ready) = pair();
    let child = Process::new(
        connect_and_stay,
        (address_in(&scratch).to_string(), ready_tx),
    )
    .daemon(true)
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
