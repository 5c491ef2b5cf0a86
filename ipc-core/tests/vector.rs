//! What `recv_vec` asks of a mechanism, and what it costs.

use ipc_core::{Limits, Receiver, RecvError, Wait};

/// Gives messages of these lengths and remembers the buffers that it was offered.
struct Recorded {
    lengths: Vec<usize>,
    offered: Vec<usize>,
}

impl Receiver for Recorded {
    fn recv_with(&mut self, buffer: &mut [u8], _: Wait) -> Result<usize, RecvError> {
        self.offered.push(buffer.len());
        match self.lengths.first() {
            None => Err(RecvError::Closed),
            Some(&needed) if needed > buffer.len() => Err(RecvError::BufferTooSmall { needed }),
            Some(_) => Ok(self.lengths.remove(0)),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: usize::MAX,
            depth_messages: None,
            depth_bytes: None,
        }
    }
}

/// The buffers offered while a vector of this capacity receives messages of these lengths.
fn offered(capacity: usize, lengths: &[usize]) -> Vec<usize> {
    let lengths = lengths.to_vec();
    let mut receiver = Recorded {
        lengths: lengths.clone(),
        offered: Vec::new(),
    };
    let mut message = Vec::with_capacity(capacity);
    for len in lengths {
        receiver.recv_vec(&mut message, Wait::Never).unwrap();
        assert_eq!(message.len(), len);
    }
    receiver.offered
}

#[test]
fn a_large_vector_is_not_filled_with_zeros_for_small_messages() {
    let offered = offered(1 << 20, &[8, 8, 8]);
    assert!(
        offered.iter().all(|&len| (8..=4096).contains(&len)),
        "{offered:?}"
    );
}

#[test]
fn messages_of_one_length_are_asked_for_once_each() {
    assert_eq!(offered(0, &[100_000; 3]), [0, 100_000, 100_000, 100_000]);
}
