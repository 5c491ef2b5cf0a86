#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!("this crate speaks to the Linux kernel");

mod channel;
mod flow;
mod handoff;
mod inbox;
mod limit;
mod options;
mod queue;
mod receiver;
mod sender;
mod sentinel;
mod sys;
mod watch;

pub use channel::MessageQueue;
pub use inbox::Received;
pub use options::Options;
pub use queue::{Access, Queue};
pub use receiver::Receiver;
pub use sender::{MAX_PRIORITY, Sender};
