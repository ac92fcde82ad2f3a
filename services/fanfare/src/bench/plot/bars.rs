//! Values of categories, beside each other; on a logarithmic axis if they are far apart.

use anyhow::Result;
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
    style::text_anchor::HPos,
};

use super::{Area, COLOURS, GRID, INK, LEGEND, extent, legend, number, write};

/// How many times the least value the greatest is before the axis is logarithmic.
const FAR_APART: f64 = 40.0;

/// How much of a category's room its bars take.
const FILLED: f64 = 0.78;

/// A panel of bars.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    axis: String,
    categories: Vec<String>,
    series: Vec<(String, Vec<f64>)>,
}

impl Bars {
    /// Begins a panel; `axis` says what the values are.
    pub(crate) fn new(axis: impl Into<String>, categories: &[&str]) -> Self {
        let categories = categories.iter().map(|name| String::from(*name)).collect();
        Self { axis: axis.into(), categories, series: Vec::new() }
    }

    /// Adds a value for each category.
    pub(crate) fn series(&mut self, name: impl Into<String>, values: Vec<f64>) {
        self.series.push((name.into(), values));
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Result<()> {
        legend(area, self.series.iter().map(|(name, _)| name.as_str()))?;
        let values = self.series.iter().flat_map(|(_, values)| values.iter().copied());
        let positive = values.filter(|value| *value > 0.0);
        let (least, most) = extent(positive).unwrap_or((1.0, 1.0));
        if most / least > FAR_APART {
            let bottom = 10_f64.powf(least.log10().floor());
            self.draw_on(area, (bottom..most * 2.0).log_scale(), bottom)
        } else {
            self.draw_on(area, 0.0..most * 1.12, 0.0)
        }
    }

    fn draw_on<Y>(&self, area: &Area<'_>, y: Y, bottom: f64) -> Result<()>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let count = f64::from(u32::try_from(self.categories.len().max(1))?);
        let mut chart = ChartBuilder::on(area)
            .margin_top(LEGEND + 4)
            .margin_left(14)
            .margin_right(20)
            .x_label_area_size(40)
            .y_label_area_size(76)
            .build_cartesian_2d(0.0..count, y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc(self.axis.as_str())
            .y_label_formatter(&|value| number(*value))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .draw()?;
        let room = FILLED / f64::from(u32::try_from(self.series.len().max(1))?);
        let mut tops = Vec::new();
        for ((at, (_, values)), colour) in (0_u32..).zip(&self.series).zip(COLOURS) {
            let offset = (1.0 - FILLED) / 2.0 + f64::from(at) * room;
            for (category, value) in (0_u32..).zip(values) {
                if !value.is_finite() || *value <= bottom {
                    continue;
                }
                let left = f64::from(category) + offset;
                let corners = [(left + room * 0.03, bottom), (left + room * 0.97, *value)];
                chart.draw_series(std::iter::once(Rectangle::new(corners, colour.filled())))?;
                tops.push(((left + room / 2.0, *value), number(*value)));
            }
        }
        let (left, top) = area.get_base_pixel();
        for (top_of_bar, label) in tops {
            let (x, y) = chart.plotting_area().map_coordinate(&top_of_bar);
            write(area, &label, (x - left, y - top - 15), (12.0, HPos::Center))?;
        }
        for (category, name) in (0_u32..).zip(&self.categories) {
            let middle = (f64::from(category) + 0.5, bottom);
            let (x, y) = chart.plotting_area().map_coordinate(&middle);
            write(area, name, (x - left, y - top + 8), (13.0, HPos::Center))?;
        }
        Ok(())
    }
}
