//! The ways in which a process can end, and what is told about each, by both start methods.

mod common;

ipc_process::test_support!();

mod spawn {
    use ipc_process::StartMethod::Spawn as METHOD;

    include!("cases/end.rs");
}

mod zygote {
    use ipc_process::StartMethod::Zygote as METHOD;

    include!("cases/end.rs");
}
