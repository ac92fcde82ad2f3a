//! The resources, each in a module of its own.

pub(crate) mod audit;
pub(crate) mod deliveries;
pub(crate) mod endpoints;
pub(crate) mod event_types;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod live;
pub(crate) mod metrics;
pub(crate) mod owners;
pub(crate) mod portal_links;
pub(crate) mod replays;
pub(crate) mod sealing;
pub(crate) mod tenants;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// Returns every operation under `/v1`, and the document that describes them.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(tenants::create_tenant, tenants::list_tenants))
        .routes(routes!(tenants::get_tenant, tenants::update_tenant, tenants::delete_tenant))
        .routes(routes!(tenants::expunge::expunge_tenant, tenants::expunge::get_expunge))
        .routes(routes!(endpoints::create_endpoint, endpoints::list_endpoints))
        .routes(routes!(
            endpoints::get_endpoint,
            endpoints::update_endpoint,
            endpoints::delete_endpoint
        ))
        .merge(actions())
        .routes(routes!(endpoints::trial::test_endpoint_filter))
        .routes(routes!(endpoints::trial::test_filter))
        .routes(routes!(event_types::create_event_type, event_types::list_event_types))
        .routes(routes!(
            event_types::get_event_type,
            event_types::update_event_type,
            event_types::delete_event_type
        ))
        .routes(routes!(event_types::import_event_types))
        .routes(routes!(
            event_types::everywhere::create_common_event_type,
            event_types::everywhere::list_common_event_types
        ))
        .routes(routes!(
            event_types::everywhere::get_common_event_type,
            event_types::everywhere::update_common_event_type,
            event_types::everywhere::delete_common_event_type
        ))
        .routes(routes!(event_types::everywhere::import_common_event_types))
        .routes(routes!(endpoints::statistics::get_endpoint_statistics))
        .routes(routes!(events::publish_event, events::log::list_events))
        .routes(routes!(events::batch::publish_events))
        .routes(routes!(events::log::get_event))
        .routes(routes!(deliveries::list_deliveries_of_event))
        .routes(routes!(deliveries::search::list_deliveries))
        .routes(routes!(deliveries::search::list_deliveries_of_endpoint))
        .routes(routes!(deliveries::search::list_dead_letters))
        .routes(routes!(live::watch_deliveries))
        .routes(routes!(deliveries::get_delivery))
        .routes(routes!(deliveries::list_facts_of_delivery))
        .routes(routes!(deliveries::trace::get_trace_of_delivery))
        .routes(routes!(deliveries::orders::cancel_delivery))
        .routes(routes!(deliveries::orders::retry_delivery))
        .routes(routes!(replays::replay_delivery))
        .routes(routes!(replays::replay_endpoint))
        .routes(routes!(replays::create_replay, replays::list_replays))
        .routes(routes!(replays::get_replay))
        .routes(routes!(replays::cancel_replay))
        .routes(routes!(replays::redrive_dead_letters))
        .routes(routes!(owners::get_owner_of_delivery))
        .routes(routes!(owners::get_owner_of_event))
        .routes(routes!(deliveries::attempts::list_attempts))
        .routes(routes!(deliveries::attempts::get_attempt))
        .routes(routes!(audit::list_audit))
        .routes(routes!(audit::list_tenant_audit))
        .routes(routes!(keys::create_tenant_key, keys::list_tenant_keys))
        .routes(routes!(keys::get_tenant_key, keys::delete_tenant_key))
        .routes(routes!(portal_links::create_portal_link))
        .routes(routes!(keys::create_operator_key, keys::list_operator_keys))
        .routes(routes!(keys::get_operator_key, keys::delete_operator_key))
        .routes(routes!(sealing::rotate_sealing_key))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
}

/// What can be done with an endpoint beside changing it.
fn actions() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(endpoints::actions::pause_endpoint))
        .routes(routes!(endpoints::actions::resume_endpoint))
        .routes(routes!(endpoints::actions::enable_endpoint))
        .routes(routes!(endpoints::actions::disable_endpoint))
        .routes(routes!(endpoints::actions::rotate_secret))
        .routes(routes!(endpoints::cancelling::cancel_deliveries))
        .routes(routes!(endpoints::sample::test_endpoint))
        .routes(routes!(endpoints::reveal::reveal_secrets))
        .routes(routes!(endpoints::jwks::get_public_keys))
        .routes(routes!(endpoints::validate::validate_endpoint))
}
