//! What a receiver saw, request by request, and the figures that are made of it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// One request: when it came, in milliseconds since the receiver was reset, and how long after
/// the time in its data, in microseconds; 0 where the data carries no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample(pub(crate) u32, pub(crate) u32);

/// Requests in the order of their arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Samples(Vec<Sample>);

/// A quantile of the delays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Delays {
    sorted_micros: [f64; 4],
}

impl Delays {
    /// Half of the requests came no later than this, in milliseconds.
    pub(crate) const fn p50(self) -> f64 {
        self.sorted_micros[0]
    }

    /// 99 % of the requests came no later than this, in milliseconds.
    pub(crate) const fn p99(self) -> f64 {
        self.sorted_micros[1]
    }

    /// 99.9 % of the requests came no later than this, in milliseconds.
    pub(crate) const fn p999(self) -> f64 {
        self.sorted_micros[2]
    }

    /// All of the requests came no later than this, in milliseconds.
    pub(crate) const fn max(self) -> f64 {
        self.sorted_micros[3]
    }
}

impl Samples {
    /// Adds a request.
    pub(crate) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// How many requests came.
    pub(crate) fn len(&self) -> u64 {
        self.0.len().try_into().unwrap_or(u64::MAX)
    }

    /// Adds requests that never came, as if they had come that late.
    pub(crate) fn add_missing(&mut self, count: u64, at_ms: u32, micros: u32) {
        self.0.extend((0..count).map(|_| Sample(at_ms, micros)));
    }

    /// The requests that came within a span, in milliseconds since the reset.
    pub(crate) fn within(&self, span: &Range<u32>) -> Self {
        Self(self.0.iter().filter(|sample| span.contains(&sample.0)).copied().collect())
    }

    /// The requests whose data was made within a span, in milliseconds since the reset.
    pub(crate) fn sent_within(&self, span: &Range<u32>) -> Self {
        let sent = |sample: &&Sample| span.contains(&(sample.0.saturating_sub(sample.1 / 1_000)));
        Self(self.0.iter().filter(sent).copied().collect())
    }

    /// When the first and the last request came, in milliseconds since the reset.
    pub(crate) fn ends(&self) -> Option<(u32, u32)> {
        let times = self.0.iter().map(|sample| sample.0);
        Some((times.clone().min()?, times.max()?))
    }

    /// The same requests, with times that count from a moment, in milliseconds since the reset.
    pub(crate) fn shifted(&self, begin: u32) -> Self {
        Self(self.0.iter().map(|sample| Sample(sample.0.saturating_sub(begin), sample.1)).collect())
    }

    /// The delays of the timed requests; all are not a number if there is none.
    pub(crate) fn delays(&self) -> Delays {
        let sorted = self.sorted_micros();
        Delays { sorted_micros: [0.5, 0.99, 0.999, 1.0].map(|share| millis_at(&sorted, share)) }
    }

    /// The delay that a share of the timed requests did not exceed, for each share, in milliseconds.
    pub(crate) fn delays_at(&self, shares: &[f64]) -> Vec<f64> {
        let sorted = self.sorted_micros();
        shares.iter().map(|share| millis_at(&sorted, *share)).collect()
    }

    /// Cuts the time into steps, and makes a figure of the requests in each: points in seconds.
    ///
    /// Steps without requests make no point.
    pub(crate) fn over_time(&self, step_ms: u32, figure: impl Fn(&Self) -> f64) -> Vec<(f64, f64)> {
        let mut steps: std::collections::BTreeMap<u32, Self> = std::collections::BTreeMap::new();
        for sample in &self.0 {
            steps.entry(sample.0 / step_ms.max(1)).or_default().push(*sample);
        }
        let middle = |step: u32| f64::from(step_ms) * (f64::from(step) + 0.5) / 1_000.0;
        steps.iter().map(|(step, inside)| (middle(*step), figure(inside))).collect()
    }

    /// Requests per second in each whole step of time until `end`, empty steps included: points
    /// in seconds.
    pub(crate) fn rate_over_time(&self, step_ms: u32, end_ms: u32) -> Vec<(f64, f64)> {
        let step_ms = step_ms.max(1);
        let mut counts = vec![0_u32; usize::try_from(end_ms / step_ms).unwrap_or(0)];
        for sample in &self.0 {
            if let Ok(step) = usize::try_from(sample.0 / step_ms)
                && let Some(count) = counts.get_mut(step)
            {
                *count += 1;
            }
        }
        let seconds = f64::from(step_ms) / 1_000.0;
        let middles = (0_u32..).map(|step| (f64::from(step) + 0.5) * seconds);
        middles.zip(counts).map(|(at, count)| (at, f64::from(count) / seconds)).collect()
    }

    fn sorted_micros(&self) -> Vec<u32> {
        let mut sorted: Vec<u32> =
            self.0.iter().map(|sample| sample.1).filter(|micros| *micros > 0).collect();
        sorted.sort_unstable();
        sorted
    }
}

/// The nearest rank: the least value that a share of all does not exceed.
fn millis_at(sorted: &[u32], share: f64) -> f64 {
    let count = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
    let wanted = (f64::from(count) * share).ceil().max(1.0);
    let mut rank = 1.0;
    let found = sorted.iter().find(|_| {
        rank += 1.0;
        rank > wanted
    });
    found.map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
}

/// The middle one; of an even number the upper of the two. Not a number of none.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A count as a figure.
pub(crate) fn count(number: u64) -> f64 {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hundred() -> Samples {
        Samples((1..=100).map(|number| Sample(number * 10, number * 1_000)).collect())
    }

    #[test]
    fn quantiles_are_delays_that_were_seen() {
        let delays = hundred().delays();
        let shown = [delays.p50(), delays.p99(), delays.max()].map(|delay| delay.to_string());
        assert_eq!(shown, ["50", "99", "100"]);
        assert_eq!(hundred().delays_at(&[0.01, 0.1]), [1.0, 10.0]);
        assert!(Samples::default().delays().p99().is_nan());
    }

    #[test]
    fn what_never_came_is_the_slowest() {
        let mut samples = hundred();
        samples.add_missing(10, 2_000, 30_000_000);
        assert_eq!(samples.delays().p99().to_string(), "30000");
        assert_eq!(samples.len(), 110);
    }

    #[test]
    fn requests_without_a_time_have_no_delay() {
        let samples = Samples(vec![Sample(0, 0), Sample(5, 7_000)]);
        assert_eq!(samples.delays().p50().to_string(), "7");
    }

    #[test]
    fn spans_cut_by_arrival_and_by_sending() {
        assert_eq!(hundred().within(&(0..100)).len(), 9);
        let late = Samples(vec![Sample(1_000, 900_000)]);
        assert_eq!(late.sent_within(&(0..200)).len(), 1);
        assert_eq!(late.sent_within(&(200..2_000)).len(), 0);
    }

    #[test]
    fn empty_seconds_have_a_rate_of_nothing() {
        let samples = Samples(vec![Sample(100, 1), Sample(200, 1), Sample(2_100, 1)]);
        let rates = samples.rate_over_time(1_000, 3_200);
        assert_eq!(rates, [(0.5, 2.0), (1.5, 0.0), (2.5, 1.0)]);
        assert_eq!(samples.over_time(1_000, |step| count(step.len())), [(0.5, 2.0), (2.5, 1.0)]);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_string(), "2");
        assert!(median([]).is_nan());
    }
}
