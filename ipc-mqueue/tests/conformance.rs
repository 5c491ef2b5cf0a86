//! The common contract, between two processes.

ipc_conformance::conformance_tests!(ipc_mqueue::MessageQueue; readiness);
