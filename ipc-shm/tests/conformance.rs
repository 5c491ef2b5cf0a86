//! The suite that every channel passes.

ipc_conformance::conformance_tests!(ipc_shm::SharedMemory; readiness);
