//! The promises of the README, tried on real servers with every service a process of its own.
//!
//! Each test owns what it starts: a nats-server, five services, receivers. Nothing is started by
//! hand and nothing is shared, so that tests run at the same time.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod a_tenant_is_expunged;
mod accepted_is_delivered;
mod backlog_costs_a_cursor;
mod batches_carry_every_event;
mod collectors_are_trusted;
mod commands_are_carried_out;
mod configuration_reads_its_own_writes;
mod content_decides;
mod dashboards_tell_what_happened;
mod deliveries_are_watched;
mod duplicate_is_delivered_once;
mod durability_is_checked;
mod each_service_has_its_permissions;
mod endpoints_are_small;
mod endpoints_are_tried;
mod endpoints_have_to_allow_it;
mod endpoints_know_who_sends;
mod flood_stops_no_one;
mod frozen_dispatcher_sends_nothing;
mod ingest_keeps_order;
mod killed_processes_lose_nothing;
mod killed_servers_lose_nothing;
mod limits_are_exact;
mod logs_bear_ids;
mod managed_as_profiles_say;
mod metrics_tell_what_happened;
mod only_callers_decide_on_traces;
mod operators_are_told;
mod order_is_kept;
mod paused_endpoints_get_nothing;
mod private_address_is_refused;
mod profiles;
mod redriven_as_profiles_say;
mod replays_deliver_again;
mod retries_are_on_time;
mod scaled_dispatchers;
mod secrets_never_leave;
mod slow_endpoint_starves_no_one;
mod support;
mod tenant_limits_are_shared;
mod tenants_never_meet;
mod the_api_is_as_documented;
mod the_delivery_log_agrees;
mod the_delivery_log_may_be_away;
mod the_log_is_searched;
mod traces_hang_together;
