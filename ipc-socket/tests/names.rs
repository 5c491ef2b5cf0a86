//! Names that come and go, visitors that say nothing or nonsense, and what this crate takes for granted
//! of the kernel's names. A process is started here, and it may hold copies of descriptors until its
//! execve(2): in `kernel.rs` they would be in the way.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipc_conformance::{Scratch, Storm};
use ipc_core::{Channel, Listener as _, OpenError, Receiver as _, Sender as _, Wait};
use ipc_process::Process;
use ipc_socket::{Address, Listener, Options, Socket};
use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};

ipc_process::test_support!();

#[test]
fn a_path_whose_listener_is_gone_refuses() {
    let scratch = Scratch::new();
    let path = scratch.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    let refused = UnixStream::connect(&path).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let taken = UnixListener::bind(&path).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
}

fn addresses(scratch: &Scratch) -> [Address; 2] {
    let path = scratch.path().join("socket");
    let word = format!("abstract:ipc-socket-names-{}", std::process::id());
    [
        path.to_str().unwrap().parse().unwrap(),
        word.parse().unwrap(),
    ]
}

#[test]
fn a_listener_that_is_just_leaving_is_not_found() {
    let scratch = Scratch::new();
    let options = Options::default();
    for address in addresses(&scratch) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let connectors: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            match Socket::connect(&address, &options, Wait::Never) {
                                Ok(_) | Err(OpenError::NotFound) => {}
                                Err(error) => return Some(error),
                            }
                        }
                        None
                    })
                })
                .collect();
            for _ in 0..4000 {
                // Of an abstract name, the last one's connection may still be on its way.
                let _ = Socket::listen(&address, &options);
            }
            over.store(true, Ordering::Relaxed);
            for connector in connectors {
                let wrong = connector.join().unwrap();
                assert!(wrong.is_none(), "{wrong:?}");
            }
        });
    }
}

#[test]
fn silent_visitors_delay_no_other() {
    let scratch = Scratch::new();
    let options = Options::default();
    let [path, _] = addresses(&scratch);
    let mut unix = Socket::listen(&path, &options).unwrap();
    let _silent: Vec<UnixStream> = (0..8)
        .map(|_| UnixStream::connect(scratch.path().join("socket")).unwrap())
        .collect();
    let mut tcp = Socket::listen(&"tcp:127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let port = tcp.tcp_address().unwrap();
    let _distant: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(port).unwrap()).collect();
    let tcp_address = format!("tcp:{port}").parse().unwrap();
    for (listener, address) in [(&mut unix, path), (&mut tcp, tcp_address)] {
        let mut tx = Socket::connect(&address, &options, Wait::at_most(SOON)).unwrap();
        tx.send(b"polite").unwrap();
        let start = Instant::now();
        let mut rx = listener.accept(Wait::at_most(SOON)).unwrap();
        let took = start.elapsed();
        assert!(took < Duration::from_millis(900), "not even one: {took:?}");
        assert_eq!(rx.recv(&mut [0; 8]).unwrap(), 6);
    }
}

#[test]
fn silent_visitors_hold_nobody_beyond_the_deadline() {
    let scratch = Scratch::new();
    let [address, _] = addresses(&scratch);
    let mut unix = Socket::listen(&address, &Options::default()).unwrap();
    let _silent: Vec<UnixStream> = (0..8)
        .map(|_| UnixStream::connect(scratch.path().join("socket")).unwrap())
        .collect();
    let local = "tcp:127.0.0.1:0".parse().unwrap();
    let mut tcp = Socket::listen(&local, &Options::default()).unwrap();
    let port = tcp.tcp_address().unwrap();
    let _distant: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(port).unwrap()).collect();
    for listener in [&mut unix, &mut tcp] {
        let start = Instant::now();
        let none = listener.accept(Wait::Never);
        assert!(matches!(none, Err(OpenError::NotFound)), "{none:?}");
        let none = listener.accept(Wait::at_most(Duration::from_millis(10)));
        assert!(matches!(none, Err(OpenError::TimedOut)), "{none:?}");
        assert!(start.elapsed() < Duration::from_millis(800));
    }
}

#[test]
fn visitors_that_do_not_greet_are_turned_away_and_hold_nobody_up_for_long() {
    let scratch = Scratch::new();
    let [address, _] = addresses(&scratch);
    let options = Options::default();
    let mut listener = Socket::listen(&address, &options).unwrap();
    let mut liar = UnixStream::connect(scratch.path().join("socket")).unwrap();
    liar.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(UnixStream::connect(scratch.path().join("socket")).unwrap());
    let _silent = UnixStream::connect(scratch.path().join("socket")).unwrap();
    let greedy = options.clone().max_message(2 << 20);
    let _greedy = Socket::connect(&address, &greedy, Wait::Never).unwrap();
    let mut tx = Socket::connect(&address, &options, Wait::Never).unwrap();
    tx.send(b"polite").unwrap();
    let started = Instant::now();
    let mut rx = listener.accept(Wait::at_most(SOON)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(rx.recv(&mut [0; 8]).unwrap(), 6);
    let soon = Wait::at_most(Duration::from_millis(10));
    assert!(matches!(listener.accept(soon), Err(OpenError::TimedOut)));
}

#[test]
fn a_socket_that_is_open_to_all_is_not_trusted() {
    let scratch = Scratch::new();
    let path = scratch.path().join("socket");
    let [address, _] = addresses(&scratch);
    let _open_to_all = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    let refused = Socket::connect(&address, &Options::default(), Wait::Never);
    assert!(
        matches!(refused, Err(OpenError::Untrusted { .. })),
        "{refused:?}"
    );
}

/// All of it, as a connector with the default options says it.
const GREETING: &[u8] = b"IPCSOCK2\0\0\x10\0\0";

#[test]
fn visitors_that_say_half_a_greeting_delay_no_other_and_may_say_the_rest() {
    let scratch = Scratch::new();
    let options = Options::default();
    let [path, _] = addresses(&scratch);
    let listener = Socket::listen(&path, &options).unwrap();
    let visit = || UnixStream::connect(scratch.path().join("socket")).unwrap();
    hear_halves(listener, &path, visit);

    let listener = Socket::listen(&"tcp:127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let port = listener.tcp_address().unwrap();
    let address = format!("tcp:{port}").parse().unwrap();
    hear_halves(listener, &address, || TcpStream::connect(port).unwrap());
}

fn hear_halves<V: Write>(mut listener: Listener, address: &Address, visit: impl Fn() -> V) {
    let mut halves: Vec<V> = (0..8).map(|_| visit()).collect();
    for (number, half) in halves.iter_mut().enumerate() {
        half.write_all(&GREETING[..=number]).unwrap();
    }
    let mut tx = Socket::connect(address, &Options::default(), Wait::at_most(SOON)).unwrap();
    tx.send(b"polite").unwrap();
    let start = Instant::now();
    let mut rx = listener.accept(Wait::at_most(SOON)).unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(900), "in turn: {took:?}");
    assert_eq!(rx.recv(&mut [0; 8]).unwrap(), 6);

    // More than once, because none is heard for longer than a second and this machine may be busy.
    let mut rx = (0..5)
        .find_map(|_| {
            let mut visitor = visit();
            let (first, last) = GREETING.split_at(GREETING.len() - 1);
            for piece in first.chunks(5) {
                visitor.write_all(piece).ok()?;
                let early = listener.accept(Wait::at_most(Duration::from_millis(5)));
                assert!(matches!(early, Err(OpenError::TimedOut)), "{early:?}");
            }
            visitor.write_all(last).ok()?;
            visitor.write_all(b"\x05\0\0\0hello").ok()?;
            listener.accept(Wait::at_most(Duration::from_secs(2))).ok()
        })
        .expect("it has said all");
    // What came behind the greeting is kept.
    assert_eq!(rx.recv(&mut [0; 8]).unwrap(), 5);
}

/// Twenty connections by TCP, each by connectors that come before, while signals interrupt whatever waits.
fn connect_in_a_storm() {
    let storm = Storm::new();
    let options = Options::default();
    for _ in 0..20 {
        let mut listener = Socket::listen(&"tcp:127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let address = format!("tcp:{}", listener.tcp_address().unwrap());
        let visitor = std::thread::spawn(move || {
            let storm = Storm::new();
            let wait = Wait::at_most(SOON);
            let mut tx =
                Socket::connect(&address.parse().unwrap(), &Options::default(), wait).unwrap();
            tx.send(&vec![7; 1 << 20]).unwrap();
            drop(storm);
        });
        let mut rx = listener.accept(Wait::at_most(SOON)).unwrap();
        assert_eq!(rx.recv(&mut vec![0; 1 << 20]).unwrap(), 1 << 20);
        visitor.join().unwrap();
    }
    drop(storm);
    assert!(Storm::caught() > 0, "no signal arrived");
}

#[test]
fn tcp_connects_in_a_storm_of_signals() {
    let process = Process::new(connect_in_a_storm, ())
        .daemon(true)
        .start()
        .unwrap();
    assert!(process.wait_timeout(SOON).unwrap().is_some(), "it hangs");
    process.join().unwrap();
}

#[test]
fn within_a_machine_tcp_measures_no_line() {
    let options = Options::default();
    let mut listener = Socket::listen(&"tcp:127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let port = listener.tcp_address().unwrap();
    let bare = TcpStream::connect(port).unwrap();
    let address = format!("tcp:{port}").parse().unwrap();
    let tx = Socket::connect(&address, &options, Wait::at_most(SOON)).unwrap();
    let _rx = listener.accept(Wait::at_most(SOON)).unwrap();
    if set_tcp_congestion(&bare, "reno").is_err() {
        eprintln!("skipped: this user may not choose (tcp_allowed_congestion_control)");
        return;
    }
    assert_eq!(tcp_congestion(&tx).unwrap(), "reno");
}

#[test]
fn ipv6_carries_messages_too() {
    let options = Options::default();
    let mut listener = match Socket::listen(&"tcp:[::1]:0".parse().unwrap(), &options) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("skipped: this machine has no IPv6: {error}");
            return;
        }
    };
    let address = format!("tcp:{}", listener.tcp_address().unwrap());
    let mut tx = Socket::connect(&address.parse().unwrap(), &options, Wait::Never).unwrap();
    tx.send(b"hello").unwrap();
    let mut rx = listener.accept(Wait::at_most(SOON)).unwrap();
    assert_eq!(rx.recv(&mut [0; 8]).unwrap(), 5);
    assert_eq!((tx.peer_credentials(), rx.peer_credentials()), (None, None));
}

/// Long enough that only a hang exceeds it.
const SOON: Duration = Duration::from_secs(20);
