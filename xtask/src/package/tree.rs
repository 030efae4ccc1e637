//! The files of a package, as they will lie in `/`, and `DEBIAN` beside them. Knows nothing of what is in them.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

use super::moment::{Moment, output};
use crate::process::run;

/// What may be read by all.
pub(super) const FILE: u32 = 0o644;
/// What may be run by all.
pub(super) const PROGRAM: u32 = 0o755;
const FOLDER: u32 = 0o755;

/// A package's tree, which goes with this value.
pub(super) struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    pub(super) fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the package")?;
        fs::set_permissions(folder.path(), Permissions::from_mode(FOLDER))?;
        Ok(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where something lies.
    pub(super) fn at(&self, place: &str) -> PathBuf {
        self.folder.path().join(place)
    }

    /// Makes a folder, and those above it.
    pub(super) fn folder(&mut self, place: &str) -> Result<PathBuf> {
        let path = self.at(place);
        fs::create_dir_all(&path).with_context(|| format!("make {place}"))?;
        Ok(path)
    }

    /// Writes a file.
    pub(super) fn put(&mut self, place: &str, bytes: &[u8], mode: u32) -> Result<()> {
        if let Some((folder, _)) = place.rsplit_once('/') {
            self.folder(folder)?;
        }
        let path = self.at(place);
        fs::write(&path, bytes).with_context(|| format!("write {place}"))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Writes a file compressed, as `PLACE.gz`.
    pub(super) fn put_compressed(&mut self, place: &str, bytes: &[u8]) -> Result<()> {
        let mut gzip = Command::new("gzip")
            .arg("-9nc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start gzip")?;
        // Documents: all of it fits into gzip's own window before it writes more than a pipe holds.
        let mut stdin = gzip.stdin.take().context("gzip has no standard input")?;
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(move || stdin.write_all(bytes));
            let output = gzip.wait_with_output();
            (writer.join(), output)
        });
        let (Ok(fed), output) = written else {
            anyhow::bail!("gzip was not fed");
        };
        fed.context("feed gzip")?;
        let output = output.context("wait for gzip")?;
        ensure!(output.status.success(), "gzip ended with {}", output.status);
        self.put(&format!("{place}.gz"), &output.stdout, FILE)
    }

    /// What all of it takes when it is installed, in KiB.
    pub(super) fn size(&self) -> Result<u64> {
        let bytes: u64 = self
            .files()?
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|metadata| metadata.len().div_ceil(1024))
            .sum();
        Ok(bytes)
    }

    /// Sums, modes and times: nothing of when and by whom it was built.
    pub(super) fn finish(&mut self, moment: Moment) -> Result<()> {
        let mut sums = String::new();
        for path in self.files()? {
            let place = path.strip_prefix(self.path())?.to_path_buf();
            if place.starts_with("DEBIAN") {
                continue;
            }
            let mut md5sum = Command::new("md5sum");
            sums.push_str(&output(md5sum.arg(place).current_dir(self.path()))?);
        }
        self.put("DEBIAN/md5sums", sums.as_bytes(), FILE)?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(moment.seconds());
        for path in self.files()? {
            File::open(&path)?.set_modified(time)?;
        }
        for path in self.folders()? {
            fs::set_permissions(&path, Permissions::from_mode(FOLDER))?;
            File::open(&path)?.set_modified(time)?;
        }
        Ok(())
    }

    /// All files, in order.
    fn files(&self) -> Result<Vec<PathBuf>> {
        Ok(walk(self.path())?
            .into_iter()
            .filter(|path| path.is_file())
            .collect())
    }

    /// All folders, those within others first.
    fn folders(&self) -> Result<Vec<PathBuf>> {
        let mut folders: Vec<PathBuf> = walk(self.path())?
            .into_iter()
            .filter(|path| path.is_dir())
            .collect();
        folders.reverse();
        folders.push(self.path().to_owned());
        Ok(folders)
    }
}

/// A program without what debuggers want.
pub(super) fn stripped(program: &Path) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let into = folder.path().join("program");
    let mut strip = Command::new("strip");
    strip
        .args([
            "--strip-all",
            "--remove-section=.comment",
            "--remove-section=.note",
            "-o",
        ])
        .args([&into, program]);
    run(&mut strip)?;
    fs::read(&into).with_context(|| format!("read {}", into.display()))
}

/// Everything below a folder, in order.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        let below = if path.is_dir() { walk(&path)? } else { Vec::new() };
        found.push(path);
        found.extend(below);
    }
    Ok(found)
}
