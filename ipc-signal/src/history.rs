//! The sender's copies of the messages that may have to be sent again.
//!
//! A receiver that moves to another process leaves its queue behind. What had arrived there is
//! lost, as [`Retention::Receiver`](ipc_core::Retention::Receiver) says; what a sender sent after
//! that, because it had not yet heard of the move, is not: it goes to the new process.

use crate::word::Word;

/// The last messages, at most a window of them, and where they stand.
#[derive(Debug)]
pub(crate) struct History {
    /// A ring, as long as the next power of two; message number `n` is at `n % words.len()`.
    words: Box<[Word]>,
    window: u32,
    /// Messages accepted, ever.
    accepted: u64,
    /// The newest so many wait for the next receiver.
    waiting: u32,
    /// The so many before them were sent and are not known to be received.
    in_flight: u32,
    /// Messages sent to the present receiver, modulo 2^32.
    sent: u32,
}

impl History {
    pub(crate) fn new(window: u32) -> Self {
        let len = usize::try_from(window.next_power_of_two()).unwrap_or(1);
        Self {
            words: vec![Word::default(); len].into(),
            window,
            accepted: 0,
            waiting: 0,
            in_flight: 0,
            sent: 0,
        }
    }

    /// As it was in another process: `words` are those in flight and waiting, oldest first.
    /// `None` if they are more than the window.
    pub(crate) fn restore(
        window: u32,
        sent: u32,
        waiting: u32,
        words: impl ExactSizeIterator<Item = Word>,
    ) -> Option<Self> {
        let count = u32::try_from(words.len()).ok()?;
        let mut history = Self::new(window);
        history.in_flight = count.checked_sub(waiting)?;
        history.waiting = waiting;
        history.sent = sent;
        if count > window {
            return None;
        }
        for word in words {
            history.put(word);
        }
        Some(history)
    }

    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
    }

    pub(crate) fn has_room(&self) -> bool {
        self.in_flight + self.waiting < self.window()
    }

    /// Whether there is room, and nothing waits.
    #[inline]
    pub(crate) fn flows(&self) -> bool {
        self.waiting == 0 && self.in_flight < self.window
    }

    /// Those in flight and waiting, oldest first.
    pub(crate) fn words(&self) -> impl Iterator<Item = Word> {
        let count = u64::from(self.in_flight + self.waiting);
        (self.accepted - count..self.accepted).map(|number| self.words[self.place(number)])
    }

    /// The oldest that waits.
    pub(crate) fn next(&self) -> Option<Word> {
        let number = self.accepted - u64::from(self.waiting);
        (self.waiting > 0).then(|| self.words[self.place(number)])
    }

    /// The oldest that waits was sent.
    pub(crate) fn next_sent(&mut self) {
        self.waiting -= 1;
        self.in_flight += 1;
        self.sent = self.sent.wrapping_add(1);
    }

    /// A new message was sent.
    #[inline]
    pub(crate) fn push(&mut self, word: Word) {
        self.put(word);
        self.in_flight += 1;
        self.sent = self.sent.wrapping_add(1);
    }

    /// So many were received; `false` if that cannot be.
    pub(crate) fn received(&mut self, count: u32) -> bool {
        let rest = self.in_flight.checked_sub(count);
        self.in_flight = rest.unwrap_or(self.in_flight);
        rest.is_some()
    }

    /// The receiver left after so many had arrived: the rest waits for the next. `false` if that
    /// cannot be.
    pub(crate) fn withdrawn(&mut self, arrived: u32) -> bool {
        let missed = self.sent.wrapping_sub(arrived);
        let possible = missed <= self.in_flight;
        if possible {
            self.in_flight = 0;
            self.waiting += missed;
        }
        possible
    }

    /// Another receiver is ready.
    pub(crate) fn announced(&mut self) {
        self.in_flight = 0;
        self.sent = 0;
    }

    #[inline]
    fn put(&mut self, word: Word) {
        let place = self.place(self.accepted);
        self.words[place] = word;
        self.accepted += 1;
    }

    fn place(&self, number: u64) -> usize {
        number as usize & (self.words.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(byte: u8) -> Word {
        Word::new(&[byte]).unwrap()
    }

    #[test]
    fn what_missed_the_receiver_waits_for_the_next() {
        let mut history = History::new(4);
        for round in 0..100u8 {
            history.announced();
            for byte in 0..4 {
                assert!(history.has_room());
                history.push(word(round ^ byte));
            }
            assert!(!history.has_room());
            assert!(history.received(1));
            assert!(history.withdrawn(2));
            assert_eq!(
                history.words().collect::<Vec<_>>(),
                [word(round ^ 2), word(round ^ 3)]
            );
            let copy = History::restore(4, 0, 2, vec![word(1), word(2)].into_iter()).unwrap();
            assert_eq!(copy.next(), Some(word(1)));
            history.announced();
            assert_eq!(history.next(), Some(word(round ^ 2)));
            history.next_sent();
            history.next_sent();
            assert_eq!(history.next(), None);
            assert!(history.received(2));
        }
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        let mut history = History::new(4);
        history.push(word(1));
        assert!(!history.received(2));
        assert!(!history.withdrawn(2));
        assert!(!history.withdrawn(u32::MAX - 3));
        assert!(history.withdrawn(0));
        assert_eq!(history.waiting(), 1);
        assert!(History::restore(1, 0, 0, vec![word(1), word(2)].into_iter()).is_none());
        assert!(History::restore(4, 0, 3, vec![word(1), word(2)].into_iter()).is_none());
    }
}
