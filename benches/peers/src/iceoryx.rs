#![expect(
    unsafe_code,
    reason = "a loan that is not written from end to end has to be declared initialised"
)]

use std::fs;
use std::hint::spin_loop;
use std::mem::MaybeUninit;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::{event, publish_subscribe};
use ipc_benches::{Bundle, Failure, Link, Outcome, Port, Side, Spec};

/// A publish-subscribe service of byte slices each way, one publisher and one subscriber, nothing
/// dropped when the subscriber's buffer is full.
///
/// `SLEEP` waits on an event service, of which each message triggers one event, as the library's
/// examples do; otherwise the subscriber is polled without end. `LOAN` writes and reads a message
/// where it lies and touches its first and last word, as the row `ipc-shm:loan` does.
#[derive(Debug)]
pub(crate) struct Iceoryx<const SLEEP: bool, const LOAN: bool>;

#[derive(Debug)]
pub(crate) struct Ports<const LOAN: bool> {
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    bell: Option<(Notifier<ipc::Service>, Listener<ipc::Service>)>,
    /// Keeps this process known as alive.
    _node: Node<ipc::Service>,
    size: usize,
}

const WORD: usize = 8;

type Messages = publish_subscribe::PortFactory<ipc::Service, [u8], ()>;
type Events = event::PortFactory<ipc::Service>;

impl<const SLEEP: bool, const LOAN: bool> Link for Iceoryx<SLEEP, LOAN> {
    type Port = Ports<LOAN>;

    fn open(_spec: &Spec, peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let name = || Bundle {
            data: format!("{}/{}", process::id(), peers[0]).into_bytes(),
            ..Bundle::default()
        };
        Ok([name(), name()])
    }

    fn port(spec: &Spec, side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let name = String::from_utf8(bundle.data)?;
        set_log_level(LogLevel::Error);
        let supervisor = name.split('/').next().unwrap_or_default();
        let node = NodeBuilder::new()
            .config(&config(supervisor)?)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()?;
        let there = messages(&node, &format!("{name}/there"), spec)?;
        let back = messages(&node, &format!("{name}/back"), spec)?;
        let (output, input) = match side {
            Side::Initiator => (&there, &back),
            _ => (&back, &there),
        };
        let publisher = output
            .publisher_builder()
            .initial_max_slice_len(spec.size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        let subscriber = input.subscriber_builder().create()?;
        let bell = if SLEEP {
            let there = events(&node, &format!("{name}/there"))?;
            let back = events(&node, &format!("{name}/back"))?;
            let (output, input) = match side {
                Side::Initiator => (&there, &back),
                _ => (&back, &there),
            };
            let bell = (
                output.notifier_builder().create()?,
                input.listener_builder().create()?,
            );
            wait_until(|| [&there, &back].into_iter().all(are_both_here))?;
            Some(bell)
        } else {
            None
        };
        wait_until(|| [&there, &back].into_iter().all(are_connected))?;
        Ok(Ports {
            publisher,
            subscriber,
            bell,
            _node: node,
            size: spec.size,
        })
    }

    fn depth(spec: &Spec) -> Option<u64> {
        u64::try_from(spec.depth()).ok()
    }
}

fn messages(node: &Node<ipc::Service>, name: &str, spec: &Spec) -> Outcome<Messages> {
    let service = node
        .service_builder(&name.try_into()?)
        .publish_subscribe::<[u8]>()
        .max_publishers(1)
        .max_subscribers(1)
        .subscriber_max_buffer_size(spec.depth())
        .enable_safe_overflow(false);
    Ok(service.open_or_create()?)
}

fn events(node: &Node<ipc::Service>, name: &str) -> Outcome<Events> {
    let service = node.service_builder(&name.try_into()?).event();
    Ok(service.open_or_create()?)
}

fn are_connected(service: &Messages) -> bool {
    let ports = service.dynamic_config();
    ports.number_of_publishers() == 1 && ports.number_of_subscribers() == 1
}

fn are_both_here(service: &Events) -> bool {
    let ports = service.dynamic_config();
    ports.number_of_notifiers() == 1 && ports.number_of_listeners() == 1
}

/// The library tells nobody when a peer has joined.
fn wait_until(mut ready: impl FnMut() -> bool) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !ready() {
        if Instant::now() > deadline {
            return Err(Failure::Failed("the other side did not come".into()));
        }
        thread::yield_now();
    }
    Ok(())
}

impl<const LOAN: bool> Ports<LOAN> {
    /// To how many subscribers the message went.
    #[inline]
    fn publish(&self, message: &[u8]) -> Outcome<usize> {
        let mut sample = self.publisher.loan_slice_uninit(self.size)?;
        let sample = if LOAN {
            let number = &message[..WORD];
            let payload = sample.payload_mut();
            write(&mut payload[..WORD], number);
            write(&mut payload[self.size - WORD..], number);
            // SAFETY: any bytes are a valid slice of bytes, and those of shared memory have some
            // value, if an old one.
            unsafe { sample.assume_init() }
        } else {
            sample.write_from_slice(message)
        };
        Ok(sample.send()?)
    }
}

impl<const LOAN: bool> Port for Ports<LOAN> {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        // Told to retry until delivered, the library still drops a message when its list of samples
        // in use is full; it says so by a count of 0.
        while self.publish(message)? == 0 {
            spin_loop();
        }
        if let Some((notifier, _)) = &self.bell {
            notifier.notify()?;
        }
        Ok(())
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let sample = loop {
            if let Some(sample) = self.subscriber.receive()? {
                break sample;
            }
            match &mut self.bell {
                Some((_, listener)) => drop(listener.blocking_wait(|_| {})?),
                None => spin_loop(),
            }
        };
        let message = sample.payload();
        if LOAN {
            buffer[..WORD].copy_from_slice(&message[..WORD]);
            if message[message.len() - WORD..] != buffer[..WORD] {
                return Err(Failure::Failed("a message has two numbers".into()));
            }
        } else {
            buffer[..message.len()].copy_from_slice(message);
        }
        Ok(message.len())
    }
}

fn write(place: &mut [MaybeUninit<u8>], bytes: &[u8]) {
    for (place, byte) in place.iter_mut().zip(bytes) {
        place.write(*byte);
    }
}

/// Names of this run's files begin with this and the supervisor's pid: short, since the library makes
/// names of sockets of them, which take 107 bytes.
const PREFIX: &str = "ipcb";
const SHARED_MEMORY: &str = "/dev/shm";
const ROOT: &str = "/tmp";

/// Names and a directory of this run alone. No node clears away after another: a row that takes the
/// next one's node, which is just coming into being, for a dead one would break it.
fn config(supervisor: &str) -> Outcome<Config> {
    let mut config = Config::default();
    let global = &mut config.global;
    global.prefix = FileName::new(format!("{PREFIX}{supervisor}_").as_bytes())?;
    global.set_root_path(&Path::new(
        format!("{ROOT}/{PREFIX}{supervisor}").as_bytes(),
    )?);
    global.node.cleanup_dead_nodes_on_creation = false;
    global.node.cleanup_dead_nodes_on_destruction = false;
    global.service.cleanup_dead_nodes_on_open = false;
    Ok(config)
}

/// Removes the files of this run and of runs that are dead: a side that is killed leaves its own,
/// and the library one of each run in any case.
pub(crate) fn remove_files() {
    for directory in [SHARED_MEMORY, ROOT] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(owner);
            let is_over = |owner: u32| {
                owner == process::id() || !fs::exists(format!("/proc/{owner}")).unwrap_or(true)
            };
            if owner.is_some_and(is_over) {
                // Another user's stay.
                let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
            }
        }
    }
}

/// The supervisor in a name that [`config`] gave.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('_').next()?.parse().ok()
}
