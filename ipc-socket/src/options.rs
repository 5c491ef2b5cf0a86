use std::fmt;
use std::net::SocketAddr;
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
    /// `tcp:HOST:PORT`; an IPv6 address in brackets, `tcp:[::1]:7000`, if it is one of a single link with
    /// the number of the interface, `tcp:[fe80::1%2]:7000`.
    ///
    /// No credentials: whoever can reach the port is a peer. Nothing is encrypted.
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
            return if is_host_and_port(host) {
                Ok(Self::Tcp(host.to_owned()))
            } else {
                Err(OpenError::Invalid {
                    what: "a TCP address is tcp:HOST:PORT, with brackets around a host that is an \
                           IPv6 address",
                })
            };
        }
        text.parse().map(Self::Unix)
    }
}

fn is_host_and_port(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    // Without brackets nobody could tell where an IPv6 address ends.
    let is_name = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b":[]".contains(&byte);
        !name.is_empty() && name.bytes().all(plain)
    };
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    text.rsplit_once(':')
        .is_some_and(|(name, port)| is_name(name) && is_port(port))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_an_address_is_the_same_address() {
        for text in [
            "prices",
            "/run/user/1000/prices",
            "abstract:prices",
            "tcp:127.0.0.1:7000",
            "tcp:localhost:0",
            "tcp:[::1]:65535",
            "tcp:[::ffff:127.0.0.1]:1",
            "tcp:[fe80::1%2]:7000",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_tcp_address_is_refused() {
        for host in [
            "",
            ":",
            ":7000",
            "localhost",
            "localhost:",
            "localhost:65536",
            "localhost:+1",
            "local host:1",
            "::1",
            "::1:7000",
            "[::1]",
            "[::1]:",
            "[::1:7000",
            "[nobody]:7000",
            "[fe80::1%eth0]:7000",
        ] {
            let address = format!("tcp:{host}").parse::<Address>();
            assert!(matches!(address, Err(OpenError::Invalid { .. })), "{host}");
        }
    }
}
