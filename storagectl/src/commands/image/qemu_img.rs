//! qemu-img: what an image holds, and moving its data.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{interrupted, missing};
use crate::arguments::ImageFormat;
use crate::progress;

/// Requests that qemu-img has in flight.
const IN_FLIGHT: &str = "16";
/// How addresses of exports begin.
const EXPORTS: [&str; 2] = ["nbd://", "nbd+unix://"];
/// Steps of the progress bar: qemu-img prints hundredths of a percent.
const STEPS: u64 = 10_000;

/// What an image says about itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Info {
    /// The size of the disk in it, in bytes.
    pub(super) virtual_size: u64,
    /// Its format, as qemu-img calls it.
    pub(super) format: String,
    #[serde(default)]
    backing_filename: Option<String>,
    #[serde(default)]
    encrypted: bool,
    #[serde(default)]
    format_specific: serde_json::Value,
}

/// Looks at an image. One that leads to other files is refused: whoever made it could make us read
/// any file of this host into a volume.
pub(super) async fn info(image: &Path, format: Option<ImageFormat>) -> Result<Info> {
    // Without it, qemu-img would take `nbd:...` and the like for an address.
    ensure!(
        is_export(image) || image.is_file() || is_block_device(image),
        "there is no image {}",
        image.display()
    );
    let mut command = Command::new("qemu-img");
    command.args(["info", "--output=json"]);
    // An export is what its server makes of the disk: its first bytes are the guest's, and decide nothing.
    let format = format.or_else(|| is_export(image).then_some(ImageFormat::Raw));
    if let Some(format) = format {
        command.args(["-f", format.name()]);
    }
    let output = command
        .arg(source(image))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = output.await.with_context(|| missing("qemu-img", "qemu-utils"))?;
    ensure!(
        output.status.success(),
        "qemu-img cannot read it: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let info: Info = serde_json::from_slice(&output.stdout).context("read the answer of qemu-img info")?;
    judge(&info)?;
    Ok(info)
}

fn judge(info: &Info) -> Result<()> {
    if let Some(backing) = &info.backing_filename {
        bail!(
            "the image needs another one, {backing:?}: make a whole image of it with `qemu-img convert` first"
        );
    }
    let data_file = info.format_specific.pointer("/data/data-file");
    ensure!(
        data_file.is_none(),
        "the image keeps its data in another file: convert it with `qemu-img convert` first"
    );
    ensure!(
        !info.encrypted,
        "the image is encrypted: decrypt it with `qemu-img convert` first"
    );
    Ok(())
}

fn is_block_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Whether it is the address of an NBD export (the URI specification of NBD), and no file.
pub(super) fn is_export(image: &Path) -> bool {
    let text = image.to_string_lossy();
    EXPORTS.iter().any(|scheme| text.starts_with(scheme))
}

/// What an image is read from.
fn source(image: &Path) -> OsString {
    if is_export(image) {
        image.into()
    } else {
        file(image)
    }
}

/// A path that qemu-img takes for a path, whatever it contains.
fn file(path: &Path) -> OsString {
    let mut name = OsString::from(if path.is_absolute() { "file:" } else { "file:./" });
    name.push(path);
    name
}

/// A `qemu-img convert`, about to be run.
pub(super) struct Transfer {
    arguments: Vec<OsString>,
}

impl Transfer {
    /// From an image into an export that is there and reads as zeros everywhere.
    pub(super) fn into_volume(image: &Path, format: &str, export: &str) -> Self {
        // Zeros need not be written where there are zeros already: what is sparse stays sparse.
        let target: [OsString; 5] = [
            "-n".into(),
            "--target-is-zero".into(),
            "-O".into(),
            "raw".into(),
            source(image),
        ];
        Self::new(format, target, export.into())
    }

    /// From an export into a new image.
    pub(super) fn into_image(export: &str, image: &Path, format: ImageFormat) -> Self {
        Self::new(
            "raw",
            ["-O".into(), format.name().into(), export.into()],
            file(image),
        )
    }

    fn new(source_format: &str, rest: impl IntoIterator<Item = OsString>, target: OsString) -> Self {
        // -W lets requests end in any order, which is faster and changes nothing here.
        let mut arguments: Vec<OsString> = ["convert", "-p", "-W", "-m", IN_FLIGHT, "-f", source_format]
            .map(Into::into)
            .into();
        arguments.extend(rest);
        arguments.push(target);
        Self { arguments }
    }

    /// Runs to the end, with a progress bar. An interrupt ends it with an error.
    pub(super) async fn run(self, subject: &str) -> Result<()> {
        tokio::select! {
            moved = self.run_to_the_end(subject) => moved,
            stopped = interrupted() => stopped,
        }
    }

    async fn run_to_the_end(self, subject: &str) -> Result<()> {
        let mut child = Command::new("qemu-img")
            .args(self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| missing("qemu-img", "qemu-utils"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let bar = progress::bar(subject, STEPS, "");
        let show = async {
            let (Some(mut stdout), mut buffer) = (stdout, [0; 4096]) else {
                return;
            };
            while let Ok(length @ 1..) = stdout.read(&mut buffer).await {
                if let Some(step) = buffer.get(..length).and_then(last_step) {
                    bar.set_position(step);
                }
            }
        };
        let complain = async {
            let mut text = String::new();
            if let Some(mut stderr) = stderr {
                // What cannot be read leaves the complaint shorter; the status tells the rest.
                let _ = stderr.read_to_string(&mut text).await;
            }
            text
        };
        let ((), complaint) = tokio::join!(show, complain);
        let status = child.wait().await.context("wait for qemu-img")?;
        bar.finish_and_clear();
        ensure!(
            status.success(),
            "qemu-img ended with {status}: {}",
            complaint.trim()
        );
        Ok(())
    }
}

/// The last whole `(12.34/100%)` in a piece of qemu-img's output, in hundredths of a percent.
fn last_step(output: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(output).ok()?;
    let (before, _) = text.rsplit_once("/100%)")?;
    let (_, percent) = before.rsplit_once('(')?;
    let (whole, hundredths) = percent.trim().split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 100 + hundredths.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    //! What an image may make us do, and how far we are.
    use super::*;

    #[test]
    fn an_image_that_leads_to_another_file_is_refused() {
        let read = |text: &str| serde_json::from_str::<Info>(text).unwrap();
        assert!(judge(&read(r#"{"virtual-size": 1, "format": "raw"}"#)).is_ok());
        for (more, part) in [
            (r#""backing-filename": "/etc/shadow""#, "needs another one"),
            (
                r#""format-specific": {"type": "qcow2", "data": {"data-file": "/etc/shadow"}}"#,
                "in another file",
            ),
            (r#""encrypted": true"#, "is encrypted"),
        ] {
            let info = read(&format!(r#"{{"virtual-size": 1, "format": "qcow2", {more}}}"#));
            assert!(judge(&info).unwrap_err().to_string().contains(part));
        }
    }

    #[test]
    fn a_file_name_is_never_taken_for_an_address() {
        assert_eq!(file(Path::new("nbd:localhost:1")), "file:./nbd:localhost:1");
        assert_eq!(file(Path::new("/a/b")), "file:/a/b");
    }

    #[test]
    fn the_last_whole_figure_counts() {
        assert_eq!(
            last_step(b"    (0.00/100%)\r    (12.34/100%)\r    (13."),
            Some(1234)
        );
        assert_eq!(last_step(b"    (100.00/100%)\r"), Some(10_000));
        assert_eq!(last_step(b"noise"), None);
    }
}
