#![doc = include_str!("../README.md")]

mod channel;
mod doorbell;
mod fetch;
mod handoff;
mod layout;
mod link;
mod loan;
mod options;
mod parking;
mod receiver;
mod ring;
mod segment;
mod sender;
mod sync;
mod sys;

pub use channel::SharedMemory;
pub use loan::{Borrowed, Loan};
pub use options::Options;
pub use receiver::Receiver;
pub use segment::Segment;
pub use sender::Sender;
