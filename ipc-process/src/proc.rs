//! What goes wrong with `/proc`, said so that it can be mended.

use std::fs;
use std::io;

/// An error of this file there, with its name: "no such file" alone tells nobody anything.
pub(crate) fn error(path: &str, error: &io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; is /proc mounted, and that of this PID namespace?",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{path}: {error}{advice}"))
}

/// Whether the pids that it shows are those that this process knows: not where a program was moved
/// into a PID namespace of its own and kept the `/proc` of the one before (pid_namespaces(7)).
/// There a pid would be another process's.
pub(crate) fn check_pids() -> io::Result<()> {
    let path = "/proc/self";
    let link = fs::read_link(path).map_err(|e| error(path, &e))?;
    if link.as_os_str() == std::process::id().to_string().as_str() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "/proc shows the pids of another PID namespace; mount that of this one (mount -t proc \
         proc /proc, unshare --mount-proc)",
    ))
}
