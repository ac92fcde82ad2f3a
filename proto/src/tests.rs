//! The contract: what is written reads back, what was written stays readable, and what cannot be
//! is refused by name.

mod arbitrary;
mod golden;
mod round_trip;
mod samples;
mod unknown;
mod violations;
