//! Promise 6, and what a message costs: nothing is left, nothing leaks into other programs, and
//! nothing is allocated on the way.

use std::collections::BTreeMap;
use std::fs;

use ipc_core::{Channel, End, Listener as _, OpenError, Receiver as _, Sender as _, Wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::allocations;
use crate::content;
use crate::harness::{Case, crosses, pair};
use crate::list::cases;
use crate::procfs;

/// As many as it takes to exhaust every limit that a leak could hide behind.
const ROUNDS: u64 = 10_000;
const STEADY: u64 = 1000;

/// The descriptors of this process: number and what it refers to.
fn descriptors() -> BTreeMap<u32, String> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            // The descriptor that reads this very directory is gone by then.
            let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .filter(|(_, target)| !target.ends_with("/fd"))
        .collect()
}

/// Fails if this process has other descriptors than `before`.
fn none_are_left(before: &BTreeMap<u32, String>) {
    let mut left = descriptors();
    left.retain(|number, target| before.get(number) != Some(target));
    assert!(left.is_empty(), "descriptors are left: {left:?}");
}

fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps")
        .expect("/proc is mounted")
        .lines()
        .count()
}

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

fn children() -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc is mounted");
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// Fails if a descriptor that `before` does not know would survive an `execve(2)`.
fn all_close_on_exec(what: &str, before: &BTreeMap<u32, String>) {
    let mut new = 0;
    for (number, target) in descriptors() {
        // Standard input, output and error are meant to survive.
        if number <= 2 || before.get(&number) == Some(&target) {
            continue;
        }
        new += 1;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).expect("fdinfo");
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .expect("flags");
        let flags = u32::from_str_radix(flags.trim(), 8).expect("an octal number");
        assert_ne!(
            flags & libc::O_CLOEXEC as u32,
            0,
            "{what}: {target} survives exec"
        );
    }
    assert!(new > 0, "{what}: no descriptor at all");
}

fn touch<C: Channel>(_case: Case, (rx, _): (End<C::Receiver>, ())) {
    // Taken over and checked: then the end is closed in good order.
    let mut rx = rx.into_inner();
    let _ = rx.try_recv(&mut [0; 64]);
}

fn check_arrived<C: Channel>(_case: Case, (tx, rx): (End<C::Sender>, End<C::Receiver>)) {
    let (_tx, _rx) = (tx.into_inner(), rx.into_inner());
    all_close_on_exec("ends that were handed over", &BTreeMap::new());
}

/// Lets `attempt` have no descriptor, then one, and so on until it succeeds, and once more. What
/// `prepare` makes for it comes and goes while there are enough.
fn with_ever_more_descriptors<T>(
    case: &Case,
    what: &str,
    mut prepare: impl FnMut() -> T,
    mut attempt: impl FnMut(&mut T) -> Result<(), OpenError>,
) {
    // The first time may start a thread or open something for good.
    attempt(&mut prepare()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let before = descriptors();
    let usual = getrlimit(Resource::Nofile);
    let scarce = Rlimit {
        current: Some(64),
        ..usual
    };
    let mut succeeded = false;
    for free in 0..32 {
        case.step(&format!("making {what} with {free} descriptors free"));
        let mut prepared = prepare();
        setrlimit(Resource::Nofile, scarce).expect("setrlimit");
        let mut fillers: Vec<fs::File> =
            std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        fillers.truncate(fillers.len() - free);
        let outcome = attempt(&mut prepared);
        drop(fillers);
        setrlimit(Resource::Nofile, usual).expect("setrlimit");
        drop(prepared);
        none_are_left(&before);
        match outcome {
            Ok(()) if succeeded => return,
            Ok(()) if free > 0 => succeeded = true,
            Err(OpenError::Limit(limit)) if limit.name == "RLIMIT_NOFILE" => {}
            other => panic!("{what} with {free} descriptors free: {other:?}"),
        }
    }
    panic!("{what} needs more than 32 descriptors");
}

/// Receives and counts the allocations of the steady state.
fn receive_steadily<C: Channel>(case: Case, (rx, _): (End<C::Receiver>, ())) -> u64 {
    let mut rx = rx.into_inner();
    let mut buffer = [0; 64];
    case.step("receiving in the steady state");
    let mut before = 0;
    for number in 0..2 * STEADY {
        if number == STEADY {
            before = allocations::count();
        }
        rx.recv(&mut buffer).expect("a message");
    }
    allocations::count() - before
}

cases! {
    /// Ten thousand channels made, used and dropped leave no descriptor, no mapping and no name.
    fn ten_thousand_channels_leave_nothing_behind(case) {
        let round = || {
            let (mut tx, mut rx) = pair::<C>();
            tx.send(b"x").expect("there is room");
            assert_eq!(rx.recv(&mut [0; 64]).expect("it arrives"), 1);
        };
        for _ in 0..10 {
            round();
        }
        let before = descriptors();
        let maps = mappings();
        let shared = (entries("/dev/shm"), entries("/dev/mqueue"));
        for number in 0..ROUNDS {
            if number % 500 == 499 {
                case.step(&format!("channel {number}"));
                // Looked at before a leak would exhaust RLIMIT_NOFILE and be reported as that.
                none_are_left(&before);
            }
            round();
        }
        none_are_left(&before);
        // The allocator and the threads of others may map a little more: a leak is thousands.
        assert!(mappings() < maps + 100, "{} mappings, {maps} before", mappings());
        let left = (entries("/dev/shm"), entries("/dev/mqueue"));
        assert!(left.0 < shared.0 + 1000 && left.1 < shared.1 + 1000, "{shared:?}, then {left:?}");
    }

    /// Names come and go with their listeners, and nothing stays in the directory.
    fn a_thousand_names_leave_nothing_behind(case) {
        if !crosses::<C>() {
            return;
        }
        let options = C::Options::default();
        let path = case.directory().join("name");
        let name = || -> C::Address {
            path.to_str().expect("ASCII").parse().unwrap_or_else(|e| panic!("{e}"))
        };
        let round = || {
            let mut listener = C::listen(&name(), &options).expect("the name is free");
            let tx = C::connect(&name(), &options, Wait::at_most(std::time::Duration::from_secs(5)))
                .expect("somebody listens");
            let rx = listener.accept(Wait::at_most(std::time::Duration::from_secs(5)));
            drop((tx, rx.expect("a visitor is there"), listener));
        };
        for _ in 0..5 {
            round();
        }
        let before = descriptors();
        for number in 0..1000 {
            if number % 100 == 0 {
                case.step(&format!("name {number}"));
            }
            round();
        }
        none_are_left(&before);
        assert_eq!(
            entries(case.directory().to_str().expect("ASCII")), 0,
            "something is left in the directory"
        );
    }

    /// With no descriptor free, then one, two and so on until there are enough: `Limit` by its
    /// name at each step, and what had been made before it is gone.
    fn running_out_of_descriptors_is_told_by_name_and_leaves_nothing(case) {
        if !crosses::<C>() {
            return;
        }
        let options = C::Options::default();
        let path = case.directory().join("name");
        let name: C::Address =
            path.to_str().expect("ASCII").parse().unwrap_or_else(|e| panic!("{e}"));
        let nothing = || ();
        with_ever_more_descriptors(&case, "a pair", nothing, |_| C::pair(&options).map(drop));
        with_ever_more_descriptors(&case, "a listener", nothing, |_| {
            let listened = C::listen(&name, &options).map(drop);
            assert!(listened.is_ok() || !path.exists(), "a name without a listener is left");
            listened
        });
        let soon = || Wait::at_most(std::time::Duration::from_secs(5));
        let connect = || C::connect(&name, &options, soon());
        let listen = || C::listen(&name, &options).expect("the name is free");
        with_ever_more_descriptors(&case, "a connection", listen, |_| connect().map(drop));
        let visited = || (listen(), connect().expect("somebody listens"));
        with_ever_more_descriptors(&case, "an accepted connection", visited, |(listener, _)| {
            listener.accept(soon()).map(drop)
        });
    }

    /// Neither a zombie nor a descriptor of a process that had an end.
    fn processes_that_had_an_end_leave_nothing_behind(case) {
        let round = || {
            let (tx, rx) = pair::<C>();
            let peer = case.start("peer", touch::<C>, (End::new(rx), ()));
            case.join(peer);
            drop(tx);
        };
        for _ in 0..3 {
            round();
        }
        let mut before = descriptors().len();
        let settled = Wait::at_most(std::time::Duration::from_millis(200));
        while !settled.is_over() {
            before = before.min(descriptors().len());
        }
        for _ in 0..30 {
            round();
        }
        // One of a process that has just been joined may close a moment later, in the thread that
        // reaps; a leak is one a round and stays.
        procfs::until("the descriptors of processes that have ended to be closed", || {
            descriptors().len() <= before
        });
        let zombies: Vec<u32> =
            children().into_iter().filter(|pid| procfs::state(*pid) == Some('Z')).collect();
        assert!(zombies.is_empty(), "zombies: {zombies:?}");
    }

    /// Of pairs, listeners, both ends of a named channel and ends that were handed over.
    fn every_descriptor_is_closed_on_exec(case) {
        let before = descriptors();
        let (tx, rx) = pair::<C>();
        if !crosses::<C>() {
            none_are_left(&before);
            return;
        }
        all_close_on_exec("a pair", &before);
        let path = case.directory().join("name");
        let address: C::Address =
            path.to_str().expect("ASCII").parse().unwrap_or_else(|e| panic!("{e}"));
        let options = C::Options::default();
        let mut listener = C::listen(&address, &options).expect("the name is free");
        let wait = Wait::at_most(std::time::Duration::from_secs(5));
        let named_tx = C::connect(&address, &options, wait).expect("somebody listens");
        let named_rx = listener.accept(wait).expect("a visitor is there");
        all_close_on_exec("a named channel", &before);
        drop((named_tx, named_rx, listener));
        let peer = case.start("peer", check_arrived::<C>, (End::new(tx), End::new(rx)));
        case.join(peer);
    }

    /// A thousand messages after the first thousand: no allocation in the thread that sends or
    /// in the one that receives, alone or with a peer that makes them wait.
    fn a_message_in_the_steady_state_allocates_nothing(case) {
        let before = allocations::count();
        drop(std::hint::black_box(Box::new(1)));
        assert!(allocations::count() > before, "the counting allocator is not installed");

        let (mut tx, mut rx) = pair::<C>();
        let message = content::message(0, 8);
        let mut buffer = [0; 64];
        let mut exchange = |rounds: u64| {
            let before = allocations::count();
            for _ in 0..rounds {
                tx.send(&message).expect("there is room");
                rx.recv(&mut buffer).expect("it is there");
                let _ = rx.try_recv(&mut buffer);
            }
            allocations::count() - before
        };
        case.step("exchanging with itself");
        exchange(STEADY);
        assert_eq!(exchange(STEADY), 0, "allocations of a process on its own");

        let (mut tx, rx) = pair::<C>();
        let peer = case.start("receiver", receive_steadily::<C>, (End::new(rx), ()));
        case.step("sending in the steady state");
        let mut before = 0;
        for number in 0..2 * STEADY {
            if number == STEADY {
                before = allocations::count();
            }
            tx.send(&message).expect("the receiver receives");
        }
        let sending = allocations::count() - before;
        let receiving = case.join(peer);
        assert_eq!((sending, receiving), (0, 0), "allocations of sender and receiver");
    }
}
