use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::rendezvous::{
    Admission, Hall, Visitor, accept_one, bind_socket, connect_socket, find, persist,
    release_socket, trust,
};
use ipc_core::wait::Sleep;
use ipc_core::{Custody, Name, OpenError, Wait};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::sys::{self, Transport};
use crate::{Address, Options, Receiver, tcp};

/// A bound address; each connection it accepts is a channel of its own.
pub struct Listener {
    socket: OwnedFd,
    place: Place,
    options: Options,
    hall: Hall,
    custody: Custody,
}

enum Place {
    /// With device and inode, so that a drop removes only what this listener made.
    Path(Name, (u64, u64)),
    Abstract,
    Tcp(SocketAddr),
}

const BACKLOG: i32 = 64;

/// What a connector says first: these bytes, the longest message it may send (u32 LE), whether
/// with descriptors.
const MAGIC: [u8; 8] = *b"IPCSOCK2";
const GREETING: usize = MAGIC.len() + 5;

impl Listener {
    pub(crate) fn bind(address: &Address, options: &Options) -> Result<Self, OpenError> {
        options.check()?;
        let (socket, place) = match address {
            Address::Unix(name) => {
                let (socket, identity) = bind_socket(name)?;
                (socket, Place::Path(name.clone(), identity))
            }
            Address::Abstract(name) => (bind_abstract(name)?, Place::Abstract),
            Address::Tcp(host) => {
                let (socket, address) = tcp::bind(host)?;
                (socket, Place::Tcp(address))
            }
        };
        Ok(Self {
            socket,
            place,
            options: options.clone(),
            hall: Hall::default(),
            custody: Custody::new(),
        })
    }

    /// The address of a TCP listener, with the port that the system chose for port 0.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            Place::Path(..) | Place::Abstract => None,
        }
    }
}

impl ipc_core::Listener for Listener {
    type Receiver = Receiver;

    fn accept(&mut self, wait: Wait) -> Result<Receiver, OpenError> {
        let Self {
            socket,
            options,
            hall,
            ..
        } = self;
        accept_one(socket.as_fd(), hall, wait, |visitor, _| {
            admit(options, visitor)
        })
    }
}

/// One visitor once it has greeted, or why it was turned away.
fn admit(options: &Options, mut visitor: Visitor) -> Result<Admission<Receiver>, OpenError> {
    let transport = sys::transport(visitor.socket.as_fd())?;
    if transport == Transport::Unix {
        trust(visitor.socket.as_fd())?;
    } else {
        tcp::no_delay(visitor.socket.as_fd())?;
    }
    hear(&mut visitor)?;
    let incompatible = |what| Err(OpenError::Incompatible { what });
    if visitor
        .said
        .iter()
        .zip(&MAGIC)
        .any(|(said, due)| said != due)
    {
        return incompatible("it does not greet as a socket channel");
    }
    let Ok(greeting) = <[u8; GREETING]>::try_from(&visitor.said[..]) else {
        return Ok(Admission::NotYet(visitor));
    };
    let [.., a, b, c, d, descriptors] = greeting;
    let max_message = u32::from_le_bytes([a, b, c, d]) as usize;
    if max_message > options.max_message {
        return incompatible("its messages may exceed this listener's maximum");
    }
    if descriptors != 0 && !options.descriptors {
        return incompatible("it may send descriptors, which this listener does not take");
    }
    let descriptors = descriptors != 0 && transport == Transport::Unix;
    let options = Options {
        max_message,
        descriptors,
        ..options.clone()
    };
    let receiver = Receiver::new(visitor.socket, transport, &options);
    Ok(Admission::Admitted(receiver))
}

/// Adds to what it has said what has come of its greeting.
fn hear(visitor: &mut Visitor) -> Result<(), OpenError> {
    let mut word = [0; GREETING];
    let rest = &mut word[visitor.said.len()..];
    match sys::recv(visitor.socket.as_fd(), rest, Sleep::Never) {
        Ok(0) => Err(OpenError::NotFound),
        Ok(bytes) => {
            visitor.said.extend_from_slice(&rest[..bytes]);
            Ok(())
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(error) => Err(OpenError::io("recv", error)),
    }
}

/// Readable when somebody knocks. Call `accept` with [`Wait::Never`] until `NotFound`: then nobody is left
/// of those who knocked before.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Place::Path(name, identity) = &self.place
            && self.custody.is_ours()
        {
            release_socket(name, *identity);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// Connects a socket to whoever listens at `address`, and greets.
pub(crate) fn connect(
    address: &Address,
    options: &Options,
    wait: Wait,
) -> Result<(OwnedFd, Transport), OpenError> {
    let mut greeting = [0; GREETING];
    greeting[..MAGIC.len()].copy_from_slice(&MAGIC);
    greeting[MAGIC.len()..GREETING - 1]
        .copy_from_slice(&(options.max_message as u32).to_le_bytes());
    greeting[GREETING - 1] = options.descriptors.into();
    persist(wait, || {
        let (socket, transport) = match address {
            Address::Unix(name) => (connect_socket(name, wait)?, Transport::Unix),
            Address::Abstract(name) => (find(wait, || connect_abstract(name))?, Transport::Unix),
            Address::Tcp(host) => (find(wait, || tcp::connect(host, wait))?, Transport::Tcp),
        };
        sys::make_blocking(socket.as_fd())?;
        // The buffer of a new socket holds more than this, so it neither waits nor falls short.
        match sys::send(socket.as_fd(), &greeting, Sleep::Never) {
            Ok(_) => Ok((socket, transport)),
            Err(error) => Err(OpenError::io("send", error)),
        }
    })
}

fn bind_abstract(name: &str) -> Result<OwnedFd, OpenError> {
    let socket = unix_socket()?;
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())
        .map_err(|error| OpenError::io("bind", error))?;
    match rustix::net::bind(&socket, &address) {
        Ok(()) => {}
        // The name goes with its socket, so whoever holds it lives.
        Err(Errno::ADDRINUSE) => return Err(OpenError::NameInUse),
        Err(error) => return Err(OpenError::io("bind", error)),
    }
    rustix::net::listen(&socket, BACKLOG).map_err(|error| OpenError::io("listen", error))?;
    Ok(socket)
}

fn connect_abstract(name: &str) -> Result<OwnedFd, OpenError> {
    let socket = unix_socket()?;
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())
        .map_err(|error| OpenError::io("connect", error))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        // EAGAIN: the listener's backlog is full.
        Err(Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => return Err(OpenError::NotFound),
        Err(error) => return Err(OpenError::io("connect", error)),
    }
    // No mode protects the name: a stranger may have taken it first.
    trust(socket.as_fd())?;
    Ok(socket)
}

fn unix_socket() -> Result<OwnedFd, OpenError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|error| OpenError::io("socket", error))
}
