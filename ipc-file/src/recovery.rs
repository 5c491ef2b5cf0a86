//! Finding the end of a log by its checksums, never by a stored length.
//!
//! The death of a process leaves whole records and then zeros. Only lost power, a truncated file or
//! a bad disk leaves something else: what nothing valid follows is a torn tail and is cut; what a
//! valid record follows is damage in the middle, and that is an error.

use std::os::fd::AsFd;

use crate::cursor::{Cursor, Found};
use crate::directory::Directory;
use crate::record::{self, Kind};
use crate::segment::Header;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::store::Store;
use crate::sys::{self, Access, Fault, Map};
use crate::writer::Writer;

/// What opening a log for appending found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Whether the last writer closed the log in good order; also true of a new log.
    pub clean: bool,
    /// Bytes of a torn tail that were cut off. 0 after any death of a process.
    pub cut: u64,
}

/// Opens the log in a directory whose lock the caller holds, or begins one of this shape.
pub(crate) fn open(
    directory: Directory,
    shape: Shape,
    salvage: bool,
) -> Result<(Writer, Recovery), Fault> {
    let segments = directory.segments()?;
    let Some(&last) = segments.last() else {
        return begin(directory, shape);
    };
    if segments.windows(2).any(|pair| pair[1] != pair[0] + 1) {
        return Err(Fault::Corrupt(
            "a segment in the middle of the log is missing",
        ));
    }
    // A writer that died while it rotated may have left a last segment that nothing leads to, so
    // the search begins one before it.
    let first = if segments.len() > 1 { last - 1 } else { last };
    let header = directory.header(first)?;
    let shape = header.shape;
    let file = directory.restore(first, shape)?;
    if first != last {
        check_successor(&directory, &header, last)?;
    }
    let store = Store::Files {
        directory: directory.try_clone()?,
        current: file,
        unsynced: first,
    };
    let start = first * shape.segment + SEGMENT_HEADER;
    let mut cursor = Cursor::attach(store, shape, header.epoch, start, header.base)?;
    let damage = read_to_end(&mut cursor)?;
    let number = shape.number(cursor.position);
    let clean = cursor.fin && damage.is_none();
    let Cursor {
        store,
        position,
        seq,
        epoch,
        ..
    } = cursor;

    let map = store.map(shape, Access::Write)?;
    let tail = shape.offset(position)..shape.segment as usize;
    if let Some(what) = follows(&map, tail.clone(), record::seed(epoch), seq)
        .then_some(damage.unwrap_or("records follow a hole in the log"))
        && !salvage
    {
        return Err(Fault::Corrupt(what));
    }
    let mut cut = occupied(&map, tail);
    if number < last {
        cut += discard(&directory, &header, last, salvage)?;
    }
    drop(map);
    let mut writer = Writer::attach(store, shape, epoch, position, seq)?;
    if cut > 0 {
        writer.clear_tail();
        writer.sync()?;
    }
    Ok((writer, Recovery { clean, cut }))
}

fn begin(directory: Directory, shape: Shape) -> Result<(Writer, Recovery), Fault> {
    let epoch = sys::random();
    let header = Header {
        epoch,
        shape,
        number: 0,
        base: 0,
    };
    let current = directory.create(&header)?;
    let store = Store::Files {
        directory,
        current,
        unsynced: 0,
    };
    let writer = Writer::attach(store, shape, epoch, SEGMENT_HEADER, 0)?;
    Ok((
        writer,
        Recovery {
            clean: true,
            cut: 0,
        },
    ))
}

fn check_successor(directory: &Directory, header: &Header, last: u64) -> Result<(), Fault> {
    let next = directory.header(last)?;
    if next.epoch != header.epoch || next.shape != header.shape || next.base < header.base {
        return Err(Fault::Corrupt("a segment belongs to another log"));
    }
    directory.restore(last, next.shape).map(drop)
}

/// Reads on as far as the records are good; what stopped it, if that was not the end.
fn read_to_end(cursor: &mut Cursor) -> Result<Option<&'static str>, Fault> {
    let mut buffer = Vec::new();
    loop {
        match cursor.next(&mut buffer) {
            Ok(Found::Nothing) => return Ok(None),
            Ok(Found::Message(_)) => {}
            Ok(Found::Larger(needed)) => buffer.resize(needed, 0),
            Err(Fault::Corrupt(what)) => return Ok(Some(what)),
            Err(fault) => return Err(fault),
        }
    }
}

/// Whether a good record lies anywhere in the range, at whatever multiple of 8.
fn follows(map: &Map, range: std::ops::Range<usize>, seed: u32, seq: u64) -> bool {
    let mut bytes = vec![0u8; range.len()];
    map.read(range.start, &mut bytes);
    let most = (range.len() / record::HEADER) as u64;
    let word = |at: usize| {
        bytes
            .get(at..at + 8)?
            .try_into()
            .ok()
            .map(u64::from_le_bytes)
    };
    (8..bytes.len()).step_by(8).any(|at| {
        let (Some(head), Some(found)) = (word(at), word(at + 8)) else {
            return false;
        };
        let Some((Kind::Data | Kind::Fin, len)) = record::split(head) else {
            return false;
        };
        let start = at + record::HEADER;
        found.wrapping_sub(seq) <= most
            && bytes
                .get(start..start.saturating_add(len))
                .is_some_and(|payload| record::verify(seed, found, head, payload))
    })
}

/// Bytes up to the last one that is not zero.
fn occupied(map: &Map, range: std::ops::Range<usize>) -> u64 {
    let mut bytes = vec![0u8; range.len()];
    map.read(range.start, &mut bytes);
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last as u64 + 1)
}

/// Removes a last segment that nothing leads to, if it is as empty as a dying writer leaves it;
/// bytes that were lost with it.
fn discard(directory: &Directory, header: &Header, last: u64, salvage: bool) -> Result<u64, Fault> {
    let file = directory.open(last, header.shape)?;
    let map = Map::new(file.as_fd(), header.shape.segment as usize, Access::Read)
        .map_err(|error| Fault::Io("mmap", error))?;
    let lost = occupied(&map, SEGMENT_HEADER as usize..header.shape.segment as usize);
    if lost > 0 && !salvage {
        return Err(Fault::Corrupt(
            "the end of a segment is damaged and another one follows",
        ));
    }
    directory.remove(last)?;
    Ok(lost)
}
