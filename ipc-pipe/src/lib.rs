#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod channel;
mod fifo;
mod frame;
mod handoff;
mod notes;
mod options;
mod receiver;
mod sender;
mod sys;

pub use channel::Pipe;
pub use fifo::Listener;
pub use options::Options;
pub use receiver::Receiver;
pub use sender::Sender;
