//! The profiles of an installation: those that are built in, and an operator's own.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use super::Profile;

/// Each profile that is built in, as text.
const TEXTS: [&str; 4] = [
    include_str!("../../../../deploy/profiles/killb.toml"),
    include_str!("../../../../deploy/profiles/kryptos.toml"),
    include_str!("../../../../deploy/profiles/kyberaccess.toml"),
    include_str!("../../../../deploy/profiles/standard-webhooks.toml"),
];

/// Profiles by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    own: BTreeMap<String, Arc<Profile>>,
}

/// A profile that is built in has the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the profile {name} is built in, and cannot be replaced")]
pub struct NameTaken {
    /// The name.
    pub name: String,
}

fn built_in() -> &'static BTreeMap<String, Arc<Profile>> {
    static PROFILES: LazyLock<BTreeMap<String, Arc<Profile>>> = LazyLock::new(|| {
        let read = |text| Profile::parse(text).expect("a test reads every profile built in");
        TEXTS.map(read).map(|profile| (profile.name.clone(), Arc::new(profile))).into()
    });
    &PROFILES
}

impl Profiles {
    /// Returns the profiles that are built in, and no others.
    pub fn built_in() -> Self {
        Self::default()
    }

    /// Returns the profile of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Profile>> {
        built_in().get(name).or_else(|| self.own.get(name))
    }

    /// Returns every profile, in the order of their names among those built in, then the others.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Profile>> {
        built_in().values().chain(self.own.values())
    }

    /// Adds or replaces an operator's profile.
    pub fn insert(&mut self, profile: Arc<Profile>) -> Result<(), NameTaken> {
        if built_in().contains_key(&profile.name) {
            return Err(NameTaken { name: profile.name.clone() });
        }
        self.own.insert(profile.name.clone(), profile);
        Ok(())
    }

    /// Removes an operator's profile, if there is one of that name.
    pub fn remove(&mut self, name: &str) {
        self.own.remove(name);
    }
}
