//! The retry-scheduler against a real nats-server. The test plays the dispatcher: it writes the
//! facts of attempts, and takes what falls due.

mod endpoints;
mod restart;
mod scheduling;
mod support;
mod sweeping;
mod telling;
