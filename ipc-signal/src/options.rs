use ipc_core::{Tunable, WaitStrategy};
use rustix::process::Resource;

/// Most messages in flight unless [`Options::depth`] says otherwise.
const DEPTH: u32 = 1024;
/// Most messages in flight whatever [`Options::depth`] says: the sender keeps a copy of each.
pub(crate) const MAX_DEPTH: u32 = 1 << 16;

/// How to make a channel.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) signal: Option<u8>,
    pub(crate) depth: Option<u32>,
    pub(crate) strategy: WaitStrategy,
}

impl Options {
    /// Uses the signal `SIGRTMIN + offset` in the receiving process; unless set, the first that
    /// no handler, no other channel and no mask of that process uses. Opening fails with `Limit`
    /// where it is in use, with `Invalid` where there is no such signal.
    #[must_use]
    pub fn signal(mut self, offset: u8) -> Self {
        self.signal = Some(offset);
        self
    }

    /// So many messages, 1 to 65,536, may be sent and not yet received; 1024 unless set, and never
    /// more than a quarter of `RLIMIT_SIGPENDING`, which all processes of a user share.
    #[must_use]
    pub fn depth(mut self, messages: u32) -> Self {
        self.depth = Some(messages.max(1));
        self
    }

    /// The depth that the limits of this process allow.
    pub(crate) fn window(&self) -> u32 {
        let wanted = self.depth.unwrap_or(DEPTH);
        let allowed = rustix::process::getrlimit(Resource::Sigpending)
            .current
            .map_or(u32::MAX, |limit| {
                u32::try_from(limit / 4).unwrap_or(u32::MAX)
            });
        wanted.min(allowed).clamp(1, MAX_DEPTH)
    }
}

impl Tunable for Options {
    fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Ignored: signals are counted, see [`depth`](Self::depth).
    fn capacity(self, _bytes: usize) -> Self {
        self
    }
}
