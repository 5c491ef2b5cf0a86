#![doc = include_str!("../README.md")]

mod allocations;
mod board;
mod content;
mod harness;
mod list;
mod procfs;
mod reference;
mod scratch;
mod storm;
mod timing;

pub mod death;
pub mod ending;
pub mod handoff;
pub mod names;
pub mod order;
pub mod resources;
pub mod sizes;
pub mod syscalls;
pub mod waiting;

pub use allocations::Counting;
pub use harness::with_patience;
pub use ipc_process;
pub use reference::{
    DuplicatesOne, Flaw, Flawed, HangsOnDeath, IgnoresDeadlines, LeaksDescriptors, LosesOne,
    Reference, ReferenceOptions, ReferenceReceiver, ReferenceSender, Reorders, Sound, Tears,
    TruncatesSilently,
};
