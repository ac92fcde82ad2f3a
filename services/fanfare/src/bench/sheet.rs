//! What a scenario found: tables of figures, what they should be, and the plots of them.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    lab::{FloorRound, Floors},
    plot::Chart,
    samples::Delays,
};
use crate::output::{Output, Tone};

/// A figure: its name in JSON, in a table, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    key: &'static str,
    heading: &'static str,
    decimals: usize,
}

impl Figure {
    const fn new(key: &'static str, heading: &'static str, decimals: usize) -> Self {
        Self { key, heading, decimals }
    }

    pub(crate) const ACCEPTED: Self = Self::new("accepted_per_second", "accepted/s", 0);
    pub(crate) const PER_SECOND: Self = Self::new("delivered_per_second", "delivered/s", 0);
    pub(crate) const CPU: Self = Self::new("cpu_seconds_per_1000", "CPU s per 1,000", 3);
    pub(crate) const OF_LOOP: Self = Self::new("of_bare_loop", "of bare loop", 2);
    pub(crate) const OF_POST: Self = Self::new("of_post_only", "of POST only", 2);
    pub(crate) const CPU_OF_LOOP: Self = Self::new("cpu_of_bare_loop", "CPU of loop", 2);
    pub(crate) const P50: Self = Self::new("p50_ms", "p50 ms", 2);
    pub(crate) const P99: Self = Self::new("p99_ms", "p99 ms", 2);
    pub(crate) const P999: Self = Self::new("p999_ms", "p99.9 ms", 2);
    pub(crate) const MAX: Self = Self::new("max_ms", "max ms", 2);
    pub(crate) const P50_OF_LOOP: Self = Self::new("p50_of_bare_loop", "p50 of loop", 2);
    pub(crate) const P50_OF_POST: Self = Self::new("p50_of_post_only", "p50 of POST", 2);
    pub(crate) const P99_WITHOUT: Self = Self::new("p99_without_ms", "p99 without", 2);
    pub(crate) const P99_WITH: Self = Self::new("p99_with_ms", "p99 with", 2);
    pub(crate) const P50_WITHOUT: Self = Self::new("p50_without_ms", "p50 without", 2);
    pub(crate) const P50_WITH: Self = Self::new("p50_with_ms", "p50 with", 2);
    pub(crate) const CPU_WITHOUT: Self =
        Self::new("cpu_seconds_per_1000_without", "CPU s per 1,000 without", 4);
    pub(crate) const CPU_WITH: Self = Self::new("cpu_seconds_per_1000_with", "with", 4);
    pub(crate) const CPU_RATIO: Self = Self::new("cpu_of_without", "ratio", 3);
    pub(crate) const CPU_RATIO_OURS: Self =
        Self::new("cpu_of_without_receiver_left_out", "ratio, receiver left out", 3);
    pub(crate) const SPANS: Self = Self::new("spans", "spans", 0);
    pub(crate) const EXPORTS: Self = Self::new("exports", "exports", 0);
    pub(crate) const SCRAPES: Self = Self::new("scrapes", "scrapes", 0);
    pub(crate) const RATIO: Self = Self::new("ratio", "ratio", 2);
    pub(crate) const REQUESTS: Self = Self::new("requests", "requests", 0);
    pub(crate) const LATE: Self = Self::new("missing", "missing", 0);
    pub(crate) const FIRST: Self = Self::new("first_ms", "first ms", 1);
    pub(crate) const LAST: Self = Self::new("last_ms", "last ms", 1);
    pub(crate) const SECONDS: Self = Self::new("seconds", "seconds", 1);
    pub(crate) const MEBIBYTES: Self = Self::new("resident_mebibytes", "resident MiB", 0);
    pub(crate) const NATS_MEBIBYTES: Self =
        Self::new("nats_resident_mebibytes", "nats-server MiB", 0);
    pub(crate) const MESSAGES: Self = Self::new("messages", "messages", 0);
    pub(crate) const BEHIND: Self = Self::new("behind", "out of order", 0);
    pub(crate) const FURTHEST: Self = Self::new("furthest_behind", "furthest behind", 0);
}

/// A row: what was measured, and its figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Case {
    case: String,
    #[serde(serialize_with = "as_map")]
    figures: Vec<(Figure, f64)>,
}

impl Case {
    pub(crate) fn new(case: impl Into<String>) -> Self {
        Self { case: case.into(), figures: Vec::new() }
    }

    /// Adds a figure.
    pub(crate) fn with(mut self, figure: Figure, value: f64) -> Self {
        self.figures.push((figure, value));
        self
    }

    /// Adds the delays.
    pub(crate) fn delays(self, delays: Delays) -> Self {
        self.with(Figure::P50, delays.p50())
            .with(Figure::P99, delays.p99())
            .with(Figure::P999, delays.p999())
            .with(Figure::MAX, delays.max())
    }

    /// Adds how many a second and what they cost.
    pub(crate) fn rate(self, per_second: f64, cpu_per_thousand: f64) -> Self {
        self.with(Figure::PER_SECOND, per_second).with(Figure::CPU, cpu_per_thousand)
    }

    fn get(&self, figure: Figure) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == figure).map(|(_, value)| *value)
    }
}

impl Floors {
    /// The floors as rows, by their speed.
    pub(crate) fn rates(&self) -> [Case; 2] {
        self.each(|case, floor| case.rate(floor.per_second(), floor.cpu_per_thousand()))
    }

    /// The floors as rows, by their delays.
    pub(crate) fn delays(&self) -> [Case; 2] {
        self.each(|case, floor| {
            case.delays(floor.samples.delays()).with(Figure::CPU, floor.cpu_per_thousand())
        })
    }

    fn each(&self, row: impl Fn(Case, &FloorRound) -> Case) -> [Case; 2] {
        [("bare loop", &self.bare_loop), ("POST only", &self.post_only)]
            .map(|(name, floor)| row(Case::new(name), floor))
    }
}

/// Rows with a title.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    title: String,
    cases: Vec<Case>,
}

/// What a figure should be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    what: String,
    value: f64,
    /// `at_least` or `at_most`.
    sense: Sense,
    limit: f64,
    met: bool,
}

/// On which side of the limit a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sense {
    AtLeast,
    AtMost,
}

/// Everything that a scenario found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sheet {
    scenario: &'static str,
    /// What was done, in a sentence.
    about: String,
    /// How long it took, all in all.
    seconds: f64,
    tables: Vec<Table>,
    targets: Vec<Target>,
    #[serde(skip)]
    charts: Vec<Chart>,
}

impl Sheet {
    pub(crate) fn new(scenario: &'static str, about: impl Into<String>) -> Self {
        let about = about.into();
        Self {
            scenario,
            about,
            seconds: 0.0,
            tables: Vec::new(),
            targets: Vec::new(),
            charts: Vec::new(),
        }
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, title: impl Into<String>, cases: Vec<Case>) {
        self.tables.push(Table { title: title.into(), cases });
    }

    /// Adds what a figure should be.
    pub(crate) fn target(&mut self, what: impl Into<String>, value: f64, sense: Sense, limit: f64) {
        let met = match sense {
            Sense::AtLeast => value >= limit,
            Sense::AtMost => value <= limit,
        };
        self.targets.push(Target { what: what.into(), value, sense, limit, met });
    }

    /// Adds a plot.
    pub(crate) fn chart(&mut self, chart: Chart) {
        self.charts.push(chart);
    }

    /// Says how long it took.
    pub(crate) fn took(&mut self, seconds: f64) {
        self.seconds = seconds;
    }

    /// The plots.
    pub(crate) fn charts(&self) -> &[Chart] {
        &self.charts
    }

    /// Shows everything but the plots to people.
    pub(crate) fn show(&self, output: Output) {
        output.line(&format!(
            "{}  {}",
            output.tone(Tone::Strong, self.scenario),
            output.tone(Tone::Dim, &format!("({:.0} s)", self.seconds)),
        ));
        output.line(&self.about);
        for table in &self.tables {
            output.line("");
            output.line(&output.tone(Tone::Accent, &table.title));
            show_table(&table.cases, output);
        }
        if !self.targets.is_empty() {
            output.line("");
        }
        for target in &self.targets {
            let (tone, word) =
                if target.met { (Tone::Good, "met   ") } else { (Tone::Warning, "missed") };
            let sense = match target.sense {
                Sense::AtLeast => "at least",
                Sense::AtMost => "at most",
            };
            let (value, limit) = (short(target.value), short(target.limit));
            output.line(&format!(
                "{} {}: {value} ({sense} {limit})",
                output.tone(tone, word),
                target.what
            ));
        }
        output.line("");
    }
}

fn show_table(cases: &[Case], output: Output) {
    let mut figures: Vec<Figure> = Vec::new();
    for (figure, _) in cases.iter().flat_map(|case| &case.figures) {
        if !figures.contains(figure) {
            figures.push(*figure);
        }
    }
    let mut headings = vec![""];
    headings.extend(figures.iter().map(|figure| figure.heading));
    let rows: Vec<Vec<String>> = cases
        .iter()
        .map(|case| {
            let cells = figures.iter().map(|figure| {
                let value = case.get(*figure).filter(|value| value.is_finite());
                value.map_or_else(|| String::from("-"), |value| cell(*figure, value))
            });
            std::iter::once(case.case.clone()).chain(cells).collect()
        })
        .collect();
    output.table(&headings, &rows);
}

fn cell(figure: Figure, value: f64) -> String {
    format!("{value:.*}", figure.decimals)
}

/// A number with as many digits as a reader wants.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn as_map<S: Serializer>(figures: &[(Figure, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(figures.len()))?;
    for (figure, value) in figures {
        map.serialize_entry(figure.key, value)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_members_by_their_names() {
        let case = Case::new("system").with(Figure::P50, 1.5).with(Figure::OF_LOOP, f64::NAN);
        let json = serde_json::to_value(&case).unwrap();
        let figures = serde_json::json!({ "p50_ms": 1.5, "of_bare_loop": null });
        assert_eq!(json, serde_json::json!({ "case": "system", "figures": figures }));
    }

    #[test]
    fn a_target_is_met_on_its_side_of_the_limit() {
        let mut sheet = Sheet::new("x", "");
        sheet.target("fast", 1.0, Sense::AtLeast, 1.0);
        sheet.target("short", 2.0, Sense::AtMost, 1.0);
        sheet.target("unknown", f64::NAN, Sense::AtMost, 1.0);
        let met: Vec<bool> = sheet.targets.iter().map(|target| target.met).collect();
        assert_eq!(met, [true, false, false]);
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!([short(1234.5), short(12.34), short(0.123)], ["1234", "12.3", "0.12"]);
    }
}
