//! The dashboards of `deploy/observability/grafana`, and what they ask.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The dashboards that ask Prometheus.
pub(crate) const OF_METRICS: [&str; 2] = ["overview", "pipeline"];

/// A dashboard.
pub(crate) struct Board(Value);

/// Where everything for those who watch is.
pub(crate) fn observability() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/observability")
}

impl Board {
    /// Reads one.
    pub(crate) fn read(name: &str) -> Result<Self> {
        let path = observability().join(format!("grafana/{name}.json"));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self(serde_json::from_str(&text).with_context(|| path.display().to_string())?))
    }

    /// Every expression that it asks Prometheus, with its panel's title.
    pub(crate) fn expressions(&self) -> Result<Vec<(&str, &str)>> {
        self.queries("expr")
    }

    /// The statement of a panel.
    pub(crate) fn statement(&self, title: &str) -> Result<&str> {
        let all = self.statements()?;
        let found = all.iter().find(|(panel, _)| *panel == title);
        found.map(|(_, text)| *text).with_context(|| format!("a panel {title}"))
    }

    /// The titles of all panels that have a statement.
    pub(crate) fn titles(&self) -> Result<Vec<&str>> {
        Ok(self.statements()?.into_iter().map(|(title, _)| title).collect())
    }

    fn statements(&self) -> Result<Vec<(&str, &str)>> {
        self.queries("rawSql").or_else(|_| self.queries("rawQueryText"))
    }

    /// The statement of a variable.
    pub(crate) fn variable(&self, name: &str) -> Result<&str> {
        let all = self.0["templating"]["list"].as_array().context("variables")?;
        let found = all.iter().find(|one| one["name"] == name);
        found.and_then(|one| one["query"].as_str()).with_context(|| format!("a variable {name}"))
    }

    fn queries(&self, member: &str) -> Result<Vec<(&str, &str)>> {
        let mut found = Vec::new();
        for panel in self.0["panels"].as_array().context("panels")? {
            let title = panel["title"].as_str().context("a title")?;
            for target in panel["targets"].as_array().into_iter().flatten() {
                found.extend(target[member].as_str().map(|text| (title, text)));
            }
        }
        ensure!(!found.is_empty(), "nothing is asked");
        Ok(found)
    }
}
