//! The profiles of an installation: those built in, and those that an operator added as files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use fanfare_domain::profile::{NameTaken, Profile, ProfileError, Profiles};

/// The profiles could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ProfilesError {
    /// The directory or a file in it could not be read.
    #[error("read {}", path.display())]
    Unreadable {
        /// What could not be read.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file is not a profile.
    #[error("{} is not a profile", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: ProfileError,
    },
    /// Two profiles have the same name.
    #[error("{}", path.display())]
    NameTaken {
        /// The second one's file.
        path: PathBuf,
        /// Which name it is.
        #[source]
        cause: NameTaken,
    },
}

/// Loads the built-in profiles, and each `*.toml` of the directory in the order of their names.
pub fn load_profiles(directory: Option<&Path>) -> Result<Profiles, ProfilesError> {
    let mut profiles = Profiles::built_in();
    let Some(directory) = directory else { return Ok(profiles) };
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |cause| ProfilesError::Unreadable { path, cause }
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        paths.push(entry.map_err(unreadable(directory))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
        let profile = Profile::parse(&text)
            .map_err(|cause| ProfilesError::Malformed { path: path.clone(), cause })?;
        profiles
            .insert(Arc::new(profile))
            .map_err(|cause| ProfilesError::NameTaken { path, cause })?;
    }
    Ok(profiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_of_a_directory_join_those_built_in() {
        let directory =
            std::env::temp_dir().join(format!("fanfare-profiles-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let kryptos = include_str!("../../../deploy/profiles/kryptos.toml");
        let own = kryptos.replacen("\"kryptos\"", "\"our-own\"", 1);
        fs::write(directory.join("own.toml"), own).unwrap();
        fs::write(directory.join("notes.txt"), "not a profile").unwrap();
        let profiles = load_profiles(Some(&directory)).unwrap();
        assert!(profiles.get("our-own").is_some() && profiles.get("kryptos").is_some());
        fs::write(directory.join("bad.toml"), "nonsense").unwrap();
        assert!(matches!(load_profiles(Some(&directory)), Err(ProfilesError::Malformed { .. })));
        fs::remove_dir_all(&directory).unwrap();
        assert!(matches!(load_profiles(Some(&directory)), Err(ProfilesError::Unreadable { .. })));
    }
}
