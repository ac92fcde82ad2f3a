//! What tests need: real servers, and strangers that misbehave on demand.

pub mod receiver;
