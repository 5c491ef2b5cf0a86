use std::os::unix::net::UnixStream;

use ipc_core::{Channel, Handoff};
use ipc_socket::{Options, Receiver, Socket};

/// A receiver whose peer is this raw socket, which may write what it likes.
pub(crate) fn receiver_of(options: &Options) -> (UnixStream, Receiver) {
    let (tx, rx) = Socket::pair(options).unwrap();
    let mut parts = tx.into_parts().unwrap();
    (UnixStream::from(parts.descriptors.remove(0)), rx)
}
