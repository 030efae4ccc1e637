//! What a machine that joins puts into its work directory: the cluster's authority, and the files with which etcd
//! is reached. All of it is there, or nothing.

use std::fs::{DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use joining::Bundle;

use super::configuration::EtcdSection;

/// Only the user that runs `storaged` looks into a folder.
const FOLDER_MODE: u32 = 0o700;
/// Or reads a key.
const FILE_MODE: u32 = 0o600;
/// Where `storaged` looks for the authority.
const AUTHORITY: &str = "authority";
/// Where the files for etcd are put.
const ETCD: &str = "etcd";
/// What is in a work directory that is somebody's already.
const TAKEN: [&str; 4] = ["node", AUTHORITY, ETCD, "coordination.redb"];

/// A work directory that has nothing of a node in it yet. One that was made for this goes with this value, if
/// nothing came into it.
pub(super) struct WorkDir {
    path: PathBuf,
    made: bool,
}

/// What was put there. Taken away again with this value, unless it is kept.
pub(super) struct Furnished {
    placed: Vec<PathBuf>,
    /// How to reach etcd, with the files that were put there.
    pub(super) etcd: Option<EtcdSection>,
}

impl WorkDir {
    /// Makes it if there is none. One that is a node's is refused.
    pub(super) fn prepare(path: PathBuf) -> Result<Self> {
        for name in TAKEN {
            ensure!(
                !path.join(name).exists(),
                "{} holds {name:?} already, so a node is, or was, set up there: name an empty directory with \
                 --work-dir, or remove what nobody needs. The token was not used",
                path.display()
            );
        }
        let failed = || format!("cannot write into {}, and the token was not used", path.display());
        let made = !path.is_dir();
        if made {
            let mut builder = DirBuilder::new();
            builder.mode(FOLDER_MODE).recursive(true);
            builder.create(&path).with_context(failed)?;
        }
        tempfile::tempfile_in(&path).with_context(failed)?;
        Ok(Self { path, made })
    }

    /// Puts the bundle there.
    pub(super) fn furnish(&self, bundle: &Bundle) -> Result<Furnished> {
        let failed = || format!("cannot write into {}", self.path.display());
        // Whoever owns the directory runs storaged.
        let owner = std::fs::metadata(&self.path).with_context(failed)?;
        let owner = (owner.uid(), owner.gid());
        let staged = tempfile::Builder::new()
            .prefix(".joining-")
            .tempdir_in(&self.path)
            .with_context(failed)?;
        let mut furnished = Furnished {
            placed: Vec::new(),
            etcd: None,
        };
        let authority = [
            ("certificate.pem", bundle.certificate.as_bytes()),
            ("key.pem", bundle.key.as_bytes()),
        ];
        fill(&staged.path().join(AUTHORITY), authority, owner).with_context(failed)?;
        let access = &bundle.etcd;
        let files: Vec<(&str, &[u8])> = [
            ("ca.pem", &access.ca),
            ("certificate.pem", &access.certificate),
            ("key.pem", &access.key),
            ("password", &access.password),
        ]
        .into_iter()
        .filter_map(|(name, content)| Some((name, content.as_deref()?)))
        .collect();
        let mut folders = vec![AUTHORITY];
        if !files.is_empty() {
            fill(&staged.path().join(ETCD), files, owner).with_context(failed)?;
            folders.push(ETCD);
        }
        for folder in folders {
            let target = self.path.join(folder);
            std::fs::rename(staged.path().join(folder), &target).with_context(failed)?;
            furnished.placed.push(target);
        }
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .with_context(failed)?;
        let named = |name: &str, content: &Option<Vec<u8>>| {
            let path = self.path.join(ETCD).join(name);
            content.as_ref().map(|_| path)
        };
        furnished.etcd = Some(EtcdSection {
            endpoints: access.endpoints.clone(),
            prefix: Some(access.prefix.clone()).filter(|prefix| !prefix.is_empty()),
            ca: named("ca.pem", &access.ca),
            certificate: named("certificate.pem", &access.certificate),
            key: named("key.pem", &access.key),
            user: access.user.clone(),
            password_file: named("password", &access.password),
        });
        Ok(furnished)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.made {
            // Refused if there is anything in it, and that is right.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

impl Furnished {
    /// Leaves it there.
    pub(super) fn keep(mut self) {
        self.placed.clear();
    }
}

impl Drop for Furnished {
    fn drop(&mut self) {
        for folder in &self.placed {
            // What cannot be removed is named in the refusal of the next attempt.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn fill<'a>(
    folder: &Path,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    (user, group): (u32, u32),
) -> std::io::Result<()> {
    DirBuilder::new().mode(FOLDER_MODE).create(folder)?;
    for (name, content) in files {
        let path = folder.join(name);
        let mut file = File::create_new(&path)?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        file.write_all(content)?;
        file.sync_all()?;
        chown(&path, Some(user), Some(group))?;
    }
    chown(folder, Some(user), Some(group))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    //! All or nothing, and nobody else reads it.
    use joining::EtcdAccess;

    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            cluster: [1; 16],
            certificate: "C".to_owned(),
            key: "K".to_owned(),
            etcd: EtcdAccess {
                endpoints: vec!["https://a:1".to_owned()],
                ca: Some(b"CA".to_vec()),
                user: Some("u".to_owned()),
                password: Some(b"P".to_vec()),
                ..EtcdAccess::default()
            },
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_put_there_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("work");
        let furnished = WorkDir::prepare(path.clone())
            .unwrap()
            .furnish(&bundle())
            .unwrap();
        let etcd = furnished.etcd.as_ref().unwrap();
        assert_eq!(etcd.ca.as_deref(), Some(path.join("etcd/ca.pem").as_path()));
        assert_eq!(
            etcd.password_file.as_deref(),
            Some(path.join("etcd/password").as_path())
        );
        assert!(etcd.certificate.is_none() && etcd.prefix.is_none());
        furnished.keep();
        assert_eq!(std::fs::read(path.join("authority/key.pem")).unwrap(), b"K");
        for (name, expected) in [
            ("", FOLDER_MODE),
            ("authority", FOLDER_MODE),
            ("etcd", FOLDER_MODE),
            ("authority/key.pem", FILE_MODE),
            ("authority/certificate.pem", FILE_MODE),
            ("etcd/password", FILE_MODE),
        ] {
            assert_eq!(mode(&path.join(name)), expected, "{name}");
        }
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2);
    }

    #[test]
    fn what_is_not_kept_is_taken_away_again() {
        let folder = tempfile::tempdir().unwrap();
        let work_dir = WorkDir::prepare(folder.path().to_owned()).unwrap();
        drop(work_dir.furnish(&bundle()).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // A directory of our own making goes too.
        let made = WorkDir::prepare(folder.path().join("work")).unwrap();
        drop(made.furnish(&bundle()).unwrap());
        assert!(folder.path().join("work").exists());
        drop(made);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_refused_before_anything() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let refused = WorkDir::prepare(folder.path().join("file/work")).err().unwrap();
        assert!(refused.to_string().contains("was not used"), "{refused}");
    }

    #[test]
    fn a_directory_that_is_a_nodes_is_refused() {
        for name in TAKEN {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(name), "").unwrap();
            let refused = WorkDir::prepare(folder.path().to_owned()).err().unwrap();
            let refused = refused.to_string();
            assert!(
                refused.contains(name) && refused.contains("was not used"),
                "{refused}"
            );
        }
    }
}
