//! From a description to a process that has its orders.

use std::any::type_name;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use ipc_core::Parts;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::builder::StartMethod;
use crate::control::{Control, Frame, Kind};
use crate::orders::{Inherit, Settings, Start};
use crate::reap::{Child, Role};
use crate::spawn::{self, Executable, MARKER, Spawn, sys, trampoline};
use crate::stdio::{Stdio, own_streams};
use crate::{
    Process, StartError, Target, Unstarted, bytes, child, handshake, proc, supervisor, zygote,
};

/// What both ways to start a process need.
struct Order {
    place: u64,
    name: String,
    daemon: bool,
    stoppable: bool,
    variables: Vec<(OsString, OsString)>,
    streams: [Stdio; 3],
    settings: Settings,
    arguments: Parts,
    /// Of a daemon: the end of a pipe that closes with our handle, or with us.
    lifeline: Option<OwnedFd>,
}

impl Order {
    fn of<F, A>(description: Unstarted<F, A>) -> Result<Self, StartError>
    where
        F: Target<A>,
        A: Serialize + DeserializeOwned + 'static,
    {
        let place = trampoline::place_of::<F, A>(description.function)
            .ok_or(StartError::NotInMainProgram)?;
        check_variables(&description.environment)?;
        let mut arguments = bytes::encode(description.arguments)
            .map_err(|reason| StartError::Arguments { reason })?;
        let mut lifeline = None;
        if description.daemon {
            let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
            let (theirs, ours) = pipe.map_err(|e| StartError::io("pipe2", e))?;
            arguments.descriptors.insert(0, theirs);
            lifeline = Some(ours);
        }
        Ok(Self {
            place,
            name: description
                .name
                .unwrap_or_else(|| short_name(type_name::<F>())),
            daemon: description.daemon,
            stoppable: description.stoppable,
            variables: description.environment,
            streams: description.streams,
            settings: description.settings,
            arguments,
            lifeline,
        })
    }

    /// `inherit`: the process has not executed the image by order of its starter.
    fn into_frame(self, parent: i32, inherit: Option<Inherit>) -> Result<Frame, StartError> {
        let identity = match inherit {
            Some(_) => None,
            None => Some(&*executable()?.identity),
        };
        let start = Start {
            identity,
            place: self.place,
            parent,
            daemon: self.daemon,
            stoppable: self.stoppable,
            name: &self.name,
            inherit,
            settings: self.settings,
            arguments: &self.arguments.data,
        };
        let body = postcard::to_stdvec(&start).map_err(|error| StartError::Arguments {
            reason: error.to_string(),
        })?;
        Ok(Frame {
            kind: Kind::Start,
            body,
            descriptors: self.arguments.descriptors,
        })
    }
}

pub(crate) fn start<F, A>(description: Unstarted<F, A>) -> Result<Process<F::Output>, StartError>
where
    F: Target<A>,
    A: Serialize + DeserializeOwned + 'static,
{
    let depth = depth()?;
    let method = description.method;
    let order = Order::of(description)?;
    match method {
        StartMethod::Spawn => by_spawn(order, depth),
        StartMethod::Zygote => by_zygote(order),
    }
}

fn by_spawn<R>(mut order: Order, depth: u32) -> Result<Process<R>, StartError> {
    executable()?;
    let (spawn, control) = prepare_spawn(&mut order, depth)?;
    let lifeline = order.lifeline.take();
    let role = Role::of_daemon(order.daemon);
    let name = order.name.clone();
    let frame = order.into_frame(own_pid(), None)?;
    let child = supervisor::start(spawn, role).map_err(made_none)?;
    child.become_known_as(role, &name);
    hand_over(&child, &control, frame, true)?;
    Ok(Process::from_started(child, control, lifeline, name))
}

fn by_zygote<R>(mut order: Order) -> Result<Process<R>, StartError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(".", flags, Mode::empty()).map_err(|e| StartError::io("open", e))?;
    let mut streams = own_streams().map_err(|e| StartError::io("fcntl", e))?;
    for (own, asked) in streams.iter_mut().zip(open_streams(&mut order)?) {
        if asked.is_some() {
            *own = asked;
        }
    }
    let there = streams.each_ref().map(Option::is_some);
    let inherited = std::iter::once(directory).chain(streams.into_iter().flatten());
    let after_lifeline = usize::from(order.daemon);
    let descriptors = &mut order.arguments.descriptors;
    descriptors.splice(after_lifeline..after_lifeline, inherited);

    let zygote::Spare {
        child,
        control,
        environment,
    } = zygote::take()?;
    let lifeline = order.lifeline.take();
    let name = order.name.clone();
    let hello = order.settings != Settings::default();
    child.become_known_as(Role::of_daemon(order.daemon), &name);
    let inherit = Inherit {
        streams: there,
        environment,
        variables: std::mem::take(&mut order.variables),
    };
    // It waited in a group of its own, out of the terminal's reach. From now on it is one of us.
    let joined = zygote::join_group(&child).map_err(|error| StartError::io("setpgid", error));
    let handed_over = joined
        .and_then(|()| order.into_frame(own_pid(), Some(inherit)))
        .and_then(|frame| hand_over(&child, &control, frame, hello));
    zygote::refill();
    handed_over?;
    Ok(Process::from_started(child, control, lifeline, name))
}

/// What another process of this program has to know to make a child for us. With it go the
/// child's control socket and those of its standard streams that are not the other's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SpawnElsewhere {
    daemon: bool,
    streams: [bool; 3],
    variables: Vec<(OsString, OsString)>,
}

/// Has another process make the child; `ask` gives back its pid and descriptor.
pub(crate) fn start_elsewhere<F, A>(
    description: Unstarted<F, A>,
    parent: u32,
    ask: impl FnOnce(SpawnElsewhere, Vec<OwnedFd>) -> Result<(i32, OwnedFd), StartError>,
) -> Result<Process<F::Output>, StartError>
where
    F: Target<A>,
    A: Serialize + DeserializeOwned + 'static,
{
    depth()?;
    let mut order = Order::of(description)?;
    let (control, theirs) = Control::pair().map_err(|e| StartError::io("socketpair", e))?;
    let streams = open_streams(&mut order)?;
    let request = SpawnElsewhere {
        daemon: order.daemon,
        streams: streams.each_ref().map(Option::is_some),
        variables: std::mem::take(&mut order.variables),
    };
    let descriptors = std::iter::once(theirs.into()).chain(streams.into_iter().flatten());
    let (pid, pidfd) = ask(request, descriptors.collect())?;
    let child = Child::new(pid, pidfd, Role::of_daemon(order.daemon));
    let lifeline = order.lifeline.take();
    let name = order.name.clone();
    let frame = order.into_frame(parent.cast_signed(), None)?;
    hand_over(&child, &control, frame, true)?;
    Ok(Process::from_started(
        Arc::new(child),
        control,
        lifeline,
        name,
    ))
}

/// The other process's side of [`start_elsewhere`]; `make` makes the child.
pub(crate) fn spawn_for_another<T>(
    request: SpawnElsewhere,
    descriptors: Vec<OwnedFd>,
    make: impl FnOnce(Spawn, Role) -> io::Result<T>,
) -> io::Result<T> {
    let depth = child::depth_of_children().map_err(io::Error::other)?;
    let mut descriptors = descriptors.into_iter();
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let control = descriptors.next().ok_or_else(malformed)?;
    let streams = request
        .streams
        .map(|there| there.then(|| descriptors.next()).flatten());
    let environment = environment_with(&request.variables);
    let spawn = Spawn::new(control, environment, depth, streams, request.daemon)?;
    make(spawn, Role::of_daemon(request.daemon))
}

/// Both ways to start would fail at another place, or not at all.
fn check_variables(variables: &[(OsString, OsString)]) -> Result<(), StartError> {
    let bad = variables
        .iter()
        .find(|(name, value)| !sys::is_variable_name(name) || value.as_bytes().contains(&0));
    match bad {
        None => Ok(()),
        Some((name, _)) => Err(StartError::io(
            "setenv",
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{name:?} cannot be set: a name is not empty and has no '=', neither name nor \
                     value has a zero byte"
                ),
            ),
        )),
    }
}

/// How deep the new process is, if this one may start any.
fn depth() -> Result<u32, StartError> {
    if std::env::var_os(MARKER).is_some() {
        return Err(StartError::BeforeInit);
    }
    child::depth_of_children()
}

/// Why there is no child: what clone(2) or, before its first step as this program, execve(2) said.
pub(crate) fn made_none(error: io::Error) -> StartError {
    // No other call of a child on its way looks for a file.
    match (error.kind(), spawn::executable()) {
        (io::ErrorKind::NotFound, Ok(executable)) => {
            let path = executable.path.to_string_lossy();
            StartError::io("execve", proc::error(&path, &error))
        }
        _ => StartError::io("clone", error),
    }
}

/// The file to execute.
fn executable() -> Result<&'static Executable, StartError> {
    spawn::executable().map_err(|error| StartError::io("stat", error))
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// A process's half of what it takes, and ours of its control socket.
fn prepare_spawn(order: &mut Order, depth: u32) -> Result<(Spawn, Control), StartError> {
    let (ours, theirs) = Control::pair().map_err(|e| StartError::io("socketpair", e))?;
    let streams = open_streams(order)?;
    let environment = environment_with(&order.variables);
    let spawn = Spawn::new(theirs.into(), environment, depth, streams, order.daemon)
        .map_err(|e| StartError::io("fcntl", e))?;
    Ok((spawn, ours))
}

fn environment_with(
    variables: &[(OsString, OsString)],
) -> impl Iterator<Item = (OsString, OsString)> {
    let overridden = |name: &OsString| variables.iter().any(|(other, _)| other == name);
    std::env::vars_os()
        .filter(move |(name, _)| !overridden(name))
        .chain(variables.iter().cloned())
}

fn open_streams(order: &mut Order) -> Result<[Option<OwnedFd>; 3], StartError> {
    let [stdin, stdout, stderr] = std::mem::take(&mut order.streams).map(Stdio::open);
    let open = |stream: io::Result<_>| stream.map_err(|e| StartError::io("open", e));
    Ok([open(stdin)?, open(stdout)?, open(stderr)?])
}

/// Leaves nothing of a child that did not take its orders.
fn hand_over(
    child: &Child,
    control: &Control,
    orders: Frame,
    hello: bool,
) -> Result<(), StartError> {
    handshake::run(child, control, orders, hello).inspect_err(|_| handshake::end(child))
}

/// `mul` out of `my_program::maths::mul`.
pub(crate) fn short_name(path: &str) -> String {
    let plain = path.split('<').next().unwrap_or(path);
    plain
        .rsplit("::")
        .find(|part| !part.starts_with('{'))
        .unwrap_or(plain)
        .to_owned()
}
