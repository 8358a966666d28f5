//! Tests over the wire: real Envoy, real Postgres, real Redis-compatible server.
//!
//! Each server starts when a test first needs it; the others share it, and each test has its own
//! database and Redis database. Tests are plain async functions, registered below. When all have
//! run, the logs and the contents of the stores are searched for every token and credential that
//! the tests made.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test without libtest's harness, for which clippy makes its exceptions"
)]

mod alerts;
mod bodies;
mod bulk;
mod canary;
mod cases;
mod cli;
mod clients;
mod clocks;
mod costly;
mod credentials;
mod decision_log;
mod edges;
mod envoy_habits;
mod failover;
mod faults;
mod feed;
mod floods;
mod front;
mod grpc;
mod guard;
mod https;
mod installations;
mod key_rings;
mod last_use;
mod lists;
mod live;
mod locked;
mod log_level;
mod logged_paths;
mod losses;
mod metrics;
mod other_authentication;
mod output;
mod own_backends;
mod passwords;
mod places;
mod ports;
mod postgres_tls;
mod promises;
mod promotion;
mod propagation;
mod races;
mod rate_limits;
mod recording;
mod redis_access;
mod redis_topology;
mod relay;
mod routes;
mod schema;
mod servers;
mod serving;
mod shadow;
mod site;
mod soak;
mod startup;
mod supervision;
mod support;
mod surfaces;
mod tiers;
mod traces;
mod transport;
mod two_steps;
mod upgrades;
mod uploads;
mod waiting;
mod web;
mod websocket;
mod words;

use std::{process::ExitCode, sync::Arc};

use clients::{CLIENTS, Client};
use libtest_mimic::{Arguments, Failed, Trial};
use support::{Suite, leaks, previous};

macro_rules! tests {
    ($suite:expr, $($test:path),+ $(,)?) => { tests!(run: $suite, $($test),+) };
    ($run:ident: $suite:expr, $($test:path),+ $(,)?) => {
        vec![$({
            let suite = Arc::clone($suite);
            Trial::test(stringify!($test), move || {
                suite.clone().$run(stringify!($test), $test(suite));
                Ok::<(), Failed>(())
            })
        }),+]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests wait for servers more than they compute.
    arguments.test_threads.get_or_insert(3);
    let suite = Arc::new(Suite::prepare());
    // Each uses the whole machine, and would make the others too slow.
    let mut trials = tests![
        run_alone: &suite,
        relay::a_large_fleet_spares_postgres,
        ports::envoy_finds_a_stream_for_each_check,
        losses::connections_that_lead_nowhere_are_given_up,
        losses::connections_to_redis_that_lead_nowhere_are_given_up,
        costly::one_token_is_denied_at_a_bounded_rate,
        costly::neighbours_of_a_costly_token_are_served,
        floods::forged_tokens_are_turned_away,
        floods::five_thousand_forged_tokens_a_second,
        floods::unknown_tokens_are_asked_for_in_batches,
        floods::a_herd_is_served,
        floods::one_owners_flood_leaves_others_their_share,
        floods::paced_unknown_tokens_cost_a_bounded_rate,
        site::floods::a_flood_fails_no_check,
    ];
    // What takes long begins early, so that nothing is left to wait for at the end.
    if clients::all_are_wanted() {
        trials.extend(tests![&suite, site::browser::people_make_use_and_revoke_tokens]);
    }
    // `make client-test` and `make test-all` run all of them; some need Node.
    let wanted = |client: &&Client| client.needs_only_python() || clients::all_are_wanted();
    trials.extend(CLIENTS.iter().filter(wanted).map(|client| {
        let suite = Arc::clone(&suite);
        let name = format!("clients::{}", client.script);
        Trial::test(name.clone(), move || {
            let test = clients::shows_what_its_user_has_to_know(Arc::clone(&suite), client);
            suite.run(&name, test);
            Ok(())
        })
    }));
    // `make soak` runs it, and nothing else.
    if soak::is_wanted() {
        trials.extend(tests![&suite, soak::every_answer_is_accounted_for]);
    }
    // `make grpc-test` and `make test-all` run it; they need Go.
    if grpc::has_grpcurl() {
        trials.extend(tests![
            &suite,
            grpc::grpcurl_hears_every_status,
            grpc::grpcurl_finds_services_and_messages_by_reflection
        ]);
    }
    // `make upgrade-test` and `make test-all` run it; they need the history of the repository.
    if previous::is_built() {
        trials.extend(tests![
            &suite,
            upgrades::the_previous_release_serves_while_the_schema_is_migrated,
            upgrades::a_rollout_and_a_rollback_fail_no_request,
            upgrades::the_previous_commands_work_on_the_migrated_schema,
            upgrades::self_service::both_work_on_the_migrated_schema,
            upgrades::early::a_replica_waits_for_its_schema_and_serves_without_a_restart,
            upgrades::early::nothing_uses_an_older_schema,
        ]);
    }
    // By `make alerts-test`, which runs nothing else.
    if alerts::are_wanted() {
        trials.extend(tests![
            &suite,
            alerts::rules_and_their_tests_pass_promtool,
            alerts::the_page_of_metrics_passes_promtool,
            alerts::commands::of_the_runbook_succeed,
            alerts::commands::the_filter_of_the_runbook_blocks_an_address,
            alerts::each_fires_for_its_event_and_for_nothing_else,
            alerts::rotations::of_the_key_ring_fire_none,
        ]);
    }
    trials.extend(tests![
        &suite,
        cases::over_grpc,
        cases::through_envoy,
        cases::through_the_command_line,
        cases::through_the_command_line_in_shadow,
        cases::every_mutation_of_a_token_is_refused,
        words::not_found::a_path_that_no_rule_names_explains_itself,
        words::models::a_refused_model_is_named_with_what_may_be_used,
        words::models::a_refused_domain_is_named_in_every_form,
        words::models::what_is_no_token_is_said_without_repeating_it,
        words::models::a_refusal_by_a_domains_list_names_its_models,
        words::models::a_body_is_refused_for_what_it_is,
        words::models::a_client_shows_which_models_may_be_used,
        words::not_found::an_unknown_path_passes_in_a_rollout_where_a_403_does,
        words::not_found::a_client_with_a_wrong_base_url_shows_the_right_one,
        bodies::the_model_is_read_or_the_call_refused,
        bodies::in_one_step_the_backend_reads_the_same_model,
        bodies::in_two_steps_the_backend_reads_the_same_model,
        bodies::in_two_steps_each_is_decided_as_in_one,
        bodies::no_reader_reads_another_model,
        bodies::where_no_model_matters_no_body_is_read,
        bodies::every_model_is_read_where_that_is_set,
        bodies::a_domains_list_of_models_decides,
        bodies::explained::each_is_explained_as_it_is_read,
        bodies::explained::each_listed_model_is_explained,
        lists::the_list_is_what_the_token_may_use,
        lists::one_model_is_answered_as_the_list_shows_it,
        lists::openai_lists_what_it_may_use,
        lists::a_list_is_distinguished_from_an_allow_and_a_denial,
        lists::a_rollout_answers_no_lists,
        lists::envoy_sends_it_as_a_backends_answer,
        lists::a_long_list_arrives_whole,
        metrics::every_series_exists_from_the_start,
        metrics::the_two_formats_say_the_same,
        traces::exemplars_name_recorded_traces,
        traces::only_what_envoy_records_has_a_span,
        traces::a_shared_lookup_is_in_one_trace,
        traces::an_outage_is_an_error_in_the_trace,
        traces::through_envoy_a_trace_is_whole,
        traces::a_receiver_that_is_down_or_silent_costs_only_spans,
        traces::a_receiver_is_verified,
        traces::headers_are_sent_to_the_receiver,
        log_level::is_changed_by_a_file,
        serving::drains_before_it_ends,
        serving::an_empty_request_is_denied,
        serving::a_message_that_is_too_long_is_an_outage,
        serving::does_not_start_without_postgres,
        serving::an_address_in_use_is_told_once,
        startup::before_its_stores_it_waits_and_then_serves,
        startup::it_starts_without_redis,
        startup::all_that_is_missing_is_named_at_once,
        startup::an_old_schema_keeps_it_from_serving,
        startup::a_store_that_falls_silent_is_named,
        startup::a_standby_keeps_it_from_serving,
        startup::a_login_that_may_administer_keeps_it_from_serving,
        supervision::the_death_of_any_task_ends_the_process,
        grpc::grpcio_hears_every_status,
        grpc::envoy_may_send_headers_raw,
        ports::heads_without_bodies_hold_little_memory,
        ports::idle_connections_of_one_port_leave_room_for_the_other,
        output::a_blocked_output_ends_and_delays_nothing,
        output::an_output_that_is_read_again_says_what_was_lost,
        output::a_blocked_output_does_not_hang_the_start,
        output::a_warning_that_cannot_be_written_fails_no_command,
        output::a_file_gets_no_colours,
        surfaces::side_by_side_over_grpc,
        surfaces::side_by_side_through_envoy,
        surfaces::each_is_explained_as_it_answers,
        surfaces::every_type_of_entity_has_rules_and_scopes,
        surfaces::changed_tables_are_taken_up_and_no_request_is_lost,
        surfaces::a_hangup_reads_the_tables_again,
        surfaces::mistakes_in_tables_are_told_before_serving,
        waiting::returns_when_all_replicas_refuse,
        waiting::names_a_replica_that_lags,
        waiting::names_the_session_that_locks_the_leases,
        routes::a_domain_is_served_without_a_restart,
        routes::nothing_is_removed_without_an_answer,
        routes::two_replicas_share_a_folder,
        routes::a_dead_keeper_ends_the_process,
        routes::an_export_is_the_same_each_time,
        routes::a_restored_copy_leaves_the_file_alone,
        routes::a_reserved_name_leads_nowhere,
        cli::audit::each_change_is_recorded_once,
        cli::audit::the_record_can_be_searched,
        cli::caches::a_replica_that_starts_later_obeys_a_change,
        cli::caches::a_running_replica_follows_within_the_bound,
        cli::caches::a_slug_is_free_at_once,
        cli::caches::without_redis_a_change_is_made_all_the_same,
        cli::check::the_nearest_miss_is_named,
        cli::check::nothing_is_told_of_a_token_that_is_not_there,
        cli::check::files_hold_what_no_argument_may,
        cli::check::the_entry_in_redis_is_shown_beside_postgres,
        cli::check::a_replica_is_asked_and_compared,
        cli::check::a_replica_that_softens_is_compared_by_its_verdict,
        cli::connect::postgres_and_feed_are_tried,
        cli::connect::a_silent_service_is_waited_for_with_a_word,
        cli::connect::what_self_service_needs_is_tried,
        cli::connect::a_credential_that_the_ring_cannot_open_is_named,
        cli::demo::a_domain_and_a_token_made_by_commands_work,
        cli::errors::every_refusal_has_its_exit_code,
        cli::errors::what_cannot_be_reached_or_opened_is_named,
        cli::errors::a_login_without_the_privilege_is_denied,
        cli::errors::a_misplaced_secret_is_not_repeated,
        cli::keyring::keys_rotate,
        cli::keyring::a_key_in_use_is_not_dropped,
        cli::keyring::a_ring_that_others_may_write_is_not_used,
        cli::memory::is_in_no_core_dump,
        cli::keys::tokens_are_found_and_revoked_by_their_key,
        cli::keys::keys_that_a_ring_lacks_are_counted,
        cli::unaudited::what_a_thief_has_changed_is_listed,
        cli::revocation::a_leaked_token_is_revoked_by_its_text,
        cli::revocation::leaked_tokens_are_found_in_any_text,
        cli::revocation::tokens_are_revoked_in_bulk,
        bulk::revocations_and_rotations_do_not_deadlock,
        cli::self_service::an_invitation_is_printed_once,
        cli::self_service::an_operator_signs_a_user_out,
        cli::self_service::limits_hold_for_commands,
        cli::self_service::providers_and_links_are_managed,
        cli::settings::every_mistake_at_once,
        cli::settings::secrets_come_by_file_or_environment,
        cli::settings::files_that_others_may_write_are_refused,
        cli::settings::completions_parse,
        cli::shapes::json_has_its_members,
        cli::shapes::tables_are_for_people,
        cli::shapes::no_text_shows_as_another,
        cli::tokens::scopes_hold_colons_and_slashes,
        cli::tokens::tokens_rotate_at_once_or_after_a_grace,
        cli::tokens::deletion_takes_along_what_hangs_on_it,
        cli::updates::each_prints_what_show_prints,
        cli::updates::every_change_is_known,
        schema::blocking::a_replicas_login_holds_up_no_change,
        schema::blocking::a_command_that_waits_names_who_holds_the_lock,
        schema::blocking::an_audit_line_cannot_be_forged,
        schema::blocking::a_token_of_the_future_is_refused_and_counted,
        schema::closing::a_database_is_closed_to_strangers,
        schema::closing::logins_that_lose_access_to_the_database_are_reported,
        schema::constraints::the_vocabulary_is_the_programs,
        schema::constraints::rows_that_mean_nothing_are_refused,
        schema::constraints::deletion_cascades,
        schema::locks::look_ups_go_on_while_a_migration_waits,
        schema::majors::other_versions_of_postgres,
        schema::migrating::any_login_with_the_privileges_can_migrate,
        schema::models::an_empty_list_permits_no_model,
        schema::models::a_migration_keeps_the_models_that_each_domain_sees,
        schema::notices::a_full_queue_holds_up_no_change,
        schema::notices::a_commit_that_takes_long_holds_up_no_change,
        schema::notices::commands_notify_and_bare_sql_is_polled,
        schema::notices::a_command_wakes_who_listens,
        schema::notices::no_key_and_no_login_holds_up_pruning,
        schema::pooler::everything_works_behind_a_pooler,
        schema::pooler::a_feed_behind_a_pooler_is_told,
        schema::pooler::too_few_connections_are_told,
        schema::pooler::a_feed_that_comes_to_lead_through_a_pooler_is_found_out,
        schema::pooler::a_pooler_makes_no_two_leaders,
        schema::privileges::a_replica_may_read_and_keep_its_lease,
        schema::privileges::an_administrator_may_not_rewrite_history,
        schema::privileges::a_stranger_may_nothing,
        schema::privileges::self_service_has_no_table,
        schema::privileges::proofs_and_digests_are_not_read,
        schema::privileges::nobody_edits_the_audit_log,
        schema::privileges::everything_belongs_to_the_migrating_role,
        schema::privileges::nobody_executes_what_is_not_meant_for_them,
        schema::pruning::a_backlog_is_pruned_in_slices,
        schema::pruning::a_transaction_that_has_written_cannot_prune,
        schema::versions::this_version_and_the_next_are_served,
        two_steps::the_single_step_differs_only_where_it_says_so,
        two_steps::a_body_is_shown_only_where_it_matters,
        two_steps::what_is_lost_of_two_steps_reaches_no_backend,
        two_steps::a_token_has_so_many_bodies_awaited,
        two_steps::a_chosen_request_id_hides_no_body,
        two_steps::thirty_megabytes_are_read,
        two_steps::both_steps_ask_the_same_replica,
        two_steps::a_body_counts_for_as_long_as_it_may_take,
        two_steps::the_first_route_has_the_paths_of_all_that_lead_to_backends,
        https::has_what_the_plain_listener_has,
        https::envoy_starts_without_certificates,
        https::the_client_chooses_the_protocol,
        https::a_renewed_certificate_is_taken_up,
        https::a_handshake_that_does_not_end_is_ended,
        https::no_private_key_is_in_the_repository,
        other_authentication::the_file_differs_only_where_it_says_so,
        other_authentication::each_route_serves_as_before_patgate,
        other_authentication::only_a_good_jwt_reaches_the_api,
        other_authentication::a_server_that_is_away_is_told_as_before,
        other_authentication::attacks::no_spelling_of_a_path_opens_a_model,
        other_authentication::attacks::no_other_part_of_a_request_opens_a_model,
        other_authentication::attacks::no_exception_is_for_an_upgrade,
        other_authentication::guarded::each_error_around_an_exception_is_refused,
        other_authentication::guarded::a_redirect_leads_from_neither_side_to_the_other,
        other_authentication::guarded::patgate_names_no_cluster_of_an_exception,
        other_authentication::filters::a_filter_sees_what_patgate_has_added,
        other_authentication::filters::code_behind_ext_authz_is_as_trusted_as_patgate,
        other_authentication::filters::other_authentication_belongs_behind_ext_authz,
        other_authentication::filters::nothing_stands_behind_the_guard,
        other_authentication::rollout::each_mount_has_its_old_service,
        guard::what_patgate_did_not_let_through_reaches_no_backend,
        guard::the_guard_leaves_alone_what_it_is_not_for,
        guard::words::the_guard_takes_no_other_services_word,
        guard::words::answers_of_authorization_pass_byte_for_byte,
        guard::local_replies::envoys_own_answers_have_the_form_of_the_api,
        guard::local_replies::where_no_head_was_read_envoy_answers_as_openai,
        guard::local_replies::a_backend_that_is_lost_within_an_upload_is_told,
        envoy_habits::an_empty_answer_is_an_allow,
        envoy_habits::a_denial_without_a_code_is_an_allow,
        envoy_habits::an_error_without_a_code_is_an_allow,
        envoy_habits::as_shipped_an_allow_that_names_no_backend_reaches_none,
        envoy_habits::a_denial_is_sent_on_whatever_failures_do,
        envoy_habits::an_error_is_sent_on_unless_failures_are_allowed,
        envoy_habits::a_bare_refusal_is_403_without_a_body,
        envoy_habits::an_allow_with_a_code_is_403_without_a_body,
        envoy_habits::a_grpc_error_is_503_unless_failures_are_allowed,
        envoy_habits::silence_is_503_unless_failures_are_allowed,
        envoy_habits::the_longest_pause_between_tries_ends_a_try,
        envoy_habits::nobody_there_is_503_unless_failures_are_allowed,
        envoy_habits::a_denied_grpc_client_sees_200_and_a_grpc_status,
        envoy_habits::where_no_route_matches_nobody_is_asked,
        envoy_habits::as_shipped_every_path_is_checked,
        envoy_habits::the_answer_chooses_the_backend_whatever_the_client_sent,
        envoy_habits::without_clear_route_cache_the_client_chooses_the_backend,
        envoy_habits::only_a_header_set_or_removed_clears_the_route_cache,
        envoy_habits::a_removed_header_takes_its_route_with_it,
        envoy_habits::an_unknown_backend_is_503,
        envoy_habits::what_has_no_path_gets_nowhere,
        envoy_habits::a_stream_passes_unbuffered,
        envoy_habits::repeated_authorization_arrives_joined_with_a_comma,
        envoy_habits::the_check_sees_the_path_normalized,
        envoy_habits::an_escaped_slash_is_refused_unchecked,
        envoy_habits::as_shipped_a_header_with_an_underscore_reaches_nobody,
        envoy_habits::as_shipped_a_body_that_names_no_model_is_neither_shown_nor_waited_for,
        envoy_habits::as_shipped_every_body_that_may_name_a_model_is_shown,
        envoy_habits::a_body_is_shown_as_it_is_and_waited_for,
        envoy_habits::as_shipped_a_body_is_shown_whole_or_is_too_large,
        envoy_habits::a_longer_body_is_cut_and_passes_on_whole,
        envoy_habits::a_cut_just_where_showing_ends_is_called_whole,
        envoy_habits::only_envoy_says_what_was_shown,
        envoy_habits::a_route_cannot_ask_for_bytes,
        envoy_habits::a_check_is_tried_again_only_with_a_short_body,
        envoy_habits::more_checks_at_a_time_than_by_default_are_asked_as_shipped,
        envoy_habits::as_shipped_no_check_sees_the_clients_copies,
        envoy_habits::as_shipped_no_backend_sees_another_host_path_or_method,
        envoy_habits::as_shipped_a_check_sees_what_patgate_reads,
        envoy_habits::as_shipped_no_header_that_misleads_reaches_a_backend,
        envoy_habits::as_shipped_ordinary_headers_reach_the_backend,
        envoy_habits::as_shipped_the_backend_gets_its_own_host,
        envoy_habits::as_shipped_a_hundred_headers_pass_and_too_many_are_told,
        envoy_habits::as_shipped_a_head_that_has_no_room_for_ours_is_told,
        envoy_habits::as_shipped_too_many_headers_are_told_in_each_form,
        envoy_habits::a_header_of_the_answer_replaces_every_copy,
        envoy_habits::every_append_action_overwrites,
        envoy_habits::the_old_append_keeps_the_clients_copies,
        envoy_habits::a_removal_takes_every_copy,
        envoy_habits::the_answer_may_set_and_remove_our_headers,
        envoy_habits::an_answer_that_touches_anything_else_is_an_error,
        envoy_habits::a_clients_traceparent_reaches_the_backend,
        envoy_habits::dynamic_metadata_reaches_the_access_log,
        uploads::as_shipped_a_streams_window_holds_what_is_shown,
        uploads::no_client_waits_for_the_answer_to_a_refused_upload,
        uploads::an_upload_that_does_not_end_is_ended,
        uploads::an_answer_that_nobody_reads_holds_little,
        uploads::beyond_its_limit_envoy_sheds_uploads,
        tiers::each_tier_spares_the_next,
        tiers::a_forged_token_reaches_no_store,
        tiers::a_thousand_first_uses_are_one_query,
        tiers::unknown_tokens_are_remembered_apart,
        tiers::a_late_reply_answers_no_later_request,
        tiers::postgres_may_be_away,
        tiers::nothing_is_older_than_max_staleness,
        tiers::without_the_feed_entries_are_refreshed_ahead,
        tiers::an_outage_is_told_in_our_words,
        tiers::one_bad_row_spoils_no_other,
        clients::openai_reads_models_and_chats,
        clients::openai_tells_refusals_apart,
        clients::recorded::requests_of_chat_uis_and_editors_are_served,
        credentials::the_backend_sees_its_own_and_no_token,
        credentials::no_other_part_of_an_answer_contains_the_credential,
        credentials::a_change_is_obeyed_at_once_by_whatever_means,
        credentials::a_domain_that_takes_up_a_backend_during_a_change_uses_the_new_credential,
        credentials::a_moved_or_changed_credential_is_not_used,
        credentials::keys_rotate,
        credentials::mistakes_are_told_and_not_repeated,
        places::no_token_reaches_a_backend,
        live::a_forged_entry_goes_with_its_key,
        live::keys_rotate_as_documented,
        live::a_credential_opens_while_its_key_is_there,
        live::the_last_key_of_an_installation_is_replaced,
        live::a_forged_frame_goes_with_its_key,
        live::a_bad_ring_keeps_the_old_one,
        live::settings_with_an_error_change_nothing,
        live::a_lost_ring_is_replaced_as_documented,
        live::a_stolen_key_is_removed_as_documented,
        live::two_replicas_rotate,
        live::three_replicas_rotate,
        live::relayed_replicas_rotate,
        live::over_tls,
        live::over_a_socket,
        transport::of_strangers_fail,
        transport::over_http,
        transport::drops_nothing,
        transport::keeps_what_is_good,
        transport::check_asks_a_replica_over_tls,
        transport::passes_envoy,
        transport::is_needed_for_all_but_health,
        transport::a_socket_has_an_owner_and_a_mode,
        web::abandoned::a_late_statement_ends_and_changes_nothing,
        web::abandoned::every_function_gives_up_on_a_lock,
        web::accounts::a_password_signs_in,
        web::accounts::the_database_sees_no_secret,
        web::accounts::failures_lock_an_account_and_no_other,
        web::accounts::a_salt_tells_nothing,
        web::accounts::an_attempt_counts_whatever_becomes_of_it,
        web::accounts::an_invitation_is_good_once,
        web::accounts::a_password_is_changed_by_who_knows_it,
        web::accounts::elevation_needs_the_password,
        web::administration::a_domain_is_set_up,
        web::administration::nobody_else_administers,
        web::administration::an_administrator_stays_one,
        web::lifetimes::no_new_token_lives_too_long,
        web::open_transactions::a_transaction_does_not_stretch_a_session,
        web::open_transactions::a_right_is_not_used_after_its_loss,
        web::open_transactions::a_role_does_not_grow_while_it_is_given,
        web::open_transactions::a_repeated_request_creates_one_token,
        web::open_transactions::no_user_has_too_many_tokens_by_haste,
        web::open_transactions::requests_of_a_session_do_not_wait,
        web::oversight::the_fleet_is_for_platform_administrators,
        web::oversight::auditors_of_a_domain_read_its_lines,
        web::oversight::a_slug_of_another_domain_shows_nothing,
        web::oversight::no_line_is_hidden_from_the_auditors_of_a_domain,
        web::oversight::a_line_does_not_grow_with_the_request,
        web::oversight::a_deleted_token_stays_in_its_owners_history,
        web::providers::a_linked_subject_signs_in,
        web::providers::an_address_finds_a_user_once,
        web::providers::a_providers_word_makes_no_administrator,
        web::providers::the_sessions_of_a_word_are_few,
        web::providers::a_proof_belongs_to_one_session,
        web::roles::each_operation_permits_its_part,
        web::roles::governing_roles_leads_to_nothing_else,
        web::rotation::the_old_token_works_for_the_overlap,
        web::rotation::a_rotation_is_a_new_grant,
        web::sessions::a_session_ends,
        web::sessions::a_user_governs_their_own_sessions,
        web::sessions::disabling_a_user_ends_their_sessions_for_good,
        web::stolen::every_function_needs_a_session,
        web::stolen::nothing_else_is_permitted,
        web::stolen::shadows_are_not_used,
        web::stolen::audit_lines_are_not_forged,
        web::stolen::no_change_is_held_up_without_a_session,
        web::stolen::another_login_is_not_used,
        web::tokens::a_token_works_as_any_other,
        web::tokens::tokens_are_listed_in_parts,
        web::tokens::another_users_token_does_not_exist,
        web::tokens::a_token_is_granted_no_more_than_its_owner_may,
        web::tokens::a_platform_administrator_grants_by_the_password,
        web::tokens::a_version_guards_a_change,
        web::tokens::a_repeated_request_shows_no_secret,
        web::tokens::what_is_malformed_creates_nothing,
        web::tokens::what_is_shown_holds_no_digest,
        web::tokens::a_list_holds_the_first_scopes,
        web::upgrades::a_database_of_the_version_before_is_taken_up,
        web::why::an_own_token_is_explained_as_by_the_command,
        web::why::a_path_is_explained_as_the_gateway_takes_it,
        web::why::a_model_that_was_not_named_is_asked_for,
        web::why::no_backend_is_named,
        web::why::another_users_token_is_not_explained,
        web::why::a_domain_without_a_right_is_none,
        site::likeness::a_sign_in_tells_nothing_about_an_account,
        site::likeness::a_code_tells_nothing_about_an_invitation,
        site::likeness::a_wrong_password_is_answered_alike_in_a_session,
        site::metrics::what_clients_do_is_counted,
        site::secrets::no_log_level_shows_a_secret,
        site::secrets::the_search_knows_every_session,
        site::operation::it_is_ready_while_its_database_answers,
        site::operation::probes_are_no_load_for_the_database,
        site::operation::it_reports_not_ready_before_it_ends,
        site::operation::dead_connections_fail_no_request,
        site::operation::its_password_is_replaced,
        site::operation::another_login_is_checked_before_it_is_used,
        site::accounts::an_invitation_sets_one_password,
        site::accounts::a_new_password_ends_all_sessions,
        site::accounts::an_administrator_proves_the_password_again,
        site::administration::nobody_else_administers,
        site::administration::those_who_may_administer,
        site::administration::a_domain_is_set_up_over_http,
        site::administration::roles_are_governed_over_http,
        site::administration::no_answer_holds_a_secret,
        site::administration::what_is_no_change_is_refused,
        site::guards::a_session_begins_is_used_and_ends,
        site::guards::another_site_changes_nothing,
        site::guards::a_program_has_the_session_of_its_secret,
        site::guards::every_answer_protects_a_browser,
        site::guards::a_slow_request_keeps_no_place,
        site::guards::a_client_has_a_rate,
        site::guards::a_token_is_no_session_and_a_session_no_token,
        site::oidc::without_a_provider_nothing_leads_there,
        site::oidc::a_linked_user_signs_in_and_out,
        site::oidc::each_algorithm_and_kind_of_client_is_used,
        site::oidc::a_verified_address_links_a_user,
        site::oidc::an_answer_is_for_one_browser_once,
        site::oidc::an_id_token_that_is_not_genuine_signs_nobody_in,
        site::oidc::an_access_token_begins_a_session,
        site::oidc::access_tokens_are_taken_only_if_an_operator_wants,
        site::oidc::while_the_provider_is_away_passwords_work,
        site::oidc::a_provider_is_reached_by_tls,
        site::oidc::a_browser_goes_to_the_provider_and_back,
        site::openapi::the_document_is_served_as_it_is_kept,
        site::openapi::schemathesis_finds_nothing,
        site::pages::a_token_is_created_shown_once_and_revoked,
        site::pages::a_token_is_changed_by_forms,
        site::pages::a_token_is_replaced_while_the_old_one_works_on,
        site::pages::a_page_says_why_a_request_is_refused,
        site::pages::a_session_is_ended_from_another,
        site::pages::a_mistake_is_shown_at_its_field,
        site::pages::a_form_of_another_session_is_refused,
        site::pages::pages_show_text_and_own_tokens_only,
        site::pages::only_administrators_see_what_is_theirs,
        site::pages::an_administrator_sets_a_domain_up,
        site::pages::a_thousand_tokens_are_listed_in_parts,
        site::pats::a_token_lives_over_http,
        site::pats::a_request_creates_one_token,
        site::pats::another_users_token_does_not_exist,
        site::pats::nobody_grants_what_they_may_not_do,
        site::pats::what_is_malformed_is_named,
        site::supermq::a_client_of_supermq_finds_its_way,
        websocket::only_where_a_rule_says_so_and_without_the_token,
        websocket::a_websocket_ends_with_the_longest_stream,
        places::different_tokens_or_a_token_in_the_query_are_refused,
        places::in_shadow_no_token_reaches_what_was_there_before,
        places::in_a_rollout_different_tokens_pass_where_a_403_does,
        own_backends::each_sees_its_own_key_and_never_anothers,
        own_backends::changes_count_at_once,
        own_backends::entries_do_not_depend_on_tables,
        edges::envoy_validates_the_shipped_configuration,
        edges::a_unix_socket_serves_and_has_the_mode_that_was_set,
        edges::the_backend_sees_our_identity_headers_and_no_others,
        edges::the_clients_model_header_is_replaced_or_removed,
        edges::a_chat_is_streamed,
        edges::the_access_log_names_the_subject_and_no_token,
        front::a_preflight_of_a_listed_origin_is_answered_unchecked,
        front::a_preflight_of_another_origin_is_refused_in_words,
        front::load_balancers_need_no_token_and_learn_nothing,
        edges::a_denial_carries_the_request_id_of_the_logs,
        rate_limits::the_file_adds_nothing_else,
        rate_limits::each_token_user_domain_and_model_has_its_bucket,
        rate_limits::a_call_is_counted_by_the_model_of_its_body,
        rate_limits::a_limit_is_told_in_the_words_of_the_api,
        rate_limits::service::the_global_filter_tells_a_service_the_same_descriptors,
        failover::a_standby_that_lost_transactions_takes_over,
        failover::ids_given_out_twice_hide_no_change,
        promotion::a_statement_under_way_at_a_promotion_hides_no_change,
        servers::a_failover_is_followed,
        servers::a_frozen_primary_is_left,
        servers::a_server_left_behind_is_noticed,
        servers::a_listener_takes_the_feed_along,
        servers::the_later_of_two_primaries_is_found,
        servers::without_a_primary_each_server_is_named,
        passwords::a_password_is_replaced_under_load,
        passwords::a_bad_file_keeps_the_login,
        passwords::another_login_replaces_the_first,
        passwords::commands_read_the_file,
        postgres_tls::a_private_authority_is_trusted,
        postgres_tls::the_certificate_of_a_login_is_renewed,
        relay::followers_obey_without_polling,
        relay::another_takes_over,
        relay::a_strangers_hold_on_the_relays_lock_delays_no_revocation,
        relay::a_relay_may_fail_in_any_way,
        relay::a_missing_frame_is_noticed,
        relay::leases_are_handed_on,
        relay::leases::a_replica_that_has_just_started_is_waited_for,
        relay::leases::a_replica_that_missed_a_frame_is_waited_for_until_its_knowledge_expires,
        relay::leases::a_lease_that_was_taken_back_stays_so,
        relay::outages::a_redis_that_fails_at_once_spares_postgres,
        relay::outages::a_frozen_leader_is_replaced,
        relay::outages::a_leader_that_is_cut_off_is_replaced_before_it_knows,
        relay::outages::a_frozen_follower_goes_on_where_it_was,
        relay::outages::a_replica_that_ends_gives_up_its_lease,
        clocks::a_step_revives_nothing_and_wakes_no_herd,
        clocks::a_step_back_makes_no_entry_younger,
        clocks::a_step_hides_no_replica_from_who_waits,
        redis_access::a_fault_is_said_with_its_reason_and_once,
        redis_access::a_fault_that_is_mended_is_over,
        redis_access::the_documented_users_are_enough_and_no_more_is_needed,
        redis_access::in_a_cluster_a_few_more_permissions_are_enough,
        redis_access::a_password_is_replaced_under_load,
        redis_access::a_bad_password_file_keeps_the_old_password,
        redis_access::a_private_authority_is_trusted_and_a_client_shows_its_certificate,
        redis_access::certificates_for_redis_are_replaced,
        redis_topology::a_master_that_dies_is_replaced,
        redis_topology::a_master_that_freezes_is_replaced,
        redis_topology::a_master_that_was_demoted_is_left,
        redis_topology::sentinels_have_logins_and_may_freeze,
        redis_topology::the_relay_follows_the_master,
        redis_topology::sentinels_and_their_master_speak_tls,
        redis_topology::the_nodes_of_a_cluster_speak_tls,
        redis_topology::slots_move_under_load,
        redis_topology::a_node_that_dies_is_replaced,
        redis_topology::a_node_that_freezes_is_replaced,
        redis_topology::everything_works_in_a_cluster,
        redis_access::each_command_that_is_missing_is_named,
        key_rings::one_that_signed_no_live_token_is_not_ready,
        key_rings::different_ones_are_noticed,
        faults::redis_fails_on_the_wire,
        faults::a_dead_redis_costs_a_look_up_one_box,
        faults::redis_is_full_then_flushed,
        faults::redis_is_restored_from_an_old_dump,
        faults::what_redis_holds_is_sealed,
        faults::entries_sealed_with_an_unknown_key_are_not_used,
        faults::postgres_is_stopped,
        faults::postgres_is_black_holed,
        faults::postgres_is_cut_short,
        faults::postgres_is_slow,
        faults::postgres_is_restarted,
        faults::postgres_has_no_connection_left,
        faults::postgres_is_a_standby,
        faults::postgres_is_read_only,
        faults::redis_and_postgres_are_away,
        faults::the_feed_is_cut,
        faults::the_feed_is_black_holed,
        faults::one_of_two_replicas_is_killed,
        faults::one_of_two_replicas_is_frozen,
        faults::two_replicas_are_replaced,
        losses::beyond_the_horizon_everything_is_read_again,
        losses::a_feed_that_heals_has_missed_nothing,
        losses::a_bulk_change_does_not_stop_the_feed,
        locked::lookups_that_no_check_waits_for_end,
        shadow::verdicts_are_the_same_in_every_mode,
        shadow::an_unenforced_denial_adds_no_identity_headers,
        shadow::through_envoy_a_softened_request_reaches_the_old_backend,
        shadow::a_share_is_enforced_of_the_same_tokens_everywhere,
        shadow::a_domains_mode_is_obeyed_at_once,
        shadow::where_the_mode_is_not_known_it_is_enforced,
        shadow::the_mode_of_a_domain_is_looked_up_once_for_many_forged_tokens,
        shadow::an_open_gate_is_reported,
        shadow::an_administrator_sees_and_sets_it,
        decision_log::holds_what_was_decided,
        decision_log::names_the_trace_of_the_call,
        decision_log::text_of_clients_stays_within_its_line,
        decision_log::allows_are_sampled,
        decision_log::what_one_token_repeats_is_counted,
        logged_paths::a_path_that_no_rule_names_is_told,
        logged_paths::paths_are_counted_apart_up_to_a_number,
        decision_log::what_anybody_can_cause_is_paced_and_counted,
        decision_log::a_full_queue_holds_up_nobody,
        decision_log::a_log_that_cannot_be_written_holds_up_nobody,
        decision_log::a_renamed_file_is_let_go,
        decision_log::a_file_that_cannot_be_opened_again_is_reported,
        decision_log::goes_to_standard_output_and_is_finished_at_the_end,
        decision_log::why_finds_a_request,
        decision_log::a_report_counts_what_would_be_denied,
        feed::every_change_is_obeyed_everywhere,
        feed::the_last_use_is_no_change,
        recording::what_was_done_while_triggers_were_off_is_obeyed,
        recording::a_feed_without_triggers_is_not_trusted,
        recording::a_leader_without_triggers_blames_no_redis,
        installations::a_restored_dump_beside_its_original_is_another,
        installations::relays_that_share_a_redis_are_apart,
        installations::a_feed_of_another_database_keeps_from_serving,
        installations::a_feed_url_that_comes_to_lead_elsewhere_is_not_trusted,
        installations::a_postgres_url_that_comes_to_lead_elsewhere_is_not_trusted,
        installations::nothing_is_written_to_another_installation,
        installations::a_copy_of_the_files_is_renewed,
        canary::measures_if_it_is_switched_on,
        canary::permits_nothing,
        canary::reports_slow_revocation,
        last_use::is_written_once_in_a_while,
        last_use::what_is_queued_is_written_at_the_end,
        last_use::a_read_only_postgres_costs_notes_only,
        last_use::notes_of_tokens_that_are_gone_are_swept,
        last_use::nobody_waits_for_an_administrators_lock,
        propagation::whatever_is_taken_away_is_refused_within_a_second,
        propagation::how_old_knowledge_is_can_be_seen,
        races::a_long_transaction_counts_from_its_commit,
        races::a_slow_fill_brings_nothing_back,
        races::a_slow_domain_keeps_no_token_alive,
        races::an_old_redis_brings_nothing_back,
    ]);
    let names: Vec<String> = trials.iter().map(|trial| trial.name().to_owned()).collect();
    trials.push(Trial::test("promises::name_their_tests", move || {
        promises::name_their_tests(&names);
        Ok(())
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !suite.stack.was_used() {
        return conclusion.exit_code();
    }
    suite.durations.report();
    println!("answers under load: {}", suite.answers);
    let wrong_allows = suite.answers.wrong_allows();
    let mut wrong: Vec<String> = match Arc::into_inner(suite).map(leaks::search) {
        Some(places) => places
            .into_iter()
            .map(|place| format!("a secret in plain text was found in {place}"))
            .collect(),
        None => vec!["secrets were not looked for: a test still holds the servers".to_owned()],
    };
    if wrong_allows > 0 {
        wrong.push(format!("{wrong_allows} answers were allows that should not have been"));
    }
    // After the result of the tests, which does not include this.
    for wrong in &wrong {
        println!("FAILED: {wrong}");
    }
    if wrong.is_empty() { conclusion.exit_code() } else { ExitCode::FAILURE }
}
