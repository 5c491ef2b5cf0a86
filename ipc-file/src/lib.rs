#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!("this crate speaks to the Linux kernel");

mod channel;
mod control;
mod cursor;
mod handoff;
mod link;
mod options;
mod receiver;
mod record;
mod segment;
mod sender;
mod shape;
mod store;
mod sys;
mod writer;

pub use channel::FileLog;
pub use options::{Durability, Options};
pub use receiver::Receiver;
pub use sender::Sender;
