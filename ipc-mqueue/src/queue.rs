use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Limits, OpenError, RecvError, SendError, Wait};
use rustix::io::Errno;

use crate::inbox::{Asked, Inbox, Received};
use crate::sender::check_message;
use crate::sys::{Mqd, Patience};
use crate::{Options, limit};

/// `MQ_PRIO_MAX` of Linux less one.
const QUEUE_MAX_PRIORITY: u32 = 32_767;

/// What a [`Queue`] is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Sending only.
    Send,
    /// Receiving only.
    Receive,
    /// Sending and receiving.
    Both,
}

/// A POSIX queue with a name of the system's own kind, such as `/prices`, for programs that know
/// nothing of this library: any number of senders and receivers, in any language.
///
/// It is not a channel, and promises less: **nobody learns of a death**, since the kernel does not
/// say who holds a queue. The name and its messages stay until [`unlink`](Self::unlink) or the next
/// boot. Each message goes to one of the receivers, highest priority first. Whoever may open the
/// queue may send anything to it.
///
/// ```
/// use ipc_core::Wait;
/// use ipc_mqueue::{Access, Options, Queue};
///
/// let name = format!("/ipc-example-{}", std::process::id());
/// let mut ours = Queue::create_named(&name, Access::Both, &Options::default().depth(2))?;
/// let mut theirs = Queue::open_named(&name, Access::Send)?;
/// Queue::unlink(&name)?;
///
/// theirs.send_with(b"routine", 0, Wait::Never)?;
/// theirs.send_with(b"urgent", 9, Wait::Never)?;
///
/// let mut buffer = [0; 16];
/// let first = ours.recv_with(&mut buffer, Wait::Never)?;
/// assert_eq!((&buffer[..first.len], first.priority), (&b"urgent"[..], 9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Queue {
    inbox: Inbox,
}

impl Queue {
    /// Opens a queue that exists, whoever made it; what it carries is in [`limits`](Self::limits).
    ///
    /// # Errors
    /// `NotFound`, `Invalid` for a name that cannot be, `Io` with EACCES where the queue's mode
    /// forbids this access.
    pub fn open_named(name: &str, access: Access) -> Result<Self, OpenError> {
        check_name(name)?;
        let mqd = Mqd::open(name, access).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => OpenError::NotFound,
            _ => limit::of_descriptors("mq_open", error),
        })?;
        Ok(Self {
            inbox: Inbox::new(mqd, 0)?,
        })
    }

    /// Makes a queue, mode 0600. The wait strategy of the options has no effect.
    ///
    /// # Errors
    /// `NameInUse` if there is a queue of this name, `Invalid` for a name that cannot be, `Limit`
    /// with the name of the setting when the queue would be too large or one too many.
    pub fn create_named(name: &str, access: Access, options: &Options) -> Result<Self, OpenError> {
        check_name(name)?;
        let (size, depth) = options.resolve();
        let mqd =
            Mqd::create(name, access, size, depth).map_err(|error| {
                match Errno::from_io_error(&error) {
                    Some(Errno::EXIST) => OpenError::NameInUse,
                    _ => limit::of_create(error, size, depth),
                }
            })?;
        Ok(Self {
            inbox: Inbox::new(mqd, 0)?,
        })
    }

    /// Removes a name. Those who have the queue open go on using it.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Io` with EACCES for another user's queue.
    pub fn unlink(name: &str) -> Result<(), OpenError> {
        check_name(name)?;
        Mqd::unlink(name).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpenError::NotFound,
            _ => OpenError::io("mq_unlink", error),
        })
    }

    /// Sends one message. Deadlines are points of the monotonic clock, unlike those of
    /// `mq_timedsend(3)`.
    ///
    /// # Errors
    /// `Full`, `TimedOut`, `TooLong`, `Limit` for a priority above 32,767, `Io` with EBADF on a queue opened for
    /// [`Access::Receive`]. Never `Closed` nor `PeerDied`.
    pub fn send_with(
        &mut self,
        message: &[u8],
        priority: u32,
        wait: Wait,
    ) -> Result<(), SendError> {
        check_message(message, priority, QUEUE_MAX_PRIORITY, self.inbox.limits())?;
        let mut polled = Polled::Ready;
        loop {
            let sent = self.inbox.mqd().send(message, priority, patience(wait));
            if sent.map_err(|error| SendError::io("mq_timedsend", error))? {
                return Ok(());
            }
            if wait == Wait::Never {
                return Err(SendError::Full);
            }
            if polled == Polled::TimedOut {
                return Err(SendError::TimedOut);
            }
            let watched = [(self.inbox.mqd().as_fd(), Interest::Write)];
            polled = poll(watched, wait).map_err(|error| SendError::io("ppoll", error))?;
        }
    }

    /// Receives one message. `BufferTooSmall` keeps it in this handle, where it comes first at the
    /// next call, though one of higher priority may have arrived, and where other receivers of the
    /// queue do not see it: a buffer of `limits().max_message` bytes avoids that.
    ///
    /// # Errors
    /// `Empty`, `TimedOut`, `BufferTooSmall`, `Io` with EBADF on a queue opened for
    /// [`Access::Send`]. Never `Closed` nor `PeerDied`.
    pub fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<Received, RecvError> {
        let mut polled = Polled::Ready;
        loop {
            let patience = patience(wait);
            let received = self
                .inbox
                .fetch(buffer, Asked::Priority, patience, || false)?;
            if let Some(received) = received {
                return Ok(received);
            }
            if wait == Wait::Never {
                return Err(RecvError::Empty);
            }
            if polled == Polled::TimedOut {
                return Err(RecvError::TimedOut);
            }
            let watched = [(self.inbox.mqd().as_fd(), Interest::Read)];
            polled = poll(watched, wait).map_err(|error| RecvError::io("ppoll", error))?;
        }
    }

    /// What the queue carries, as its maker chose.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inbox.limits()
    }

    /// How many messages are in the queue at this moment.
    ///
    /// # Errors
    /// What `mq_getattr(3)` reports.
    pub fn waiting(&self) -> Result<usize, OpenError> {
        self.inbox
            .mqd()
            .attributes()
            .map(|attributes| attributes.current_messages)
    }
}

/// The queue's own descriptor, readable when there is a message, writable when there is room.
impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inbox.mqd().as_fd()
    }
}

fn patience(wait: Wait) -> Patience {
    // Nobody's death is to be noticed here, so one call may sleep for ever.
    if wait == Wait::Forever {
        Patience::Endless
    } else {
        Patience::None
    }
}

/// A slash and up to 254 bytes without another (`mq_overview(7)`).
fn check_name(name: &str) -> Result<(), OpenError> {
    let word = name.strip_prefix('/').unwrap_or_default();
    if word.is_empty()
        || word.len() > 254
        || word.contains(['/', '\0'])
        || word == "."
        || word == ".."
    {
        return Err(OpenError::Invalid {
            what: "a queue's name is a slash and 1 to 254 bytes with no other slash",
        });
    }
    Ok(())
}
