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

#[cfg(test)]
mod tests {
    use crate::placement::Placement;
    use crate::row::Row;
    use crate::spec::{Spec, Workload};

    /// The format is public: what it has is written down.
    #[test]
    fn every_field_of_a_row_is_in_the_readme() {
        let spec = Spec {
            implementation: "ipc-pipe".into(),
            mechanism: "pipe".into(),
            wait: None,
            workload: Workload::Rtt,
            size: 64,
            task_ns: 0,
            placement: Placement::TwoCores,
        };
        let readme = include_str!("../../README.md");
        let (_, format) = readme.split_once("## `results.json`").expect("a chapter");
        let row = serde_json::to_value(Row::new(&spec, "")).expect("a row");
        for field in row.as_object().expect("an object").keys() {
            assert!(
                format.contains(&format!("`{field}`")),
                "{field} is not documented"
            );
        }
    }
}
