//! Programs that ignore SIGCHLD, or whose other parts wait for every child, by both start methods. Each
//! runs in a process of its own, because both concern the whole process.
#![expect(
    unsafe_code,
    reason = "dispositions of signals and waitpid(-1) have no safe form"
)]

mod common;

ipc_process::test_support!();

mod spawn {
    use ipc_process::StartMethod::Spawn as METHOD;

    include!("cases/odd_programs.rs");
}

mod zygote {
    use ipc_process::StartMethod::Zygote as METHOD;

    include!("cases/odd_programs.rs");
}
