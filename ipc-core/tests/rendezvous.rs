//! Who listens at a name is not held up by visitors that have nothing to say.

mod common;

use std::os::unix::net::UnixStream;
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

/// A name that comes and goes is somebody or nobody, and never a stranger's.
#[test]
fn a_listener_that_is_just_leaving_is_not_found() {
    let folder = Folder::new("leaving", 0o700);
    let name = folder.name("name");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let connectors: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        match ipc_core::rendezvous::connect_socket(&name, Wait::Never) {
                            Ok(_) | Err(OpenError::NotFound) => {}
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
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        for connector in connectors {
            let wrong = connector.join().unwrap();
            assert!(wrong.is_none(), "{wrong:?}");
        }
    });
}
