//! The keys that seal secrets: in a file, in the environment, or printed by a command.

use std::{
    env, fs,
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use fanfare_domain::{
    Endpoint, Timestamp,
    seal::{Keyring, SealError, Unopenable},
};
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

/// What the setting begins with if it names a variable of the environment.
const VARIABLE: &str = "env:";
/// What it begins with if it is a command.
const COMMAND: &str = "command:";
/// How long the command may take.
const COMMAND_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked whether it has ended, once it has printed everything.
const COMMAND_LOOK: Duration = Duration::from_millis(5);
/// How much of what it prints is read, in bytes: a thousand keys.
const COMMAND_BYTES_MAX: u64 = 65 << 10;

/// The keys could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file could not be read.
    #[error(
        "cannot read the sealing key file {} ({cause}): every service of an installation needs the \
         same one, setting sealing_key_file; `fanfare up` makes it, or for a new installation \
         `openssl rand -hex 32 > {}`",
        path.display(),
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There is no such variable in the environment.
    #[error(
        "the setting sealing_key_file says that the sealing keys are in the variable {name} of the \
         environment, where it is missing or no text: every service of an installation needs the \
         same keys"
    )]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// The command does not print the keys.
    #[error(
        "the command that is to print the sealing keys (setting sealing_key_file) {what}; it is \
         given to `sh -c`, and what it says is on standard error"
    )]
    Command {
        /// What is wrong with it.
        what: String,
    },
    /// What was found holds no keys.
    #[error("{place} holds no sealing keys")]
    Malformed {
        /// Where it was found: a file, a variable, or the command, which is not shown.
        place: String,
        /// What is wrong with it.
        #[source]
        cause: SealError,
    },
    /// The keys are not those of the installation.
    #[error(
        "{unopenable}: it is sealed with key {key_id}, which the sealing key file (setting \
         sealing_key_file) does not hold. Restore that key, as a line of the file. If it is lost \
         for good, the secrets are too: begin a new installation, under another log.prefix or \
         without the old one's data"
    )]
    Foreign {
        /// The first value that they do not open.
        unopenable: Box<Unopenable>,
        /// The key that it is sealed with.
        key_id: String,
    },
}

/// Loads the keys that seal and open secrets, from where the setting says: a file; `env:NAME`, a
/// variable of the environment; or `command:…`, what a command prints within 30 seconds.
///
/// Blocks while the command runs: services load their keys at their start.
pub fn load_keyring(setting: &Path) -> Result<Keyring, KeysError> {
    let said = setting.to_str().unwrap_or_default();
    let text = if let Some(name) = said.strip_prefix(VARIABLE) {
        variable(name).ok_or_else(|| KeysError::NoVariable { name: String::from(name) })?
    } else if let Some(command) = said.strip_prefix(COMMAND) {
        printed(command, COMMAND_WAIT).map_err(|what| KeysError::Command { what })?
    } else {
        fs::read_to_string(setting)
            .map(Zeroizing::new)
            .map_err(|cause| KeysError::Unreadable { path: setting.to_owned(), cause })?
    };
    Keyring::parse(&text).map_err(|cause| {
        let is_command = said.starts_with(COMMAND);
        let shown = setting.to_string_lossy();
        let place = if is_command { "what the command prints".into() } else { shown };
        KeysError::Malformed { place: place.into_owned(), cause }
    })
}

fn variable(name: &str) -> Option<Zeroizing<String>> {
    let found = env::vars_os().find(|(known, _)| known == name);
    found.and_then(|(_, text)| text.into_string().ok()).map(Zeroizing::new)
}

/// Returns what a command prints within a time, or what is wrong with it.
fn printed(command: &str, within: Duration) -> Result<Zeroizing<String>, String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped());
    // A group of its own, so that it can be ended with all that it has begun.
    let mut child =
        shell.process_group(0).spawn().map_err(|error| format!("cannot be run ({error})"))?;
    let read = read_all(&mut child, within);
    let text = read.and_then(|text| ended(&mut child, within).map(|()| text));
    let text =
        text.map_err(|what| what.unwrap_or_else(|| format!("did not end within {within:?}")));
    if text.is_err() {
        // It may have ended by itself meanwhile.
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        drop(child.wait());
    }
    text
}

/// Waits until the command has ended, well. Fails without a reason if that takes too long.
fn ended(child: &mut Child, within: Duration) -> Result<(), Option<String>> {
    for _ in 0..within.as_millis() / COMMAND_LOOK.as_millis() {
        match child.try_wait().map_err(|error| format!("cannot be waited for ({error})"))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(Some(format!("failed ({status})"))),
            None => thread::sleep(COMMAND_LOOK),
        }
    }
    Err(None)
}

fn read_all(child: &mut Child, within: Duration) -> Result<Zeroizing<String>, Option<String>> {
    let (said, hear) = mpsc::channel();
    let stdout = child.stdout.take();
    thread::spawn(move || {
        let mut text = Zeroizing::new(String::new());
        let mut limited = stdout.into_iter().map(|stdout| stdout.take(COMMAND_BYTES_MAX));
        let read = limited.try_for_each(|mut out| out.read_to_string(&mut text).map(drop));
        // Nobody hears it who no longer waits.
        drop(said.send(read.map(|()| text)));
    });
    match hear.recv_timeout(within) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(Some(format!("prints what cannot be read ({error})"))),
        Err(_) => Err(None),
    }
}

/// Refuses keys that are not those of the installation: with them no request could be made to its
/// endpoints, and what is sealed from now on would open nowhere else.
///
/// A value that is altered is no reason to refuse, and is told in the log: it can be replaced, and
/// other endpoints are served.
///
/// # Errors
///
/// [`KeysError::Foreign`], with the first value that is sealed with an unknown key.
pub fn check_keyring(
    keyring: &Keyring,
    endpoints: impl IntoIterator<Item = Endpoint>,
    now: Timestamp,
) -> Result<(), KeysError> {
    for endpoint in endpoints {
        let Err(unopenable) = keyring.check(&endpoint, now) else { continue };
        match &unopenable.cause {
            SealError::UnknownKey { key_id } => {
                let key_id = key_id.clone();
                return Err(KeysError::Foreign { unopenable: Box::new(unopenable), key_id });
            }
            SealError::Altered | SealError::MalformedKey => {
                tracing::error!(
                    error = %unopenable,
                    tenant_id = %unopenable.tenant,
                    endpoint_id = %unopenable.endpoint,
                    "give the endpoint a new secret, or new headers"
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fanfare_domain::{
        EndpointId, EndpointState,
        endpoint::{Secret, secret_owner},
    };

    use super::*;

    #[test]
    fn a_missing_key_file_is_named_with_how_to_make_one() {
        let missing = load_keyring(Path::new("/nowhere/sealing.key")).unwrap_err().to_string();
        let cause = "cannot read the sealing key file /nowhere/sealing.key (No such file";
        assert!(missing.starts_with(cause), "{missing}");
        assert!(missing.contains("`openssl rand -hex 32 > /nowhere/sealing.key`"), "{missing}");
    }

    #[test]
    fn keys_come_from_a_command_or_the_environment_too() {
        let key = "ab".repeat(32);
        let printed = load_keyring(Path::new(&format!("command: echo {key}"))).unwrap();
        assert_eq!(printed.sealing_key_id(), ring("ab").sealing_key_id());
        let refused = |setting: &str| load_keyring(Path::new(setting)).unwrap_err().to_string();
        assert!(refused("command:exit 3").contains("failed (exit status: 3)"));
        assert!(refused("command:echo nothing").contains("holds no sealing keys"));
        assert!(!refused("command:echo nothing").contains("echo"), "the command may hold a token");
        // Closed, and not ended.
        let hanging = super::printed("exec >&-; sleep 60", Duration::from_millis(100));
        assert!(hanging.unwrap_err().contains("did not end"));
        assert!(refused("env:FANFARE_NO_SUCH_VARIABLE").contains("FANFARE_NO_SUCH_VARIABLE"));
        assert!(matches!(
            load_keyring(Path::new("env:PATH")),
            Err(KeysError::Malformed { cause: SealError::MalformedKey, .. })
        ));
    }

    fn ring(byte: &str) -> Keyring {
        Keyring::parse(&byte.repeat(32)).unwrap()
    }

    fn endpoint(number: u8, sealed_by: &Keyring, sealed_for: EndpointId) -> Endpoint {
        let sealed = sealed_by.seal(&secret_owner(sealed_for), "whsec_x", [number; 24]);
        Endpoint {
            id: EndpointId::new(Timestamp::EPOCH, [number; 10]),
            tenant: "acme".parse().unwrap(),
            url: String::from("https://example.com/"),
            name: String::new(),
            description: String::new(),
            filters: Vec::new(),
            condition: None,
            secrets: vec![Secret { sealed, created_at: Timestamp::EPOCH, expires_at: None }],
            headers: BTreeMap::new(),
            state: EndpointState::Active,
            retry: None,
            timeout: None,
            concurrency: None,
            rate_limit: None,
            batch: None,
            cancelled_before: None,
            trace_context: None,
            security: fanfare_domain::endpoint::Security::default(),
            ordering: fanfare_domain::endpoint::Ordering::None,
            metadata: BTreeMap::new(),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
        }
    }

    #[test]
    fn keys_of_another_installation_are_refused_and_an_altered_value_is_not() {
        let (ours, theirs) = (ring("ab"), ring("cd"));
        let id = |number| EndpointId::new(Timestamp::EPOCH, [number; 10]);
        let good = endpoint(1, &ours, id(1));
        let altered = endpoint(2, &ours, id(1));
        let foreign = endpoint(3, &theirs, id(3));
        let check = |endpoints: &[&Endpoint]| {
            check_keyring(&ours, endpoints.iter().copied().cloned(), Timestamp::EPOCH)
        };
        assert!(check(&[&good, &altered]).is_ok());
        let refused = check(&[&good, &altered, &foreign]).unwrap_err().to_string();
        for named in [foreign.id.to_string().as_str(), theirs.sealing_key_id(), "Restore"] {
            assert!(refused.contains(named), "{named}: {refused}");
        }
    }
}
