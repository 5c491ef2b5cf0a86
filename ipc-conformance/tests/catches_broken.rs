//! The suite is worth something: each flaw is caught by the case that is meant to catch it, for
//! the reason that it has.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ipc_conformance::{
    Allocates, Broken, Buffers, ChangesUmask, ComesEarly, DeclaresEmpty, DuplicatesOne, EndsEarly,
    Forgets, HangsOnDeath, IgnoresDeadlines, InProcess, KeepsName, LeaksDescriptors, LosesOne,
    MisstatesDepth, MisstatesNeed, NeverReady, OverstatesLongest, RaisesSignal, Reference,
    Reorders, SendsLate, SleepsIn, Steals, SurvivesExec, Tears, TruncatesSilently,
    UnderstatesLongest, consumers, death, ending, host, names, order, producers, readiness,
    resources, sizes, waiting, with_patience,
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
    a_message_that_waits_for_the_next_is_caught: Buffers of Reference,
        order::a_reply_follows_each_request,
        "home: Block: asking from 0 on (asleep, since ";
    a_message_that_is_lost_with_its_sender_is_caught: Buffers of Reference,
        death::what_a_killed_sender_committed_arrives_before_its_death_is_told,
        " committed, ";
    an_end_before_the_last_message_is_caught: EndsEarly of Reference,
        ending::the_end_comes_after_the_last_message_of_a_full_channel,
        "instead of message ";
    a_message_that_timed_out_and_arrives_is_caught: SendsLate of Reference,
        waiting::a_send_deadline_is_neither_early_nor_late,
        "is wrong from byte 0 on";
    a_message_lost_to_a_small_buffer_is_caught: Forgets of Reference,
        sizes::a_buffer_too_small_keeps_the_message,
        "into a buffer of";
    a_misstated_need_is_caught: MisstatesNeed of Reference,
        sizes::a_buffer_too_small_keeps_the_message,
        "into a buffer of";
    a_limit_that_is_too_long_is_caught: OverstatesLongest of Reference,
        sizes::the_longest_message_arrives_whole,
        "message 0: the sender was closed";
    a_limit_that_is_too_short_is_caught: UnderstatesLongest of Reference,
        sizes::one_byte_more_than_the_longest_is_refused_and_nothing_is_sent,
        " fit: Ok";
    a_misstated_depth_is_caught: MisstatesDepth of Reference,
        waiting::a_full_channel_says_so_at_once_and_loses_nothing,
        "the depth that the limits state";
    a_sleeper_that_wakes_at_its_deadline_only_is_caught: SleepsIn of Reference,
        waiting::a_sleeping_receiver_wakes_for_a_message,
        "receiver: receiving (asleep, since ";
    a_name_that_is_kept_is_caught: KeepsName of Reference,
        names::a_name_that_was_closed_is_free_again,
        "it is free: NameInUse";
    a_signal_for_a_send_to_nobody_is_caught: RaisesSignal of Reference,
        host::a_send_to_nobody_raises_no_signal,
        "home: sending to a receiver that closed (ended, since ";
    a_changed_umask_is_caught: ChangesUmask of Reference,
        host::the_program_around_a_channel_is_left_alone,
        "after the use of channels, and before";
    a_false_declaration_is_caught: DeclaresEmpty of Reference,
        sizes::an_empty_message_is_carried_or_refused_as_declared,
        "message 0: the sender was closed";
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
