use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

/// A child of this process that has ended and has not been waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Zombie {
    /// Its process id, which no other process gets while it is a zombie.
    pub pid: u32,
    /// The name of its program, up to 15 bytes of it.
    pub name: String,
}

/// The zombies among the children of this process, from `/proc/<pid>/stat` of every process that
/// we may see. One that `std::process` or another part of the program is about to wait for is
/// among them.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn zombies() -> io::Result<Vec<Zombie>> {
    let own = std::process::id();
    let mut zombies = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        let Ok(pid) = name.parse::<u32>() else {
            continue;
        };
        // It may be gone by now, which is as good.
        let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if let Some((name, 'Z', parent)) = parse(&String::from_utf8_lossy(&stat))
            && parent == own
        {
            zombies.push(Zombie {
                pid,
                name: name.to_owned(),
            });
        }
    }
    Ok(zombies)
}

/// Name, state and parent from `pid (name) state parent ...`; the name may contain anything,
/// parentheses and spaces among it (proc_pid_stat(5)).
fn parse(stat: &str) -> Option<(&str, char, u32)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_ascii_whitespace();
    Some((
        name,
        fields.next()?.chars().next()?,
        fields.next()?.parse().ok()?,
    ))
}

/// Reaps this child if it has ended; `None` if it lives. Whoever else holds it, such as a
/// `std::process::Child`, cannot learn its status any more.
///
/// # Errors
/// ECHILD if there is no such child, or if it has been reaped.
pub fn reap(pid: u32) -> io::Result<Option<ExitStatus>> {
    let pid = pid
        .try_into()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::CHILD)?;
    loop {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(ended) => {
                return Ok(ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw())));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_with_parentheses_and_spaces_do_not_mislead() {
        assert_eq!(parse("7 (sh) Z 1 7 7 0"), Some(("sh", 'Z', 1)));
        assert_eq!(
            parse("7 (a) R 5 (b)) S 12 7"),
            Some(("a) R 5 (b)", 'S', 12))
        );
        for broken in ["", "7", "7 (sh", "7 (sh)", "7 (sh) Z", "7 (sh) Z x"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }
}
