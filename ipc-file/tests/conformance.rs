//! Every promise of the contract, between real processes.

ipc_conformance::conformance_tests!(ipc_file::FileLog; readiness);
