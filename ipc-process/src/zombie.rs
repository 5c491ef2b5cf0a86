//! Zombies: children that have ended and that nobody has waited for. Processes of this crate
//! never become any; this is for those that a program starts by other means.

mod detached;
mod ignore;
mod list;
mod reaper;
mod stat;
mod tree;

pub use detached::{Detached, spawn_detached};
pub use ignore::{IgnoreGuard, ignore_children};
pub use list::{Zombie, reap, zombies};
pub use reaper::Reaper;
pub use tree::Descendant;
