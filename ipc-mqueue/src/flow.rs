//! Whether messages stream, which a call that may sleep does not tell.

use ipc_core::Pacer;

/// So many calls go by between two looks, while none has found a stream.
const CALM: usize = 64;

/// So many queues of messages, while there is one.
const STEADY: u32 = 16;

/// Keeps a sender and a receiver on one processor from taking turns at every message.
///
/// Of two ends that sleep inside the queue the one that has run less preempts the other as soon as
/// it is woken, for a single message, and a queue holds only ten or so. So in the midst of a stream
/// each end gives the processor away when it is done with a whole queue, and not before. That there
/// is a stream is found out by a look at how many messages wait.
#[derive(Debug)]
pub(crate) struct Flow {
    depth: usize,
    /// Calls until the next turn.
    left: usize,
    /// What the last look said.
    streams: bool,
    /// Turns until the next look.
    steady: u32,
    pacer: Pacer,
}

impl Flow {
    pub(crate) fn new(depth: usize) -> Self {
        Self {
            depth,
            left: CALM,
            streams: false,
            steady: 0,
            pacer: Pacer::default(),
        }
    }

    /// Counts a call; whether a turn comes before it.
    #[inline]
    pub(crate) fn is_due(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    /// The turn of a sender, which has filled the queue if there is a stream: at most two system
    /// calls, with that of `waiting`.
    #[cold]
    pub(crate) fn turn_of_sender(&mut self, waiting: impl FnOnce() -> usize) {
        if self.looks() {
            self.streams = 2 * waiting() >= self.depth;
        }
        self.left = CALM;
        if self.streams {
            self.pacer.give_way();
            self.left = self.depth;
        }
    }

    /// The turn of a receiver, which has emptied the queue. What waits there when it comes back tells
    /// a stream from a peer that sends when it is answered: at most two system calls.
    #[cold]
    pub(crate) fn turn_of_receiver(&mut self, waiting: impl FnOnce() -> usize) {
        self.pacer.give_way();
        self.left = self.depth;
        if self.looks() {
            let there = waiting();
            self.streams = there > 1 || there == self.depth;
            self.left = if self.streams { there } else { CALM };
        }
    }

    fn looks(&mut self) -> bool {
        self.steady = self.steady.checked_sub(1).unwrap_or(STEADY - 1);
        !self.streams || self.steady == 0
    }
}
