//! The built binary, used as people and programs use it.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod apply;
mod help;
mod session;
mod settings;
mod tour;
