//! Rows of bad input with what must come of them, and the page that lists them.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

/// What came of each row, by its name.
pub(crate) type Seen = BTreeMap<String, String>;

/// One bad input.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its name within its family.
    pub(crate) name: String,
    /// The input, or what is done, in words.
    pub(crate) input: String,
    /// What must come of it; several, with ` or ` between, where it is not up to us.
    pub(crate) expected: String,
    /// Whose published mistake it is about; mostly empty.
    pub(crate) advisory: &'static str,
}

/// Rows of one kind.
pub(crate) struct Family {
    /// What they have in common.
    pub(crate) title: &'static str,
    /// How they are played.
    pub(crate) how: &'static str,
    /// The rows.
    pub(crate) rows: Vec<Row>,
}

impl Row {
    /// A row that is about no published mistake. Its input is its name.
    pub(crate) fn new(input: &str, expected: &str) -> Self {
        Self::named(input, input, expected)
    }

    /// A row whose name is not its input.
    pub(crate) fn named(name: &str, input: &str, expected: &str) -> Self {
        let (name, input) = (String::from(name), String::from(input));
        Self { name, input, expected: String::from(expected), advisory: "" }
    }

    /// Says whose mistake it is about.
    pub(crate) fn of(self, advisory: &'static str) -> Self {
        Self { advisory, ..self }
    }
}

impl Family {
    /// Compares what came of the rows with what must; returns what is wrong.
    pub(crate) fn judge(&self, seen: &Seen) -> Vec<String> {
        let judge = |row: &Row| {
            let seen = seen.get(&row.name).map_or("nothing", String::as_str);
            let fits = row.expected.split(" or ").any(|expected| expected == seen);
            (!fits).then(|| {
                let (title, input) = (self.title, shown(&row.input));
                format!("{title}: {input}: expected {}, seen {seen}", row.expected)
            })
        };
        let unknown = seen.keys().filter(|name| self.rows.iter().all(|row| row.name != **name));
        let unknown = unknown.map(|name| format!("{}: there is no row {name}", self.title));
        self.rows.iter().filter_map(judge).chain(unknown).collect()
    }
}

/// Checks that the page says what the rows are, or writes it.
pub(crate) fn check_readme(families: &[Family]) -> Result<()> {
    for family in families {
        let mut names: Vec<_> = family.rows.iter().map(|row| &row.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        ensure!(names.len() == before, "{}: two rows have the same name", family.title);
    }
    let rows: usize = families.iter().map(|family| family.rows.len()).sum();
    ensure!(rows >= 120, "{rows} rows are less than 120");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("security/README.md");
    let wanted = page(families, rows)?;
    if fanfare_service::process_env()?.contains_key("FANFARE_WRITE_SECURITY") {
        return fs::write(&path, wanted).context("write the page");
    }
    let there = fs::read_to_string(&path).context("read the page")?;
    ensure!(there == wanted, "README.md is not what the rows say: FANFARE_WRITE_SECURITY=1");
    Ok(())
}

const HEAD: &str = "# Bad input

What strangers send, and what must come of it. `cargo test -p fanfare-tests --test security` plays every row against a
running installation: all services as processes of their own, a nats-server, a name server and receivers that
misbehave, over real sockets. This page is written by the rows (`FANFARE_WRITE_SECURITY=1`) and checked against them.
";

const ELSEWHERE: &str = "
## Mistakes that other tests play

| mistake | test |
| --- | --- |
| two requests at once with one idempotency key make two events (Convoy #2747) | [duplicate_is_delivered_once](../system/duplicate_is_delivered_once.rs) |
| a retry by hand and a scheduled one race (Outpost) | [commands_are_carried_out](../system/commands_are_carried_out.rs) |
| a message is handed out again while its request is still under way (Svix #2181) | [frozen_dispatcher_sends_nothing](../system/frozen_dispatcher_sends_nothing.rs) |
| a crash between two steps loses what was accepted (Svix #569) | [killed_processes_lose_nothing](../system/killed_processes_lose_nothing.rs) |
| the log's projection is not idempotent (Outpost #953) | [the_delivery_log_agrees](../system/the_delivery_log_agrees.rs) |
| secrets in logs and answers (Convoy #2706) | [secrets_never_leave](../system/secrets_never_leave.rs) |
| a part of the system dials by itself, past the filter (GitLab #28485, #28490, #61349; Mattermost CVE-2026-96259; Convoy #2668) | what sends events may name no HTTP client but `egress`: [imports](../rules/imports.rs) |
| a message that cannot be read is handed out for ever (Outpost) | [hostile messages](../../services/ingest/tests/service/hostile.rs) |
| the secret of an incoming webhook is not verified (Mattermost GHSA-455c-vqrf-mghr) | nothing comes in by webhook; keys: the rows on tokens above |
| 200 endpoints that misbehave at once delay the others | [quiet](quiet.rs) |
";

fn page(families: &[Family], rows: usize) -> Result<String> {
    let mut page = format!("{HEAD}\nThere are {rows} rows.\n");
    for family in families {
        write!(page, "\n## {}\n\n{}\n\n", family.title, family.how)?;
        writeln!(page, "| input | must end as | mistake of |\n| --- | --- | --- |")?;
        for row in &family.rows {
            let input = shown(&row.input);
            writeln!(page, "| {input} | {} | {} |", row.expected, row.advisory)?;
        }
    }
    page.push_str(ELSEWHERE);
    Ok(page)
}

/// Shows an input on one line of a table, whatever stands in it.
fn shown(input: &str) -> String {
    let escape = |symbol: char| match symbol {
        '|' => String::from("&#124;"),
        '<' => String::from("&lt;"),
        '`' => String::from("&#96;"),
        '*' => String::from("&#42;"),
        '_' => String::from("&#95;"),
        symbol if symbol.is_control() => symbol.escape_default().to_string(),
        symbol => String::from(symbol),
    };
    let mut shown: String = input.chars().take(100).map(escape).collect();
    if input.chars().count() > 100 {
        let more = format!("… ({} characters)", input.chars().count());
        shown.push_str(&more);
    }
    shown
}
