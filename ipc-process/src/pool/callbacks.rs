//! The thread on which callbacks run, one after the other. A slow one holds up other callbacks
//! and nothing else; a panic in one is caught.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::thread;

use super::shared::Call;

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn is_this_thread() -> bool {
    HERE.get()
}

/// The thread ends when the sender is gone and all calls have been made.
pub(super) fn start(name: &str) -> io::Result<Sender<Call>> {
    let (sender, calls) = mpsc::channel::<Call>();
    thread::Builder::new()
        .name(format!("{name}-callbacks"))
        .spawn(move || {
            crate::spawn::signals::block_all();
            HERE.set(true);
            for call in calls {
                // The panic hook has told of it; the drop of what it threw may be another.
                if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
                    std::mem::forget(payload);
                }
            }
        })?;
    Ok(sender)
}
