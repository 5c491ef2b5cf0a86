//! Names that come and go, visitors that say nothing, and what this crate takes for granted of the
//! kernel's names. A process is started here, and it may hold
//! copies of descriptors until its execve(2): in `kernel.rs` they would be in the way.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipc_conformance::Scratch;
use ipc_core::{Channel, Listener as _, OpenError, Receiver as _, Sender as _, Wait};
use ipc_socket::{Address, Options, Socket};

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

/// Long enough that only a hang exceeds it.
const SOON: Duration = Duration::from_secs(20);
