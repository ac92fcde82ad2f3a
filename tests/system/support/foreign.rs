//! Programs in other languages: receivers and producers as their owners would write them.
//!
//! What they need is fetched once, below `target/receivers`, by npm and pip. A machine without
//! Node or Python skips what needs them, and says so on standard error, past the test harness's
//! capture. With `CI=true` a fetch that fails is a failure.

use std::{
    fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail, ensure};
use fanfare_testkit::wait_until;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::OnceCell,
    task::JoinSet,
};

use super::binary::packages_dir;

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// JavaScript, by Node.
    Node,
    /// Python 3.
    Python,
}

impl Language {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Node, Self::Python];

    /// The name, as it stands in paths.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python3",
        }
    }

    /// What is fetched, in these versions.
    const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Node => &["standardwebhooks@1.1.1"],
            Self::Python => &["standardwebhooks==1.1.0", "PyNaCl==1.6.2", "nats-py==2.16.0"],
        }
    }

    fn fetch(self, packages: &[&str], into: &Path) -> Command {
        let mut command = match self {
            Self::Node => {
                let mut npm = Command::new("npm");
                npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
                npm
            }
            Self::Python => {
                let mut pip = Command::new("python3");
                pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--target"]);
                pip
            }
        };
        command.arg(into).args(packages);
        command
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Makes sure that a language and its packages are there; returns where the packages are, or
/// `None` after saying what is skipped.
pub(crate) async fn packages(language: Language, what: &str) -> Result<Option<PathBuf>> {
    static NODE: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    static PYTHON: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    let cell = match language {
        Language::Node => &NODE,
        Language::Python => &PYTHON,
    };
    match cell.get_or_try_init(|| provide(language, language.packages())).await? {
        Ok(path) => Ok(Some(path.clone())),
        Err(why) => skipped(&format!("{what} in {language}"), why),
    }
}

/// Makes sure that the fuzzer of OpenAPI documents is there; returns where its packages are, or
/// `None` after saying what is skipped.
pub(crate) async fn fuzzer(what: &str) -> Result<Option<PathBuf>> {
    match provide(Language::Python, &["schemathesis==4.32.5"]).await? {
        Ok(path) => Ok(Some(path)),
        Err(why) => skipped(what, &why),
    }
}

fn skipped(what: &str, why: &str) -> Result<Option<PathBuf>> {
    // Not the macro: what that writes is shown for failing tests only.
    writeln!(std::io::stderr(), "SKIPPED: {what}: {why}")?;
    Ok(None)
}

/// The packages' directory, or why there is none on this machine.
async fn provide(language: Language, packages: &[&str]) -> Result<Result<PathBuf, String>> {
    let program = language.program();
    let version = Command::new(program).arg("--version").output().await;
    if !version.is_ok_and(|output| output.status.success()) {
        return Ok(Err(format!("there is no {program} on this machine")));
    }
    let base = packages_dir()?;
    let versions = packages.join("+").replace("==", "@");
    let ready = base.join(format!("{language}-{versions}"));
    if ready.is_dir() {
        return Ok(Ok(ready));
    }
    fs::create_dir_all(&base).with_context(|| base.display().to_string())?;
    let fresh = tempfile::tempdir_in(&base).context("make a directory")?;
    let mut fetch = language.fetch(packages, fresh.path());
    let fetched = fetch.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let why = match fetched {
        Ok(output) if output.status.success() => {
            // Another process may have been faster, with the same.
            if fs::rename(fresh.keep(), &ready).is_err() {
                ensure!(ready.is_dir(), "keep {}", ready.display());
            }
            return Ok(Ok(ready));
        }
        Ok(output) => first_error(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => error.to_string(),
    };
    let why = format!("could not fetch {versions}: {why}");
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!(why);
    }
    Ok(Err(why))
}

/// The line of what a program said that tells most.
fn first_error(said: &str) -> String {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let telling = lines.clone().find(|line| line.to_lowercase().contains("error:"));
    String::from(telling.or_else(|| lines.next_back()).unwrap_or("it did not say why"))
}

/// A receiver in another language, with the recipes of all profiles.
pub(crate) struct Receiver {
    _child: Child,
    stdin: ChildStdin,
    port: u64,
    reports: Arc<Mutex<Vec<Value>>>,
    _reader: JoinSet<()>,
}

impl Receiver {
    /// Starts one; `None` where the language is missing, after saying so.
    pub(crate) async fn start(language: Language) -> Result<Option<Self>> {
        let Some(packages) = packages(language, "verification by a receiver").await? else {
            return Ok(None);
        };
        let script = match language {
            Language::Node => "node/receiver.mjs",
            Language::Python => "python/receiver.py",
        };
        let mut command = program(language, script, &packages);
        let mut child = command.spawn().with_context(|| format!("start {language}"))?;
        let stdin = child.stdin.take().context("its standard input is a pipe")?;
        let stdout = child.stdout.take().context("its standard output is a pipe")?;
        let reports = Arc::new(Mutex::new(Vec::new()));
        let mut reader = JoinSet::new();
        reader.spawn(note(stdout, Arc::clone(&reports)));
        let mut receiver = Self { _child: child, stdin, port: 0, reports, _reader: reader };
        receiver.port = wait_until("a receiver to listen", async || {
            let reports = receiver.reports();
            reports.iter().find_map(|report| report.get("port")?.as_u64()).ok_or(reports)
        })
        .await;
        Ok(Some(receiver))
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Tells it of an endpoint: how its requests are verified, and how many verified requests of
    /// one id it answers with 503 before the first 200.
    pub(crate) async fn know(
        &mut self,
        path: &str,
        recipe: &str,
        secret: &str,
        failures: u32,
    ) -> Result<()> {
        let line = json!({
            "path": path, "profile": recipe, "secret": secret, "failures": failures,
        });
        let line = format!("{line}\n");
        self.stdin.write_all(line.as_bytes()).await.context("tell a receiver of an endpoint")?;
        wait_until("a receiver to know an endpoint", async || {
            let reports = self.reports();
            let known = |report: &Value| {
                report.get("path").is_some_and(|known| known == path)
                    && report.get("status").is_none()
            };
            reports.iter().any(known).then_some(()).ok_or(reports)
        })
        .await;
        Ok(())
    }

    /// What it reported of requests to a path so far.
    pub(crate) fn seen_at(&self, path: &str) -> Vec<Value> {
        let mut reports = self.reports();
        reports.retain(|report| {
            report.get("path").is_some_and(|at| at == path) && report.get("status").is_some()
        });
        reports
    }

    fn reports(&self) -> Vec<Value> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs a program of the receivers' folder to its end, and returns what it wrote.
pub(crate) async fn run(
    packages: &Path,
    script: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String> {
    let mut command = program(Language::Python, script, packages);
    let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().context("start it")?;
    let mut stdin = child.stdin.take().context("its standard input is a pipe")?;
    stdin.write_all(input.as_bytes()).await.context("write to it")?;
    drop(stdin);
    let output = child.wait_with_output().await.context("wait for it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script} ended with {}: {said}", output.status);
    String::from_utf8(output.stdout).context("read what it wrote")
}

fn program(language: Language, script: &str, packages: &Path) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("receivers").join(script);
    let mut command = Command::new(language.program());
    command
        .arg(script)
        .env("RECEIVER_PACKAGES", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn note(stdout: ChildStdout, reports: Arc<Mutex<Vec<Value>>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let report = serde_json::from_str(&line).unwrap_or(Value::String(line));
        reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}
