//! The ring: whole messages in one piece, one producer, one consumer.
//!
//! A frame is committed by its own first word, so that a message and the news of it travel in the
//! same cache lines. The word behind the last frame is empty: it is made so before that frame is
//! committed. Hence whoever has read a frame finds behind it either nothing or the next frame, and
//! never what an earlier lap left there.
//!
//! Each side keeps its own position to itself and only publishes it. What the other side wrote, a
//! position or a frame's word, is loaded once into a local, checked and then used: whatever stands
//! in the memory, nothing is read or written outside the ring.

use crate::sync::{AtomicU64, Ordering, Publisher};

/// Bytes in front of every payload.
pub(crate) const WORD: usize = 8;
const EMPTY: u64 = 0;
const MESSAGE: u64 = 1 << 32;
const FILLER: u64 = 2 << 32;

/// Memory that holds a ring. A position lies at the offset that is its remainder by the capacity;
/// what reaches beyond the end of the ring panics and touches nothing.
pub(crate) trait Memory {
    /// The producer's position, for whoever comes after it.
    fn tail(&self) -> &AtomicU64;
    /// The consumer's published position.
    fn head(&self) -> &AtomicU64;
    /// Length of the ring in bytes, a power of two; the same at every call.
    fn capacity(&self) -> usize;
    /// The first word of the frame at a position, a multiple of [`WORD`].
    fn word(&self, position: u64) -> &AtomicU64;
    fn copy_in(&self, offset: usize, bytes: &[u8]);
    fn copy_out(&self, offset: usize, bytes: &mut [u8]);
    /// The producer is about to write a frame here.
    fn will_write(&self, _position: u64) {}
    /// The consumer goes on from here, and will read what lies some lines ahead if it is there.
    fn will_read_ahead(&self, _position: u64) {}
    /// The consumer is looking at this word, and is about to read what follows.
    fn will_read_on(&self, _position: u64) {}
}

/// The peer wrote what no peer of this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt(pub(crate) &'static str);

/// Bytes of the frame of a message of `len` bytes.
const fn frame(len: usize) -> usize {
    WORD + len.next_multiple_of(WORD)
}

/// The longest message: its frame takes half the ring, so that with the filler in front of it and
/// the empty word behind it, which are shorter than itself, it fits in an empty ring at any
/// position.
pub(crate) const fn max_message(capacity: usize) -> usize {
    capacity / 2 - WORD
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

/// The frame at `position`, if one is committed there.
#[inline]
fn find(memory: &impl Memory, position: u64) -> Result<Option<Found>, Corrupt> {
    let capacity = memory.capacity();
    let mut offset = position as usize & (capacity - 1);
    // Acquire: what the producer wrote before it committed this frame is visible.
    let mut word = memory.word(position).load(Ordering::Acquire);
    if word == EMPTY {
        return Ok(None);
    }
    let mut start = position;
    if word & FILLER != 0 {
        let to_end = capacity - offset;
        if offset == 0 || word != FILLER | (to_end - WORD) as u64 {
            return Err(Corrupt("filler that does not end with the ring"));
        }
        start += to_end as u64;
        offset = 0;
        // Written before the filler, so visible with it.
        word = memory.word(start).load(Ordering::Relaxed);
    }
    // Anything but a message is beyond every length.
    let len = word.wrapping_sub(MESSAGE);
    if len > max_message(capacity) as u64 {
        return Err(Corrupt("a frame that is neither message nor filler"));
    }
    let len = len as usize;
    if frame(len) > capacity - offset {
        return Err(Corrupt("a message that goes on beyond the ring"));
    }
    Ok(Some(Found {
        offset: offset + WORD,
        len,
        end: start + frame(len) as u64,
    }))
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
    /// Goes on where the last producer stopped.
    pub(crate) fn attach(memory: M) -> Result<Self, Corrupt> {
        let start = memory.tail().load(Ordering::Acquire);
        check_start(start)?;
        let mut tail = start;
        // It may have committed more after it was last seen to publish its position.
        while let Some(found) = find(&memory, tail)? {
            tail = found.end;
            if tail - start > memory.capacity() as u64 {
                return Err(Corrupt("more frames than the ring holds"));
            }
        }
        let head = memory.head().load(Ordering::Acquire);
        check_distance(tail, head, memory.capacity())?;
        // Before the next frame is committed: a consumer finds no frame beyond the position.
        memory.tail().store(tail, Ordering::Release);
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
        self.memory.will_write(self.tail);
        let to_end = capacity - offset;
        let size = frame(len);
        let filler = if size <= to_end { 0 } else { to_end };
        // And the empty word behind it.
        if !self.has_room(filler + size + WORD)? {
            return Ok(None);
        }
        let frame = self.tail + filler as u64;
        Ok(Some(Room {
            frame,
            offset: (frame as usize & (capacity - 1)) + WORD,
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

    /// Sends `message` in a room of its length.
    #[inline]
    pub(crate) fn send(&mut self, room: Room, message: &[u8]) {
        // From the last line of the frame to its first, where the consumer is looking: that one
        // must not go back and forth.
        let tail = self.end(room, message.len());
        self.fill(room, 0, message);
        self.publish(room, message.len(), tail);
    }

    /// Commits the first `len` bytes of the room.
    #[inline]
    pub(crate) fn commit(&mut self, room: Room, len: usize) {
        let tail = self.end(room, len);
        self.publish(room, len, tail);
    }

    /// Ends a frame with an empty word behind it, and says where that is.
    #[inline]
    fn end(&self, room: Room, len: usize) -> u64 {
        assert!(len <= room.len);
        let tail = room.frame + frame(len) as u64;
        self.memory.word(tail).store(EMPTY, Ordering::Relaxed);
        tail
    }

    #[inline]
    fn publish(&mut self, room: Room, len: usize, tail: u64) {
        let mut word = MESSAGE | len as u64;
        let filler = room.frame - self.tail;
        if filler > 0 {
            self.memory.word(room.frame).store(word, Ordering::Relaxed);
            word = FILLER | (filler - WORD as u64);
        }
        // Publishing is releasing: what was written before is visible with it.
        self.publisher.publish(self.memory.word(self.tail), word);
        self.tail = tail;
        // Release: whoever goes on from here finds the frame before it committed.
        self.memory.tail().store(tail, Ordering::Release);
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
}

impl<M: Memory> Consumer<M> {
    /// Goes on where the memory says that the last consumer stopped.
    pub(crate) fn attach(memory: M) -> Result<Self, Corrupt> {
        let head = memory.head().load(Ordering::Acquire);
        check_start(head)?;
        Ok(Self {
            memory,
            publisher: Publisher::new(),
            head,
        })
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// The next message, if one is committed. Asking again gives the same.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Option<Found>, Corrupt> {
        let found = find(&self.memory, self.head)?;
        match found {
            // What follows the word in the next line travels beside it, not after it.
            None => self.memory.will_read_on(self.head),
            // One frame a lap lies there.
            Some(Found { offset: WORD, .. }) => self.check_sent()?,
            Some(_) => {}
        }
        Ok(found)
    }

    /// Whether the producer says that it sent what lies at the head. A ring without an empty word
    /// would give the same messages lap after lap, those of a producer that is long gone too.
    #[cold]
    fn check_sent(&self) -> Result<(), Corrupt> {
        // Relaxed: the producer stored the position of the frame before it committed the frame.
        let tail = self.memory.tail().load(Ordering::Relaxed);
        check_distance(tail, self.head, self.memory.capacity())
    }

    /// Whether the producer says that there is a message where there is none.
    pub(crate) fn check_tail(&self) -> Result<(), Corrupt> {
        // Acquire: the producer's position comes after what it committed.
        let tail = self.memory.tail().load(Ordering::Acquire);
        if tail > self.head && find(&self.memory, self.head)?.is_none() {
            return Err(Corrupt("a committed message is not there any more"));
        }
        Ok(())
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
        // Where the next frame begins is known only from this one's word, so of frames that wait
        // for the consumer the processor would fetch one after another.
        self.memory.will_read_ahead(self.head);
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

/// A position to go on from. Half the range is left for what will be written: at 100 GB/s that
/// takes a year and a half.
fn check_start(position: u64) -> Result<(), Corrupt> {
    if position > u64::MAX / 2 || !position.is_multiple_of(WORD as u64) {
        return Err(Corrupt("a position beyond all that was ever written"));
    }
    Ok(())
}
