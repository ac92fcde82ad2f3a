//! Values over something: over time, or over how rare they are.

use anyhow::Result;
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
    style::text_anchor::HPos,
};

use super::{Area, COLOURS, GRID, INK, LEGEND, extent, legend, number, write};

/// A panel of lines.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    across: String,
    up: String,
    logarithmic: bool,
    tail: bool,
    series: Vec<(String, Vec<(f64, f64)>)>,
    marks: Vec<(f64, &'static str)>,
}

impl Lines {
    /// Begins a panel; the axes say what the values are.
    pub(crate) fn new(across: impl Into<String>, up: impl Into<String>) -> Self {
        Self {
            across: across.into(),
            up: up.into(),
            logarithmic: false,
            tail: false,
            series: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Makes the vertical axis logarithmic.
    pub(crate) const fn log(mut self) -> Self {
        self.logarithmic = true;
        self
    }

    /// Makes the horizontal axis one of percentiles: a point's place is 1 / (1 - percentile).
    pub(crate) const fn tail(mut self) -> Self {
        self.tail = true;
        self
    }

    /// Marks a place on the horizontal axis at which something begins.
    pub(crate) fn mark(&mut self, at: f64, what: &'static str) {
        self.marks.push((at, what));
    }

    /// Adds a line.
    pub(crate) fn series(&mut self, name: impl Into<String>, mut points: Vec<(f64, f64)>) {
        points.retain(|(x, y)| x.is_finite() && y.is_finite() && (!self.logarithmic || *y > 0.0));
        self.series.push((name.into(), points));
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Result<()> {
        legend(area, self.series.iter().map(|(name, _)| name.as_str()))?;
        let points = || self.series.iter().flat_map(|(_, points)| points.iter().copied());
        let (left, right) = extent(points().map(|(x, _)| x)).unwrap_or((0.0, 1.0));
        let right = if right > left { right } else { left + 1.0 };
        let (least, most) = extent(points().map(|(_, y)| y)).unwrap_or((1.0, 10.0));
        // Whole powers of ten, so that there are labels.
        let up = 10_f64.powf(least.log10().floor())..10_f64.powf((most * 1.01).log10().ceil());
        match (self.tail, self.logarithmic) {
            (true, true) => {
                let across = left.max(1.0)..right.max(10.0);
                self.draw_on(area, across.log_scale(), up.log_scale(), percentile)
            }
            (true, false) => {
                let across = left.max(1.0)..right.max(10.0);
                self.draw_on(area, across.log_scale(), 0.0..most.max(1.0) * 1.1, percentile)
            }
            (false, true) => self.draw_on(area, left.min(0.0)..right, up.log_scale(), number),
            (false, false) => {
                self.draw_on(area, left.min(0.0)..right, 0.0..most.max(1.0) * 1.1, number)
            }
        }
    }

    fn draw_on<X, Y>(&self, area: &Area<'_>, x: X, y: Y, across: fn(f64) -> String) -> Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .margin_top(LEGEND + 4)
            .margin_left(14)
            .margin_right(24)
            .x_label_area_size(48)
            .y_label_area_size(76)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(self.across.as_str())
            .y_desc(self.up.as_str())
            .y_labels(8)
            .x_label_formatter(&|value| across(*value))
            .y_label_formatter(&|value| number(*value))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .draw()?;
        for ((_, points), colour) in self.series.iter().zip(COLOURS) {
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart.draw_series(line)?;
        }
        let (left, top) = area.get_base_pixel();
        let (_, high) = chart.plotting_area().get_pixel_range();
        for (at, what) in &self.marks {
            // Any height will do: only the place across is wanted.
            let (x, _) = chart.plotting_area().map_coordinate(&(*at, 1.0));
            let ends = [high.start, high.end].map(|y| (x - left, y - top));
            area.draw(&PathElement::new(ends, INK.mix(0.5)))?;
            write(area, what, (x - left + 4, high.start - top + 2), (12.0, HPos::Left))?;
        }
        Ok(())
    }
}

/// The name of a percentile by 1 / (1 - percentile).
fn percentile(place: f64) -> String {
    format!("p{}", number(100.0 - 100.0 / place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_have_their_names() {
        let names = [2.0, 10.0, 100.0, 1_000.0].map(percentile);
        assert_eq!(names, ["p50", "p90", "p99", "p99.9"]);
    }
}
