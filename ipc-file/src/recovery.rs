//! Finding the end of a log by its checksums, never by a stored length.
//!
//! The death of a process leaves whole records, the end, and perhaps a batch behind it that it did not
//! live to commit, which is a torn tail. Only lost power, a truncated file or
//! a bad disk leaves something else. What nothing valid follows is a torn tail. What valid records
//! follow is a hole, and it is torn too if lost power can have made it: the hole lies behind
//! everything that is known to have reached the storage, and the kernel has booted since it was
//! written. Any other hole is damage, and that is an error.

use std::os::fd::{AsFd, OwnedFd};

use crate::directory::Directory;
use crate::fault::Fault;
use crate::journal::Journal;
use crate::record::Mark;
use crate::scan::Scan;
use crate::segment::Header;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::sys;
use crate::writer::Writer;

/// What opening a log for appending found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Whether the last writer closed the log in good order; also true of a new log.
    pub clean: bool,
    /// Bytes of a torn tail that were cut off, none of them synced. After the death of a process
    /// that is at most what it was just appending.
    pub cut: u64,
    /// Damaged places that [`Options::salvage`](crate::Options::salvage) left behind.
    pub damaged: u64,
}

/// Opens the log in a directory whose lock the caller holds, or begins one of this shape.
pub(crate) fn open(
    directory: Directory,
    shape: Shape,
    salvage: bool,
    boot: u64,
) -> Result<(Journal, Recovery), Fault> {
    directory.discard_unfinished()?;
    let segments = directory.segments()?;
    if segments.is_empty() {
        return begin(directory, shape, boot);
    }
    let (header, file) = start(&directory, &segments, boot)?;
    let before = segments.partition_point(|&segment| segment <= header.number);
    if !salvage
        && segments[..before]
            .windows(2)
            .any(|pair| pair[1] != pair[0] + 1)
    {
        return Err(Fault::Corrupt(
            "a segment in the middle of the log is missing",
        ));
    }
    let shape = header.shape;
    let mut scan = Scan::new(directory.try_clone()?, file, &header);

    let damage = scan.run()?;
    let prepared = damage.is_none() && scan.is_prepared()?;
    let first = End::of(&scan, damage);
    let refusal = Fault::Damaged {
        what: damage.unwrap_or("records follow a hole in the log"),
        segment: shape.number(first.position),
        offset: shape.within(first.position),
    };
    let (mut last, mut damaged) = (first, 0);
    while scan.resynchronize()?.is_some() {
        let damage = scan.run()?;
        last = End::of(&scan, damage);
        damaged += 1;
    }
    let synced = scan.mark.synced;
    drop(scan);
    let safe = synced > first.position;
    if prepared && !safe {
        // All that follows is of a batch whose writer did not live to commit it.
        (last, damaged) = (first, 0);
    }
    if !salvage {
        if safe || damaged > 0 && first.boot == boot {
            return Err(refusal);
        }
        (last, damaged) = (first, 0);
    }

    let End { position, seq, .. } = last;
    let number = shape.number(position);
    let file = directory.open(number, shape)?;
    let torn = Scan::at(&directory, &header, position)?.occupied()?;
    let mut cut = torn;
    // The last one first: whoever dies meanwhile leaves no gap.
    for &later in segments.iter().rev().take_while(|&&later| later > number) {
        cut += discard(&directory, &header, later)?;
    }
    let writer = Writer::attach(file.as_fd(), shape, header.epoch, position, seq)?;
    // What was read under a new boot was read from the storage.
    let rebooted = last.boot != boot;
    let mark = Mark {
        synced: if rebooted { position } else { synced },
        boot,
    };
    let mut journal = Journal::new(writer, directory, file, shape.number(synced), mark);
    if cut > 0 || rebooted {
        journal.clear(torn)?;
    }
    if rebooted {
        journal.note();
    }
    let recovery = Recovery {
        clean: last.clean,
        cut,
        damaged,
    };
    Ok((journal, recovery))
}

/// Where a log ends, or seems to.
#[derive(Clone, Copy)]
struct End {
    position: u64,
    seq: u64,
    /// The boot under which what follows was written.
    boot: u64,
    /// In good order.
    clean: bool,
}

impl End {
    fn of(scan: &Scan, damage: Option<&'static str>) -> Self {
        Self {
            position: scan.position,
            seq: scan.seq,
            boot: scan.mark.boot,
            clean: scan.fin && damage.is_none(),
        }
    }
}

fn begin(directory: Directory, shape: Shape, boot: u64) -> Result<(Journal, Recovery), Fault> {
    let mark = Mark { synced: 0, boot };
    let header = Header {
        epoch: sys::random(),
        shape,
        number: 0,
        base: 0,
        mark,
    };
    // A first segment is whole on the storage before it has its name: a header that does not verify
    // is damage from then on, and not the beginning of a log that power was lost to.
    let file = directory.make(&header)?;
    sys::sync_data(file.as_fd())?;
    directory.publish(header.number)?;
    sys::sync_all(directory.fd())?;
    let writer = Writer::attach(file.as_fd(), shape, header.epoch, SEGMENT_HEADER, 0)?;
    let recovery = Recovery {
        clean: true,
        ..Recovery::default()
    };
    Ok((Journal::new(writer, directory, file, 0, mark), recovery))
}

/// The segment from which on to read. Under one boot of the kernel only the last record can be
/// incomplete, and a writer that died while it rotated left a last segment that nothing leads to;
/// after another boot all that was not synced is in doubt.
fn start(directory: &Directory, segments: &[u64], boot: u64) -> Result<(Header, OwnedFd), Fault> {
    let mut fault = None;
    for (index, &number) in segments.iter().enumerate().rev() {
        match directory.header(number) {
            Ok(last) => {
                let from = if last.mark.boot == boot {
                    number.saturating_sub(1)
                } else {
                    last.shape.number(last.mark.synced)
                };
                let first = segments[..=index].partition_point(|&segment| segment < from);
                let header = directory.header(segments[first])?;
                for &later in &segments[first..] {
                    directory.restore(later, header.shape)?;
                }
                let file = directory.open(header.number, header.shape)?;
                return Ok((header, file));
            }
            Err(Fault::Corrupt(what)) => fault = Some(Fault::Corrupt(what)),
            Err(other) => return Err(other),
        }
    }
    Err(fault.unwrap_or(Fault::Corrupt("the log has no segment")))
}

/// Removes a segment that nothing leads to; bytes of records that were lost with it.
fn discard(directory: &Directory, header: &Header, number: u64) -> Result<u64, Fault> {
    let start = number * header.shape.segment + SEGMENT_HEADER;
    let lost = Scan::at(directory, header, start)?.occupied()?;
    directory.remove(number)?;
    Ok(lost)
}
