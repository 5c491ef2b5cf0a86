//! Whether messages stream, which a call that may sleep does not tell.

use ipc_core::Pacer;

/// So many calls without a look at the queue, while none has found a stream.
const CALM: usize = 32;

/// Keeps a sender and a receiver on one processor from taking turns at every message.
///
/// Of two ends that sleep inside the queue the one that has run less preempts the other as soon as
/// it is woken, for a single message, and a queue holds only ten or so. So in the midst of a stream
/// each end gives the processor away when it is done with a whole queue, and not before. That there
/// is a stream is found out by a look, a call that does not sleep: one in [`CALM`] calls, or one a
/// queue while the looks say yes.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Calls until the next look.
    left: usize,
    /// What the last look said.
    streams: bool,
    depth: usize,
    pacer: Pacer,
}

impl Flow {
    pub(crate) fn new(depth: usize) -> Self {
        Self {
            left: CALM,
            streams: false,
            depth,
            pacer: Pacer::default(),
        }
    }

    /// Counts a call; whether it begins with a look.
    #[inline]
    pub(crate) fn begins_with_a_look(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    /// What the look said: that the peer keeps this end busy, or not.
    pub(crate) fn learn(&mut self, streams: bool) {
        self.streams = streams;
        self.left = if streams { self.depth } else { CALM };
    }

    pub(crate) fn streams(&self) -> bool {
        self.streams
    }

    /// Gives the peer time for a queue of messages: at most one system call.
    pub(crate) fn pause(&mut self) {
        self.pacer.give_way();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls_to_the_next_look(flow: &mut Flow) -> usize {
        (1..).find(|_| flow.begins_with_a_look()).unwrap()
    }

    #[test]
    fn a_look_is_rare_without_a_stream_and_one_a_queue_with_it() {
        for depth in [1, 10] {
            let mut flow = Flow::new(depth);
            assert_eq!(calls_to_the_next_look(&mut flow), CALM);
            flow.learn(true);
            assert_eq!(calls_to_the_next_look(&mut flow), depth);
            flow.learn(false);
            assert_eq!(calls_to_the_next_look(&mut flow), CALM);
        }
    }
}
