//! Ingest on a real server: what is stored, what is refused, and what crashes leave behind.

mod crashes;
mod duplicates;
mod inbox;
mod limits;
mod requests;
mod support;
