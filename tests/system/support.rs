//! What the system tests stand on: an installation of separate processes, producers, receivers,
//! faults, and a checker that trusts none of the services.

pub(crate) mod api;
pub(crate) mod binary;
pub(crate) mod boards;
pub(crate) mod checker;
pub(crate) mod evidence;
pub(crate) mod foreign;
pub(crate) mod hooks;
pub(crate) mod installation;
pub(crate) mod locked;
pub(crate) mod logs;
pub(crate) mod nemesis;
pub(crate) mod otelite;
mod process;
pub(crate) mod producer;
pub(crate) mod prometheus;
pub(crate) mod scene;
pub(crate) mod search;
pub(crate) mod servers;
pub(crate) mod spans;
pub(crate) mod up;

pub(crate) use api::{Api, Refused};
pub(crate) use checker::{Evidence, Report, Subscriber, check};
pub(crate) use hooks::{Answer, Hooks};
pub(crate) use installation::{EAGER, ERASING, Expected, Installation, Options};
pub(crate) use process::{Process, Service, log_file};
pub(crate) use producer::{Acknowledged, Planned, Producer, Route};
pub(crate) use scene::Scene;
pub(crate) use search::Needles;
pub(crate) use servers::Count;
