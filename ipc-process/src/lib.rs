#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!("ipc-process builds on Linux process descriptors");

mod builder;
mod bytes;
mod child;
mod control;
mod descriptor;
mod error;
mod exit_hook;
mod family;
mod frame;
mod handshake;
mod limits;
mod orders;
mod panic;
pub mod pool;
mod proc;
mod process;
mod reap;
mod run;
mod spawn;
mod start;
mod stdio;
mod supervisor;
mod target;
pub mod zombie;
mod zygote;

pub use builder::{StartMethod, Unstarted};
pub use child::init;
pub use error::{JoinError, StartError};
pub use family::{ActiveChild, ParentProcess, active_children, parent_process};
pub use limits::Limits;
pub use panic::RemotePanic;
pub use pool::Pool;
pub use process::Process;
pub use run::{Context, Run};
pub use stdio::Stdio;
pub use target::Target;

/// For the processes that unit tests start.
#[cfg(test)]
#[expect(unsafe_code, reason = "a section of its own runs before main")]
mod before_tests {
    crate::test_support!();
}

#[doc(hidden)]
pub mod __private {
    pub use crate::child::before_main;
}
