use std::any::type_name;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::orders::Settings;
use crate::{Limits, Process, StartError, Stdio, Target, start};

/// How a process is made. Both give the same process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// By executing the program's own image, at a cost that does not depend on the program's memory.
    /// What stands before [`init`](crate::init) runs again.
    #[default]
    Spawn,
    /// By a fork server, which the first such start makes: a process of the program's own image
    /// that entered `init`, has one thread, and keeps a few forks of itself ready. Several times
    /// faster: nothing is executed, and what stands before `init` has run once, in the server.
    ///
    /// The processes are children of the program, not of the server. Server and waiting forks end
    /// with the program however it ends; one that died is replaced. So is the server after the
    /// program has changed what a child inherits: its user, capabilities, limits, umask,
    /// ignored signals or session. The niceness, the processors that it may use, its control
    /// group and its namespaces are those that the program had at the first such start.
    Zygote,
}

/// A process that does not exist yet: a function, its arguments and how to run it.
#[must_use = "nothing exists until start()"]
pub struct Unstarted<F, A> {
    pub(crate) function: F,
    pub(crate) arguments: A,
    pub(crate) name: Option<String>,
    pub(crate) daemon: bool,
    pub(crate) stoppable: bool,
    pub(crate) method: StartMethod,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) streams: [Stdio; 3],
    pub(crate) settings: Settings,
}

impl<F, A> Unstarted<F, A> {
    pub(crate) fn describe(function: F, arguments: A) -> Self {
        Self {
            function,
            arguments,
            name: None,
            daemon: false,
            stoppable: false,
            method: StartMethod::default(),
            environment: Vec::new(),
            streams: [Stdio::Inherit, Stdio::Inherit, Stdio::Inherit],
            settings: Settings::default(),
        }
    }

    /// A name for people, of which `ps` shows 15 bytes. Default: the name of the function.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether it ends with this program, however this program ends, and with its handle. Default:
    /// no; the program then waits for it when it ends itself.
    ///
    /// It is decided before the process exists:
    ///
    /// ```compile_fail,E0599
    /// let process = ipc_process::Process::new(|| (), ()).start().unwrap();
    /// process.daemon(true);
    /// ```
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// How it is made. Default: [`StartMethod::Spawn`].
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = method;
        self
    }

    /// Its working directory; a relative one counts from ours. Default: ours.
    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.settings.directory = Some(path.as_ref().to_owned());
        self
    }

    /// How much of the machine it may use. Default: as much as we may.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Whether it leads a process group of its own, which the terminal's Ctrl-C does not reach:
    /// `setpgid(2)`. Default: no, it belongs to ours.
    pub fn own_group(mut self, own: bool) -> Self {
        self.settings.own_group = own;
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
        A: Serialize + DeserializeOwned + 'static,
    {
        start::start(self)
    }
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
