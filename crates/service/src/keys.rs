//! The file with the keys that seal secrets.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fanfare_domain::{
    Endpoint, Timestamp,
    seal::{Keyring, SealError, Unopenable},
};
use zeroize::Zeroizing;

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
    /// The file holds no keys.
    #[error("the sealing key file {} is malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
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

/// Loads the keys that seal and open secrets.
pub fn load_keyring(path: &Path) -> Result<Keyring, KeysError> {
    let text = fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|cause| KeysError::Unreadable { path: path.to_owned(), cause })?;
    Keyring::parse(&text).map_err(|cause| KeysError::Malformed { path: path.to_owned(), cause })
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
