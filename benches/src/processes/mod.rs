//! Processes and pools: how long a start takes, and how much a task costs.

pub(crate) mod bare;
pub(crate) mod own;
pub(crate) mod python;
pub(crate) mod starts;
pub(crate) mod tasks;
pub(crate) mod threads;
