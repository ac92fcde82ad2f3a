//! Ingest on a real server: what is stored, what is refused, and what crashes leave behind.

mod crashes;
mod duplicates;
mod hostile;
mod inbox;
mod limits;
mod order;
mod requests;
mod schemas;
mod support;
