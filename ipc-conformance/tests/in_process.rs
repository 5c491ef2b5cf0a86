//! The channel between threads keeps the contract, as far as it declares it.

ipc_conformance::conformance_tests!(ipc_conformance::InProcess; producers, consumers);
