//! Bodies too long for the socket's buffer, which travel in a memfd. The pages of a memfd that the
//! other side has read serve the next body: making new ones costs more than copying.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, MemfdFlags};
use rustix::io::Errno;

use super::codec::MAX_MESSAGE;
use crate::limits::check_memfd;

/// Memfds that have grown longer than this are not kept.
const KEEP: usize = 4 << 20;

/// So many are kept.
const SPARES: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Memfds {
    spare: Vec<OwnedFd>,
    /// Those that the other side may be reading, by the id of their frame, ascending.
    lent: VecDeque<(u64, OwnedFd)>,
}

impl Memfds {
    /// A descriptor of a memfd that begins with this body, for the frame with this id. Nothing
    /// else is in use by the other side's reading of it, whatever it does with the descriptor.
    pub(super) fn write(&mut self, id: u64, body: &[u8]) -> io::Result<OwnedFd> {
        check_memfd(body.len())?;
        let memfd = match self.spare.pop() {
            Some(memfd) => memfd,
            None => rustix::fs::memfd_create("ipc-process", MemfdFlags::CLOEXEC)?,
        };
        let mut written = 0;
        while let Some(rest) = body.get(written..).filter(|rest| !rest.is_empty()) {
            written +=
                rustix::io::retry_on_intr(|| rustix::io::pwrite(&memfd, rest, written as u64))?;
        }
        if body.len() > KEEP {
            return Ok(memfd);
        }
        let copy = memfd.try_clone()?;
        self.lent.push_back((id, memfd));
        Ok(copy)
    }

    /// The other side has read all bodies of frames up to this id.
    pub(super) fn were_read(&mut self, up_to: u64) {
        while let Some((_, memfd)) = self.lent.pop_front_if(|(id, _)| *id <= up_to) {
            if self.spare.len() < SPARES {
                self.spare.push(memfd);
            }
        }
    }
}

/// Reads a body of this length. Only from a regular file: a pipe in its place could block us.
pub(super) fn read(memfd: impl AsFd, len: usize) -> io::Result<Vec<u8>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let stat = rustix::fs::fstat(&memfd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(bad("a long body is not in a file"));
    }
    if len > MAX_MESSAGE || !usize::try_from(stat.st_size).is_ok_and(|size| len <= size) {
        return Err(bad("a long body is not as long as it is said to be"));
    }
    // Twice as much as it takes, of which the rest is never touched: glibc keeps freed memory for the
    // next body only up to twice the longest block that it has given back (mallopt(3)), and the
    // value that is read out of this one is about as long again. Pages taken anew for each
    // task cost more than all copying.
    let room = if len <= KEEP { 2 * len } else { len };
    let mut body = Vec::with_capacity(room);
    while body.len() < len {
        // From an offset of our own: a descriptor shares its position with its copies.
        let offset = body.len() as u64;
        let read = rustix::io::pread(&memfd, rustix::buffer::spare_capacity(&mut body), offset);
        match read {
            Ok(0) => return Err(bad("a long body was cut short while it was read")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    body.truncate(len);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_used_again_once_they_were_read() {
        let mut memfds = Memfds::default();
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let first = memfds.write(1, &[1; 1000]).unwrap();
        let second = memfds.write(2, &[2; 2000]).unwrap();
        assert_ne!(inode(&first), inode(&second));
        memfds.were_read(1);
        // Longer than what it carries now: the length comes with the frame.
        let third = memfds.write(3, &[3; 500]).unwrap();
        assert_eq!(inode(&first), inode(&third));
        assert_eq!(read(&third, 500).unwrap(), [3; 500]);
        assert_eq!(read(&second, 2000).unwrap(), [2; 2000]);
    }

    #[test]
    fn what_is_no_long_body_is_refused() {
        let mut memfds = Memfds::default();
        let memfd = memfds.write(1, &[1; 1000]).unwrap();
        assert!(read(&memfd, 1001).is_err());
        assert!(read(&memfd, MAX_MESSAGE + 1).is_err());
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(read(&pipe, 0).is_err());
    }
}
