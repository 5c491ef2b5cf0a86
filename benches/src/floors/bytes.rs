use std::hint::spin_loop;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_send_buffer_size, set_tcp_congestion, socket_send_buffer_size,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// `write(2)` and `read(2)` of whole messages whose size both sides know; with `SPIN` on
/// non-blocking descriptors, asked again until they give.
#[derive(Debug)]
pub(crate) struct Bytes<const SPIN: bool> {
    input: OwnedFd,
    output: OwnedFd,
    size: usize,
}

impl<const SPIN: bool> Bytes<SPIN> {
    fn new(input: OwnedFd, output: OwnedFd, size: usize) -> Outcome<Self> {
        if SPIN {
            for fd in [&input, &output] {
                fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
            }
        }
        Ok(Self {
            input,
            output,
            size,
        })
    }
}

impl<const SPIN: bool> Port for Bytes<SPIN> {
    #[inline]
    fn send(&mut self, mut message: &[u8]) -> Outcome<()> {
        while !message.is_empty() {
            match rustix::io::write(&self.output, message) {
                Ok(written) => message = &message[written..],
                Err(Errno::AGAIN) if SPIN => spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let mut filled = 0;
        while filled < self.size {
            match rustix::io::read(&self.input, &mut buffer[filled..self.size]) {
                Ok(0) => return Err(Failure::Failed("the peer hung up".into())),
                Ok(read) => filled += read,
                Err(Errno::AGAIN) if SPIN => spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }
}

/// Two pipes.
#[derive(Debug)]
pub(crate) struct PipeLink<const SPIN: bool>;

impl<const SPIN: bool> Link for PipeLink<SPIN> {
    type Port = Bytes<SPIN>;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (there_out, there_in) = pipe(spec.capacity())?;
        let (back_out, back_in) = pipe(spec.capacity())?;
        Ok([bundle([back_out, there_in]), bundle([there_out, back_in])])
    }

    fn port(spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [input, output] = ends(bundle)?;
        Bytes::new(input, output, spec.size)
    }

    fn depth(spec: &Spec) -> Option<u64> {
        let (_output, input) = pipe(spec.capacity()).ok()?;
        depth_of(input, spec.size)
    }
}

/// How many messages fit into what this descriptor writes to: it is filled to the brim.
pub(crate) fn depth_of(output: impl AsFd, size: usize) -> Option<u64> {
    fcntl_setfl(&output, fcntl_getfl(&output).ok()? | OFlags::NONBLOCK).ok()?;
    let message = vec![0; size];
    let mut bytes = 0;
    loop {
        match rustix::io::write(&output, &message[bytes % size..]) {
            Ok(written) => bytes += written,
            Err(Errno::AGAIN) => return u64::try_from(bytes / size).ok(),
            Err(_) => return None,
        }
    }
}

/// A pipe as large as asked for, or as large as an unprivileged user may have it.
fn pipe(capacity: usize) -> Outcome<(OwnedFd, OwnedFd)> {
    const UNPRIVILEGED_MAX: usize = 1 << 20;
    let (output, input) = pipe_with(PipeFlags::CLOEXEC)?;
    // Refused where the user's pipe pages are used up (pipe(7), pipe-user-pages-soft): then the
    // row is measured with the pipe there is.
    let _ = fcntl_setpipe_size(&input, capacity.min(UNPRIVILEGED_MAX));
    Ok((output, input))
}

/// One connected pair of stream sockets, both ways.
#[derive(Debug)]
pub(crate) struct SocketLink<S, const SPIN: bool>(PhantomData<S>);

/// Where a connected pair comes from.
pub(crate) trait Sockets: 'static {
    fn pair(spec: &Spec) -> Outcome<(OwnedFd, OwnedFd)>;
}

impl<S: Sockets, const SPIN: bool> Link for SocketLink<S, SPIN> {
    type Port = Bytes<SPIN>;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (a, b) = S::pair(spec)?;
        Ok([bundle([a.try_clone()?, a]), bundle([b.try_clone()?, b])])
    }

    fn port(spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [input, output] = ends(bundle)?;
        Bytes::new(input, output, spec.size)
    }

    fn depth(spec: &Spec) -> Option<u64> {
        let (output, _input) = S::pair(spec).ok()?;
        depth_of(output, spec.size)
    }
}

/// Unix sockets, with send buffers of the kernel's default size, or as large as asked for if that is
/// more.
#[derive(Debug)]
pub(crate) struct Unix;

impl Sockets for Unix {
    fn pair(spec: &Spec) -> Outcome<(OwnedFd, OwnedFd)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // The kernel charges about 37 KiB for 32 of them.
        let charged = spec.capacity() / 32 * 37;
        for socket in [&a, &b] {
            if socket_send_buffer_size(socket)? < charged {
                // It doubles what it is given, and clamps it to net.core.wmem_max, silently
                // (socket(7)).
                set_socket_send_buffer_size(socket, charged / 2)?;
            }
        }
        Ok((a, b))
    }
}

/// TCP within this machine, each message sent at once, with the send buffer that the channel asks
/// for: the kernel's own choice, of megabytes, is slower, since it leaves the caches. And with the channel's
/// congestion control, since the one of some systems (BBR) is several times slower at 64 KiB.
#[derive(Debug)]
pub(crate) struct Tcp;

impl Sockets for Tcp {
    fn pair(spec: &Spec) -> Outcome<(OwnedFd, OwnedFd)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let ours = TcpStream::connect(listener.local_addr()?)?;
        let (theirs, _) = listener.accept()?;
        for stream in [&ours, &theirs] {
            stream.set_nodelay(true)?;
            set_socket_send_buffer_size(stream, spec.capacity())?;
            // Refused where the system does not let this user choose, as it is to the channel.
            let _ = set_tcp_congestion(stream, "reno");
        }
        Ok((ours.into(), theirs.into()))
    }
}

/// Descriptors and nothing else.
pub(crate) fn bundle<const N: usize>(descriptors: [OwnedFd; N]) -> Bundle {
    Bundle {
        descriptors: descriptors.into(),
        data: Vec::new(),
    }
}

/// The descriptors of a bundle that must have this many.
pub(crate) fn ends<const N: usize>(bundle: Bundle) -> Outcome<[OwnedFd; N]> {
    bundle
        .descriptors
        .try_into()
        .map_err(|_| Failure::Failed("descriptors were lost on the way".into()))
}
