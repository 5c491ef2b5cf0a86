//! Reading the files of a log by pread(2): whoever truncates one of them under a reader makes a
//! read short, where a mapping would raise SIGBUS.

use std::os::fd::{AsFd, OwnedFd};

use crate::cursor::Found;
use crate::directory::Directory;
use crate::fault::Fault;
use crate::record::{self, Kind, Mark};
use crate::segment::Header;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::sys;
use crate::window::{MOST, Seen, WORD, Window};

#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) shape: Shape,
    pub(crate) epoch: u64,
    pub(crate) position: u64,
    /// The sequence number of the next message.
    pub(crate) seq: u64,
    /// Whether the last record was the writer's farewell.
    pub(crate) fin: bool,
    /// The boot under which the record at the position was written, and the largest position that
    /// anything read so far says was synced.
    pub(crate) mark: Mark,
    directory: Directory,
    file: OwnedFd,
    window: Window,
}

impl Scan {
    /// Begins with the first record of a segment.
    pub(crate) fn new(directory: Directory, file: OwnedFd, header: &Header) -> Self {
        Self {
            shape: header.shape,
            epoch: header.epoch,
            position: header.number * header.shape.segment + SEGMENT_HEADER,
            seq: header.base,
            fin: false,
            mark: header.mark,
            directory,
            file,
            window: Window::new(header),
        }
    }

    /// Begins anywhere in a log that `header` is of.
    pub(crate) fn at(directory: &Directory, header: &Header, position: u64) -> Result<Self, Fault> {
        let file = directory.open(header.shape.number(position), header.shape)?;
        Ok(Self {
            position,
            ..Self::new(directory.try_clone()?, file, header)
        })
    }

    /// Segment and offset in it of the next record.
    pub(crate) fn place(&self) -> (u64, u64) {
        let shape = self.shape;
        (shape.number(self.position), shape.within(self.position))
    }

    fn offset(&self) -> usize {
        self.shape.within(self.position) as usize
    }

    /// Whether no record waits; reads one word.
    pub(crate) fn is_idle(&self) -> Result<bool, Fault> {
        if self
            .window
            .word(self.offset())
            .is_some_and(|word| !record::is_end(word))
        {
            return Ok(false);
        }
        let mut word = [0u8; WORD];
        sys::read_at(self.file.as_fd(), &mut word, self.offset() as u64)?;
        Ok(record::is_end(u64::from_le_bytes(word)))
    }

    /// Takes the next message.
    #[inline]
    pub(crate) fn next(&mut self, buffer: &mut [u8]) -> Result<Found, Fault> {
        loop {
            let Some((kind, len)) = self.load()? else {
                return Ok(Found::Nothing);
            };
            let payload = self.payload(len);
            match kind {
                Kind::Data => {
                    let Some(room) = buffer.get_mut(..len) else {
                        return Ok(Found::Larger(len));
                    };
                    room.copy_from_slice(payload);
                    self.pass(kind, len);
                    return Ok(Found::Message(len));
                }
                Kind::Fin | Kind::Mark => self.pass(kind, len),
                Kind::Skip => self.skip()?,
            }
        }
    }

    /// Reads to the end of the log or to the first damage, which it gives.
    pub(crate) fn run(&mut self) -> Result<Option<&'static str>, Fault> {
        loop {
            let step = match self.load() {
                Ok(Some((Kind::Skip, _))) => self.skip(),
                Ok(Some((kind, len))) => {
                    self.pass(kind, len);
                    Ok(())
                }
                Ok(None) => return Ok(None),
                Err(fault) => Err(fault),
            };
            match step {
                Ok(()) => {}
                Err(Fault::Corrupt(what)) => return Ok(Some(what)),
                Err(fault) => return Err(fault),
            }
        }
    }

    fn payload(&self, len: usize) -> &[u8] {
        self.window
            .get(self.offset() + record::HEADER, len)
            .unwrap_or_default()
    }

    /// Moves behind the record that [`load`](Self::load) has found.
    #[inline]
    fn pass(&mut self, kind: Kind, len: usize) {
        if kind == Kind::Mark
            && let Ok(bytes) = self.payload(len).try_into()
        {
            self.learn(Mark::decode(bytes));
        }
        self.position += record::size(len) as u64;
        self.seq += u64::from(kind == Kind::Data);
        self.fin = kind == Kind::Fin;
    }

    fn learn(&mut self, mark: Mark) {
        self.mark = Mark {
            synced: self.mark.synced.max(mark.synced),
            boot: mark.boot,
        };
    }

    #[cold]
    fn skip(&mut self) -> Result<(), Fault> {
        let number = self.shape.number(self.position) + 1;
        let (header, file) = self.directory.segment(number)?;
        self.check(&header)?;
        self.file = file;
        self.window.clear();
        self.position = number * self.shape.segment + SEGMENT_HEADER;
        self.learn(header.mark);
        Ok(())
    }

    /// Whether a later segment is one of this log.
    fn check(&self, later: &Header) -> Result<(), Fault> {
        let fits = later.epoch == self.epoch
            && later.shape == self.shape
            && later.base >= self.seq
            && later.mark.synced <= later.number * self.shape.segment;
        if fits {
            Ok(())
        } else {
            Err(Fault::Corrupt("a segment belongs to another log"))
        }
    }

    /// The record at the position, whole in the window and verified; `None` at the end of the log.
    ///
    /// A window is a copy that the kernel made in whatever order while the writer was storing. So
    /// what looks like the end is believed only of a window read during this call, and damage
    /// only if it is still there in a window read after the committing word had been seen: all
    /// that the record consists of was stored before that word.
    #[inline]
    fn load(&mut self) -> Result<Option<(Kind, usize)>, Fault> {
        let mut fresh = false;
        let mut suspect = false;
        loop {
            let need = match self.window.examine(self.offset(), self.seq, 0) {
                Seen::Whole(kind, len) => return Ok(Some((kind, len))),
                Seen::End if fresh => {
                    self.window.shrink();
                    return Ok(None);
                }
                Seen::Bad(what) if suspect => return Err(Fault::Corrupt(what)),
                Seen::End => WORD,
                Seen::Bad(_) => {
                    suspect = true;
                    WORD
                }
                Seen::Short(need) => {
                    // The last window was used up: this reader is behind.
                    self.window.grow();
                    need
                }
            };
            if self.fill(self.offset(), need)? < need {
                return Err(Fault::Corrupt("a segment was truncated"));
            }
            fresh = true;
        }
    }

    fn fill(&mut self, at: usize, need: usize) -> Result<usize, Fault> {
        self.window.fill(self.file.as_fd(), at, need)
    }

    /// At the end of the log: whether a batch was written there that its writer did not live to
    /// commit.
    pub(crate) fn is_prepared(&mut self) -> Result<bool, Fault> {
        let at = self.offset();
        let mut need = record::HEADER;
        while self.fill(at, need)? >= need {
            match self.window.is_prepared(at, self.seq) {
                Ok(prepared) => return Ok(prepared),
                Err(more) => need = more,
            }
        }
        Ok(false)
    }

    /// Looks for the next record that verifies behind damage and goes on with it; how many messages
    /// lie in between. `None` if there is none, and then the position is the same as before.
    pub(crate) fn resynchronize(&mut self) -> Result<Option<u64>, Fault> {
        let damaged = self.place().0;
        if let Some(lost) = self.search(damaged, self.offset() + 8)? {
            return Ok(Some(lost));
        }
        for number in self.directory.segments()? {
            if number <= damaged {
                continue;
            }
            // Where the header is damaged too, the records may be good.
            let header = self.directory.header(number);
            match header.and_then(|header| self.check(&header).map(|()| header.mark)) {
                Ok(mark) => self.learn(mark),
                Err(Fault::Corrupt(_)) => {}
                Err(fault) => return Err(fault),
            }
            let Ok(file) = self.directory.open(number, self.shape) else {
                continue;
            };
            let before = std::mem::replace(&mut self.file, file);
            self.window.clear();
            if let Some(lost) = self.search(number, SEGMENT_HEADER as usize)? {
                return Ok(Some(lost));
            }
            self.file = before;
            self.window.clear();
        }
        Ok(None)
    }

    /// Looks in segment `number`, which is open, for a record at every multiple of 8 from `at` on.
    fn search(&mut self, number: u64, mut at: usize) -> Result<Option<u64>, Fault> {
        let segment = self.shape.segment;
        let segments = 1 + number - self.shape.number(self.position);
        let spread = segments.saturating_mul(segment / record::HEADER as u64);
        while at + record::HEADER <= segment as usize {
            match self.window.examine(at, self.seq, spread) {
                Seen::Whole(..) => {
                    let found = self.window.word(at + 8).unwrap_or(self.seq);
                    let lost = found - self.seq;
                    self.position = number * segment + at as u64;
                    self.seq = found;
                    return Ok(Some(lost));
                }
                Seen::Short(need) => {
                    if self.fill(at, need.max(MOST))? < need {
                        at += 8;
                    }
                }
                Seen::End | Seen::Bad(_) => at += 8,
            }
        }
        Ok(None)
    }

    /// Bytes from the position to the last one of its segment that is not zero.
    pub(crate) fn occupied(&mut self) -> Result<u64, Fault> {
        let start = self.offset();
        let (mut at, mut last) = (start, start);
        while at < self.shape.segment as usize {
            self.fill(at, MOST)?;
            let filled = self.window.filled();
            if filled.is_empty() {
                break;
            }
            if let Some(byte) = filled.iter().rposition(|&byte| byte != 0) {
                last = at + byte + 1;
            }
            at += filled.len();
        }
        Ok((last - start) as u64)
    }
}
