//! The event log on real servers: what it promises, and what happens when they die.

mod bootstrap;
mod journal;
mod publish;
mod read;
mod schedule;
mod support;
