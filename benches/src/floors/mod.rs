//! The same exchanges in bare system calls, or in bare memory: what no library can beat.

pub(crate) mod bytes;
pub(crate) mod copy;
pub(crate) mod durable;
pub(crate) mod file;
pub(crate) mod line;
pub(crate) mod memory;
pub(crate) mod queue;
pub(crate) mod ring;
pub(crate) mod signal;
pub(crate) mod sys;
