//! What this crate takes for granted of the kernel's names. A process is started here, and it may hold
//! copies of descriptors until its execve(2): in `kernel.rs` they would be in the way.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use ipc_conformance::Scratch;

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
