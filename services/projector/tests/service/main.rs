//! The projector on a real server and real databases.

mod away;
mod crashes;
mod rebuilding;
mod support;
