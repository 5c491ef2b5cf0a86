//! The suite is worth something: each flaw is caught by the case that names it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ipc_conformance::{
    DuplicatesOne, HangsOnDeath, IgnoresDeadlines, LeaksDescriptors, LosesOne, Reference, Reorders,
    Tears, TruncatesSilently, death, order, resources, sizes, waiting, with_patience,
};

ipc_conformance::support!();

/// Runs a case that has to fail, and checks that it fails for this reason.
fn caught(case: impl FnOnce(), reason: &str) {
    // Long enough for every case on a busy machine, short enough for a hang.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        with_patience(Duration::from_secs(8), case);
    }));
    let panic = outcome.expect_err("the flaw was not caught");
    let text = message(&*panic);
    assert!(
        text.contains(reason),
        "caught, but not for \"{reason}\":\n{text}"
    );
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_default()
}

#[test]
fn a_lost_message_is_caught() {
    caught(
        order::a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order::<
            Reference<LosesOne>,
        >,
        "message 200 ",
    );
}

#[test]
fn a_doubled_message_is_caught() {
    caught(
        order::a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order::<
            Reference<DuplicatesOne>,
        >,
        "message 201 ",
    );
}

#[test]
fn exchanged_messages_are_caught() {
    caught(
        order::a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order::<
            Reference<Reorders>,
        >,
        "message 200 ",
    );
}

#[test]
fn a_torn_message_is_caught() {
    caught(
        order::a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order::<
            Reference<Tears>,
        >,
        "message 20",
    );
}

#[test]
fn an_overrun_deadline_is_caught() {
    caught(
        waiting::a_receive_deadline_is_neither_early_nor_late::<Reference<IgnoresDeadlines>>,
        "a receive overran a deadline",
    );
    caught(
        waiting::a_send_deadline_is_neither_early_nor_late::<Reference<IgnoresDeadlines>>,
        "a send overran a deadline",
    );
}

#[test]
fn a_hang_after_the_death_of_the_peer_is_caught_with_side_and_step() {
    caught(
        death::a_receiver_that_waits_learns_of_the_death_in_time::<Reference<HangsOnDeath>>,
        "home: Block: receiving while the sender is killed",
    );
}

#[test]
fn a_leaked_descriptor_is_caught() {
    caught(
        resources::ten_thousand_channels_leave_nothing_behind::<Reference<LeaksDescriptors>>,
        "descriptors are left",
    );
}

#[test]
fn silent_truncation_is_caught() {
    caught(
        sizes::a_buffer_too_small_keeps_the_message::<Reference<TruncatesSilently>>,
        "into a buffer of",
    );
}
