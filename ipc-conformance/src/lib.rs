#![doc = include_str!("../README.md")]

mod allocations;
mod board;
mod broken;
mod content;
mod fork;
mod harness;
mod in_process;
mod list;
mod procfs;
mod reference;
mod sandbox;
mod scratch;
mod storm;
mod timing;

pub mod consumers;
pub mod death;
pub mod ending;
pub mod handoff;
pub mod host;
pub mod names;
pub mod order;
pub mod producers;
pub mod readiness;
pub mod resources;
pub mod sizes;
pub mod syscalls;
pub mod waiting;

pub use allocations::{Counting, allocations_of};
pub use broken::{
    Allocates, Broken, BrokenEnd, BrokenListener, Buffers, ChangesUmask, ComesEarly, DeclaresEmpty,
    DuplicatesOne, EndsEarly, Flaw, Flawed, Forgets, HangsOnDeath, IgnoresDeadlines, KeepsName,
    LeaksDescriptors, LosesOne, MisstatesDepth, MisstatesNeed, NeverReady, OverstatesLongest,
    RaisesSignal, Reorders, SendsLate, SleepsIn, Steals, SurvivesExec, Tears, TruncatesSilently,
    UnderstatesLongest,
};
pub use harness::with_patience;
pub use in_process::{InProcess, InProcessOptions, InProcessReceiver, InProcessSender, Nowhere};
pub use ipc_process;
#[doc(hidden)]
pub use list::extensions_match;
pub use reference::{Reference, ReferenceOptions, ReferenceReceiver, ReferenceSender};
pub use sandbox::refuse;
pub use scratch::Scratch;
pub use storm::Storm;
