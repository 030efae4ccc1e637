//! The NBD server that an import or an export goes through: a running one, or one of our own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::missing;
use crate::api::Place;
use crate::arguments::NbdArguments;

/// How long our own server may take to start.
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// How long it may take to end: it has nothing left to write.
const END_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two looks at whether it listens yet.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// An NBD server on a unix socket.
pub(super) struct Door {
    socket: PathBuf,
    own: Option<(Child, TempDir)>,
}

impl Door {
    /// The server that the user named, or one of our own on `storaged`'s session socket.
    pub(super) async fn open(admin: &Place, arguments: &NbdArguments) -> Result<Self> {
        if let Some(socket) = &arguments.nbd {
            return Ok(Self {
                socket: socket.clone(),
                own: None,
            });
        }
        let session = match (&arguments.session, admin) {
            (Some(session), _) => session.clone(),
            (None, Place::Socket(admin)) => admin.with_file_name("storaged.sock"),
            (None, Place::Url(_)) => {
                bail!("name a storaged-nbd with --nbd, or storaged's socket for front ends with --session")
            }
        };
        let folder = tempfile::Builder::new()
            .prefix("storagectl-")
            .tempdir()
            .context("make a folder for a socket")?;
        let socket = folder.path().join("nbd.sock");
        let mut listen = std::ffi::OsString::from("unix:");
        listen.push(&socket);
        let mut child = Command::new(beside_us("storaged-nbd"))
            .arg("--storaged")
            .arg(session)
            .arg("--listen")
            .arg(listen)
            // Its log is for services; here a person looks at a progress bar.
            .env("RUST_LOG", "error")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| missing("storaged-nbd", "storaged-nbd"))?;
        wait_until_it_listens(&mut child, &socket).await?;
        Ok(Self {
            socket,
            own: Some((child, folder)),
        })
    }

    /// The address of an export, for qemu-img.
    pub(super) fn export(&self, name: &str) -> String {
        // Names need no escape; a path might.
        let socket: String = self.socket.to_string_lossy().bytes().map(escaped).collect();
        format!("nbd+unix:///{name}?socket={socket}")
    }

    /// Ends our own server, so that it gives its volumes back in good order.
    pub(super) async fn close(self) {
        let Some((mut child, _folder)) = self.own else {
            return;
        };
        let process = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(process) = process {
            // If it is gone already, that is what we want.
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        // One that does not end is killed when `child` is dropped.
        let _ = tokio::time::timeout(END_TIME_MAX, child.wait()).await;
    }
}

async fn wait_until_it_listens(child: &mut Child, socket: &Path) -> Result<()> {
    let deadline = Instant::now() + START_TIME_MAX;
    loop {
        if UnixStream::connect(socket).await.is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait().context("look at storaged-nbd")? {
            bail!("storaged-nbd ended with {status} before it listened");
        }
        if Instant::now() > deadline {
            bail!(
                "storaged-nbd does not listen after {} s",
                START_TIME_MAX.as_secs()
            );
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A program of ours: from the folder that we were started from if it is there, else by PATH.
fn beside_us(name: &str) -> PathBuf {
    let beside = std::env::current_exe().map(|us| us.with_file_name(name)).ok();
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

/// A byte of a path as an URL's query has it.
fn escaped(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

#[cfg(test)]
mod tests {
    //! An address reaches the socket whatever its path.
    use super::*;

    #[test]
    fn a_path_is_escaped() {
        let door = Door {
            socket: "/run/my disks/a&b.sock".into(),
            own: None,
        };
        assert_eq!(
            door.export("db@monday"),
            "nbd+unix:///db@monday?socket=/run/my%20disks/a%26b.sock"
        );
    }
}
