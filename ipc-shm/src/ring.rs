//! The ring: whole messages in one piece, one producer, one consumer.
//!
//! Each side keeps its own position to itself and only publishes it. The other side's position is
//! loaded once into a local, checked and then used, and so is the length of a frame: whatever
//! stands in the memory, nothing is read or written outside the ring.

use crate::sync::{AtomicU64, Ordering, Publisher};

/// Bytes in front of every payload.
pub(crate) const WORD: usize = 8;
const MESSAGE: u64 = 1;
const FILLER: u64 = 2;

/// Memory that holds a ring. Offsets count from the beginning of the ring; what reaches beyond
/// its end panics and touches nothing.
pub(crate) trait Memory {
    /// The producer's published position.
    fn tail(&self) -> &AtomicU64;
    /// The consumer's published position.
    fn head(&self) -> &AtomicU64;
    /// Length of the ring in bytes, a power of two; the same at every call.
    fn capacity(&self) -> usize;
    fn store_word(&self, offset: usize, word: u64);
    fn load_word(&self, offset: usize) -> u64;
    fn copy_in(&self, offset: usize, bytes: &[u8]);
    fn copy_out(&self, offset: usize, bytes: &mut [u8]);
    /// The producer is about to write here.
    fn will_write(&self, _offset: usize) {}
    /// The consumer is about to read here.
    fn will_read(&self, _offset: usize) {}
}

/// The peer wrote what no peer of this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt(pub(crate) &'static str);

/// Bytes of the frame of a message of `len` bytes.
const fn frame(len: usize) -> usize {
    WORD + len.next_multiple_of(WORD)
}

/// The longest message: its frame takes half the ring, so that with the filler in front of it,
/// which is shorter than itself, it fits in an empty ring at any position.
pub(crate) const fn max_message(capacity: usize) -> usize {
    capacity / 2 - WORD
}

const fn word(kind: u64, len: usize) -> u64 {
    kind << 32 | len as u64
}

/// Room for one message, not yet visible to the consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Position of the frame, after the filler.
    frame: u64,
    /// Offset of the payload.
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// A committed message, still in the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Offset of the payload.
    pub(crate) offset: usize,
    pub(crate) len: usize,
    /// The head once it is consumed.
    end: u64,
}

#[derive(Debug)]
pub(crate) struct Producer<M> {
    memory: M,
    publisher: Publisher,
    tail: u64,
    /// The head as last seen: never ahead of the real one.
    head: u64,
}

impl<M: Memory> Producer<M> {
    /// Goes on where the memory says that the last producer stopped.
    pub(crate) fn attach(memory: M) -> Result<Self, Corrupt> {
        let tail = memory.tail().load(Ordering::Acquire);
        let head = memory.head().load(Ordering::Acquire);
        check_start(tail, head, memory.capacity())?;
        Ok(Self {
            memory,
            publisher: Publisher::new(),
            tail,
            head,
        })
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// Finds room for a message of at most [`max_message`] bytes.
    #[inline]
    pub(crate) fn reserve(&mut self, len: usize) -> Result<Option<Room>, Corrupt> {
        let capacity = self.memory.capacity();
        debug_assert!(len <= max_message(capacity));
        let offset = self.tail as usize & (capacity - 1);
        // The frame's lines are fetched side by side while the rest is worked out.
        self.memory.will_write(offset);
        let to_end = capacity - offset;
        let size = frame(len);
        let filler = if size <= to_end { 0 } else { to_end };
        if !self.has_room(filler + size)? {
            return Ok(None);
        }
        let frame = self.tail + filler as u64;
        let at = frame as usize & (capacity - 1);
        if filler > 0 {
            self.memory.store_word(offset, word(FILLER, filler - WORD));
        }
        Ok(Some(Room {
            frame,
            offset: at + WORD,
            len,
        }))
    }

    #[inline]
    fn has_room(&mut self, bytes: usize) -> Result<bool, Corrupt> {
        let capacity = self.memory.capacity();
        if bytes <= capacity - (self.tail - self.head) as usize {
            return Ok(true);
        }
        // Acquire: the consumer has finished reading what lies before its head.
        let head = self.memory.head().load(Ordering::Acquire);
        check_distance(self.tail, head, capacity)?;
        if head < self.head {
            return Err(Corrupt("the receiver's position went back"));
        }
        self.head = head;
        Ok(bytes <= capacity - (self.tail - head) as usize)
    }

    /// Commits the first `len` bytes of the room.
    #[inline]
    pub(crate) fn commit(&mut self, room: Room, len: usize) {
        assert!(len <= room.len);
        self.memory
            .store_word(room.offset - WORD, word(MESSAGE, len));
        self.tail = room.frame + frame(len) as u64;
        self.publisher.publish(self.memory.tail(), self.tail);
    }

    #[inline]
    pub(crate) fn fill(&self, room: Room, at: usize, bytes: &[u8]) {
        assert!(at <= room.len && bytes.len() <= room.len - at);
        self.memory.copy_in(room.offset + at, bytes);
    }
}

#[derive(Debug)]
pub(crate) struct Consumer<M> {
    memory: M,
    publisher: Publisher,
    head: u64,
    /// The tail as last seen: never ahead of the real one.
    tail: u64,
}

impl<M: Memory> Consumer<M> {
    /// Goes on where the memory says that the last consumer stopped.
    pub(crate) fn attach(memory: M) -> Result<Self, Corrupt> {
        let head = memory.head().load(Ordering::Acquire);
        let tail = memory.tail().load(Ordering::Acquire);
        check_start(tail, head, memory.capacity())?;
        Ok(Self {
            memory,
            publisher: Publisher::new(),
            head,
            tail,
        })
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// The next message, if one is committed. Asking again gives the same.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Option<Found>, Corrupt> {
        let capacity = self.memory.capacity();
        if self.head == self.tail {
            // Acquire: what the producer wrote before its tail is visible.
            let tail = self.memory.tail().load(Ordering::Acquire);
            if tail == self.head {
                // The message's lines travel while the position's does, not after it.
                self.memory.will_read(self.head as usize & (capacity - 1));
                return Ok(None);
            }
            check_distance(tail, self.head, capacity)?;
            self.tail = tail;
        }
        let mut offset = self.head as usize & (capacity - 1);
        let mut available = (self.tail - self.head) as usize;
        let mut start = self.head;
        let mut read = self.memory.load_word(offset);
        if read >> 32 == FILLER {
            let to_end = capacity - offset;
            if offset == 0 || read as u32 as usize != to_end - WORD || to_end >= available {
                return Err(Corrupt("filler that does not end with the ring"));
            }
            start += to_end as u64;
            available -= to_end;
            offset = 0;
            read = self.memory.load_word(offset);
        }
        let len = read as u32 as usize;
        if read >> 32 != MESSAGE {
            return Err(Corrupt("a frame that is neither message nor filler"));
        }
        // The first comparison keeps the sum in `frame` from overflowing.
        if len > max_message(capacity) || frame(len) > available || frame(len) > capacity - offset {
            return Err(Corrupt("a message longer than what was committed"));
        }
        Ok(Some(Found {
            offset: offset + WORD,
            len,
            end: start + frame(len) as u64,
        }))
    }

    #[inline]
    pub(crate) fn copy(&self, found: Found, at: usize, bytes: &mut [u8]) {
        assert!(at <= found.len && bytes.len() <= found.len - at);
        self.memory.copy_out(found.offset + at, bytes);
    }

    /// Gives the message's room back to the producer.
    #[inline]
    pub(crate) fn consume(&mut self, found: Found) {
        self.head = found.end;
        self.publisher.publish(self.memory.head(), self.head);
    }
}

#[inline]
fn check_distance(tail: u64, head: u64, capacity: usize) -> Result<(), Corrupt> {
    // Positions count bytes since the beginning and never wrap.
    if tail < head || tail - head > capacity as u64 || !(tail | head).is_multiple_of(WORD as u64) {
        return Err(Corrupt("positions further apart than the ring is long"));
    }
    Ok(())
}

/// Positions to go on from. Half the range is left for what will be written: at 100 GB/s that
/// takes a year and a half.
fn check_start(tail: u64, head: u64, capacity: usize) -> Result<(), Corrupt> {
    if tail > u64::MAX / 2 {
        return Err(Corrupt("positions beyond all that was ever written"));
    }
    check_distance(tail, head, capacity)
}
