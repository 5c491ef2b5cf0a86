//! What `/proc` tells of every process that we may see.

use std::fs;
use std::io;

use crate::proc;

/// From `pid (name) state parent ... start time`, proc_pid_stat(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) state: char,
    pub(super) parent: u32,
    /// In ticks since boot: with the pid it is one process for ever.
    pub(super) start: u64,
}

impl Stat {
    /// `None` if there is no such process any more, or no right to see it.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &String::from_utf8_lossy(&stat))
    }

    /// The name may contain anything, parentheses and spaces among it.
    fn parse(pid: u32, stat: &str) -> Option<Self> {
        let (before, after) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let mut fields = after.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // Field 22, of which 5 are behind us.
        let start = fields.nth(17)?.parse().ok()?;
        Some(Self {
            pid,
            name: name.to_owned(),
            state,
            parent,
            start,
        })
    }

    pub(super) fn of_all() -> io::Result<Vec<Self>> {
        proc::check_pids()?;
        let pids = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(Self::of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn names_with_parentheses_and_spaces_do_not_mislead() {
        let numbers = "7 7 0 -1 4 5 6 7 8 9 10 11 12 13 20 0 1 0 4711 99";
        let parse = |head: &str| Stat::parse(7, &format!("{head} {numbers}"));
        let simple = parse("7 (sh) Z 1").unwrap();
        assert_eq!((&*simple.name, simple.state, simple.parent), ("sh", 'Z', 1));
        let odd = parse("7 (a) R 5 (b)) S 12").unwrap();
        assert_eq!((&*odd.name, odd.state, odd.parent), ("a) R 5 (b)", 'S', 12));
        let own = Stat::of(std::process::id()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        for broken in ["", "7", "7 (sh", "7 (sh)", "7 (sh) Z", "7 (sh) Z x"] {
            assert_eq!(Stat::parse(7, broken), None, "{broken:?}");
        }
    }
}
