//! What comes out: a table, JSON, CSV and a page.

mod columns;
mod csv;
mod figures;
mod html;
mod json;
mod svg;
mod table;
mod units;

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use crate::machine::Machine;
use crate::row::Row;

/// Where reports go: `ipc-bench` in the target directory, which holds this executable two or three
/// levels down, or what `CARGO_TARGET_DIR` says.
pub(crate) fn directory() -> PathBuf {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let target = env::current_exe().ok().and_then(|executable| {
            let deps = executable.parent()?;
            Some(deps.parent()?.parent()?.to_owned())
        });
        let target = env::var_os("CARGO_TARGET_DIR")
            .map(PathBuf::from)
            .or(target);
        let directory = target
            .unwrap_or_else(|| PathBuf::from("target"))
            .join("ipc-bench");
        // What fails here fails again, with its reason, where a file is written.
        let _ = fs::create_dir_all(&directory);
        fs::canonicalize(&directory).unwrap_or(directory)
    });
    DIRECTORY.clone()
}

/// Prints the table and writes the files.
pub(crate) fn write(machine: &Machine, rows: &[Row], took: Duration) -> io::Result<()> {
    let directory = directory();
    let files = [
        ("report.html", html::render(machine, rows)),
        ("results.json", json::render(machine, rows)?),
        ("results.csv", csv::render(rows)),
        ("figures.md", figures::render(machine, rows)),
    ];
    println!("{}", table::render(machine, rows));
    println!("{}", table::wrapped_ranking(rows));
    for (name, text) in files {
        // Complete under another name first: a reader never sees half a report.
        let path = directory.join(name);
        let draft = directory.join(format!("{name}.part"));
        fs::write(&draft, text)?;
        fs::rename(&draft, &path)?;
        println!("{}", path.display());
    }
    println!("took {} s", took.as_secs());
    Ok(())
}
