//! What is shared with the system tests.
#![expect(dead_code, reason = "the system tests use the rest")]

#[path = "../system/support/api.rs"]
pub(crate) mod api;
#[path = "../system/support/binary.rs"]
pub(crate) mod binary;
#[path = "../system/support/installation.rs"]
pub(crate) mod installation;
#[path = "../system/support/locked.rs"]
pub(crate) mod locked;
#[path = "../system/support/logs.rs"]
pub(crate) mod logs;
#[path = "../system/support/process.rs"]
pub(crate) mod process;
#[path = "../system/support/search.rs"]
pub(crate) mod search;
#[path = "../system/support/servers.rs"]
pub(crate) mod servers;

pub(crate) use api::{Api, Refused};
pub(crate) use installation::{EAGER, Expected, Installation, Options};
pub(crate) use process::{Process, Service};
