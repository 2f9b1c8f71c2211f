//! The contract of `trait Broker`, as tests: written once, run on every backend by one line below.
//!
//! A test gets a [`Harness`] with a fresh broker. What only one backend can show is in `sqlite_only.rs` and its like.

mod by_hand;
mod claim;
pub mod harness;
mod lease;
mod logs;
mod look;
mod prune;
pub mod records;
mod run;
mod submit;
mod types;
mod wakeups;

use std::sync::Arc;

use harness::Harness;

use crate::redis as servers;
use ryemill::broker::redis::{Namespace, RedisBroker, Target};
use ryemill::broker::sqlite::{SqliteBroker, SyncMode};
use ryemill::job::Timestamp;
use ryemill::job::time::ManualClock;

macro_rules! contract_tests {
    ($backend:ident, $open:path) => {
        mod $backend {
            contract_tests!(@group $open, submit, [
                a_job_is_stored_as_given,
                a_delayed_job_is_scheduled,
                a_large_payload_comes_back_whole,
                many_jobs_are_answered_in_order,
                an_id_that_exists_is_left_as_it_is_in_every_state,
                an_id_twice_in_one_call_is_stored_once,
                of_concurrent_enqueues_of_one_id_one_creates,
                the_first_reservation_of_a_key_stands_until_its_time_is_over,
                of_concurrent_reservations_one_is_first_and_all_get_it,
            ]);
            contract_tests!(@group $open, claim, [
                a_claimed_job_says_all_that_a_run_needs,
                a_burst_goes_by_priority_and_then_in_order,
                within_a_priority_the_first_in_is_the_first_out,
                priority_holds_across_types,
                queues_are_served_in_the_order_given,
                a_type_that_the_worker_lacks_is_passed_over_and_blocks_nothing,
                a_paused_queue_gives_nothing_until_it_is_resumed,
                a_queue_without_jobs_can_be_paused_beforehand,
                a_scheduled_job_is_claimed_when_its_time_has_come,
                next_due_is_of_the_queues_that_were_asked_for,
                only_queued_jobs_are_claimed,
                a_claim_needs_a_live_lease,
                two_claims_never_get_the_same_run,
                a_claim_made_again_gives_the_same_runs_as_far_as_they_go_on,
            ]);
            contract_tests!(@group $open, run, [
                a_result_ends_the_job,
                an_error_ends_the_job,
                a_cancelled_run_ends_the_job,
                a_retry_waits_its_delay_and_burns_the_attempt,
                a_retry_without_delay_is_due_at_once,
                a_release_gives_the_attempt_back,
                a_job_whose_cancel_mark_is_set_ends_instead_of_going_on,
                a_batch_of_ends_is_answered_one_by_one,
                a_stale_token_is_refused_by_every_verb_in_every_state,
                the_token_of_an_ended_run_is_stale,
                the_last_progress_wins_and_goes_with_its_run,
                files_are_listed_by_name_and_replaced,
                extend_gives_a_run_more_time,
            ]);
            contract_tests!(@group $open, logs, [
                lines_come_back_as_given_and_in_order,
                a_reader_goes_on_after_a_line,
                numbers_go_on_over_attempts_and_after_the_end,
                a_stale_run_adds_nothing_and_stops_no_other,
                over_the_limit_the_oldest_lines_go_and_are_counted,
                a_batch_over_the_limit_keeps_its_newest_lines,
                lines_that_the_worker_dropped_are_counted,
                a_batch_that_comes_again_adds_nothing,
                of_a_batch_that_is_known_in_part_the_rest_is_added,
                another_run_of_the_job_begins_at_its_own_first_line,
                a_job_that_is_not_there_has_no_log_and_a_silent_one_an_empty_log,
            ]);
            contract_tests!(@group $open, lease, [
                renew_registers_a_worker_and_keeps_it,
                renew_answers_the_runs_that_are_to_be_cancelled,
                a_worker_that_was_swept_never_comes_back,
                a_lost_run_starts_again_without_a_burned_attempt,
                a_sweep_leaves_live_runs_and_ended_jobs_alone,
                a_run_over_its_time_is_lost_even_if_its_worker_renews,
                three_charged_losses_fail_the_job,
                a_blamed_run_is_lost_at_once,
                five_uncharged_losses_make_a_suspect,
                a_claim_gets_one_suspect_at_most,
                a_retry_by_hand_clears_the_charges,
                a_lost_run_whose_cancel_mark_is_set_ends_cancelled,
                a_sweep_of_very_many_runs_says_that_there_is_more,
                concurrent_sweeps_lose_a_run_once,
                a_sweep_moves_due_jobs_on,
                a_worker_that_retires_gives_its_runs_back,
            ]);
            contract_tests!(@group $open, by_hand, [
                cancel_does_what_the_state_allows,
                retry_does_what_the_table_allows,
                a_retried_job_has_all_its_attempts_again,
                delete_does_what_the_state_allows,
                a_deleted_jobs_log_does_not_come_back_with_its_id,
                a_job_that_is_not_there_is_not_found,
            ]);
            contract_tests!(@group $open, prune, [
                an_ended_job_goes_when_its_time_is_over,
                the_oldest_ended_jobs_of_a_queue_go_when_they_need_too_much,
                a_log_counts_too,
                results_and_errors_count_too,
                a_job_that_has_not_ended_is_never_pruned,
                a_job_retried_by_hand_is_kept_and_its_bytes_are_not_counted,
                a_prune_is_bounded,
                a_reservation_that_is_not_over_survives,
            ]);
            contract_tests!(@group $open, look, [
                a_job_that_is_not_there_is_none,
                a_list_is_newest_first_and_filtered,
                a_page_is_limited_and_the_last_one_has_no_cursor,
                a_walk_gives_every_job_once_while_others_come_and_move,
                a_rare_tag_is_found_page_by_page,
                a_cursor_that_is_none_is_refused,
                queues_show_their_counts_and_how_long_the_first_has_waited,
                a_queued_job_says_why_it_waits,
                lists_do_not_repeat_ids_over_queues,
            ]);
            contract_tests!(@group $open, records, [
                a_healthy_broker_has_no_faults,
                work_that_goes_on_is_no_fault,
            ]);
            contract_tests!(@group $open, types, [
                a_request_to_reload_is_numbered_and_done_by_each_worker,
                a_published_type_is_known_with_all_it_says,
                the_version_that_was_first_published_last_is_live,
                an_edit_taken_back_is_live_again,
                a_worker_that_replaces_an_old_version_does_not_move_the_live_one,
                the_whole_list_replaces_the_one_before_and_the_type_stays_known,
                a_worker_without_a_lease_has_no_types,
                a_refused_version_is_shown_until_the_worker_publishes_without_it,
            ]);
            contract_tests!(@group $open, wakeups, [
                work_wakes_when_jobs_may_be_claimable,
                a_sweep_that_gives_runs_back_wakes_work,
                jobs_wakes_at_every_change_of_a_job,
                cancel_and_types_have_wake_ups_of_their_own,
                who_comes_to_wait_later_is_woken_too,
                a_ping_is_answered,
            ]);
        }
    };
    (@group $open:path, $group:ident, [$($test:ident),* $(,)?]) => {
        mod $group {
            $(
                #[tokio::test]
                async fn $test() {
                    crate::contract::$group::$test($open().await).await;
                }
            )*
        }
    };
}

contract_tests!(sqlite, crate::contract::open_sqlite);
contract_tests!(redis, crate::contract::open_redis);
contract_tests!(redis_cluster, crate::contract::open_cluster);

/// When the manual clocks start.
pub const START: Timestamp = Timestamp(1_800_000_000_000_000);

pub async fn open_sqlite() -> Harness {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(START));
    // What the tests show does not depend on the disk; `sqlite_only.rs` has what does.
    let broker =
        SqliteBroker::open_with_clock(&folder.path().join("broker.db"), SyncMode::Normal, clock.clone()).unwrap();
    Harness::new(Arc::new(broker), Some(clock), folder)
}

/// A namespace of its own on the server that all tests share, under a clock that the test moves.
pub async fn open_redis() -> Harness {
    open_target(Target::one(&servers::shared().await.url()).unwrap())
}

async fn open_cluster() -> Harness {
    let cluster = servers::shared_cluster().await;
    let nodes: Vec<String> = cluster.nodes().iter().map(servers::RedisServer::url).collect();
    open_target(Target::cluster(&nodes.iter().map(String::as_str).collect::<Vec<_>>()).unwrap())
}

fn open_target(target: Target) -> Harness {
    let clock = Arc::new(ManualClock::at(START));
    let names = Namespace::new(&format!("t-{}", rand::random::<u64>()));
    Harness::new(Arc::new(RedisBroker::with_clock(target, names, clock.clone())), Some(clock), ())
}
