//! The section `[backups]`: where backups are kept.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, secret};
use crate::backup::RepositorySettings;
use crate::backup::repository::{RemoteStore, is_container};
use crate::backup::s3::S3Settings;
use crate::identity::KeystoneSettings;

/// The container of backups for which none is named, by default: what Cinder calls it.
const CONTAINER_DEFAULT: &str = "volumebackups";
/// How long a store that does not answer is asked again, by default: as long as a proxy takes to be started anew.
const PATIENCE_DEFAULT: Duration = Duration::from_mins(1);
/// The longest time for that: a volume cannot be deleted meanwhile.
const PATIENCE_MAX: Duration = Duration::from_hours(1);
/// What signatures call a region that has no name.
const REGION_DEFAULT: &str = "us-east-1";

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Store {
    File,
    Swift,
    S3,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupsFile {
    store: Option<Store>,
    directory: Option<PathBuf>,
    container: Option<String>,
    patience_seconds: Option<u64>,
    ca_file: Option<PathBuf>,
    swift: Option<SwiftFile>,
    s3: Option<S3File>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwiftFile {
    url: Option<String>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    project_name: Option<String>,
    user_domain_name: Option<String>,
    project_domain_name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct S3File {
    endpoint: String,
    region: Option<String>,
    bucket: String,
    access_key: String,
    secret_key_file: PathBuf,
}

impl BackupsFile {
    /// What is configured; nothing if nothing is. `keystone` is who the service is.
    pub(super) fn check(
        self,
        keystone: &KeystoneSettings,
    ) -> Result<Option<RepositorySettings>, ConfigError> {
        let wrong = |message: &str| Err(ConfigError::Value(format!("backups: {message}")));
        let store = match (self.store, self.directory, self.s3) {
            (None, None, None) if self.swift.is_none() => return Ok(None),
            (None | Some(Store::File), Some(path), None) if self.swift.is_none() => {
                return Ok(Some(RepositorySettings::Directory(path)));
            }
            (Some(Store::Swift), None, None) => self.swift.unwrap_or_default().check(keystone)?,
            (Some(Store::S3), None, Some(s3)) if self.swift.is_none() => s3.check()?,
            _ => {
                return wrong(
                    "say store = \"file\" and directory, or store = \"swift\", or store = \"s3\" and [backups.s3], and \
                     nothing that belongs to the others",
                );
            }
        };
        let container = self.container.unwrap_or_else(|| CONTAINER_DEFAULT.to_owned());
        if !is_container(&container) {
            return wrong("container is not made of letters, digits, dots, dashes and underscores");
        }
        let patience = self
            .patience_seconds
            .map_or(PATIENCE_DEFAULT, Duration::from_secs);
        if patience > PATIENCE_MAX {
            return wrong("patience_seconds is more than an hour");
        }
        Ok(Some(RepositorySettings::Remote {
            store: Box::new(store),
            container,
            patience,
            ca_file: self.ca_file.or_else(|| keystone.ca_file.clone()),
        }))
    }
}

impl SwiftFile {
    fn check(self, keystone: &KeystoneSettings) -> Result<RemoteStore, ConfigError> {
        let mut user = keystone.clone();
        match (self.username, self.password_file) {
            (Some(username), Some(path)) => {
                user.username = username;
                user.password = secret(&path)?;
            }
            (None, None) => {}
            _ => {
                let message = "backups.swift: username and password_file need each other";
                return Err(ConfigError::Value(message.to_owned()));
            }
        }
        let change = |what: &mut String, to: Option<String>| {
            if let Some(to) = to {
                *what = to;
            }
        };
        change(&mut user.project_name, self.project_name);
        change(&mut user.user_domain_name, self.user_domain_name);
        change(&mut user.project_domain_name, self.project_domain_name);
        Ok(RemoteStore::Swift {
            keystone: user,
            url: self.url.map(|url| url.trim_end_matches('/').to_owned()),
        })
    }
}

impl S3File {
    fn check(self) -> Result<RemoteStore, ConfigError> {
        if !is_container(&self.bucket) {
            let message = format!("backups.s3.bucket {:?} is no bucket's name", self.bucket);
            return Err(ConfigError::Value(message));
        }
        Ok(RemoteStore::S3(S3Settings {
            endpoint: self.endpoint,
            region: self.region.unwrap_or_else(|| REGION_DEFAULT.to_owned()),
            bucket: self.bucket,
            access_key: self.access_key,
            secret_key: secret(&self.secret_key_file)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    //! What can be said, and what contradicts itself.
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
    use super::*;
    use crate::identity::Secret;

    fn checked(text: &str) -> Result<Option<RepositorySettings>, ConfigError> {
        let name = || "x".to_owned();
        let keystone = KeystoneSettings {
            auth_url: name(),
            public_url: name(),
            username: "cinder".to_owned(),
            password: Secret("p".to_owned()),
            project_name: "service".to_owned(),
            user_domain_name: name(),
            project_domain_name: name(),
            ca_file: None,
            cache_time: Duration::ZERO,
            service_roles: Vec::new(),
        };
        toml::from_str::<BackupsFile>(text).unwrap().check(&keystone)
    }

    #[test]
    fn a_store_has_what_it_needs_and_nothing_of_others() {
        assert!(checked("").unwrap().is_none());
        for text in ["directory = \"/b\"", "store = \"file\"\ndirectory = \"/b\""] {
            let settings = checked(text).unwrap();
            assert!(
                matches!(settings, Some(RepositorySettings::Directory(_))),
                "{text}"
            );
        }
        let other = "store = \"swift\"\n[swift]\nproject_name = \"vault\"\nurl = \"http://s/v1/a/\"";
        let Some(RepositorySettings::Remote { store, container, .. }) = checked(other).unwrap() else {
            panic!("no Swift");
        };
        assert_eq!(container, CONTAINER_DEFAULT);
        let RemoteStore::Swift { keystone, url } = *store else {
            panic!("no Swift");
        };
        assert_eq!(
            (keystone.username.as_str(), keystone.project_name.as_str()),
            ("cinder", "vault")
        );
        assert_eq!(url.unwrap(), "http://s/v1/a");
        for text in [
            "store = \"file\"",
            "store = \"s3\"",
            "store = \"swift\"\ndirectory = \"/b\"",
            "directory = \"/b\"\n[swift]",
            "store = \"swift\"\ncontainer = \"a/b\"",
            "store = \"swift\"\npatience_seconds = 3601",
            "store = \"swift\"\n[swift]\nusername = \"only\"",
        ] {
            assert!(checked(text).is_err(), "{text}");
        }
    }
}
