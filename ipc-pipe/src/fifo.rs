//! A name for a pipe: a FIFO, and its notes in a file beside it.
//!
//! Each accepted channel has a FIFO of its own. When a sender has come, the listener keeps that
//! FIFO, now nameless, and puts a new one at the name for the next. Senders come one at a time,
//! under the lock of the directory. A listener is alive as long as its `flock(2)` on the FIFO is.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ipc_core::rendezvous::find;
use ipc_core::wait::{Interest, Polled, Sleep, poll};
use ipc_core::{Custody, Name, NameLock, OpenError, Wait, check_ownership};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::notes::Notes;
use crate::sys::Descriptor;
use crate::{Options, Receiver, frame};

const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);

/// A FIFO that waits for its sender.
#[derive(Debug)]
pub struct Listener {
    name: Name,
    options: Options,
    fifo: Fifo,
    custody: Custody,
}

#[derive(Debug)]
struct Fifo {
    reader: Descriptor,
    notes: Notes,
    /// Device and inode, so that only what this listener made is removed.
    identity: (u64, u64),
}

impl Listener {
    pub(crate) fn bind(name: &Name, options: &Options) -> Result<Self, OpenError> {
        let lock = name.lock(Wait::Forever)?;
        if lock.holds(FileType::Fifo)? {
            if is_live(lock.path())? {
                return Err(OpenError::NameInUse);
            }
            remove(&lock)?;
        }
        let fifo = Fifo::make(&lock)?;
        Ok(Self {
            name: name.clone(),
            options: options.clone(),
            fifo,
            custody: Custody::new(),
        })
    }
}

impl ipc_core::Listener for Listener {
    type Receiver = Receiver;

    fn accept(&mut self, wait: Wait) -> Result<Receiver, OpenError> {
        loop {
            match poll([(self.fifo.reader.as_fd(), Interest::Read)], wait) {
                Ok(Polled::Ready) => {}
                Ok(Polled::TimedOut) if wait == Wait::Never => return Err(OpenError::NotFound),
                Ok(Polled::TimedOut) => return Err(OpenError::TimedOut),
                Err(error) => return Err(OpenError::io("ppoll", error)),
            }
            match self.name.lock(wait) {
                Ok(lock) => {
                    remove(&lock)?;
                    // Before anything is taken out of the old one, which stays if this fails.
                    let next = Fifo::make(&lock)?;
                    let Fifo { reader, notes, .. } = std::mem::replace(&mut self.fifo, next);
                    if is_greeted(&reader) {
                        return Ok(Receiver::new(reader, notes, &self.options));
                    }
                    // Somebody opened the FIFO and is no sender.
                }
                // Somebody holds the lock for long.
                Err(OpenError::TimedOut) => {}
                Err(error) => return Err(error),
            }
            match wait {
                Wait::Never => return Err(OpenError::NotFound),
                _ if wait.is_over() => return Err(OpenError::TimedOut),
                _ => {}
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.custody.is_ours()
            && let Ok(lock) = self.name.lock(Wait::Forever)
            && let Ok(stat) = rustix::fs::lstat(lock.path())
            && (stat.st_dev, stat.st_ino) == self.fifo.identity
        {
            let _ = remove(&lock);
        }
    }
}

impl Fifo {
    fn make(lock: &NameLock) -> Result<Self, OpenError> {
        // The notes first: who finds the FIFO finds them too.
        let notes_path = notes_path(lock.path());
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let _ = rustix::fs::unlink(&notes_path);
        let notes = rustix::fs::open(&notes_path, flags, OWNER)
            .and_then(|file| rustix::fs::fchmod(&file, OWNER).map(|()| file))
            .map_err(|e| OpenError::io("open", e))?;
        let made = rustix::fs::mkfifoat(rustix::fs::CWD, lock.path(), OWNER)
            .and_then(|()| rustix::fs::chmod(lock.path(), OWNER))
            .and_then(|()| open_reader(lock.path()))
            .and_then(|reader| {
                rustix::fs::flock(&reader, FlockOperation::NonBlockingLockExclusive)?;
                let stat = rustix::fs::fstat(&reader)?;
                Ok((reader, (stat.st_dev, stat.st_ino)))
            });
        match made {
            Ok((reader, identity)) => Ok(Self {
                reader: Descriptor::reader(reader)?,
                notes: Notes::from_fd(notes)?,
                identity,
            }),
            Err(error) => {
                let _ = remove(lock);
                Err(OpenError::io("mkfifo", error))
            }
        }
    }
}

/// Whether what came first is the word of a sender, which is taken out. A sender says it under the
/// lock of the name, so all of it is there.
fn is_greeted(reader: &Descriptor) -> bool {
    let mut word = [0; frame::HELLO.len()];
    let read = reader.read(&mut [IoSliceMut::new(&mut word)], Sleep::Never);
    read == Ok(word.len()) && word == frame::HELLO
}

/// Opens the FIFO at the name for writing, waiting for a listener.
pub(crate) fn connect(name: &Name, wait: Wait) -> Result<(Descriptor, Notes), OpenError> {
    find(wait, || try_connect(name, wait))
}

fn try_connect(name: &Name, wait: Wait) -> Result<(Descriptor, Notes), OpenError> {
    let lock = match name.lock(wait) {
        // Whether somebody listens is not known yet: it is asked again while there is time.
        Err(OpenError::TimedOut) => return Err(OpenError::NotFound),
        lock => lock?,
    };
    if !lock.holds(FileType::Fifo)? {
        return Err(OpenError::NotFound);
    }
    // Without a reader this is ENXIO, where a blocking open would hang (fifo(7)).
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let writer = match rustix::fs::open(lock.path(), flags, Mode::empty()) {
        Ok(writer) => writer,
        Err(Errno::NXIO | Errno::NOENT) => return Err(OpenError::NotFound),
        Err(error) => return Err(OpenError::io("open", error)),
    };
    let stat = rustix::fs::fstat(&writer).map_err(|e| OpenError::io("fstat", e))?;
    check_ownership(&stat, FileType::Fifo)?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let notes = match rustix::fs::open(notes_path(lock.path()), flags, Mode::empty()) {
        Ok(notes) => notes,
        Err(Errno::NOENT) => return Err(OpenError::NotFound),
        Err(error) => return Err(OpenError::io("open", error)),
    };
    let stat = rustix::fs::fstat(&notes).map_err(|e| OpenError::io("fstat", e))?;
    check_ownership(&stat, FileType::RegularFile)?;
    let notes = Notes::from_fd(notes)?;
    if notes.senders() > 0 {
        // Another sender came first; the listener is about to put up a new FIFO.
        return Err(OpenError::NotFound);
    }
    let writer = Descriptor::writer(writer)?;
    notes.sender_opened()?;
    // Into an empty pipe with a reader: neither waits nor fails, unless the listener just died.
    match writer.write(&[IoSlice::new(&frame::HELLO)], Sleep::Never) {
        Ok(_) => Ok((writer, notes)),
        Err(Errno::PIPE) => Err(OpenError::NotFound),
        Err(error) => Err(OpenError::io("write", error)),
    }
}

/// Whether some process still holds the reading end that `Fifo::make` locked.
fn is_live(path: &Path) -> Result<bool, OpenError> {
    let reader = open_reader(path).map_err(|e| OpenError::io("open", e))?;
    match rustix::fs::flock(&reader, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(OpenError::io("flock", error)),
    }
}

fn open_reader(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn remove(lock: &NameLock) -> Result<(), OpenError> {
    lock.unlink()?;
    let _ = rustix::fs::unlink(notes_path(lock.path()));
    Ok(())
}

fn notes_path(fifo: &Path) -> PathBuf {
    let mut path = fifo.as_os_str().to_owned();
    path.push(".notes");
    path.into()
}
