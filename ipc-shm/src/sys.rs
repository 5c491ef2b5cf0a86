//! The memory: making it, sealing it, checking it, mapping it, touching it.
//!
//! [memfd_create(2)](https://man7.org/linux/man-pages/man2/memfd_create.2.html),
//! [fallocate(2)](https://man7.org/linux/man-pages/man2/fallocate.2.html),
//! [F_ADD_SEALS(2)](https://man7.org/linux/man-pages/man2/F_GET_SEALS.2const.html),
//! [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html).
#![expect(
    unsafe_code,
    reason = "memory that another process writes to is reached by raw pointers"
)]

use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};

use ipc_core::{Limit, OpenError};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FileType, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::fetch::{LINE, copy_from_afar, fetch_for_reading, fetch_for_writing};
use crate::layout::{BYTE_ORDER, HEADER_LEN, Header, MAGIC, MAX_CAPACITY, MIN_CAPACITY, VERSION};
use crate::link::NOWHERE;
use crate::ring::{Corrupt, Memory, WORD};
use crate::sync::{AtomicU64, Ordering};
use std::sync::atomic::AtomicU8;

/// What keeps the peer from making the memory shorter under our feet.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Memory for a ring of `capacity` bytes: all of it allocated, its size fixed for ever.
pub(crate) fn create_memory(capacity: usize) -> Result<OwnedFd, OpenError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create("ipc-shm", flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not know the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create("ipc-shm", flags),
        other => other,
    }
    .map_err(|error| open_error("memfd_create", error))?;
    let len = (HEADER_LEN + capacity) as u64;
    check_file_size(len)?;
    // Allocated now, or refused now: a hole that finds no page later is a SIGBUS.
    loop {
        match rustix::fs::fallocate(&memory, FallocateFlags::empty(), 0, len) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(open_error("fallocate", error)),
        }
    }
    rustix::fs::fcntl_add_seals(&memory, SEALS)
        .map_err(|error| open_error("fcntl(F_ADD_SEALS)", error))?;
    Ok(memory)
}

/// Growing a file beyond the limit, memory too, is a SIGXFSZ, which ends the process
/// (setrlimit(2)): ask first.
pub(crate) fn check_file_size(len: u64) -> Result<(), OpenError> {
    match getrlimit(Resource::Fsize).current {
        Some(most) if len > most => Err(OpenError::Limit(Limit {
            name: "RLIMIT_FSIZE",
            value: Some(most),
            advice: "raise it (ulimit -f) or choose a smaller capacity",
        })),
        _ => Ok(()),
    }
}

pub(crate) fn open_error(call: &'static str, error: Errno) -> OpenError {
    let limit = |name, advice| {
        OpenError::Limit(Limit {
            name,
            value: None,
            advice,
        })
    };
    match error {
        Errno::NOSPC | Errno::NOMEM => limit(
            "memory for shared pages",
            "choose a smaller capacity or raise the memory limit",
        ),
        Errno::MFILE => limit("RLIMIT_NOFILE", "close descriptors or raise the limit"),
        Errno::NFILE => limit("fs.file-max", "close descriptors or raise the setting"),
        error => OpenError::io(call, error),
    }
}

/// The memory in this process's address space.
#[derive(Debug)]
pub(crate) struct Mapping {
    header: NonNull<Header>,
    ring: NonNull<u8>,
    capacity: usize,
    /// Unmapped when dropped.
    _pages: MmapRaw,
}

// SAFETY: the pointers lead into `_pages`, which is itself Send, and are used through `&self` for
// atomics and for copies that the ring's positions keep apart.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps fresh memory and writes its header.
    pub(crate) fn create(memory: &OwnedFd, capacity: usize) -> Result<Self, OpenError> {
        let mapping = Self::map(memory)?;
        let header = mapping.header();
        header.version.store(VERSION, Ordering::Relaxed);
        header.byte_order.store(BYTE_ORDER, Ordering::Relaxed);
        header.capacity.store(capacity as u64, Ordering::Relaxed);
        for side in [&header.sender.0, &header.receiver.0] {
            side.cpu.store(NOWHERE, Ordering::Relaxed);
        }
        // Last, so that whoever finds the magic finds the rest.
        header.magic.store(MAGIC, Ordering::Release);
        Ok(mapping)
    }

    /// Maps memory that came from another process, after checking what it says of itself.
    pub(crate) fn open(memory: &OwnedFd) -> Result<Self, OpenError> {
        let mapping = Self::map(memory)?;
        let header = mapping.header();
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(OpenError::Incompatible {
                what: "the memory does not begin as ours",
            });
        }
        if header.version.load(Ordering::Relaxed) != VERSION
            || header.byte_order.load(Ordering::Relaxed) != BYTE_ORDER
        {
            return Err(OpenError::Incompatible {
                what: "another version of the memory's layout",
            });
        }
        if header.capacity.load(Ordering::Relaxed) != mapping.capacity as u64 {
            return Err(OpenError::Incompatible {
                what: "a capacity that is not the memory's",
            });
        }
        Ok(mapping)
    }

    fn map(memory: &OwnedFd) -> Result<Self, OpenError> {
        // The seals before the size: of unsealed memory the size may change after the look. Only
        // memfds have them, so this also refuses files whose pages come from who knows where.
        if !rustix::fs::fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(SEALS)) {
            return Err(OpenError::Untrusted {
                what: "shared memory that is not sealed",
            });
        }
        let stat = rustix::fs::fstat(memory).map_err(|error| open_error("fstat", error))?;
        let capacity = usize::try_from(stat.st_size)
            .unwrap_or(0)
            .saturating_sub(HEADER_LEN);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || !capacity.is_power_of_two()
            || !(MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity)
        {
            return Err(OpenError::Incompatible {
                what: "shared memory of an impossible size",
            });
        }
        // All of it allocated, in blocks of 512 bytes (stat(2)): a hole would be filled at our cost
        // when it is touched, or be a SIGBUS.
        if u64::try_from(stat.st_blocks).unwrap_or(0) < (HEADER_LEN + capacity) as u64 / 512 {
            return Err(OpenError::Untrusted {
                what: "shared memory that is not all allocated",
            });
        }
        // Populated, so that the first lap does not fault page by page.
        let pages = MmapOptions::new()
            .len(HEADER_LEN + capacity)
            .populate()
            .map_raw(memory)
            .map_err(|error| match Errno::from_io_error(&error) {
                Some(errno) => open_error("mmap", errno),
                None => OpenError::io("mmap", error),
            })?;
        let start = NonNull::new(pages.as_mut_ptr()).ok_or(OpenError::Untrusted {
            what: "memory mapped at address zero",
        })?;
        // SAFETY: the mapping is HEADER_LEN + capacity bytes long.
        let ring = unsafe { start.add(HEADER_LEN) };
        Ok(Self {
            header: start.cast(),
            ring,
            capacity,
            _pages: pages,
        })
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: a mapping is aligned to pages and at least HEADER_LEN long, and the seals keep
        // those pages there while `self` lives. All fields are atomics of integers: any bytes are
        // valid, and another process may write them at any time.
        unsafe { self.header.as_ref() }
    }

    /// Whether the memory still begins as ours: a peer may punch holes into sealed memory, which
    /// then reads as zeros.
    pub(crate) fn check(&self) -> Result<(), Corrupt> {
        if self.header().magic.load(Ordering::Relaxed) == MAGIC {
            Ok(())
        } else {
            Err(Corrupt("the memory's header was overwritten"))
        }
    }

    /// Where the ring's byte at `offset` lies, if `len` bytes from there are in the ring.
    #[inline]
    pub(crate) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(
            offset <= self.capacity && len <= self.capacity - offset,
            "outside the ring"
        );
        // SAFETY: the ring has `capacity` bytes, and `offset` is at most that, as just checked.
        unsafe { self.ring.add(offset) }
    }
}

/// Frames up to this length are copied word by word, the last word first: so the line of the
/// frame's own word, which the consumer is looking at, is written last and at one go. Longer ones
/// are a `memcpy`.
const SMALL: usize = 2 * LINE - WORD;

impl Mapping {
    /// Where the word of a position lies: whatever the position, within the ring and aligned.
    #[inline]
    fn word_at(&self, position: u64) -> NonNull<u8> {
        let offset = position as usize & (self.capacity - WORD);
        // SAFETY: the capacity is a power of two and at least WORD, so the offset is a multiple of
        // WORD and less than the capacity: the word ends in the ring.
        unsafe { self.ring.add(offset) }
    }

    /// A small piece of the ring as words and the bytes after them.
    #[inline]
    fn small(&self, offset: usize, len: usize) -> Option<(&[AtomicU64], &[AtomicU8])> {
        let start = self.at(offset, len);
        if len > SMALL || !start.cast::<AtomicU64>().is_aligned() {
            return None;
        }
        let count = len / WORD;
        // SAFETY: `len` bytes of the ring, aligned, alive as long as `self`.
        let words = unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), count) };
        // SAFETY: the words just named end there.
        let rest = unsafe { start.add(count * WORD) };
        // SAFETY: the rest of the `len` bytes.
        let rest = unsafe { std::slice::from_raw_parts(rest.as_ptr().cast(), len % WORD) };
        Some((words, rest))
    }
}

impl Memory for Mapping {
    #[inline]
    fn tail(&self) -> &AtomicU64 {
        &self.header().tail.0
    }

    #[inline]
    fn head(&self) -> &AtomicU64 {
        &self.header().head.0
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline]
    fn word(&self, position: u64) -> &AtomicU64 {
        let word = self.word_at(position).cast::<AtomicU64>();
        // SAFETY: eight bytes of the ring, aligned, alive as long as `self`. The owner of the
        // bytes reaches them through this atomic, or by copies of payload bytes at other times.
        unsafe { word.as_ref() }
    }

    #[inline]
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let Some((words, rest)) = self.small(offset, bytes.len()) else {
            let to = self.at(offset, bytes.len());
            // SAFETY: `to` has room for `bytes` (checked by `at`), and private memory never
            // overlaps the mapping. A peer that keeps to the protocol reads there only after the
            // commit; one that does not gets mixed bytes in its own process.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
            return;
        };
        let (chunks, tail) = bytes.as_chunks();
        for (byte, value) in rest.iter().zip(tail) {
            byte.store(*value, Ordering::Relaxed);
        }
        for (word, chunk) in words.iter().zip(chunks).rev() {
            word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
    }

    #[inline]
    fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let Some((words, rest)) = self.small(offset, bytes.len()) else {
            let from = self.at(offset, bytes.len());
            // SAFETY: `from` has that many bytes (checked by `at`), and private memory never
            // overlaps the mapping. A peer that keeps to the protocol does not write there before
            // the head has passed; one that does can only choose which bytes this copy ends up
            // with, and any bytes are a valid message.
            unsafe { copy_from_afar(from.as_ptr(), bytes) };
            return;
        };
        let (chunks, tail) = bytes.as_chunks_mut();
        for (byte, value) in rest.iter().zip(tail) {
            *value = byte.load(Ordering::Relaxed);
        }
        for (word, chunk) in words.iter().zip(chunks).rev() {
            *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
        }
    }

    #[inline]
    fn will_write(&self, position: u64) {
        let at = self.word_at(position).as_ptr();
        fetch_for_writing(at.wrapping_add(LINE));
        fetch_for_writing(at);
    }

    #[inline]
    fn will_read_ahead(&self, position: u64) {
        fetch_for_reading(self.word_at(position).as_ptr().wrapping_add(AHEAD));
    }

    #[inline]
    fn will_read_on(&self, position: u64) {
        fetch_for_reading(self.word_at(position).as_ptr().wrapping_add(LINE));
    }
}

/// How far ahead the consumer fetches: about what it reads while a line comes from the other core.
const AHEAD: usize = 8 * LINE;

/// The processor that this thread runs on: by the vDSO, no system call.
pub(crate) fn current_cpu() -> u32 {
    u32::try_from(rustix::thread::sched_getcpu()).unwrap_or(u32::MAX)
}
