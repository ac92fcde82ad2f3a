//! The API alone, against a real nats-server.

mod access;
mod bodies;
mod deliveries;
mod endpoints;
mod event_types;
mod events;
mod filters;
mod http;
mod isolation;
mod keys;
mod lists;
mod log;
mod plans;
mod portal;
mod profiles;
mod repeats;
mod support;
mod tenants;
mod versions;
