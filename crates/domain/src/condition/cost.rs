//! What asking an expression may cost, given what it is asked about.
//!
//! What looks at each element of a list once, and at nothing else, costs as much as the data is large,
//! whatever the data. What looks at something else for each element costs as much for each of them.
//! So only the rounds of such macros are counted, and each as if it looked at all of the data.

/// How many bytes may be looked at in all.
const BYTES_MAX: usize = 64 << 20;

/// The fewest and the most rounds that an evaluation may have.
const ROUNDS_MIN: u64 = 256;
const ROUNDS_MAX: u64 = 16_384;

/// What an expression may cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// How often macros go round that look at more than their element.
    pub(super) rounds: Vec<Rounds>,
    /// How many sums there are: each can make a list longer by another one.
    pub(super) sums: usize,
}

/// How often a macro goes round, all macros around it included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rounds {
    known: u64,
    /// How many times over all elements of a list of the data.
    lists: u32,
    /// Whether lists within that list are gone through as well.
    is_within: bool,
}

/// How large data is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Its length as text.
    pub(super) bytes: usize,
    /// The elements of its longest list or object.
    pub(super) longest: u64,
    /// The elements of all its lists and objects.
    pub(super) elements: u64,
}

impl Rounds {
    /// Over a list of the data.
    pub(super) const OF_DATA: Self = Self { known: 1, lists: 1, is_within: false };

    /// Over a list that the expression has.
    pub(super) fn known(count: usize) -> Self {
        let known = u64::try_from(count).unwrap_or(u64::MAX);
        Self { known, lists: 0, is_within: false }
    }

    /// Over something else, for each round.
    pub(super) fn times(self, inner: Self) -> Self {
        Self {
            known: self.known.saturating_mul(inner.known),
            lists: self.lists + inner.lists,
            is_within: self.is_within || inner.is_within,
        }
    }

    /// Over what is within each element.
    pub(super) fn inner(self) -> Self {
        if self.lists == 0 { self.times(Self::OF_DATA) } else { Self { is_within: true, ..self } }
    }

    /// Tells whether it goes over something again and again.
    pub(super) fn multiply(self) -> bool {
        self.lists > 1 || (self.lists == 1 && self.known > 1)
    }

    fn count(self, size: Size, sums: u64) -> u64 {
        let long = size.longest.saturating_mul(sums);
        let power = if self.is_within { self.lists.saturating_sub(1) } else { self.lists };
        let within = if self.is_within { size.elements.saturating_mul(sums) } else { 1 };
        self.known.saturating_mul(long.saturating_pow(power)).saturating_mul(within)
    }
}

impl Cost {
    /// Tells whether it may be asked about data of a size; if not, how many rounds there may be.
    pub(super) fn admit(&self, size: Size) -> Result<(), u64> {
        let affordable = u64::try_from(BYTES_MAX / size.bytes.max(1)).unwrap_or(u64::MAX);
        let limit = affordable.clamp(ROUNDS_MIN, ROUNDS_MAX);
        let sums = u64::try_from(self.sums).unwrap_or(u64::MAX).saturating_add(1);
        let all = self.rounds.iter().map(|rounds| rounds.count(size, sums));
        let all = all.fold(0_u64, u64::saturating_add);
        if all > limit { Err(limit) } else { Ok(()) }
    }
}
