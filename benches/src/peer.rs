use std::env;
use std::io;
use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::catalog;
use crate::control::{Bundle, Command, Control, Reply};
use crate::failure::{Failure, Outcome};
use crate::neighbours;
use crate::spec::{Side, Spec};
use crate::workload::{self, Port, Run, SideReport};

/// Set in the environment of a process that the supervisor started to be one side.
pub(crate) const ROLE: &str = "IPC_BENCH_ROLE";

/// The role of a process that is neither side but keeps a processor busy.
pub(crate) const NEIGHBOUR: &str = "neighbour";

/// The role of a process that does nothing: what starting this very program costs.
pub(crate) const NOTHING: &str = "nothing";

pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// One way for two processes to exchange messages.
pub trait Link: 'static {
    /// What a side holds.
    type Port: Port;

    /// Makes the objects, in the supervisor, for two processes that run already: what the
    /// initiator needs, and what the responder does.
    ///
    /// # Errors
    /// `Unsupported` for a size that cannot be carried.
    fn open(spec: &Spec, peers: [u32; 2]) -> Outcome<[Bundle; 2]>;

    /// Takes over one end, in its process. It may wait for the other side: a supervisor that is
    /// killed meanwhile takes neither along, so what has a name for a moment is removed even so.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn port(spec: &Spec, side: Side, bundle: Bundle) -> Outcome<Self::Port>;

    /// Messages of this size that fit before a sender waits; `None` where there is no telling.
    /// Asked in the supervisor, about objects of its own.
    fn depth(_spec: &Spec) -> Option<u64> {
        None
    }
}

/// Both sides within one process, or what has no sides; every report marks such rows.
pub trait Solo: Sized + 'static {
    /// Makes everything ready.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn new(spec: &Spec) -> Outcome<Self>;

    /// Does what the workload says, this often.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn run(&mut self, run: Run) -> Outcome<SideReport>;

    /// As [`Link::depth`].
    fn depth(_spec: &Spec) -> Option<u64> {
        None
    }
}

/// The whole life of a side: open, then run after run until the supervisor hangs up.
pub(crate) fn main(role: &str) -> ExitCode {
    let lived = match role {
        NOTHING => Ok(()),
        NEIGHBOUR => neighbours::live(),
        _ => live(),
    };
    match lived {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn live() -> io::Result<()> {
    let control = Control::inherited()?;
    let (command, descriptors) = match control.recv() {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        received => received?,
    };
    let Command::Open {
        spec, side, data, ..
    } = command
    else {
        return Err(io::Error::other("run before open"));
    };
    let Some(implementation) = catalog::find(&spec.implementation) else {
        return Err(io::Error::other("unknown implementation"));
    };
    let bundle = Bundle { descriptors, data };
    match spec.placement.apply(side) {
        Ok(()) => implementation.serve(&spec, side, bundle, &control),
        Err(failure) => control.send(&Reply::from(failure), &[]),
    }
}

/// Serves the runs of one side of a link.
pub(crate) fn serve_link<L: Link>(
    spec: &Spec,
    side: Side,
    bundle: Bundle,
    control: &Control,
) -> io::Result<()> {
    match L::port(spec, side, bundle) {
        Ok(mut port) => serve(control, |run| workload::run(&mut port, spec, side, run)),
        Err(failure) => control.send(&Reply::from(failure), &[]),
    }
}

/// Serves the runs of a process that is both sides.
pub(crate) fn serve_solo<S: Solo>(
    spec: &Spec,
    _side: Side,
    _bundle: Bundle,
    control: &Control,
) -> io::Result<()> {
    match S::new(spec) {
        Ok(mut solo) => serve(control, |run| solo.run(run)),
        Err(failure) => control.send(&Reply::from(failure), &[]),
    }
}

fn serve(control: &Control, mut run: impl FnMut(Run) -> Outcome<SideReport>) -> io::Result<()> {
    die_with_the_supervisor()?;
    control.send(&Reply::Ready, &[])?;
    loop {
        let command = match control.recv() {
            Ok((command, _)) => command,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let Command::Run(wanted) = command else {
            return Err(io::Error::other("opened twice"));
        };
        match run(wanted) {
            Ok(report) => control.send(&Reply::Done(report), &[])?,
            Err(failure) => return control.send(&Reply::from(failure), &[]),
        }
    }
}

/// From now on a supervisor that is killed takes this process along, whatever it is waiting for. One
/// that was killed before hangs up, which the wait for the next command notices.
pub(crate) fn die_with_the_supervisor() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsupported(reason) => Self::Unsupported { reason },
            Failure::Failed(reason) => Self::Failed { reason },
        }
    }
}
