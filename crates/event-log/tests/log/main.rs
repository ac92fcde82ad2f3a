//! The event log on real servers: what it promises, and what happens when they die.

#[cfg(test)]
mod allowance;
#[cfg(test)]
mod attach;
#[cfg(test)]
mod bootstrap;
#[cfg(test)]
mod config;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod expunge;
#[cfg(test)]
mod feeds;
#[cfg(test)]
mod follow;
#[cfg(test)]
mod health;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod inbox;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod membership;
#[cfg(test)]
mod publish;
#[cfg(test)]
mod read;
#[cfg(test)]
mod reports;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod schedule;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod support;
#[cfg(test)]
mod survey;
