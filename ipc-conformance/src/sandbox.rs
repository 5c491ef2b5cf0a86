#![expect(unsafe_code, reason = "seccomp has no safe form")]

use std::mem::offset_of;

/// Has these system calls fail with `errno` from now on in this thread and those that it starts, as
/// the sandbox of a container does with calls that it does not know
/// ([seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html)). Nothing takes that back:
/// call it in a process of its own.
///
/// # Panics
/// If the kernel has no filters.
pub fn refuse(calls: &[libc::c_long], errno: i32) {
    let give = |action: u32| statement(libc::BPF_RET | libc::BPF_K, 0, action);
    let number = u32::try_from(offset_of!(libc::seccomp_data, nr)).expect("a small offset");
    let mut filter = vec![statement(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        0,
        number,
    )];
    for &call in calls {
        let call = u32::try_from(call).expect("a call's number");
        let is_it = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        filter.push(statement(is_it, 1, call));
        filter.push(give(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()));
    }
    filter.push(give(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: filter.len().try_into().expect("a short program"),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: sets an attribute of this thread.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program is a list of instructions of this length.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// One instruction; a comparison that fails skips `skip` of those behind it.
fn statement(code: u32, skip: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code.try_into().expect("a code has 16 bits"),
        jt: 0,
        jf: skip,
        k,
    }
}
