//! Functions, arguments and results, by both start methods.

mod common;

ipc_process::test_support!();

mod spawn {
    use ipc_process::StartMethod::Spawn as METHOD;

    include!("cases/start.rs");
}

mod zygote {
    use ipc_process::StartMethod::Zygote as METHOD;

    include!("cases/start.rs");
}
