//! Who listens at a name is not held up by visitors that have nothing to say.

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipc_core::rendezvous::RendezvousListener;
use ipc_core::{Handoff, Listener as _, OpenError, Parts, Wait};

use common::Folder;

/// An end of nothing.
#[derive(Debug)]
struct End;

impl Handoff for End {
    fn to_parts(&self) -> std::io::Result<Parts> {
        Ok(Parts::default())
    }

    fn release(&self) {}

    fn from_parts(_: Parts) -> Result<Self, OpenError> {
        Ok(Self)
    }
}

#[test]
fn silent_visitors_hold_nobody_beyond_the_deadline() {
    let folder = Folder::new("silent", 0o700);
    let (path, name) = (folder.0.join("name"), folder.name("name"));
    let mut listener = RendezvousListener::<End>::bind(&name, "test").unwrap();
    // Twice: those of the first round were turned away, or wait in the queue before the others.
    for _ in 0..2 {
        let _silent: Vec<UnixStream> = (0..8)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();

        let start = Instant::now();
        assert!(matches!(
            listener.accept(Wait::Never),
            Err(OpenError::NotFound)
        ));
        assert!(start.elapsed() < Duration::from_millis(500));

        let start = Instant::now();
        let soon = Wait::at_most(Duration::from_millis(10));
        assert!(matches!(listener.accept(soon), Err(OpenError::TimedOut)));
        assert!(start.elapsed() < Duration::from_millis(500));
    }
    // And one with something to say is let in after them, by a listener that would not wait.
    let (kind, wait) = ("test", Wait::Never);
    ipc_core::rendezvous::connect(&name, kind, End, wait).unwrap();
    let end = (0..100).find_map(|_| listener.accept(Wait::Never).ok());
    assert!(end.is_some());
}

#[test]
fn silent_visitors_delay_no_other() {
    let folder = Folder::new("side-by-side", 0o700);
    let (path, name) = (folder.0.join("name"), folder.name("name"));
    let mut listener = RendezvousListener::<End>::bind(&name, "test").unwrap();
    let mut late = UnixStream::connect(&path).unwrap();
    let _silent: Vec<UnixStream> = (0..8)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    let connect = || ipc_core::rendezvous::connect(&name, "test", End, Wait::Never).unwrap();
    connect();
    connect();
    let start = Instant::now();
    let soon = Wait::at_most(Duration::from_secs(20));
    listener.accept(soon).unwrap();
    listener.accept(soon).unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "less than one of them may be silent: {:?}",
        start.elapsed()
    );
    // Who connected before them and speaks only now is heard too, by a later call.
    late.write_all(&spoken()).unwrap();
    listener.accept(soon).unwrap();
}

/// What a connector says, as another one said it.
fn spoken() -> Vec<u8> {
    let folder = Folder::new("spoken", 0o700);
    let (path, name) = (folder.0.join("name"), folder.name("name"));
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    ipc_core::rendezvous::connect(&name, "test", End, Wait::Never).unwrap();
    let mut said = Vec::new();
    let (mut visitor, _) = listener.accept().unwrap();
    visitor.read_to_end(&mut said).unwrap();
    said
}

/// A name that comes and goes is somebody or nobody, and never a stranger's.
#[test]
fn a_listener_that_is_just_leaving_is_not_found() {
    let folder = Folder::new("leaving", 0o700);
    let name = folder.name("name");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let connectors: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        match ipc_core::rendezvous::connect(&name, "test", End, Wait::Never) {
                            Ok(()) | Err(OpenError::NotFound) => {}
                            Err(error) => return Some(error),
                        }
                    }
                    None
                })
            })
            .collect();
        for _ in 0..4000 {
            drop(RendezvousListener::<End>::bind(&name, "test").unwrap());
        }
        over.store(true, Ordering::Relaxed);
        for connector in connectors {
            let wrong = connector.join().unwrap();
            assert!(wrong.is_none(), "{wrong:?}");
        }
    });
}

#[test]
fn a_connector_that_is_turned_away_again_and_again_is_told_so() {
    let folder = Folder::new("turned-away", 0o700);
    let (path, name) = (folder.0.join("name"), folder.name("name"));
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(listener.accept().unwrap());
            }
        });
        // More than the buffer of a socket holds, so that it notices in any case.
        let refused = ipc_core::rendezvous::connect(&name, "test", LongEnd, Wait::Forever);
        over.store(true, Ordering::Relaxed);
        drop(UnixStream::connect(&path).unwrap());
        assert!(matches!(refused, Err(OpenError::Io { .. })), "{refused:?}");
    });
}

/// An end with a long record.
#[derive(Debug)]
struct LongEnd;

impl Handoff for LongEnd {
    fn to_parts(&self) -> std::io::Result<Parts> {
        let data = vec![0; 1 << 20];
        Ok(Parts {
            data,
            ..Parts::default()
        })
    }

    fn release(&self) {}

    fn from_parts(_: Parts) -> Result<Self, OpenError> {
        Ok(Self)
    }
}
