use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::net::UnixStream;

use crate::control::Bundle;
use crate::failure::Outcome;
use crate::floors::bytes::{bundle, depth_of, ends};
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// `read_exact` and `write_all` of messages whose size both sides know.
#[derive(Debug)]
pub struct Exact<R, W> {
    input: R,
    output: W,
    size: usize,
}

impl<R: Read, W: Write> Exact<R, W> {
    /// Messages of `size` bytes that come by `input` and leave by `output`.
    pub fn new(input: R, output: W, size: usize) -> Self {
        Self {
            input,
            output,
            size,
        }
    }
}

impl<R: Read, W: Write> Port for Exact<R, W> {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok(self.output.write_all(message)?)
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        self.input.read_exact(&mut buffer[..self.size])?;
        Ok(self.size)
    }
}

/// `std::io::pipe`.
#[derive(Debug)]
pub(crate) struct StdPipe;

impl Link for StdPipe {
    type Port = Exact<PipeReader, PipeWriter>;

    fn open(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (there_out, there_in) = pipe()?;
        let (back_out, back_in) = pipe()?;
        Ok([
            bundle([back_out.into(), there_in.into()]),
            bundle([there_out.into(), back_in.into()]),
        ])
    }

    fn port(spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [input, output] = ends(bundle)?;
        Ok(Exact::new(input.into(), output.into(), spec.size))
    }

    fn depth(spec: &Spec) -> Option<u64> {
        let (_input, output) = pipe().ok()?;
        depth_of(output, spec.size)
    }
}

/// `UnixStream::pair`.
#[derive(Debug)]
pub(crate) struct StdUnix;

impl Link for StdUnix {
    type Port = Exact<UnixStream, UnixStream>;

    fn open(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (a, b) = UnixStream::pair()?;
        Ok([bundle([a.into()]), bundle([b.into()])])
    }

    fn port(spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [fd] = ends(bundle)?;
        let output = UnixStream::from(fd);
        Ok(Exact::new(output.try_clone()?, output, spec.size))
    }

    fn depth(spec: &Spec) -> Option<u64> {
        let (output, _input) = UnixStream::pair().ok()?;
        depth_of(output, spec.size)
    }
}
