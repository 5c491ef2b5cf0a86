use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::panic::PanicHookInfo;

use serde::{Deserialize, Serialize};

/// A panic in another process, as far as it can be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RemotePanic {
    /// What `panic!` was given; a placeholder if that was not text.
    pub message: String,
    /// File, line and column.
    pub location: String,
    /// The frames of the panicking thread, captured whatever `RUST_BACKTRACE` says.
    pub backtrace: String,
}

impl fmt::Display for RemotePanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the process's function panicked at {}: {}",
            self.location, self.message
        )
    }
}

impl Error for RemotePanic {}

impl RemotePanic {
    pub(crate) fn unknown() -> Self {
        Self {
            message: "the process did not say why".to_owned(),
            location: "an unknown place".to_owned(),
            backtrace: String::new(),
        }
    }

    fn of(info: &PanicHookInfo<'_>) -> Self {
        Self {
            message: info
                .payload_as_str()
                .unwrap_or("a value that is not text")
                .to_owned(),
            location: info
                .location()
                .map_or_else(|| "?".to_owned(), ToString::to_string),
            backtrace: Backtrace::force_capture().to_string(),
        }
    }
}

thread_local! {
    /// The last panic of this thread, if it runs a process's function.
    static LAST: RefCell<Option<RemotePanic>> = const { RefCell::new(None) };
    static WATCHED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Notes the panics of this thread from now on. With `panic = "abort"` there is no later: `abort`
/// gets the panic at once. The program's own hook runs as before.
pub(crate) fn watch_this_thread(abort: impl Fn(RemotePanic) + Send + Sync + 'static) {
    let previous = std::panic::take_hook();
    WATCHED.set(true);
    std::panic::set_hook(Box::new(move |info| {
        if WATCHED.get() {
            let panic = RemotePanic::of(info);
            if cfg!(panic = "abort") {
                abort(panic);
            } else {
                LAST.set(Some(panic));
            }
        }
        previous(info);
    }));
}

/// Touches what [`watch_this_thread`] will, and leaves it as it is.
pub(crate) fn rehearse() {
    std::panic::set_hook(std::panic::take_hook());
}

/// The panic that this payload was caught of. The program may have put a hook of its own in the
/// place of ours, and a panic that is resumed meets none: then the payload tells what it can.
pub(crate) fn of_payload(payload: Box<dyn Any + Send>) -> RemotePanic {
    let panic = LAST.take().unwrap_or_else(|| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        RemotePanic {
            message: text.unwrap_or("a value that is not text").to_owned(),
            ..RemotePanic::unknown()
        }
    });
    // Its drop is code of the program and may panic in its turn.
    std::mem::forget(payload);
    panic
}
