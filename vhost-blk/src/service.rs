//! What a service manager hands over: a listening socket, by systemd's convention, which others speak too (`LISTEN_FDS`).
//! Without it nothing is done. What the manager is told belongs to `telemetry`.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

/// Why a socket that was handed over is not used.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// More than one descriptor, or none that listens on a unix socket.
    #[error("the service manager must hand over one listening unix socket")]
    NotOne,
    /// It is another socket than the one that was asked for.
    #[error("the service manager has handed over {handed_over}, but --socket says {wanted}")]
    Other {
        /// Where the socket listens.
        handed_over: PathBuf,
        /// Where it should.
        wanted: PathBuf,
    },
    /// The system does not say what it is.
    #[error("cannot look at the socket that was handed over")]
    Io(#[from] io::Error),
}

/// The listening socket that the process was started with, if it was started with one.
pub fn handed_over(wanted: &Path) -> Result<Option<UnixListener>, HandOverError> {
    let mut descriptors = ListenFd::from_env();
    if descriptors.len() == 0 {
        return Ok(None);
    }
    if descriptors.len() > 1 {
        return Err(HandOverError::NotOne);
    }
    let listener = descriptors
        .take_unix_listener(0)
        .ok()
        .flatten()
        .ok_or(HandOverError::NotOne)?;
    let address = listener.local_addr()?;
    let handed_over = address
        .as_pathname()
        .unwrap_or(Path::new("a socket without a path"));
    if handed_over != wanted {
        return Err(HandOverError::Other {
            handed_over: handed_over.to_owned(),
            wanted: wanted.to_owned(),
        });
    }
    // The control thread waits in `accept`.
    listener.set_nonblocking(false)?;
    Ok(Some(listener))
}
