//! The API alone, against a real nats-server.

mod access;
mod bodies;
mod deliveries;
mod endpoints;
mod event_types;
mod events;
mod expunge;
mod filters;
mod http;
mod isolation;
mod keys;
mod lists;
mod live;
mod log;
mod lookups;
mod orders;
mod plans;
mod portal;
mod profiles;
mod rates;
mod repeats;
mod resting;
mod support;
mod tenants;
mod versions;
