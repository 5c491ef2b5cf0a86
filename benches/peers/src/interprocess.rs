use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{GenericNamespaced, ListenerOptions, Stream};
use interprocess::unnamed_pipe::{Recver, Sender, pipe};
use ipc_benches::{Bundle, Exact, Failure, Link, Outcome, Port, Side, Spec};

/// A local socket by a name of its own namespace, which on Linux is an abstract Unix socket.
#[derive(Debug)]
pub(crate) struct LocalSocket;

#[derive(Debug)]
pub(crate) struct Connected {
    stream: Stream,
    size: usize,
}

impl Port for Connected {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok((&self.stream).write_all(message)?)
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        (&self.stream).read_exact(&mut buffer[..self.size])?;
        Ok(self.size)
    }
}

impl Link for LocalSocket {
    type Port = Connected;

    /// A stream over which the name travels.
    fn open(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (a, b) = UnixStream::pair()?;
        Ok([a, b].map(|stream| Bundle {
            descriptors: vec![stream.into()],
            data: Vec::new(),
        }))
    }

    fn port(spec: &Spec, side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [fd] = ends(bundle)?;
        let mut meeting = UnixStream::from(fd);
        let stream = if side == Side::Responder {
            let name = format!("ipc-bench-{}.sock", std::process::id());
            let options = ListenerOptions::new();
            let options = options.name(name.as_str().to_ns_name::<GenericNamespaced>()?);
            let listener = options.create_sync()?;
            meeting.write_all(name.as_bytes())?;
            meeting.shutdown(Shutdown::Write)?;
            listener.accept()?
        } else {
            let mut name = String::new();
            meeting.read_to_string(&mut name)?;
            Stream::connect(name.as_str().to_ns_name::<GenericNamespaced>()?)?
        };
        Ok(Connected {
            stream,
            size: spec.size,
        })
    }
}

/// A pipe each way.
#[derive(Debug)]
pub(crate) struct UnnamedPipe;

impl Link for UnnamedPipe {
    type Port = Exact<Recver, Sender>;

    fn open(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (there_in, there_out) = pipe()?;
        let (back_in, back_out) = pipe()?;
        Ok(
            [(back_out, there_in), (there_out, back_in)].map(|(input, output)| Bundle {
                descriptors: vec![input.into(), output.into()],
                data: Vec::new(),
            }),
        )
    }

    fn port(spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [input, output] = ends(bundle)?;
        Ok(Exact::new(input.into(), output.into(), spec.size))
    }
}

fn ends<const N: usize>(bundle: Bundle) -> Outcome<[std::os::fd::OwnedFd; N]> {
    let lost = |_| Failure::Failed("descriptors were lost on the way".into());
    bundle.descriptors.try_into().map_err(lost)
}
