use std::fmt;
use std::str::FromStr;

use ipc_core::{Name, OpenError, Tunable, WaitStrategy};

/// How a socket channel is made.
///
/// The defaults: [`WaitStrategy::Adaptive`]; messages up to 1 MiB; a send buffer that holds one
/// of those, or as much of it as `net.core.wmem_max` allows; no descriptors.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) wait_strategy: WaitStrategy,
    pub(crate) capacity: Option<usize>,
    pub(crate) max_message: usize,
    pub(crate) descriptors: bool,
}

/// The longest message that [`Options::max_message`] can ask for, in bytes: 1 GiB.
pub const MAX_MESSAGE: usize = 1 << 30;

impl Default for Options {
    fn default() -> Self {
        Self {
            wait_strategy: WaitStrategy::default(),
            capacity: None,
            max_message: 1 << 20,
            descriptors: false,
        }
    }
}

impl Options {
    /// The longest message in bytes, at most [`MAX_MESSAGE`]. The receiver's memory is bounded by
    /// twice of it. With names, a sender whose maximum exceeds the listener's is turned away.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Whether messages may carry descriptors. Off by default: then the kernel drops whatever
    /// descriptors a peer sends, before they reach this process. Not with TCP.
    #[must_use]
    pub fn descriptors(mut self, allowed: bool) -> Self {
        self.descriptors = allowed;
        self
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if self.max_message > MAX_MESSAGE {
            return Err(OpenError::Invalid {
                what: "a socket's messages have at most 1 GiB",
            });
        }
        Ok(())
    }
}

impl Tunable for Options {
    fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.wait_strategy = strategy;
        self
    }

    /// Counts bytes of messages in frames of many kilobytes. The kernel charges at least 768 B
    /// for each system call that sends, so fewer bytes fit of small messages sent one by one.
    fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = Some(bytes);
        self
    }
}

/// Where a socket listens.
///
/// ```
/// use ipc_socket::Address;
///
/// let address: Address = "tcp:127.0.0.1:7000".parse()?;
/// assert_eq!(address.to_string(), "tcp:127.0.0.1:7000");
/// # Ok::<(), ipc_core::OpenError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A socket file of mode 0600 at a [`Name`]: an absolute path or a bare word. The file system
    /// keeps strangers away, and both sides check the other's user.
    Unix(Name),
    /// `abstract:NAME`, a name without a file: it vanishes with its listener, and needs no
    /// directory. The price: no mode protects it. Any user of this network namespace can take the
    /// name first, can connect, and can fill the listener's backlog. Both sides check the other's
    /// user before a byte of a message moves, so a stranger reads and writes nothing; it can only
    /// be in the way.
    Abstract(String),
    /// `tcp:HOST:PORT`. No credentials: whoever can reach the port is a peer. Nothing is encrypted.
    /// The host is resolved by the system, which may take longer than any deadline; a numeric
    /// address is not. A peer whose machine or network vanishes is not noticed.
    Tcp(String),
}

const MAX_ABSTRACT: usize = 64;

impl FromStr for Address {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        if let Some(name) = text.strip_prefix("abstract:") {
            let fits = !name.is_empty()
                && name.len() <= MAX_ABSTRACT
                && name.bytes().all(|b| b.is_ascii_graphic());
            return if fits {
                Ok(Self::Abstract(name.to_owned()))
            } else {
                Err(OpenError::Invalid {
                    what: "an abstract name has 1 to 64 visible ASCII characters",
                })
            };
        }
        if let Some(host) = text.strip_prefix("tcp:") {
            let port = host
                .rsplit_once(':')
                .map(|(host, port)| (host, port.parse::<u16>()));
            return match port {
                Some((name, Ok(_))) if !name.is_empty() => Ok(Self::Tcp(host.to_owned())),
                _ => Err(OpenError::Invalid {
                    what: "a TCP address is tcp:HOST:PORT",
                }),
            };
        }
        text.parse().map(Self::Unix)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(name) => name.fmt(f),
            Self::Abstract(name) => write!(f, "abstract:{name}"),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}
