//! From a description to a process that has its orders.

use std::any::type_name;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;

use ipc_core::Parts;
use ipc_core::handoff::encode;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::StartMethod;
use crate::control::{Control, Frame, Kind};
use crate::orders::{Inherit, Settings, Start};
use crate::reap::{Child, Role};
use crate::spawn::{MARKER, Spawn, spawn_second_level, trampoline};
use crate::stdio::{Stdio, own_streams};
use crate::{Process, StartError, Target, Unstarted, child, handshake, supervisor, zygote};

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
}

impl Order {
    fn of<F, A>(description: Unstarted<F, A>) -> Result<Self, StartError>
    where
        F: Target<A>,
        A: Serialize + DeserializeOwned,
    {
        let place = trampoline::place_of::<F, A>(description.function)
            .ok_or(StartError::NotInMainProgram)?;
        let arguments = encode(&description.arguments).map_err(|error| StartError::Arguments {
            reason: error.to_string(),
        })?;
        drop(description.arguments);
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
        })
    }
}

pub(crate) fn start<F, A>(description: Unstarted<F, A>) -> Result<Process<F::Output>, StartError>
where
    F: Target<A>,
    A: Serialize + DeserializeOwned,
{
    let depth = depth()?;
    let method = description.method;
    let order = Order::of(description)?;
    match method {
        StartMethod::Spawn => by_spawn(order, depth),
        StartMethod::Zygote => by_zygote(order),
    }
}

fn by_spawn<R>(order: Order, depth: u32) -> Result<Process<R>, StartError> {
    let role = Role::of_daemon(order.daemon);
    let name = order.name.clone();
    let (spawn, control, frame) = prepare_spawn(order, depth, own_pid())?;
    let child = supervisor::start(spawn, role).map_err(|e| StartError::io("clone", e))?;
    child.become_known_as(role, &name);
    match handshake::run(&child, &control, frame, true) {
        Ok(()) => Ok(Process::from_started(child, control, name)),
        Err(error) => {
            handshake::end(&child);
            Err(error)
        }
    }
}

/// Starts a second-level child; gives its pid and descriptor.
pub(crate) fn start_detached<F, A>(
    description: Unstarted<F, A>,
) -> Result<(u32, OwnedFd), StartError>
where
    F: Target<A>,
    A: Serialize + DeserializeOwned,
{
    let depth = depth()?;
    let (spawn, control, frame) = prepare_spawn(Order::of(description)?, depth, 0)?;
    let (pid, pidfd) = spawn_second_level(&spawn).map_err(|e| StartError::io("clone", e))?;
    drop(spawn);
    // Nobody keeps it: it is not ours to reap.
    let stranger = Child::new(pid, pidfd, Role::Plain);
    match handshake::run(&stranger, &control, frame, true) {
        Ok(()) => Ok((stranger.pid, stranger.into())),
        Err(error) => {
            handshake::end(&stranger);
            Err(error)
        }
    }
}

/// How deep the new process is, if this one may start any.
fn depth() -> Result<u32, StartError> {
    if std::env::var_os(MARKER).is_some() {
        return Err(StartError::BeforeInit);
    }
    child::depth_of_children()
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

fn prepare_spawn(
    order: Order,
    depth: u32,
    parent: i32,
) -> Result<(Spawn, Control, Frame), StartError> {
    let (ours, theirs) = Control::pair().map_err(|e| StartError::io("socketpair", e))?;
    let [stdin, stdout, stderr] = order.streams.map(Stdio::open);
    let open = |stream: io::Result<_>| stream.map_err(|e| StartError::io("open", e));
    let streams = [open(stdin)?, open(stdout)?, open(stderr)?];
    let variables = order.variables;
    let overridden = |name: &OsString| variables.iter().any(|(other, _)| other == name);
    let environment = std::env::vars_os()
        .filter(|(name, _)| !overridden(name))
        .chain(variables.iter().cloned());
    let spawn = Spawn::new(theirs.into(), environment, depth, streams, order.daemon)
        .map_err(|e| StartError::io("fcntl", e))?;
    let start = Start {
        identity: Some(child::identity().map_err(|error| StartError::io("stat", error))?),
        place: order.place,
        parent,
        daemon: order.daemon,
        stoppable: order.stoppable,
        name: &order.name,
        inherit: None,
        settings: order.settings,
        arguments: &order.arguments.data,
    };
    let frame = frame(&start, order.arguments.descriptors)?;
    Ok((spawn, ours, frame))
}

fn by_zygote<R>(order: Order) -> Result<Process<R>, StartError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(".", flags, Mode::empty()).map_err(|e| StartError::io("open", e))?;
    let mut streams = own_streams().map_err(|e| StartError::io("fcntl", e))?;
    for (own, asked) in streams.iter_mut().zip(order.streams) {
        if let Some(other) = asked.open().map_err(|e| StartError::io("open", e))? {
            *own = Some(other);
        }
    }
    let there = streams.each_ref().map(Option::is_some);
    let descriptors: Vec<OwnedFd> = std::iter::once(directory)
        .chain(streams.into_iter().flatten())
        .chain(order.arguments.descriptors)
        .collect();

    let zygote::Spare {
        child,
        control,
        environment,
    } = zygote::take()?;
    let start = Start {
        identity: None,
        place: order.place,
        parent: own_pid(),
        daemon: order.daemon,
        stoppable: order.stoppable,
        name: &order.name,
        inherit: Some(Inherit {
            streams: there,
            environment,
            variables: order.variables,
        }),
        settings: order.settings,
        arguments: &order.arguments.data,
    };
    let hello = start.wants_hello();
    child.become_known_as(Role::of_daemon(order.daemon), &order.name);
    // It waited in a group of its own, out of the terminal's reach. From now on it is one of us.
    let joined = zygote::join_group(&child).map_err(|error| StartError::io("setpgid", error));
    let sent = joined.and_then(|()| {
        let frame = frame(&start, descriptors)?;
        handshake::run(&child, &control, frame, hello)
    });
    zygote::refill();
    match sent {
        Ok(()) => Ok(Process::from_started(child, control, order.name)),
        Err(error) => {
            handshake::end(&child);
            Err(error)
        }
    }
}

fn frame(start: &Start<'_>, descriptors: Vec<OwnedFd>) -> Result<Frame, StartError> {
    let body = postcard::to_stdvec(start).map_err(|error| StartError::Arguments {
        reason: error.to_string(),
    })?;
    Ok(Frame {
        kind: Kind::Start,
        body,
        descriptors,
    })
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
