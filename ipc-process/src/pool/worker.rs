//! The other side: a process that runs the initializer and then one task after another.

use std::fmt::Display;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use ipc_core::wait::{Interest, poll};
use ipc_core::{Parts, Wait};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use super::codec::MAX_MESSAGE;
use super::link::{Frame, Kind, Link, Received};
use crate::bytes::decode;
use crate::child::EXIT_UNTOLD;
use crate::descriptor::Descriptor;
use crate::spawn::trampoline::{Called, at_place};
use crate::{Target, panic};

/// What an initializer returns: nothing, or a `Result` whose error, a text for people, keeps the
/// worker from working.
pub trait Initialized {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), String>;
}

impl Initialized for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> Initialized for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// The function of a worker's process, for an initializer `I`. Its arguments are the worker's end
/// of the link and those of the initializer, which are encoded once for all workers.
pub(super) struct Serve<I, A> {
    initializer: I,
    arguments: PhantomData<fn(A)>,
}

impl<I, A> Serve<I, A> {
    pub(super) fn new(initializer: I) -> Self {
        Self {
            initializer,
            arguments: PhantomData,
        }
    }
}

impl<I: Copy, A> Clone for Serve<I, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I: Copy, A> Copy for Serve<I, A> {}

impl<I, A> Target<(Descriptor, Vec<u8>)> for Serve<I, A>
where
    I: Target<A>,
    I::Output: Initialized,
    A: DeserializeOwned + 'static,
{
    /// `Err`: what the initializer said.
    type Output = Result<(), String>;

    fn call(self, (end, arguments): (Descriptor, Vec<u8>)) -> Result<(), String> {
        let mut link = Link::new(end.0);
        let arguments = Parts {
            descriptors: Vec::new(),
            data: arguments,
        };
        let arguments = decode(arguments).map_err(|error| format!("its arguments: {error}"))?;
        self.initializer.call(arguments).into_result()?;
        match serve(&mut link) {
            // A task closed the socket, and with it all ways to say so.
            Err(error) if is_no_socket(&error) => std::process::exit(EXIT_UNTOLD),
            // A pool that is gone, or does not keep to the protocol, needs no answer.
            _ => Ok(()),
        }
    }
}

fn is_no_socket(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADF | Errno::NOTSOCK)
    )
}

fn serve(link: &mut Link) -> io::Result<()> {
    link.push(Kind::Ready, 0, 0, &[], Vec::new())?;
    flush(link)?;
    while let Some(frame) = next_frame(link)? {
        if frame.kind != Kind::Run {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let id = frame.id;
        let started = Instant::now();
        let (kind, body) = run(frame);
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Err(error) = link.push(kind, id, took, &body.data, body.descriptors) {
            let reason = text(format!("the result: {error}"));
            link.push(Kind::BadResult, id, took, &reason.data, Vec::new())?;
        }
        // Before the next task begins: if that ends this process, it shall be known that this
        // one was over.
        flush(link)?;
    }
    Ok(())
}

fn run(frame: Frame) -> (Kind, Parts) {
    let arguments = match frame.body {
        Ok(arguments) => arguments,
        Err(reason) => return (Kind::BadArguments, text(format!("the arguments: {reason}"))),
    };
    let Some(function) = at_place(frame.word) else {
        let reason = "the function is not in this program".to_owned();
        return (Kind::BadArguments, text(reason));
    };
    match catch_unwind(AssertUnwindSafe(|| function(arguments))) {
        Ok(Called::Returned(parts)) if parts.data.len() > MAX_MESSAGE => {
            let reason = format!("the result takes more than {MAX_MESSAGE} bytes");
            (Kind::BadResult, text(reason))
        }
        Ok(Called::Returned(parts)) => (Kind::Returned, parts),
        Ok(Called::BadArguments(reason)) => {
            (Kind::BadArguments, text(format!("the arguments: {reason}")))
        }
        Ok(Called::BadResult(reason)) => (Kind::BadResult, text(format!("the result: {reason}"))),
        Err(payload) => {
            let data = postcard::to_stdvec(&panic::of_payload(payload)).unwrap_or_default();
            let descriptors = Vec::new();
            (Kind::Panicked, Parts { descriptors, data })
        }
    }
}

fn text(reason: String) -> Parts {
    Parts {
        descriptors: Vec::new(),
        data: reason.into_bytes(),
    }
}

fn flush(link: &mut Link) -> io::Result<()> {
    while !link.flush()? {
        poll([(link.as_fd(), Interest::Write)], Wait::Forever)?;
    }
    Ok(())
}

/// Looks for the next task for as long as that pays, then sleeps; `None` when none will come.
fn next_frame(link: &mut Link) -> io::Result<Option<Frame>> {
    loop {
        if let Some(frame) = link.next()? {
            return Ok(Some(frame));
        }
        match link.look(Wait::Forever)? {
            Some(Received::End { .. }) => return Ok(None),
            Some(_) => {}
            None => {
                poll([(link.as_fd(), Interest::Read)], Wait::Forever)?;
            }
        }
    }
}
