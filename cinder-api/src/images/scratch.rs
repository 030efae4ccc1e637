//! Files that images become while they are converted, and `qemu-img`, which converts them: a process of its own with limits
//! on memory and time, which is told the format and never guesses it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use tokio::fs;
use tokio::process::Command;
use tracing::warn;

use super::checks;
use crate::work::Trouble;

/// What names of our files begin with.
const PREFIX: &str = "image-";
/// A file that nobody has written to for so long was left by a process that ended.
const LEFT_AFTER: Duration = Duration::from_hours(24);
/// The processor time that looking at an image may take, in seconds: an honest one takes some hundredths.
const INFO_CPU_S: u32 = 30;
/// The memory that looking and converting may take, in bytes.
const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// How long a conversion may take.
const CONVERT_TIME_MAX: Duration = Duration::from_hours(6);
/// How much of what `qemu-img` says is repeated.
const SAID_CHARACTERS_MAX: usize = 300;

/// A file that goes away with its value.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// The name of a new file; the directory is made if it is not there.
    pub async fn new(folder: &Path) -> Result<Self, Trouble> {
        fs::create_dir_all(folder).await.map_err(|error| {
            Trouble::Failed(format!(
                "the directory {} cannot be made: {error}",
                folder.display()
            ))
        })?;
        Ok(Self(folder.join(format!("{PREFIX}{}", uuid::Uuid::new_v4()))))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes what processes have left that ended in the midst of a conversion.
pub async fn sweep(folder: &Path) {
    let Ok(mut files) = fs::read_dir(folder).await else {
        return;
    };
    while let Ok(Some(file)) = files.next_entry().await {
        let is_ours = file.file_name().to_string_lossy().starts_with(PREFIX);
        let written = file.metadata().await.and_then(|about| about.modified());
        let age = written
            .ok()
            .and_then(|written| SystemTime::now().duration_since(written).ok());
        if is_ours && age.is_some_and(|age| age > LEFT_AFTER) {
            let _ = fs::remove_file(file.path()).await;
        }
    }
}

/// Checks a file that is said to be an image of a format; gives the bytes of the disk in it.
pub async fn check(file: &Scratch, format: &str, bytes_max: u64) -> Result<u64, Trouble> {
    let cpu = format!("--cpu={INFO_CPU_S}");
    let told = run(
        &[&cpu],
        &["info", "--output=json", "-f", format],
        &[file.path()],
        Duration::from_secs(u64::from(INFO_CPU_S) * 2),
    )
    .await?;
    checks::check_info(&told, format, bytes_max).map_err(Trouble::Failed)
}

/// Converts a file that was checked, or that is our own.
pub async fn convert(from: (&Scratch, &str), to: (&Scratch, &str)) -> Result<(), Trouble> {
    let arguments = ["convert", "-f", from.1, "-O", to.1];
    let files = [from.0.path(), to.0.path()];
    run(&[], &arguments, &files, CONVERT_TIME_MAX).await.map(|_| ())
}

async fn run(
    limits: &[&str],
    arguments: &[&str],
    files: &[&Path],
    time_max: Duration,
) -> Result<Vec<u8>, Trouble> {
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--as={MEMORY_BYTES_MAX}"))
        .args(limits)
        .arg("--")
        .arg("qemu-img")
        .args(arguments)
        .args(files)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ran = tokio::time::timeout(time_max, command.output()).await;
    let output = ran
        .map_err(|_| Trouble::Failed("qemu-img takes too long over the image".to_owned()))?
        .map_err(|error| Trouble::Failed(format!("qemu-img cannot be started by prlimit: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    warn!(%said, "qemu-img refuses an image");
    let said: String = said.chars().take(SAID_CHARACTERS_MAX).collect();
    Err(Trouble::Failed(format!(
        "qemu-img refuses the image: {}",
        said.trim()
    )))
}
