//! The projector on a real server and real databases.

mod away;
mod crashes;
mod foreign;
mod forgetting;
mod rebuilding;
mod support;
