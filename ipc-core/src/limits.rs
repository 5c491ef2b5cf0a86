/// What a channel can carry right now, read from the kernel object at run time.
///
/// Limits never shrink while the channel is open, save when an end is
/// [cloned](crate::TryClone). A message longer than
/// [`max_message`](Self::max_message) is refused whole with `TooLong`: no size is ever clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message in bytes.
    pub max_message: usize,
    /// Messages that fit before a sender has to wait, whatever their size; `None` when the
    /// mechanism counts bytes only.
    pub depth_messages: Option<usize>,
    /// Bytes that fit at most before a sender has to wait, with what the mechanism and the kernel
    /// put around each message, which is most of it where messages are short; `None` when the
    /// mechanism counts messages only.
    pub depth_bytes: Option<usize>,
}
