//! The API alone, against a real nats-server.

mod access;
mod deliveries;
mod endpoints;
mod events;
mod http;
mod isolation;
mod keys;
mod lists;
mod support;
mod tenants;
mod versions;
