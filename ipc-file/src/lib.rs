#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!("this crate speaks to the Linux kernel");

mod channel;
mod control;
#[cfg(test)]
mod crash;
mod cursor;
mod directory;
mod fault;
mod follower;
mod handoff;
#[cfg(test)]
mod images;
mod journal;
#[cfg(test)]
mod killed;
mod link;
mod log;
mod meeting;
mod options;
mod receiver;
mod record;
mod recovery;
mod scan;
mod segment;
mod sender;
mod shape;
mod sys;
mod watch;
mod window;
mod writer;

pub use channel::FileLog;
pub use follower::{Follower, Start};
pub use log::{Length, Log};
pub use options::{Durability, Options};
pub use receiver::Receiver;
pub use recovery::Recovery;
pub use sender::Sender;
