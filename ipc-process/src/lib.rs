#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!("ipc-process builds on Linux process descriptors");

mod builder;
mod child;
mod control;
mod error;
mod exit_hook;
mod handshake;
mod panic;
mod process;
mod reap;
mod spawn;
mod supervisor;
mod target;
pub mod zombie;

pub use builder::{Stdio, Unstarted};
pub use child::init;
pub use error::{JoinError, StartError};
pub use panic::RemotePanic;
pub use process::Process;
pub use target::Target;

#[doc(hidden)]
pub mod __private {
    pub use crate::child::before_main;
}
