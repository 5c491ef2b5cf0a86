use std::hint::spin_loop;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::control::Bundle;
use crate::failure::Outcome;
use crate::floors::bytes::{bundle, ends};
use crate::peer::Link;
use crate::report;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// Appends by `write(2)`, and `pread(2)` at the reader's offset until it gives.
#[derive(Debug)]
pub(crate) struct Appended {
    input: OwnedFd,
    output: OwnedFd,
    size: usize,
    offset: u64,
}

impl Port for Appended {
    #[inline]
    fn send(&mut self, mut message: &[u8]) -> Outcome<()> {
        while !message.is_empty() {
            let written = rustix::io::write(&self.output, message)?;
            message = &message[written..];
        }
        Ok(())
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let mut filled = 0;
        while filled < self.size {
            match rustix::io::pread(&self.input, &mut buffer[filled..self.size], self.offset)? {
                0 => spin_loop(),
                read => {
                    filled += read;
                    self.offset += read as u64;
                }
            }
        }
        Ok(filled)
    }

    /// Gives back what has been read, so that a run does not fill the storage.
    fn settle(&mut self) -> Outcome<()> {
        if self.offset > 0 {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.input, punch, 0, self.offset)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct FileLink;

impl Link for FileLink {
    type Port = Appended;

    fn open(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let there = nameless(OFlags::APPEND)?;
        let back = nameless(OFlags::APPEND)?;
        Ok([
            bundle([back.try_clone()?, there.try_clone()?]),
            bundle([there, back]),
        ])
    }

    fn port(spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [input, output] = ends(bundle)?;
        Ok(Appended {
            input,
            output,
            size: spec.size,
            offset: 0,
        })
    }
}

/// A file in the directory of the reports that never had a name, or where the file system cannot
/// do that (`O_TMPFILE`, `open(2)`), lost it as soon as it existed.
pub(crate) fn nameless(flags: OFlags) -> Outcome<OwnedFd> {
    let directory = report::directory();
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(&directory, flags | OFlags::TMPFILE, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        file => return Ok(file?),
    }
    let path = directory.join(format!("floor-{}", std::process::id()));
    let file = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
    rustix::fs::unlink(&path)?;
    Ok(file)
}
