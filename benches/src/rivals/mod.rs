//! What else a Rust or Python program would reach for, used as its documentation shows.

pub(crate) mod crossbeam;
pub(crate) mod ipc_channel;
pub(crate) mod python;
pub(crate) mod queue;
pub(crate) mod segment;
pub(crate) mod std_streams;
