#![doc = include_str!("../README.md")]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the word of a signal (`sigval`) holds eight bytes on 64-bit machines only");

mod channel;
mod clerk;
mod handoff;
mod history;
mod notice;
mod number;
mod options;
mod post;
mod receiver;
mod sender;
mod sys;
mod target;
mod threads;
mod word;

pub use channel::SignalQueue;
pub use options::Options;
pub use receiver::Receiver;
pub use sender::Sender;
