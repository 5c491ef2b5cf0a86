/// Runs the whole suite on a channel family: one `#[test]` a case. Stands alone in a test target.
///
/// ```text
/// ipc_conformance::conformance_tests!(ipc_pipe::Pipe);
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($channel:ty) => {
        $crate::support!();
        $crate::conformance_tests! { @each $channel;
            sizes {
                an_empty_message_is_carried_or_refused_as_declared
                a_message_of_one_byte_arrives
                messages_of_every_small_length_arrive_whole
                the_longest_message_arrives_whole
                one_byte_more_than_the_longest_is_refused_and_nothing_is_sent
                a_buffer_too_small_keeps_the_message
                a_vector_grows_to_the_message
                a_batch_arrives_like_single_messages
                both_ends_state_the_same_longest_message
            }
            order {
                a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order
                every_wait_strategy_carries_the_same_messages
                a_reply_follows_each_request
            }
            waiting {
                an_empty_channel_says_so_at_once
                a_full_channel_says_so_at_once_and_loses_nothing
                a_receive_deadline_is_neither_early_nor_late
                a_send_deadline_is_neither_early_nor_late
                a_moment_that_has_passed_still_makes_one_attempt
                a_sleeping_receiver_wakes_for_a_message
                a_sleeping_sender_wakes_for_room
                deadlines_hold_in_a_storm_of_signals
                messages_arrive_in_a_storm_of_signals
            }
            ending {
                the_end_comes_after_the_last_message_of_a_full_channel
                a_waiting_receiver_learns_that_the_sender_closed
                a_sender_learns_that_the_receiver_closed
                a_sender_waiting_for_room_learns_that_the_receiver_closed
            }
            death {
                what_a_killed_sender_committed_arrives_before_its_death_is_told
                a_sender_survives_the_kill_of_its_receiver_and_learns_of_it
                a_receiver_that_waits_learns_of_the_death_in_time
                a_sender_that_waits_learns_of_the_death_in_time
                a_stopped_sender_is_not_dead
                a_stopped_receiver_is_not_dead
            }
            names {
                a_name_where_nobody_listens_is_not_found
                a_listener_whom_nobody_visits_times_out
                a_visitor_finds_a_listener_by_name
                a_visitor_waits_for_a_listener_that_comes_later
                a_name_that_was_closed_is_free_again
                a_name_can_be_used_again_after_its_listener_was_killed
                a_name_goes_on_after_its_visitor_was_killed
                a_live_name_is_never_stolen
                a_directory_that_others_may_write_to_is_refused
                a_squatted_name_is_refused_and_left_untouched
                what_stands_at_a_name_is_closed_to_others
            }
            handoff {
                a_sender_moves_to_another_process_and_on_to_a_third
                a_receiver_moves_to_another_process_and_on_to_a_third
                messages_on_their_way_move_with_the_receiver
                parts_that_are_no_end_are_refused
                ends_that_cannot_leave_their_process_say_so
                ends_work_from_other_threads
            }
            resources {
                ten_thousand_channels_leave_nothing_behind
                a_thousand_names_leave_nothing_behind
                processes_that_had_an_end_leave_nothing_behind
                every_descriptor_is_closed_on_exec
                a_message_in_the_steady_state_allocates_nothing
            }
        }
    };
    (@each $channel:ty; $($theme:ident { $($case:ident)* })*) => {$($(
        #[test]
        fn $case() {
            $crate::$theme::$case::<$channel>();
        }
    )*)*};
}

/// What a test target needs once to run cases: the entry of peer processes and the allocator that
/// counts.
#[macro_export]
macro_rules! support {
    () => {
        $crate::ipc_process::test_support!();

        #[global_allocator]
        static ALLOCATOR: $crate::Counting = $crate::Counting;
    };
}

/// Declares cases: each runs its body in a fresh process, under the watchdog.
macro_rules! cases {
    ($($(#[$doc:meta])* fn $name:ident($case:ident) $body:block)*) => {$(
        $(#[$doc])*
        ///
        /// # Panics
        /// When the channel does not keep this promise.
        pub fn $name<C: ipc_core::Channel>() {
            fn home<C: ipc_core::Channel>($case: $crate::harness::Case) $body
            $crate::harness::run::<C, _>(stringify!($name), home::<C>);
        }
    )*};
}
pub(crate) use cases;
