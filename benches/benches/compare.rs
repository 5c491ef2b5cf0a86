//! `cargo bench`: the comparison of six channels, their floors and their rivals.

fn main() -> std::process::ExitCode {
    ipc_benches::main()
}
