use std::any::type_name;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;

use ipc_core::handoff::encode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::child;
use crate::control::Control;
use crate::spawn::{MARKER, Spawn, trampoline};
use crate::{Process, StartError, Target, supervisor};

/// Where a standard stream of a new process leads.
#[derive(Debug, Default)]
pub enum Stdio {
    /// To where this process's own leads.
    #[default]
    Inherit,
    /// Nowhere: `/dev/null`.
    Null,
    /// To this file, pipe or socket.
    Fd(OwnedFd),
}

impl Stdio {
    fn open(self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Inherit => Ok(None),
            Self::Null => {
                let null = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open("/dev/null")?;
                Ok(Some(null.into()))
            }
            Self::Fd(descriptor) => Ok(Some(descriptor)),
        }
    }
}

impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(descriptor: T) -> Self {
        Self::Fd(descriptor.into())
    }
}

/// A process that does not exist yet: a function, its arguments and how to run it.
#[must_use = "nothing exists until start()"]
pub struct Unstarted<F, A> {
    function: F,
    arguments: A,
    name: Option<String>,
    daemon: bool,
    environment: Vec<(OsString, OsString)>,
    streams: [Stdio; 3],
}

impl<F, A> Unstarted<F, A> {
    pub(crate) fn describe(function: F, arguments: A) -> Self {
        Self {
            function,
            arguments,
            name: None,
            daemon: false,
            environment: Vec::new(),
            streams: [Stdio::Inherit, Stdio::Inherit, Stdio::Inherit],
        }
    }

    /// A name for people: that of the process's threads, of which `ps` shows 15 bytes. Default:
    /// the name of the function.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether it ends with this program, however this program ends, and with its handle. Default:
    /// no; the program then waits for it when it ends itself.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Sets a variable of its environment, which is otherwise a copy of ours.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.retain(|(other, _)| other != name.as_ref());
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Its standard input. Default: ours.
    pub fn stdin(mut self, stream: impl Into<Stdio>) -> Self {
        self.streams[0] = stream.into();
        self
    }

    /// Its standard output. Default: ours.
    pub fn stdout(mut self, stream: impl Into<Stdio>) -> Self {
        self.streams[1] = stream.into();
        self
    }

    /// Its standard error. Default: ours.
    pub fn stderr(mut self, stream: impl Into<Stdio>) -> Self {
        self.streams[2] = stream.into();
        self
    }

    /// Starts it and hands it its arguments. Returns once it has taken them, and does not wait
    /// for the function.
    ///
    /// It inherits the standard streams, the working directory, the umask, resource limits and
    /// ignored signals other than SIGCHLD and SIGPIPE; no descriptor but those in its arguments;
    /// no signal is blocked in it. Of the program's arguments it sees the first, the name.
    ///
    /// # Errors
    /// As [`StartError`] says; no process is left then, and channel ends in the arguments are
    /// lost, which their peers see as a death.
    pub fn start(self) -> Result<Process<F::Output>, StartError>
    where
        F: Target<A>,
        A: Serialize + DeserializeOwned,
    {
        if std::env::var_os(MARKER).is_some() {
            return Err(StartError::BeforeInit);
        }
        let depth = child::depth_of_children()?;
        let place =
            trampoline::place_of::<F, A>(self.function).ok_or(StartError::NotInMainProgram)?;
        let arguments = encode(&self.arguments).map_err(|error| StartError::Arguments {
            reason: error.to_string(),
        })?;
        drop(self.arguments);

        let name = self.name.unwrap_or_else(|| short_name(type_name::<F>()));
        let [stdin, stdout, stderr] = self.streams.map(Stdio::open);
        let open = |stream: io::Result<_>| stream.map_err(|e| StartError::io("open", e));
        let streams = [open(stdin)?, open(stdout)?, open(stderr)?];
        let overridden = |name: &OsString| self.environment.iter().any(|(other, _)| other == name);
        let environment = std::env::vars_os()
            .filter(|(name, _)| !overridden(name))
            .chain(self.environment.iter().cloned());

        let (ours, theirs) = Control::pair().map_err(|e| StartError::io("socketpair", e))?;
        let spawn = Spawn::new(theirs.into(), environment, depth, streams, self.daemon)
            .map_err(|e| StartError::io("fcntl", e))?;
        let child = supervisor::start(spawn).map_err(|e| StartError::io("clone", e))?;
        let start = child::Start {
            place,
            daemon: self.daemon,
            name: &name,
            arguments: &arguments.data,
        };
        match crate::handshake::run(&child, &ours, &start, arguments.descriptors) {
            Ok(()) => Ok(Process::from_started(child, ours, name)),
            Err(error) => {
                crate::handshake::end(&child);
                Err(error)
            }
        }
    }
}

/// `mul` out of `my_program::maths::mul`.
fn short_name(path: &str) -> String {
    let plain = path.split('<').next().unwrap_or(path);
    plain
        .rsplit("::")
        .find(|part| !part.starts_with('{'))
        .unwrap_or(plain)
        .to_owned()
}

impl<F, A> fmt::Debug for Unstarted<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unstarted")
            .field("function", &type_name::<F>())
            .field("name", &self.name)
            .field("daemon", &self.daemon)
            .finish_non_exhaustive()
    }
}
