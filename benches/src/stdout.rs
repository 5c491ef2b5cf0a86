#![expect(
    unsafe_code,
    reason = "neither rustix nor the standard library sets signal actions"
)]

/// From now on this program ends as others do when the reader of its output is gone (`| head`),
/// instead of with the panic of a `println!`: Rust ignores SIGPIPE from the start.
pub(crate) fn end_when_nobody_reads() {
    // SAFETY: SIG_DFL is no code of ours, and both arguments are constants that the call knows.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
