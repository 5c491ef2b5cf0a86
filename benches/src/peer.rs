use std::env;
use std::io;
use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::catalog;
use crate::control::{Bundle, Command, Control, Reply};
use crate::failure::{Failure, Outcome};
use crate::spec::{Side, Spec};
use crate::workload::{self, Port, Run, SideReport};

/// Set in the environment of a process that the supervisor started to be one side.
pub(crate) const ROLE: &str = "IPC_BENCH_ROLE";

pub(crate) fn is_peer() -> bool {
    env::var_os(ROLE).is_some()
}

/// One way for two processes to exchange messages.
pub(crate) trait Link: 'static {
    /// What a side holds.
    type Port: Port;

    /// Makes the objects, in the supervisor, for two processes that run already.
    fn open(spec: &Spec, peers: [u32; 2]) -> Outcome<[Bundle; 2]>;

    /// Takes over one end, in its process.
    fn port(spec: &Spec, side: Side, bundle: Bundle) -> Outcome<Self::Port>;
}

/// Both sides within one process; every report marks such rows.
pub(crate) trait Solo: Sized + 'static {
    fn new(spec: &Spec) -> Outcome<Self>;
    fn run(&mut self, run: Run) -> Outcome<SideReport>;
}

/// The whole life of a side: open, then run after run until the supervisor hangs up.
pub(crate) fn main() -> ExitCode {
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn live() -> io::Result<()> {
    // A supervisor that is killed takes its peers along, so that nothing outlives a bench.
    set_parent_process_death_signal(Some(Signal::KILL))?;
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
        Ok(mut port) => {
            let depth = port.depth();
            serve(control, depth, |run| {
                workload::run(&mut port, spec, side, run)
            })
        }
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
        Ok(mut solo) => serve(control, None, |run| solo.run(run)),
        Err(failure) => control.send(&Reply::from(failure), &[]),
    }
}

fn serve(
    control: &Control,
    depth: Option<u64>,
    mut run: impl FnMut(Run) -> Outcome<SideReport>,
) -> io::Result<()> {
    control.send(&Reply::Ready { depth }, &[])?;
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

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsupported(reason) => Self::Unsupported { reason },
            Failure::Failed(reason) => Self::Failed { reason },
        }
    }
}
