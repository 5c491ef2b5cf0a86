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
    /// Bytes (headers included) that fit before a sender has to wait; `None` when the mechanism
    /// counts messages only.
    pub depth_bytes: Option<usize>,
}
