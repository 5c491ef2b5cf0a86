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

    /// The turn of a receiver, which has emptied the queue if there is a stream. What waits there when
    /// it comes back tells a stream from a peer that sends when it is answered: at most two system
    /// calls.
    #[cold]
    pub(crate) fn turn_of_receiver(&mut self, waiting: impl FnOnce() -> usize) {
        self.pacer.give_way();
        self.left = self.depth;
        if self.looks() {
            let there = waiting();
            self.streams = there > 1;
            self.left = if self.streams { there } else { CALM };
        }
    }

    /// Whether this turn has a look.
    fn looks(&mut self) -> bool {
        self.steady = self.steady.checked_sub(1).unwrap_or(STEADY - 1);
        !self.streams || self.steady == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: usize = 10;

    fn calls_to_the_next_turn(flow: &mut Flow) -> usize {
        (1..).find(|_| flow.is_due()).unwrap()
    }

    type Turn = dyn Fn(&mut Flow, &dyn Fn() -> usize);

    fn no_look() -> usize {
        panic!("a look at this turn")
    }

    /// Turns without a look until one has found `there`.
    fn turns_to_the_next_look(flow: &mut Flow, turn: &Turn, there: usize) -> usize {
        let looked = std::cell::Cell::new(false);
        (1..)
            .find(|_| {
                turn(flow, &|| {
                    looked.set(true);
                    there
                });
                looked.get()
            })
            .unwrap()
    }

    #[test]
    fn a_turn_is_rare_without_a_stream_and_one_a_queue_with_it() {
        let mut flow = Flow::new(DEPTH);
        assert_eq!(calls_to_the_next_turn(&mut flow), CALM);
        flow.turn_of_sender(|| DEPTH / 2 - 1);
        assert_eq!(calls_to_the_next_turn(&mut flow), CALM);
        flow.turn_of_sender(|| DEPTH / 2);
        assert_eq!(calls_to_the_next_turn(&mut flow), DEPTH);
        flow.turn_of_sender(no_look);
        assert_eq!(calls_to_the_next_turn(&mut flow), DEPTH);

        let mut flow = Flow::new(DEPTH);
        flow.turn_of_receiver(|| 1);
        assert_eq!(calls_to_the_next_turn(&mut flow), CALM, "an answer");
        flow.turn_of_receiver(|| 7);
        assert_eq!(calls_to_the_next_turn(&mut flow), 7, "as many as there are");
        flow.turn_of_receiver(no_look);
        assert_eq!(calls_to_the_next_turn(&mut flow), DEPTH);
    }

    #[test]
    fn a_stream_is_looked_at_again_after_so_many_queues_and_its_end_is_noticed() {
        let sender = |flow: &mut Flow, waiting: &dyn Fn() -> usize| flow.turn_of_sender(waiting);
        let receiver =
            |flow: &mut Flow, waiting: &dyn Fn() -> usize| flow.turn_of_receiver(waiting);
        let turns: [&Turn; 2] = [&sender, &receiver];
        for turn in turns {
            let mut flow = Flow::new(DEPTH);
            assert_eq!(turns_to_the_next_look(&mut flow, turn, DEPTH), 1);
            let most = 1..=STEADY as usize;
            assert!(most.contains(&turns_to_the_next_look(&mut flow, turn, DEPTH)));
            assert_eq!(turns_to_the_next_look(&mut flow, turn, 0), STEADY as usize);
            assert_eq!(flow.left, CALM);
        }
    }

    #[test]
    fn a_queue_of_one_streams_for_its_sender_alone() {
        let mut flow = Flow::new(1);
        flow.turn_of_sender(|| 1);
        assert_eq!(calls_to_the_next_turn(&mut flow), 1);
        let mut flow = Flow::new(1);
        flow.turn_of_receiver(|| 1);
        assert_eq!(calls_to_the_next_turn(&mut flow), CALM);
    }
}
