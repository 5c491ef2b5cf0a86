use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Where a standard stream of a new process leads.
#[derive(Debug, Default)]
pub enum Stdio {
    /// To where this process's own leads.
    #[default]
    Inherit,
    /// Nowhere: `/dev/null`.
    Null,
    /// To this file, pipe or socket.
    Fd(OwnedFd),
}

impl Stdio {
    /// `None`: to be inherited.
    pub(crate) fn open(self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Inherit => Ok(None),
            Self::Null => {
                let null = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open("/dev/null")?;
                Ok(Some(null.into()))
            }
            Self::Fd(descriptor) => Ok(Some(descriptor)),
        }
    }
}

impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(descriptor: T) -> Self {
        Self::Fd(descriptor.into())
    }
}

/// A copy of each standard stream of this process that is open.
pub(crate) fn own_streams() -> io::Result<[Option<OwnedFd>; 3]> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let copy = |stream: BorrowedFd<'_>| match rustix::io::fcntl_dupfd_cloexec(stream, 3) {
        Ok(copy) => Ok(Some(copy)),
        Err(rustix::io::Errno::BADF) => Ok(None),
        Err(error) => Err(io::Error::from(error)),
    };
    Ok([
        copy(stdin.as_fd())?,
        copy(stdout.as_fd())?,
        copy(stderr.as_fd())?,
    ])
}
