use std::io;

use serde::Serialize;

use crate::machine::Machine;
use crate::row::Row;

/// The public format; a change that breaks readers gets another number.
const SCHEMA: &str = "ipc-bench/1";

#[derive(Serialize)]
struct Results<'a> {
    schema: &'static str,
    machine: &'a Machine,
    rows: &'a [Row],
}

pub(super) fn render(machine: &Machine, rows: &[Row]) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(&Results {
        schema: SCHEMA,
        machine,
        rows,
    })?)
}
