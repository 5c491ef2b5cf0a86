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
    use std::collections::BTreeSet;

    use crate::placement::Placement;
    use crate::row::Row;
    use crate::spec::{Spec, Workload};

    /// The format is public: what it has is written down.
    #[test]
    fn the_readme_has_the_fields_of_a_row_and_no_others() {
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
        let row = row.as_object().expect("an object");
        // The first cell of each line of the table, a name or several between backquotes.
        let cells = format.lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: BTreeSet<&str> = cells
            .filter_map(|cell| cell.split(" |").next())
            .flat_map(|cell| cell.trim_end_matches('`').split("`, `"))
            .collect();
        let present: BTreeSet<&str> = row.keys().map(String::as_str).collect();
        assert_eq!(documented, present, "documented, and there");
    }
}
