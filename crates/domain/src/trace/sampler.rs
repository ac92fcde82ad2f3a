//! Which traces are exported.

use super::Place;

/// Decides whether a trace is exported, in the way of OpenTelemetry's samplers of these names. The
/// same trace is decided on alike by everybody who has the same sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Whether the producer's decision counts, if there is one.
    follows_parent: bool,
    /// Of traces that it decides on, those whose last 63 bits are below this.
    below: u64,
}

/// A sampler that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// Its name is unknown.
    #[error(
        "the sampler {0:?} is none of always_on, always_off, traceidratio, parentbased_always_on, \
         parentbased_always_off, parentbased_traceidratio"
    )]
    Unknown(String),
    /// Its argument is not a ratio.
    #[error("the sampler's argument {0:?} is not a number between 0 and 1")]
    Ratio(String),
}

/// All of 63 bits.
const ALL: u64 = 1 << 63;

/// Follows the producer, and exports what has none.
impl Default for Sampler {
    fn default() -> Self {
        Self { follows_parent: true, below: ALL }
    }
}

impl Sampler {
    /// Returns the sampler of that name; `argument` is the ratio of those that take one, 1 if there
    /// is none.
    ///
    /// # Errors
    ///
    /// If there is none, or the ratio is not between 0 and 1.
    pub fn named(name: &str, argument: Option<&str>) -> Result<Self, SamplerError> {
        let (follows_parent, own) = match name.strip_prefix("parentbased_") {
            Some(own) => (true, own),
            None => (false, name),
        };
        let below = match own {
            "always_on" => ALL,
            "always_off" => 0,
            "traceidratio" => ratio(argument)?,
            _ => return Err(SamplerError::Unknown(String::from(name))),
        };
        Ok(Self { follows_parent, below })
    }

    /// Tells whether the trace of that place is exported.
    pub fn samples(&self, place: &Place) -> bool {
        let decided = place.sampled.filter(|_| self.follows_parent);
        decided.unwrap_or_else(|| self.draws(place.trace.chance()))
    }

    /// Tells whether a trace is exported that nobody else has decided on and whose id somebody may have
    /// picked for that; `chance` is a number that was drawn for it.
    pub fn draws(&self, chance: u64) -> bool {
        chance >> 1 < self.below
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a ratio is between 0 and 1, and the last bits of it do not matter"
)]
fn ratio(argument: Option<&str>) -> Result<u64, SamplerError> {
    let text = argument.unwrap_or("1").trim();
    let ratio: Option<f64> = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    let ratio = ratio.ok_or_else(|| SamplerError::Ratio(String::from(text)))?;
    Ok((ratio * ALL as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceId;

    fn place(chance: u64, sampled: Option<bool>) -> Place {
        let bytes = (u128::from(chance) | (1 << 100)).to_be_bytes();
        Place { trace: TraceId::from_bytes(bytes), parent: None, sampled }
    }

    #[test]
    fn the_producers_decision_counts_if_it_is_asked_for() {
        let (high, low) = (u64::MAX, 0);
        for (name, argument, root_high, root_low, given) in [
            ("always_on", None, true, true, None),
            ("always_off", None, false, false, None),
            ("traceidratio", Some("0.5"), false, true, None),
            ("parentbased_always_on", None, true, true, Some(())),
            ("parentbased_always_off", None, false, false, Some(())),
            ("parentbased_traceidratio", Some("0.5"), false, true, Some(())),
        ] {
            let sampler = Sampler::named(name, argument).unwrap();
            assert_eq!(sampler.samples(&place(high, None)), root_high, "{name}");
            assert_eq!(sampler.samples(&place(low, None)), root_low, "{name}");
            for decided in [true, false] {
                let expected = if given.is_some() { decided } else { root_high };
                assert_eq!(sampler.samples(&place(high, Some(decided))), expected, "{name}");
            }
        }
        assert_eq!(Sampler::default(), Sampler::named("parentbased_always_on", None).unwrap());
    }

    #[test]
    fn what_there_is_not_is_refused() {
        assert!(matches!(Sampler::named("jaeger_remote", None), Err(SamplerError::Unknown(_))));
        for text in ["2", "-1", "NaN", "half"] {
            let refused = Sampler::named("traceidratio", Some(text));
            assert!(matches!(refused, Err(SamplerError::Ratio(_))), "{text}");
        }
    }
}
