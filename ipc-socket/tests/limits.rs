//! What a limit of the process does to a channel, each in a process of its own.

use ipc_core::{Channel, OpenError, Wait};
use ipc_process::Process;
use ipc_socket::{Options, Socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

ipc_process::test_support!();

/// The name of the limit that stood in the way.
fn connect_without_a_descriptor(address: String) -> String {
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..limit
    };
    setrlimit(Resource::Nofile, none).unwrap();
    let connected = Socket::connect(
        &address.parse().unwrap(),
        &Options::default(),
        Wait::Forever,
    );
    setrlimit(Resource::Nofile, limit).unwrap();
    match connected {
        Err(OpenError::Limit(limit)) => limit.name.into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_visitor_without_a_descriptor_waits_for_no_listener() {
    for address in ["tcp:127.0.0.1:1", "abstract:nobody-listens-here"] {
        let child = Process::new(connect_without_a_descriptor, (address.to_owned(),))
            .start()
            .unwrap();
        assert_eq!(child.join().unwrap(), "RLIMIT_NOFILE", "{address}");
    }
}
