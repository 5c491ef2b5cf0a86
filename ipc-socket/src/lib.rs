#![doc = include_str!("../README.md")]

mod channel;
mod credentials;
mod farewell;
mod frame;
mod handoff;
mod intake;
mod listener;
mod long;
mod options;
mod receiver;
mod sender;
mod sys;
mod tcp;

pub use channel::Socket;
pub use credentials::Credentials;
pub use listener::Listener;
pub use options::{Address, MAX_MESSAGE, Options};
pub use receiver::Receiver;
pub use sender::Sender;
