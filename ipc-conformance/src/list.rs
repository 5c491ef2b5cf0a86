use ipc_core::{Arity, Capabilities, Channel, Consumers, Readiness};

/// Runs the whole suite on a channel family: one `#[test]` a case. Stands alone in a test target.
///
/// After the channel stand the themes of what it declares beyond the common contract: `producers`
/// for `Arity::Many`, `consumers` for `Consumers::Competing`, `readiness` for
/// `Readiness::Pollable`. One test holds them against its `CAPABILITIES`.
///
/// ```text
/// ipc_conformance::conformance_tests!(ipc_pipe::Pipe; producers, readiness);
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($channel:ty $(; $($extension:ident),+)?) => {
        $crate::support!();

        #[test]
        fn what_is_declared_is_what_is_tested() {
            $crate::extensions_match::<$channel>(&[$($(stringify!($extension)),+)?]);
        }

        $($($crate::conformance_tests! { @extension $channel; $extension })+)?
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
                visitors_of_one_name_have_channels_of_their_own
                a_name_that_was_closed_is_free_again
                a_name_can_be_used_again_after_its_listener_was_killed
                a_name_goes_on_after_its_visitor_was_killed
                a_live_name_is_never_stolen
                of_two_that_listen_at_once_at_a_name_left_by_the_dead_one_gets_it
                a_name_is_found_in_a_storm_of_signals
                a_directory_that_others_may_write_to_is_refused
                a_squatted_name_is_refused_and_left_untouched
                what_stands_at_a_name_is_closed_to_others
            }
            handoff {
                a_sender_moves_to_another_process_and_on_to_a_third
                a_receiver_moves_to_another_process_and_on_to_a_third
                messages_on_their_way_move_with_the_receiver
                ends_come_back_as_the_result_of_a_process
                parts_that_are_no_end_are_refused
                ends_that_cannot_leave_their_process_say_so
                ends_work_from_other_threads
                a_forked_copy_that_is_dropped_closes_nothing
            }
            host {
                a_send_to_nobody_raises_no_signal
                the_program_around_a_channel_is_left_alone
            }
            resources {
                ten_thousand_channels_leave_nothing_behind
                a_thousand_names_leave_nothing_behind
                processes_that_had_an_end_leave_nothing_behind
                running_out_of_descriptors_is_told_by_name_and_leaves_nothing
                every_descriptor_is_closed_on_exec
                a_message_in_the_steady_state_allocates_nothing
            }
        }
    };
    (@extension $channel:ty; producers) => {
        $crate::conformance_tests! { @each $channel;
            producers {
                what_several_senders_send_arrives_once_whole_and_in_the_order_of_each
                the_end_comes_with_the_last_of_several_senders
                a_killed_sender_takes_nothing_from_the_others
                every_one_of_several_senders_states_and_keeps_its_limits
            }
        }
    };
    (@extension $channel:ty; consumers) => {
        $crate::conformance_tests! { @each $channel;
            consumers {
                several_receivers_share_the_messages
                a_sender_learns_that_the_last_of_several_receivers_closed
            }
        }
    };
    (@extension $channel:ty; readiness) => {
        $crate::conformance_tests! { @each $channel;
            readiness {
                poll_tells_of_messages_room_and_the_end
                edges_of_epoll_tell_of_messages_room_and_the_end
                no_wake_up_is_lost_between_request_and_reply
                a_watcher_sleeps_while_nothing_happens
                a_death_wakes_those_who_watch
                a_watcher_and_a_sleeper_understand_each_other
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

/// Fails if the themes are not those that the channel's capabilities ask for.
///
/// # Panics
/// Then.
#[doc(hidden)]
pub fn extensions_match<C: Channel>(themes: &[&str]) {
    let Capabilities {
        producers,
        consumers,
        readiness,
        ..
    } = C::CAPABILITIES;
    for (theme, declared) in [
        ("producers", producers == Arity::Many),
        ("consumers", consumers == Consumers::Competing),
        ("readiness", readiness == Readiness::Pollable),
    ] {
        assert_eq!(
            themes.contains(&theme),
            declared,
            "{}: `{theme}` is declared and not tested, or tested and not declared",
            C::NAME
        );
    }
}

/// Declares cases: each runs its body in a fresh process, under the watchdog. What the ends `C::Sender`
/// and `C::Receiver` need beyond the common contract stands in front, in brackets.
macro_rules! cases {
    ($([$($end:ty: $bound:path),+])? $($(#[$doc:meta])* fn $name:ident($case:ident) $body:block)*) => {
        $crate::list::cases! { @each ($($($end: $bound),+)?) $([$(#[$doc])* fn $name($case) $body])* }
    };
    (@each $bounds:tt $($case:tt)*) => {$(
        $crate::list::cases! { @one $bounds $case }
    )*};
    (@one ($($end:ty: $bound:path),*) [$(#[$doc:meta])* fn $name:ident($case:ident) $body:block]) => {
        $(#[$doc])*
        ///
        /// # Panics
        /// When the channel does not keep this promise.
        pub fn $name<C: ipc_core::Channel>()
        where
            $($end: $bound),*
        {
            fn home<C: ipc_core::Channel>($case: $crate::harness::Case)
            where
                $($end: $bound),*
            $body

            $crate::harness::run::<C, _>(stringify!($name), home::<C>);
        }
    };
}
pub(crate) use cases;
