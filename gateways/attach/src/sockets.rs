//! Volumes as sockets for guests on this host: a `vhost-blk` each, which systemd runs (`vhost-blk/systemd`). It starts and ends
//! them, and says how they are to take the volume; it does not know what passes through.
//!
//! What this host's agent has started is written down as the file with a volume's options, in a folder that goes with the
//! host's next start: units that an operator started by hand have none, and are left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use admin_api::names::{NameError, check_name};
use coordination::attach::WantRecord;

/// Where the units' sockets are.
const SOCKETS: &str = "/run/storaged-vhost";
/// Where the units read the options of a volume from: as in `storaged-vhost-blk@.service`.
const OPTIONS: &str = "/run/storaged-attach-vhost";
/// What ends the name of a file with options.
const OPTIONS_SUFFIX: &str = ".conf";
/// The most bytes of systemd's words that are shown.
const SAID_MAX: usize = 1024;

/// Why a volume is no socket, or still one.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No volume is called so.
    #[error(transparent)]
    Name(#[from] NameError),
    /// systemd does not do it.
    #[error("systemctl {verb} of the units of {volume}: {said}")]
    Systemd {
        /// What was asked for.
        verb: &'static str,
        /// The volume.
        volume: String,
        /// Its words, or why it could not be asked.
        said: String,
    },
    /// A file with options cannot be kept.
    #[error("{path}: {source}")]
    Options {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// This host's sockets.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// systemd's program.
    pub systemctl: PathBuf,
    /// Where options are: another folder in tests only.
    pub options: PathBuf,
    /// Where sockets are: another folder in tests only.
    pub sockets: PathBuf,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            systemctl: PathBuf::from("systemctl"),
            options: PathBuf::from(OPTIONS),
            sockets: PathBuf::from(SOCKETS),
        }
    }
}

impl Sockets {
    /// Makes a socket for guests, or finds the one that is there; says where it is. Blocks for as long as systemd waits for the
    /// units, which their own time limits bound.
    pub fn bring(&self, volume: &str, want: WantRecord) -> Result<PathBuf, SocketError> {
        check_name(volume)?;
        let wanted = options_of(want);
        let file = self.file(volume);
        match fs::read_to_string(&file) {
            Ok(found) if found == wanted => {}
            Ok(_) => {
                // How it takes the volume is said once, at its start.
                self.systemctl("stop", volume)?;
                self.write(&file, &wanted)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.write(&file, &wanted)?,
            Err(source) => return Err(SocketError::Options { path: file, source }),
        }
        self.systemctl("start", volume)?;
        Ok(self.sockets.join(format!("{volume}.sock")))
    }

    /// Ends the socket of a volume, if there is one of ours; says whether there was.
    pub fn take_away(&self, volume: &str) -> Result<bool, SocketError> {
        check_name(volume)?;
        let file = self.file(volume);
        if !file.exists() {
            return Ok(false);
        }
        self.systemctl("stop", volume)?;
        fs::remove_file(&file).map_err(|source| SocketError::Options { path: file, source })?;
        Ok(true)
    }

    /// The volumes that have one of ours.
    pub fn list(&self) -> Result<Vec<String>, SocketError> {
        let failed = |source| SocketError::Options {
            path: self.options.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.options) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let volume = name.to_str().and_then(|name| name.strip_suffix(OPTIONS_SUFFIX));
            volumes.extend(
                volume
                    .filter(|volume| check_name(volume).is_ok())
                    .map(str::to_owned),
            );
        }
        Ok(volumes)
    }

    fn file(&self, volume: &str) -> PathBuf {
        self.options.join(format!("{volume}{OPTIONS_SUFFIX}"))
    }

    fn write(&self, file: &Path, text: &str) -> Result<(), SocketError> {
        // A torn file is one with other options than are wanted, and written anew.
        fs::create_dir_all(&self.options)
            .and_then(|()| fs::write(file, text))
            .map_err(|source| SocketError::Options {
                path: file.to_owned(),
                source,
            })
    }

    /// Both units: the socket stays when the program behind it is exchanged, so that each is named.
    fn systemctl(&self, verb: &'static str, volume: &str) -> Result<(), SocketError> {
        let failed = |said: String| SocketError::Systemd {
            verb,
            volume: volume.to_owned(),
            said,
        };
        let units = ["socket", "service"].map(|kind| format!("storaged-vhost-blk@{volume}.{kind}"));
        let output = Command::new(&self.systemctl)
            .args(["--no-ask-password", "--quiet", verb])
            .args(units)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(format!("{}: {error}", self.systemctl.display())))?;
        if output.status.success() {
            return Ok(());
        }
        let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        said.truncate(said.floor_char_boundary(SAID_MAX));
        Err(failed(format!("{}: {said}", output.status)))
    }
}

/// What the unit reads. A volume moves from host to host with its guest: each host takes it with the guest's first request
/// there, be it after a live migration or at a start.
fn options_of(want: WantRecord) -> String {
    let writes = if want.read_only { " --read-only" } else { "" };
    format!("VHOST_BLK_WISH=--incoming{writes}\n")
}
