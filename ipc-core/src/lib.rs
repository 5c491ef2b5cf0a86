#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("these crates speak to the Linux kernel");

mod capabilities;
mod channel;
mod custody;
mod duplex;
mod error;
mod flood;
pub mod handoff;
pub mod lifeline;
mod limits;
mod name;
mod pacer;
pub mod rendezvous;
mod strategy;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "serde")]
mod typed;
pub mod wait;

pub use capabilities::{
    Arity, BackPressure, Boundaries, Capabilities, Consumers, DeathNotice, Empty, Order, Readiness,
    Retention,
};
pub use channel::{Channel, Listener, Pollable, Receiver, Sender, TryClone, Tunable};
pub use custody::Custody;
pub use duplex::{Duplex, DuplexOf, RequestError, duplex};
pub use error::{Limit, OpenError, RecvError, SendError};
pub use flood::Flood;
#[cfg(feature = "serde")]
pub use handoff::End;
pub use handoff::{Handoff, Parts};
pub use limits::Limits;
pub use name::{Name, NameLock, check as check_ownership};
pub use pacer::Pacer;
pub use strategy::{ADAPTIVE_LIMIT, SPIN_LIMIT, WaitStrategy, Waiter};
#[cfg(feature = "serde")]
pub use typed::{TypedError, TypedReceiver, TypedSender};
pub use wait::Wait;
