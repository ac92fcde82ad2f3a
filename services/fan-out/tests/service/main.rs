//! Fan-out alone, against a real nats-server: events go in, facts and tasks come out.

mod accept_time;
mod content;
mod costly;
mod fed;
mod full;
mod limits;
mod matching;
mod paces;
mod replays;
mod restart;
mod size;
mod support;
