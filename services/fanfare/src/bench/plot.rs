//! Plots as SVG: a title, and panels of bars or lines below each other.

mod bars;
mod lines;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

pub(crate) use self::{bars::Bars, lines::Lines};

/// The width of a plot and the height of a panel and of the title, in pixels.
const WIDTH: u32 = 960;
const PANEL: u32 = 380;
const TITLE: u32 = 48;
/// The height of a panel's legend.
const LEGEND: i32 = 30;

/// Colours that are told apart by everyone (Okabe and Ito), the first for the system.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(120, 120, 120),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];

const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Where plots are drawn.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A plot.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    name: &'static str,
    title: String,
    panels: Vec<Panel>,
}

/// A part of a plot.
#[derive(Clone, Debug)]
pub(crate) enum Panel {
    /// Values of categories, beside each other.
    Bars(Bars),
    /// Values over something.
    Lines(Lines),
}

impl Chart {
    /// Begins a plot; `name` is that of its file.
    pub(crate) fn new(name: &'static str, title: impl Into<String>) -> Self {
        Self { name, title: title.into(), panels: Vec::new() }
    }

    /// Adds a panel below the others.
    pub(crate) fn with(mut self, panel: Panel) -> Self {
        self.panels.push(panel);
        self
    }

    /// Writes the plot into a directory. `foot` says of which machine it is.
    pub(crate) fn save(&self, directory: &Path, foot: &str) -> Result<PathBuf> {
        let path = directory.join(format!("{}.svg", self.name));
        fs::write(&path, self.svg(foot)?).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn svg(&self, foot: &str) -> Result<String> {
        let mut text = String::new();
        let panels = u32::try_from(self.panels.len())?;
        {
            let size = (WIDTH, TITLE + panels * PANEL + TITLE / 2);
            let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
            root.fill(&WHITE)?;
            write(&root, &self.title, (20, 16), (20.0, HPos::Left))?;
            let (_, below) = root.split_vertically(TITLE);
            let (middle, bottom) = below.split_vertically(panels * PANEL);
            for (panel, area) in self.panels.iter().zip(middle.split_evenly((self.panels.len(), 1)))
            {
                match panel {
                    Panel::Bars(bars) => bars.draw(&area)?,
                    Panel::Lines(lines) => lines.draw(&area)?,
                }
            }
            write(&bottom, foot, (20, 4), (11.0, HPos::Left))?;
            root.present()?;
        }
        Ok(text)
    }
}

/// Writes text.
fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    (size, horizontal): (f64, HPos),
) -> Result<()> {
    let anchor = Pos::new(horizontal, VPos::Top);
    let style = TextStyle::from(("sans-serif", size).into_font()).color(&INK).pos(anchor);
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

/// Draws the names of series with their colours in a row.
fn legend<'n>(area: &Area<'_>, names: impl Iterator<Item = &'n str>) -> Result<()> {
    let mut x = 90;
    for (name, colour) in names.zip(COLOURS) {
        area.draw(&Rectangle::new([(x, 9), (x + 14, 21)], colour.filled()))?;
        write(area, name, (x + 20, 8), (14.0, HPos::Left))?;
        // There are no font metrics here; seven pixels a letter is enough for this size.
        x += 48 + 7 * i32::try_from(name.chars().count())?;
    }
    Ok(())
}

/// A number beside an axis or a bar: as many digits as help.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000.0 {
        let whole = format!("{value:.0}");
        let digits = whole.len();
        let grouped = whole.chars().enumerate().flat_map(|(at, digit)| {
            let comma = at > 0 && (digits - at).is_multiple_of(3) && digit.is_ascii_digit();
            comma.then_some(',').into_iter().chain(std::iter::once(digit))
        });
        return grouped.collect();
    }
    let text = match size {
        _ if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// The least and the greatest of the values that can be drawn.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |extent, value| match extent {
        None => Some((value, value)),
        Some((least, most)) => Some((least.min(value), most.max(value))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.25, 1.0, 12.5, 123.4, 1_234_567.0].map(number);
        assert_eq!(shown, ["0", "0.25", "1", "12.5", "123", "1,234,567"]);
    }

    #[test]
    fn a_plot_has_its_titles_its_axes_and_its_legend() {
        let mut bars = Bars::new("per second", &["one", "two"]);
        bars.series("system", vec![1.0, f64::NAN]);
        let mut lines = Lines::new("seconds", "delay in ms").log();
        lines.series("p99", vec![(0.0, 1.0), (1.0, 2_000.0)]);
        lines.series("nothing", Vec::new());
        lines.mark(0.5, "it begins");
        let chart = Chart::new("x", "A title").with(Panel::Bars(bars)).with(Panel::Lines(lines));
        let svg = chart.svg("a machine").unwrap();
        for text in [
            "A title",
            "per second",
            "one",
            "system",
            "seconds",
            "delay in ms",
            "p99",
            "a machine",
            "it begins",
        ] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_plot_of_nothing_is_drawn_too() {
        let chart = Chart::new("x", "Nothing")
            .with(Panel::Bars(Bars::new("a", &[])))
            .with(Panel::Lines(Lines::new("a", "b").log().tail()));
        assert!(chart.svg("").unwrap().contains("Nothing"));
    }
}
