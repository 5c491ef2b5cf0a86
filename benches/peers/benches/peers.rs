//! The comparison with `iceoryx2`, `interprocess` and `procspawn`.

fn main() -> std::process::ExitCode {
    ipc_benches_peers::main()
}
