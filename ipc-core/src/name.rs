use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};

use crate::wait::poll;
use crate::{OpenError, Wait};

/// The name of a channel: an absolute path, used as it is, or a bare word, which stands for a file
/// in this user's own directory (`$XDG_RUNTIME_DIR/ipc`, else `/run/user/UID/ipc`, else
/// `/tmp/ipc-UID`).
///
/// The directory must belong to this user and be writable by nobody else: then no stranger can
/// squat the name, and the object itself has mode 0600.
///
/// ```
/// use ipc_core::Name;
///
/// let name: Name = "/run/user/1000/prices".parse()?;
/// assert_eq!(name.to_string(), "/run/user/1000/prices");
/// assert!("../prices".parse::<Name>().is_err());
/// # Ok::<(), ipc_core::OpenError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

const MAX_WORD: usize = 64;
/// What `sun_path` of `unix(7)` holds besides its final zero byte.
const MAX_PATH: usize = 107;

/// How long the lock of a name is waited for, at least and at most. Its holder binds a socket or makes
/// a FIFO, and is done within a millisecond unless it is kept from running.
const PATIENCE_LEAST: Duration = Duration::from_millis(20);
const PATIENCE_MOST: Duration = Duration::from_secs(1);

impl FromStr for Name {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        let word = !text.is_empty()
            && text.len() <= MAX_WORD
            && !text.starts_with('.')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let path = text.starts_with('/')
            && !text.ends_with('/')
            && text.len() <= MAX_PATH
            && !text.contains('\0');
        if word || path {
            Ok(Self(text.to_owned()))
        } else {
            Err(OpenError::Invalid {
                what: "a channel's name is an absolute path of at most 107 bytes, or a word of \
                       at most 64 letters, digits, '.', '_' and '-'",
            })
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Name {
    /// Where the object of this name stands, in a directory that was checked. The directory of
    /// bare words is made if it is missing.
    ///
    /// # Errors
    /// `Untrusted` if the directory belongs to someone else or others may write to it; `NotFound`
    /// if there is none; `Invalid` if the whole path is longer than a socket's may be.
    pub fn path(&self) -> Result<PathBuf, OpenError> {
        self.open_directory().map(|(path, _)| path)
    }

    /// Keeps others of this user from reclaiming or taking names in the same directory meanwhile:
    /// `flock(2)` on the directory, which dies with its holder.
    ///
    /// Waits for a holder as long as `wait` says, but 20 ms in any case, in which an honest one is done,
    /// and never longer than a second.
    ///
    /// # Errors
    /// As [`path`](Self::path), and `TimedOut` if someone holds the lock for longer.
    pub fn lock(&self, wait: Wait) -> Result<NameLock, OpenError> {
        let (path, directory) = self.open_directory()?;
        let time = wait.remaining().unwrap_or(PATIENCE_MOST);
        let wait = Wait::at_most(time.clamp(PATIENCE_LEAST, PATIENCE_MOST));
        loop {
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(NameLock { path, directory }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(OpenError::io("flock", error)),
            }
            if wait.is_over() {
                return Err(OpenError::TimedOut);
            }
            let _ = poll([], Wait::at_most(Duration::from_millis(1)));
        }
    }

    fn open_directory(&self) -> Result<(PathBuf, File), OpenError> {
        let path = if self.0.starts_with('/') {
            PathBuf::from(&self.0)
        } else {
            own_directory()?.join(&self.0)
        };
        if path.as_os_str().as_bytes().len() > MAX_PATH {
            return Err(OpenError::Invalid {
                what: "the channel's path exceeds 107 bytes",
            });
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(parent, flags, Mode::empty()) {
            Ok(directory) => File::from(directory),
            Err(rustix::io::Errno::NOENT) => return Err(OpenError::NotFound),
            Err(error) => return Err(OpenError::io("open", error)),
        };
        let stat = rustix::fs::fstat(&directory).map_err(|e| OpenError::io("fstat", e))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(OpenError::Untrusted {
                what: "the directory belongs to another user",
            });
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(OpenError::Untrusted {
                what: "others may write to the directory",
            });
        }
        Ok((path, directory))
    }
}

/// Holds the names of one directory still; see [`Name::lock`].
#[derive(Debug)]
pub struct NameLock {
    path: PathBuf,
    directory: File,
}

impl NameLock {
    /// Where the object of the name stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, for `openat(2)` and its kin.
    #[must_use]
    pub fn directory(&self) -> &File {
        &self.directory
    }

    /// Checks what stands at the name, without following a link: `false` for nothing.
    ///
    /// # Errors
    /// `Untrusted` for another type of file, another owner, a mode that lets others in, or a
    /// second hard link.
    pub fn holds(&self, expected: FileType) -> Result<bool, OpenError> {
        match rustix::fs::lstat(&self.path) {
            Ok(stat) => check(&stat, expected).map(|()| true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(OpenError::io("lstat", error)),
        }
    }

    /// Removes the object of the name.
    ///
    /// # Errors
    /// What `unlink(2)` reports; nothing there is no error.
    pub fn unlink(&self) -> Result<(), OpenError> {
        match rustix::fs::unlink(&self.path) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(OpenError::io("unlink", error)),
        }
    }
}

/// Whether an object is one that this user made for a channel.
///
/// # Errors
/// `Untrusted`, as [`NameLock::holds`] says.
pub fn check(stat: &rustix::fs::Stat, expected: FileType) -> Result<(), OpenError> {
    let untrusted = |what| Err(OpenError::Untrusted { what });
    if FileType::from_raw_mode(stat.st_mode) != expected {
        return untrusted("something else stands at the channel's name");
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return untrusted("the object at the channel's name belongs to another user");
    }
    if expected != FileType::Directory && (stat.st_mode & 0o077 != 0 || stat.st_nlink != 1) {
        return untrusted("the object at the channel's name is open to others");
    }
    Ok(())
}

fn own_directory() -> Result<PathBuf, OpenError> {
    let uid = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .into_iter()
        .chain([PathBuf::from(format!("/run/user/{uid}"))])
        .find(|path| path.is_absolute() && is_directory_of(path, uid));
    let directory = runtime.map_or_else(
        || PathBuf::from(format!("/tmp/ipc-{uid}")),
        |path| path.join("ipc"),
    );
    match rustix::fs::mkdir(&directory, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(OpenError::io("mkdir", error)),
    }
    // In a shared directory like /tmp a stranger may have put a link there first.
    let link =
        rustix::fs::lstat(&directory).map_err(|e| OpenError::io("lstat", io::Error::from(e)))?;
    check(&link, FileType::Directory).map(|()| directory)
}

/// `su` and `sudo` may leave `XDG_RUNTIME_DIR` to root: a directory that root made there would shut
/// its owner out.
fn is_directory_of(path: &Path, uid: u32) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::Directory && stat.st_uid == uid
    })
}
