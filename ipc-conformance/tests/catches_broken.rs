//! The suite is worth something: each flaw is caught by the case that is meant to catch it, for
//! the reason that it has.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ipc_conformance::{
    Allocates, Broken, ComesEarly, DuplicatesOne, HangsOnDeath, IgnoresDeadlines, InProcess,
    LeaksDescriptors, LosesOne, NeverReady, Reference, Reorders, Steals, SurvivesExec, Tears,
    TruncatesSilently, consumers, death, names, order, producers, readiness, resources, sizes,
    waiting, with_patience,
};

ipc_conformance::support!();

/// Runs a case that has to fail, and checks that it says its name and this reason.
fn caught(case: impl FnOnce(), name: &str, reason: &str) {
    // Long enough for every case on a busy machine, short enough for a hang.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        with_patience(Duration::from_secs(8), case);
    }));
    let panic = outcome.expect_err("the flaw was not caught");
    let text = message(&*panic);
    assert!(
        text.starts_with(&format!("broken: {name}: ")) && text.contains(reason),
        "caught, but not by {name} for \"{reason}\":\n{text}"
    );
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_default()
}

macro_rules! flaws {
    ($($test:ident: $flaw:ident of $channel:ident, $theme:ident::$case:ident, $reason:literal;)*) => {$(
        #[test]
        fn $test() {
            caught(
                $theme::$case::<Broken<$channel, $flaw>>,
                stringify!($case),
                $reason,
            );
        }
    )*};
}

flaws! {
    a_lost_message_is_caught: LosesOne of Reference,
        order::a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order,
        "message 200 ";
    a_doubled_message_is_caught: DuplicatesOne of Reference,
        order::a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order,
        "message 201 ";
    exchanged_messages_are_caught: Reorders of Reference,
        order::a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order,
        "message 200 ";
    a_torn_message_is_caught: Tears of Reference,
        order::a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order,
        "message 20";
    an_overrun_receive_is_caught: IgnoresDeadlines of Reference,
        waiting::a_receive_deadline_is_neither_early_nor_late,
        "a receive overran a deadline";
    an_overrun_send_is_caught: IgnoresDeadlines of Reference,
        waiting::a_send_deadline_is_neither_early_nor_late,
        "a send overran a deadline";
    a_receive_that_comes_back_early_is_caught: ComesEarly of Reference,
        waiting::a_receive_deadline_is_neither_early_nor_late,
        "before its deadline";
    a_hang_after_the_death_of_the_peer_is_caught_with_side_and_step: HangsOnDeath of Reference,
        death::a_receiver_that_waits_learns_of_the_death_in_time,
        "home: Block: receiving while the sender is killed (asleep, since ";
    a_leaked_descriptor_is_caught: LeaksDescriptors of Reference,
        resources::ten_thousand_channels_leave_nothing_behind,
        "descriptors are left";
    a_descriptor_left_where_few_are_free_is_caught: LeaksDescriptors of Reference,
        resources::running_out_of_descriptors_is_told_by_name_and_leaves_nothing,
        "descriptors are left";
    a_descriptor_that_other_programs_inherit_is_caught: SurvivesExec of Reference,
        resources::every_descriptor_is_closed_on_exec,
        "/dev/null survives exec";
    an_allocation_for_each_message_is_caught: Allocates of Reference,
        resources::a_message_in_the_steady_state_allocates_nothing,
        "allocations of a process on its own";
    silent_truncation_is_caught: TruncatesSilently of Reference,
        sizes::a_buffer_too_small_keeps_the_message,
        "into a buffer of";
    a_stolen_name_is_caught: Steals of Reference,
        names::a_live_name_is_never_stolen,
        "instead of a refusal as in use: Ok";
    a_descriptor_that_is_never_ready_is_caught: NeverReady of Reference,
        readiness::poll_tells_of_messages_room_and_the_end,
        "home: receiving when there is something (asleep, since ";
    a_message_that_one_of_several_senders_loses_is_caught: LosesOne of InProcess,
        producers::what_several_senders_send_arrives_once_whole_and_in_the_order_of_each,
        "the next message of sender ";
    messages_that_one_of_several_senders_tears_are_caught: Tears of InProcess,
        producers::what_several_senders_send_arrives_once_whole_and_in_the_order_of_each,
        " is mixed up";
    a_message_that_two_receivers_get_is_caught: DuplicatesOne of InProcess,
        consumers::several_receivers_share_the_messages,
        "a message came twice or never";
}

#[test]
fn a_capability_that_is_declared_and_not_tested_is_caught() {
    for themes in [&[][..], &["readiness", "producers"]] {
        let outcome = catch_unwind(|| ipc_conformance::extensions_match::<Reference>(themes));
        let text = message(&*outcome.expect_err("the theme was not missed"));
        assert!(text.contains("declared"), "{text}");
    }
}
