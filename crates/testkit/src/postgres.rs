//! A PostgreSQL for one test.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::{cluster::free_ports, wait_until};

/// Where Debian keeps the programs, by version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A PostgreSQL on a free port and a temporary directory, without a password. Ends when dropped.
pub struct Postgres {
    programs: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    child: Option<Child>,
    directory: TempDir,
}

/// How many ports are tried.
const PORTS_TRIED: usize = 3;

impl Postgres {
    /// Starts a server, if the machine has the programs. Where it has none, a line on standard error
    /// says that the test named `what` is skipped.
    pub async fn start(what: &str) -> Result<Option<Self>> {
        let Some(programs) = programs() else {
            let line = format!("SKIPPED on PostgreSQL, which is not installed here: {what}\n");
            // Past the capture of the test's output: it is to be seen.
            std::io::stderr().write_all(line.as_bytes()).context("say what is skipped")?;
            return Ok(None);
        };
        let directory = tempfile::Builder::new().prefix("fanfare-postgres-").tempdir();
        let directory = directory.context("make a temporary directory")?;
        let port = *free_ports(1).first().context("a free port")?;
        let user = if geteuid().is_root() { Some(someone()?) } else { None };
        if let Some((user, group)) = user {
            chown(directory.path(), Some(user), Some(group)).context("give the directory away")?;
        }
        let mut postgres = Self { programs, port, user, child: None, directory };
        let made = postgres
            .command("initdb")
            .args(["--username=fanfare", "--auth=trust", "--no-sync", "--encoding=UTF8"])
            .args(["--locale=C", "--pgdata"])
            .arg(postgres.data())
            .output()
            .context("run initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut tries = 0;
        while let Err(error) = postgres.restart().await {
            tries += 1;
            ensure!(tries < PORTS_TRIED, "{error:#}");
            // Somebody else was faster.
            postgres.port = *free_ports(1).first().context("a free port")?;
        }
        Ok(Some(postgres))
    }

    /// Where it is, as the URL of a database.
    pub fn url(&self) -> String {
        format!("postgres://fanfare@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops it at once. Who was connected is cut off.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // An immediate shutdown: the server's other processes end too.
        let asked = pid.map(|pid| kill_process(pid, Signal::QUIT));
        if !matches!(asked, Some(Ok(()))) {
            // It has ended already, or ends with this.
            let _gone = child.kill();
        }
        let _ended = child.wait();
    }

    /// Starts it again on its data and its port.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop();
        let log = fs::File::create(self.directory.path().join("server.log")).context("its log")?;
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-k", "", "-F"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.context("run postgres")?);
        let port = self.port.to_string();
        let mut ended = None;
        wait_until("PostgreSQL to answer", async || {
            // Whoever answers then is another test's, which took the port.
            if let Some(child) = &mut self.child {
                ended = child.try_wait().map_err(|error| error.to_string())?;
            }
            if ended.is_some() {
                return Ok(());
            }
            let asked = self.command("pg_isready").args(["-h", "127.0.0.1", "-p", &port]).output();
            let ready = asked.map_err(|error| error.to_string())?;
            if ready.status.success() { Ok(()) } else { Err(format!("{:?}", ready.status)) }
        })
        .await;
        ended.map_or(Ok(()), |status| bail!("postgres ended: {status}"))
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// One of its programs. They refuse to be run by root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.directory.path()).env_clear().env("PATH", "/usr/bin:/bin");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Finds the directory of the programs: the newest of Debian's, or that of `postgres` on the path.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .filter(|(_, path)| has_all(path))
        .collect();
    found.sort();
    if let Some((_, path)) = found.pop() {
        return Some(path);
    }
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).find(|path| has_all(path))
}

fn has_all(path: &Path) -> bool {
    ["initdb", "postgres", "pg_isready"].iter().all(|program| path.join(program).is_file())
}

/// A user and group to run it as: its own, or nobody.
fn someone() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").context("read the users")?;
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    of("postgres").or_else(|| of("nobody")).context("a user to run PostgreSQL as")
}
