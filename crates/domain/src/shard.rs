//! Shards: the unit in which endpoints are owned.

use std::{fmt, num::NonZeroU16, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::EndpointId;

/// How many shards an installation has: 1 to 256, fixed when its streams are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCount(NonZeroU16);

/// A number that cannot be a shard count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the number of shards is between 1 and {max}", max = ShardCount::MAX)]
pub struct ShardCountOutOfRange;

/// One of an installation's shards, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl ShardCount {
    /// The largest count.
    pub const MAX: u16 = 256;

    /// One shard.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// Wraps a count.
    pub fn new(count: u16) -> Result<Self, ShardCountOutOfRange> {
        NonZeroU16::new(count)
            .filter(|count| count.get() <= Self::MAX)
            .map(Self)
            .ok_or(ShardCountOutOfRange)
    }

    /// Returns the count.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// Returns every shard.
    pub fn shards(self) -> impl Iterator<Item = Shard> {
        (0..self.get()).map(Shard)
    }

    /// Returns the shard that an endpoint belongs to: the first 8 bytes of the SHA-256 of its id, modulo the count.
    pub fn of(self, endpoint: EndpointId) -> Shard {
        let digest = Sha256::digest(endpoint.as_bytes());
        let head = digest.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
        // Less than the count, so that it fits.
        Shard(u16::try_from(head % u64::from(self.get())).unwrap_or_default())
    }
}

impl FromStr for ShardCount {
    type Err = ShardCountOutOfRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map_err(|_| ShardCountOutOfRange).and_then(Self::new)
    }
}

impl fmt::Display for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Shard {
    /// Wraps a shard's index, as read from a subject.
    pub const fn from_index(index: u16) -> Self {
        Self(index)
    }

    /// Returns the shard's index.
    pub const fn index(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
