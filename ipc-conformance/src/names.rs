//! Promise 5 and the naming half of 7 and 8: names are found, freed, reclaimed and never stolen.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use ipc_core::{
    Channel, Listener as _, OpenError, Receiver as _, RecvError, SendError, Sender as _, Wait,
};
use rustix::fs::Mode;

use crate::board::{Gate, Ledger, now};
use crate::content;
use crate::ending::send_until_error;
use crate::harness::{Case, crosses};
use crate::list::cases;
use crate::storm::Storm;
use crate::timing::punctual;

const PATIENCE: Duration = Duration::from_secs(10);

fn soon() -> Wait {
    Wait::at_most(PATIENCE)
}

fn address<C: Channel>(path: &Path) -> C::Address {
    let text = path.to_str().expect("a path of ASCII");
    let address: C::Address = text
        .parse()
        .unwrap_or_else(|e| panic!("{text} is no address: {e}"));
    assert_eq!(address.to_string(), text, "an address travels as text");
    address
}

fn listen<C: Channel>(path: &Path) -> Result<C::Listener, OpenError> {
    C::listen(&address::<C>(path), &C::Options::default())
}

fn connect<C: Channel>(path: &Path, wait: Wait) -> Result<C::Sender, OpenError> {
    C::connect(&address::<C>(path), &C::Options::default(), wait)
}

/// Connects, sends three messages and closes.
fn visit<C: Channel>(case: Case, (name, _): (String, ())) {
    send_three::<C>(&case, &name);
}

fn send_three<C: Channel>(case: &Case, name: &str) {
    case.step("connecting");
    let mut tx = connect::<C>(&case.directory().join(name), soon()).expect("somebody listens");
    case.step("sending");
    for number in 0..3 {
        tx.send(&content::message(number, 8))
            .expect("the listener receives");
    }
}

const VISITORS: u64 = 3;
const OF_EACH: u64 = 50;

/// Connects and sends messages that tell who it is.
fn visit_as<C: Channel>(case: Case, (name, id): (String, u64)) {
    case.step("connecting");
    let mut tx = connect::<C>(&case.directory().join(name), soon()).expect("somebody listens");
    case.step("sending");
    for number in 0..OF_EACH {
        tx.send(&(id * OF_EACH + number).to_le_bytes())
            .expect("the listener receives");
    }
}

/// Receives what one visitor sends, and says who it is.
fn receive_of_one<C: Channel>(case: &Case, rx: &mut C::Receiver) -> u64 {
    case.step("receiving from one of several visitors");
    let mut buffer = [0; 8];
    let mut id = None;
    for number in 0..OF_EACH {
        rx.recv(&mut buffer).expect("the visitor's messages");
        let content = u64::from_le_bytes(buffer);
        let id = *id.get_or_insert(content / OF_EACH);
        assert_eq!(content, id * OF_EACH + number, "from visitor {id}");
    }
    let end = rx.recv(&mut buffer);
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
    id.expect("there were messages")
}

/// Connects, sends one message and holds the channel until it is killed.
fn visit_and_stay<C: Channel>(case: Case, (name, gate): (String, Gate)) {
    case.step("connecting");
    let mut tx = connect::<C>(&case.directory().join(name), soon()).expect("somebody listens");
    tx.send(&content::message(0, 8))
        .expect("the listener receives");
    gate.open();
    case.step("holding the sender until killed");
    crate::procfs::pause(Duration::from_secs(3600));
}

/// Listens, takes one visitor if asked to, and holds all until it is killed.
fn host<C: Channel>(case: Case, (name, gate, accepts): (String, Gate, bool)) {
    case.step("listening");
    let mut listener = listen::<C>(&case.directory().join(name)).expect("the name is free");
    gate.open();
    let _receiver = accepts.then(|| {
        case.step("accepting");
        let mut rx = listener.accept(soon()).expect("a visitor comes");
        let got = rx.recv(&mut [0; 64]).expect("it sends");
        assert_eq!(got, 8);
        gate.open();
        rx
    });
    case.step("holding the name until killed");
    crate::procfs::pause(Duration::from_secs(3600));
}

/// What became of a rival, in its line of the ledger.
const GOT_IT: u64 = 1;
const IN_USE: u64 = 2;
/// Where the ledger has the moment at which they listen.
const STARTS: u64 = 2;

/// Listens when told to, notes what came of it, and holds what it has until it is killed.
fn rival<C: Channel>(case: Case, (line, ledger, start, told): (u64, Ledger, Gate, Gate)) {
    let path = case.directory().join("name");
    case.step("waiting for the other rival");
    told.open();
    start.pass();
    // A gate wakes one after the other; from here on both run.
    let starts = Duration::from_nanos(ledger.get(STARTS));
    while now() < starts {
        std::hint::spin_loop();
    }
    case.step("listening");
    let outcome = listen::<C>(&path);
    match &outcome {
        Ok(_) => ledger.set(line, GOT_IT),
        Err(OpenError::NameInUse) => ledger.set(line, IN_USE),
        Err(_) => {}
    }
    told.open();
    assert!(ledger.get(line) > 0, "{:?}", outcome.err());
    case.step("holding the name until killed");
    crate::procfs::pause(Duration::from_secs(3600));
}

/// Visits among signals a listener that has yet to come.
fn visit_in_a_storm<C: Channel>(case: Case, (rounds, gate): (u64, Gate)) {
    let storm = Storm::new();
    for _ in 0..rounds {
        gate.pass();
        send_three::<C>(&case, "name");
    }
    drop(storm);
}

fn receive_three<C: Channel>(rx: &mut C::Receiver) {
    let mut buffer = [0; 64];
    for number in 0..3 {
        let got = rx
            .recv(&mut buffer)
            .unwrap_or_else(|e| panic!("instead of {number}: {e}"));
        content::check(number, 8, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    let end = rx.recv(&mut buffer);
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
}

/// A visitor at this name, from connecting to the end.
fn serve_one<C: Channel>(case: &Case, listener: &mut C::Listener, name: &str) {
    let visitor = case.start("visitor", visit::<C>, (name.to_owned(), ()));
    case.step("accepting");
    let mut rx = listener.accept(soon()).expect("the visitor comes");
    case.step("receiving from the visitor");
    receive_three::<C>(&mut rx);
    case.join(visitor);
}

/// The error with which a name is refused that is not ours to use.
fn refused(what: &str, outcome: Result<(), OpenError>) {
    match outcome {
        Err(OpenError::Untrusted { .. }) => {}
        other => panic!("{what}: {other:?} instead of a refusal as untrusted"),
    }
}

/// Whether this channel has no names, and then says so; the cases of names end there.
fn nameless<C: Channel>(case: &Case) -> bool {
    if crosses::<C>() {
        return false;
    }
    let path = case.directory().join("name");
    let refused = listen::<C>(&path).map(drop);
    assert!(
        matches!(refused, Err(OpenError::Invalid { .. })),
        "{refused:?}"
    );
    let refused = connect::<C>(&path, Wait::Forever).map(drop);
    assert!(
        matches!(refused, Err(OpenError::Invalid { .. })),
        "{refused:?}"
    );
    true
}

cases! {
    /// `NotFound` at once, `TimedOut` at the deadline, and no name appears by asking.
    fn a_name_where_nobody_listens_is_not_found(case) {
        if nameless::<C>(&case) {
            return;
        }
        let path = case.directory().join("nobody");
        case.step("connecting where nobody listens");
        let found = connect::<C>(&path, Wait::Never);
        assert!(matches!(found, Err(OpenError::NotFound)), "{:?}", found.err());
        punctual("a connect", Duration::from_millis(60), |wait| {
            let found = connect::<C>(&path, wait);
            assert!(matches!(found, Err(OpenError::TimedOut)), "{:?}", found.err());
        });
        assert!(!path.exists(), "asking for a name made it");
    }

    /// `NotFound` at once, `TimedOut` at the deadline.
    fn a_listener_whom_nobody_visits_times_out(case) {
        if nameless::<C>(&case) {
            return;
        }
        let mut listener = listen::<C>(&case.directory().join("name")).expect("the name is free");
        case.step("accepting with nobody there");
        let visitor = listener.accept(Wait::Never);
        assert!(matches!(visitor, Err(OpenError::NotFound)), "{:?}", visitor.err());
        punctual("an accept", Duration::from_millis(60), |wait| {
            let visitor = listener.accept(wait);
            assert!(matches!(visitor, Err(OpenError::TimedOut)), "{:?}", visitor.err());
        });
    }

    /// Two processes that share nothing but a name.
    fn a_visitor_finds_a_listener_by_name(case) {
        if nameless::<C>(&case) {
            return;
        }
        let mut listener = listen::<C>(&case.directory().join("name")).expect("the name is free");
        serve_one::<C>(&case, &mut listener, "name");
    }

    /// The one who connects may come first.
    fn a_visitor_waits_for_a_listener_that_comes_later(case) {
        if nameless::<C>(&case) {
            return;
        }
        let visitor = case.start("visitor", visit::<C>, ("name".to_owned(), ()));
        visitor.until_asleep();
        case.step("listening");
        let mut listener = listen::<C>(&case.directory().join("name")).expect("the name is free");
        case.step("accepting");
        let mut rx = listener.accept(soon()).expect("the visitor comes");
        receive_three::<C>(&mut rx);
        case.join(visitor);
    }

    /// Several at once: each message comes to the receiver of the visitor that sent it.
    fn visitors_of_one_name_have_channels_of_their_own(case) {
        if nameless::<C>(&case) {
            return;
        }
        let mut listener = listen::<C>(&case.directory().join("name")).expect("the name is free");
        let visitors: Vec<_> = (0..VISITORS)
            .map(|id| case.start(&format!("visitor {id}"), visit_as::<C>, ("name".to_owned(), id)))
            .collect();
        let mut receivers: Vec<_> = (0..VISITORS)
            .map(|number| {
                case.step(&format!("accepting visitor {number}"));
                listener.accept(soon()).expect("the visitors come")
            })
            .collect();
        let mut came: Vec<u64> = receivers.iter_mut().map(|rx| receive_of_one::<C>(&case, rx)).collect();
        came.sort_unstable();
        assert!(came.iter().copied().eq(0..VISITORS), "visitors that came: {came:?}");
        for visitor in visitors {
            case.join(visitor);
        }
    }

    /// A listener that is dropped frees its name, and the next takes it.
    fn a_name_that_was_closed_is_free_again(case) {
        if nameless::<C>(&case) {
            return;
        }
        for round in 0..5 {
            case.step(&format!("round {round}: listening"));
            let mut listener = listen::<C>(&case.directory().join("name")).expect("it is free");
            serve_one::<C>(&case, &mut listener, "name");
            drop(listener);
        }
        let found = connect::<C>(&case.directory().join("name"), Wait::Never);
        assert!(matches!(found, Err(OpenError::NotFound)), "{:?}", found.err());
    }

    /// With and without a visitor; nobody has to remove anything.
    fn a_name_can_be_used_again_after_its_listener_was_killed(case) {
        if nameless::<C>(&case) {
            return;
        }
        let path = case.directory().join("name");
        for accepts in [false, true, false, true] {
            let gate = Gate::new();
            let arguments = ("name".to_owned(), gate.another(), accepts);
            let victim = case.start("victim", host::<C>, arguments);
            gate.pass();
            let visitor = accepts.then(|| {
                let mut tx = connect::<C>(&path, soon()).expect("the victim listens");
                tx.send(&content::message(0, 8)).expect("the victim receives");
                gate.pass();
                tx
            });
            victim.kill();
            if let Some(mut tx) = visitor {
                case.step("sending to a listener that was killed");
                let error = send_until_error::<C>(&mut tx);
                assert!(matches!(error, SendError::PeerDied), "{error:?}");
            }
            case.step("connecting to a name whose listener was killed");
            let found = connect::<C>(&path, Wait::Never);
            assert!(matches!(found, Err(OpenError::NotFound)), "{:?}", found.err());
        }
        case.step("listening at a name whose listener was killed");
        let mut listener = listen::<C>(&path).expect("the name is taken over");
        serve_one::<C>(&case, &mut listener, "name");
    }

    /// The listener learns of the death and serves the next.
    fn a_name_goes_on_after_its_visitor_was_killed(case) {
        if nameless::<C>(&case) {
            return;
        }
        let path = case.directory().join("name");
        let mut listener = listen::<C>(&path).expect("the name is free");
        for _ in 0..3 {
            let gate = Gate::new();
            let arguments = ("name".to_owned(), gate.another());
            let victim = case.start("victim", visit_and_stay::<C>, arguments);
            case.step("accepting the victim");
            let mut rx = listener.accept(soon()).expect("the victim comes");
            let mut buffer = [0; 64];
            let got = rx.recv(&mut buffer).expect("its message");
            content::check(0, 8, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
            gate.pass();
            victim.kill();
            case.step("receiving from a visitor that was killed");
            let end = rx.recv(&mut buffer);
            assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");
        }
        serve_one::<C>(&case, &mut listener, "name");
    }

    /// `NameInUse`, and the one who has it goes on undisturbed.
    fn a_live_name_is_never_stolen(case) {
        if nameless::<C>(&case) {
            return;
        }
        let path = case.directory().join("name");
        let gate = Gate::new();
        let arguments = ("name".to_owned(), gate.another(), true);
        let owner = case.start("owner", host::<C>, arguments);
        gate.pass();
        for _ in 0..3 {
            case.step("listening at a name that is in use");
            let stolen = listen::<C>(&path);
            assert!(
                matches!(stolen, Err(OpenError::NameInUse)),
                "instead of a refusal as in use: {:?}",
                stolen.map(drop)
            );
        }
        case.step("visiting the owner");
        let mut tx = connect::<C>(&path, soon()).expect("the owner still listens");
        tx.send(&content::message(0, 8)).expect("the owner receives");
        gate.pass();
        owner.kill();
    }

    /// Both find the same leavings. The other is told that the name is in use.
    fn of_two_that_listen_at_once_at_a_name_left_by_the_dead_one_gets_it(case) {
        if nameless::<C>(&case) {
            return;
        }
        let path = case.directory().join("name");
        let gate = Gate::new();
        let arguments = ("name".to_owned(), gate.another(), false);
        let victim = case.start("victim", host::<C>, arguments);
        gate.pass();
        victim.kill();
        for round in 0..20 {
            case.step(&format!("round {round}: two rivals"));
            let (ledger, start, told) = (Ledger::new(), Gate::new(), Gate::new());
            let rivals = [0, 1].map(|line| {
                let arguments = (line, ledger.another(), start.another(), told.another());
                let rival = case.start(&format!("rival {line}"), rival::<C>, arguments);
                told.pass();
                rival
            });
            let starts = now() + Duration::from_millis(1);
            ledger.set(STARTS, starts.as_nanos() as u64);
            for _ in &rivals {
                start.open();
            }
            for _ in &rivals {
                told.pass();
            }
            let mut outcomes = [ledger.get(0), ledger.get(1)];
            outcomes.sort_unstable();
            assert_eq!(outcomes, [GOT_IT, IN_USE], "in round {round}");
            connect::<C>(&path, soon()).expect("the one who got it listens");
            for rival in rivals {
                rival.kill();
            }
        }
    }

    /// Listening, accepting and connecting go on, whatever call a signal interrupts.
    fn a_name_is_found_in_a_storm_of_signals(case) {
        const ROUNDS: u64 = 20;
        if nameless::<C>(&case) {
            return;
        }
        let gate = Gate::new();
        let arguments = (ROUNDS, gate.another());
        let visitor = case.start("visitor", visit_in_a_storm::<C>, arguments);
        let storm = Storm::new();
        for round in 0..ROUNDS {
            // Not before: the last listener is gone.
            gate.open();
            case.step(&format!("round {round}: accepting"));
            let mut listener = listen::<C>(&case.directory().join("name")).expect("it is free");
            let mut rx = listener.accept(soon()).expect("the visitor comes");
            receive_three::<C>(&mut rx);
        }
        drop(storm);
        case.join(visitor);
        assert!(Storm::caught() > 0, "no signal arrived");
    }

    /// Where others may write, anybody could have put anything.
    fn a_directory_that_others_may_write_to_is_refused(case) {
        if nameless::<C>(&case) {
            return;
        }
        let directory = case.directory().join("open");
        fs::create_dir(&directory).expect("mkdir");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("chmod");
        let path = directory.join("name");
        refused("listening in it", listen::<C>(&path).map(drop));
        refused("connecting in it", connect::<C>(&path, Wait::Never).map(drop));
        assert_eq!(fs::read_dir(&directory).expect("it is there").count(), 0, "something is left");
    }

    /// A file, a link or a directory of somebody else's making is refused and left as it is.
    fn a_squatted_name_is_refused_and_left_untouched(case) {
        if nameless::<C>(&case) {
            return;
        }
        let target = case.directory().join("target");
        fs::write(&target, "precious").expect("a file");
        let file = case.directory().join("file");
        fs::write(&file, "precious").expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
        let link = case.directory().join("link");
        symlink(&target, &link).expect("a link");
        let dangling = case.directory().join("dangling");
        symlink(case.directory().join("nothing"), &dangling).expect("a link");

        case.step("listening at squatted names");
        refused("listening at a link", listen::<C>(&link).map(drop));
        refused("connecting to a link", connect::<C>(&link, Wait::Never).map(drop));
        refused("listening at a dangling link", listen::<C>(&dangling).map(drop));
        let outcomes = [
            listen::<C>(&file).map(drop),
            connect::<C>(&file, Wait::Never).map(drop),
        ];
        for outcome in outcomes {
            refused("a file that is no channel", outcome);
        }

        assert_eq!(fs::read(&target).expect("it is there"), b"precious");
        assert_eq!(fs::read(&file).expect("it is there"), b"precious");
        assert_eq!(fs::read_link(&link).expect("it is a link"), target);
        assert!(!case.directory().join("nothing").exists(), "made through a dangling link");
    }

    /// Whatever the umask: nobody but the owner may open what stands at the name.
    fn what_stands_at_a_name_is_closed_to_others(case) {
        if nameless::<C>(&case) {
            return;
        }
        for mask in [0o000, 0o027, 0o077] {
            // Its own process: no other case sees this umask.
            rustix::process::umask(Mode::from_raw_mode(mask));
            let path = case.directory().join(format!("name-{mask:o}"));
            let listener = listen::<C>(&path).expect("the name is free");
            let mode = fs::symlink_metadata(&path).expect("it stands there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "mode {mode:o} under umask {mask:o}");
            drop(listener);
        }
    }
}
