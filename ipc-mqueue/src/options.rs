use ipc_core::{Tunable, WaitStrategy};

use crate::limit;

/// How a queue is made. The defaults fit the limits of an untuned system:
///
/// * messages of at most 4096 B, or `fs.mqueue.msgsize_max` if that is less;
/// * 10 messages deep, or `fs.mqueue.msg_max` if that is less;
/// * [`WaitStrategy::Adaptive`].
///
/// The kernel charges every queue in full to its maker's `RLIMIT_MSGQUEUE` (819,200 B for all
/// processes of a user together), whether it is used or not: room for 19 of these queues at a
/// time, or for 9 of 8192 B by 10. Sizes that are asked for are never clamped: what the system
/// does not allow is `OpenError::Limit`, which names the setting.
#[derive(Clone, Debug, Default)]
pub struct Options {
    message_size: Option<usize>,
    depth: Option<usize>,
    wait_strategy: WaitStrategy,
}

const DEFAULT_MESSAGE_SIZE: usize = 4096;
const DEFAULT_DEPTH: usize = 10;

impl Options {
    /// The longest message in bytes, at least 1.
    #[must_use]
    pub fn message_size(mut self, bytes: usize) -> Self {
        self.message_size = Some(bytes);
        self
    }

    /// How many messages, of whatever length, fit before a sender waits; at least 1.
    #[must_use]
    pub fn depth(mut self, messages: usize) -> Self {
        self.depth = Some(messages);
        self
    }

    /// Message size and depth, with the system's limits where nothing was asked for.
    pub(crate) fn resolve(&self) -> (usize, usize) {
        let or_default = |asked: Option<usize>, default: usize, setting| {
            asked.unwrap_or_else(|| {
                let max = limit::sysctl(setting).and_then(|max| usize::try_from(max).ok());
                max.map_or(default, |max| default.min(max))
            })
        };
        (
            or_default(self.message_size, DEFAULT_MESSAGE_SIZE, limit::MSGSIZE_MAX),
            or_default(self.depth, DEFAULT_DEPTH, limit::MSG_MAX),
        )
    }

    pub(crate) fn strategy(&self) -> WaitStrategy {
        self.wait_strategy
    }
}

impl Tunable for Options {
    fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.wait_strategy = strategy;
        self
    }

    /// Ignored: a message queue counts messages, see [`Options::depth`].
    fn capacity(self, _bytes: usize) -> Self {
        self
    }
}
