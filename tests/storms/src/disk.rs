//! A small file system on a device that can be made to fail: an image that `qemu-storage-daemon` shows as a file through
//! FUSE, with a loop device on that file. Told so, it answers writes with I/O errors (its `blkdebug`). It does not know
//! what lies on the file system.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use test_node::Process;

use crate::network::run;

/// The file system's size: what a disk's file system keeps free, and room for twice the writer's volume.
const SIZE: u64 = 640 << 20;
/// How long the daemon may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// What the image is opened as, what is exported, and what answers with errors.
const IMAGE: &str = "image";
const EXPORTED: &str = "exported";
const FAILING: &str = "failing";

/// A mounted file system. It is unmounted with this value.
pub(crate) struct Bench {
    /// Ends after the mount and the loop device.
    daemon: Process,
    /// What it exports the image as: a mount of its own, which outlives it.
    exported: PathBuf,
    monitor: PathBuf,
    device: String,
    mounted: PathBuf,
    _folder: TempDir,
}

impl Bench {
    /// Makes the file system and mounts it.
    pub(crate) fn mount(at: &Path) -> Result<Self> {
        let folder = test_node::new_folder()?;
        let path = |name: &str| folder.path().join(name);
        let (image, file, monitor) = (path("image"), path("file"), path("monitor"));
        std::fs::File::create(&image)?
            .set_len(SIZE)
            .context("make an image")?;
        std::fs::File::create(&file).context("make a mount point")?;
        let arguments = [
            "--blockdev".to_owned(),
            format!("driver=file,node-name={IMAGE},filename={}", image.display()),
            "--blockdev".to_owned(),
            format!("driver=raw,node-name={EXPORTED},file={IMAGE}"),
            "--export".to_owned(),
            format!(
                "type=fuse,id=export,node-name={EXPORTED},mountpoint={},writable=on",
                file.display()
            ),
            "--chardev".to_owned(),
            format!("socket,id=monitor,path={},server=on,wait=off", monitor.display()),
            "--monitor".to_owned(),
            "chardev=monitor".to_owned(),
        ];
        let program = vm_tests::packages::find("qemu-storage-daemon")
            .context("there is no qemu-storage-daemon: install qemu-utils")?;
        let mut daemon = Process::start_at(&program, &arguments, &path("log"))?;
        daemon.wait_for("the image to be a file", || {
            let length = std::fs::metadata(&file).map(|found| found.len());
            (length.ok() == Some(SIZE)).then_some(())
        })?;
        let device = run("losetup", &["--find", "--show", &file.display().to_string()])?;
        let bench = Self {
            daemon,
            exported: file,
            monitor,
            device,
            mounted: at.to_owned(),
            _folder: folder,
        };
        // Without lazy initialisation, which would write behind our back.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        run(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0", "-E", options, &bench.device],
        )?;
        std::fs::create_dir_all(at).context("make a mount point")?;
        run("mount", &[&bench.device, &at.display().to_string()])?;
        Ok(bench)
    }

    /// From now on every write is answered with an I/O error. Flushes are not: the daemon flushes itself when it mends.
    pub(crate) fn fail(&self) -> Result<()> {
        let mut monitor = Monitor::connect(&self.monitor)?;
        monitor.ask(&format!(
            r#"{{"execute":"blockdev-add","arguments":{{"driver":"blkdebug","node-name":"{FAILING}","image":"{IMAGE}",
                "inject-error":[{{"event":"none","iotype":"write","errno":5}}]}}}}"#
        ))?;
        monitor.export(FAILING)
    }

    /// The device is as good as new, with what was written to it. The file system is checked and mounted again;
    /// whoever had it open must have ended.
    pub(crate) fn mend(&self) -> Result<()> {
        let mut monitor = Monitor::connect(&self.monitor)?;
        monitor.export(IMAGE)?;
        monitor.ask(&format!(
            r#"{{"execute":"blockdev-del","arguments":{{"node-name":"{FAILING}"}}}}"#
        ))?;
        let at = self.mounted.display().to_string();
        run("umount", &[&at])?;
        // It ends with 1 when it has put something right.
        let _ = run("e2fsck", &["-f", "-y", &self.device]);
        run("mount", &[&self.device, &at]).map(drop)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Lazily: whoever still has files open there is being ended. Namespaces of our own end with us anyway.
        let _ = run("umount", &["-l", &self.mounted.display().to_string()]);
        let _ = run("losetup", &["--detach", &self.device]);
        let _ = self.daemon.kill();
        // Else the folder could not be removed.
        let _ = run("umount", &["-l", &self.exported.display().to_string()]);
    }
}

/// The daemon's monitor: a JSON object a line, each answered.
struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connect to qemu-storage-daemon")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
        };
        monitor.ask(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(monitor)
    }

    /// Shows another node's content in what is exported.
    fn export(&mut self, node: &str) -> Result<()> {
        self.ask(&format!(
            r#"{{"execute":"blockdev-reopen","arguments":{{"options":[
                {{"driver":"raw","node-name":"{EXPORTED}","file":"{node}"}}]}}}}"#
        ))
    }

    fn ask(&mut self, command: &str) -> Result<()> {
        self.stream.get_mut().write_all(command.as_bytes())?;
        let mut line = String::new();
        while self
            .stream
            .read_line(&mut line)
            .context("hear qemu-storage-daemon")?
            > 0
        {
            let answer: serde_json::Value = serde_json::from_str(&line).context("read its answer")?;
            if answer.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = answer.get("error") {
                bail!("qemu-storage-daemon refused {command}: {error}");
            }
            // A greeting or an event.
            line.clear();
        }
        bail!("qemu-storage-daemon has closed its monitor")
    }
}
