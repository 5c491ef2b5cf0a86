//! The reference channel keeps the contract.

ipc_conformance::conformance_tests!(ipc_conformance::Reference; readiness);
