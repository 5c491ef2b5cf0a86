//! Zombies: children that have ended and that nobody has waited for. [`Process`](crate::Process)es
//! never become any; this is for those that a program starts by other means, and for processes
//! that are to be nobody's.
//!
//! | as courses teach it | what it breaks | here | what that breaks |
//! |---|---|---|---|
//! | wait for each child: `waitpid(-1, ...)` in a loop or in a SIGCHLD handler | takes the children of other parts of the program (`std::process`, an async runtime), which then get ECHILD; signals merge, 20 ends may give one | nothing to be done: the pidfd of each process tells its end and reaps exactly it. [`zombies`] lists the others' children, [`reap`] reaps one by pid | `reap` takes the status from whoever else holds that child |
//! | `signal(SIGCHLD, SIG_IGN)`: the kernel reaps | every wait in the process gets ECHILD; executed programs inherit it and break in turn; zombies that are there stay | [`ignore_children`]: `SA_NOCLDWAIT`, a guard that restores; not inherited; reaps those that are there; the ends of `Process`es are still told (Linux 6.15) | every other wait in the process gets ECHILD while the guard lives |
//! | second-level child: fork twice, the middle one exits | `init` must reap, and in many containers PID 1 does not; the pid is lost, or has to come back by a pipe; descriptors go along | [`spawn_detached`]: gives pid and pidfd, so that the end can be waited for; inherits no descriptor; the middle one is waited for | it needs a PID 1, or a [`Reaper`], that reaps |
//! | become a subreaper: `prctl(PR_SET_CHILD_SUBREAPER)` | the program gets orphans that it does not know, and must `waitpid(-1)` for them | [`Reaper`]: a small process of its own adopts and reaps, lists, and ends the whole tree | one more process; only what was started in it is covered |

mod detached;
mod ignore;
mod list;
mod reaper;
mod stat;
mod tree;

pub use detached::{Detached, spawn_detached};
pub use ignore::{IgnoreGuard, ignore_children};
pub use list::{Zombie, reap, zombies};
pub use reaper::Reaper;
pub use tree::Descendant;
