//! A storaged of its own, on the embedded defaults, in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use client::transport::Address;
use client::volume::{Options, Volume};
use tokio::runtime::{Builder, Runtime};

use crate::admin::Admin;
use crate::process::{Process, program};

/// How long a volume may take to become free.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// A running storaged.
pub(crate) struct Node {
    /// The daemon.
    pub(crate) process: Process,
    /// Its admin API.
    pub(crate) admin: Admin,
    /// Where front ends connect.
    pub(crate) socket: PathBuf,
    /// Where the admin API is.
    pub(crate) admin_socket: PathBuf,
}

impl Node {
    /// Starts a storaged with `disks` disks in `folder`, and waits until it answers.
    pub(crate) fn start(folder: &Path, disks: u32) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let mut command = Command::new(program("storaged")?);
        command
            .arg("--work-dir")
            .arg(folder)
            .arg("--disks")
            .arg(disks.to_string());
        let mut process = Process::start("storaged", &mut command, folder.join("storaged.log"))?;
        let (socket, admin) = (folder.join("storaged.sock"), folder.join("admin.sock"));
        process.wait_for_socket(&socket)?;
        process.wait_for_socket(&admin)?;
        Ok(Self {
            process,
            admin: Admin::new(&admin)?,
            socket,
            admin_socket: admin,
        })
    }

    /// Opens one of its volumes in this process. To be called on a `LocalSet`.
    pub(crate) async fn open(&self, name: &str) -> Result<Volume> {
        let options = Options {
            program: "bench".into(),
            storaged: vec![Address::Unix(self.socket.clone())],
            volume: name.into(),
            snapshot: None,
            read_only: false,
            wait: OPEN_WAIT,
            read_cache: None,
        };
        let volume = Volume::open(options)
            .await
            .with_context(|| format!("open the volume {name}"))?;
        volume.opened().await;
        Ok(volume)
    }
}

/// A runtime on the calling thread.
pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")
}
