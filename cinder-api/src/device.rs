//! Volumes and snapshots of the storage as devices, read and written by this process: each on a thread of its own, as
//! [`client`] wants it, for as long as a job needs it. What the bytes mean is others' business.

use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use client::device::{BlockDevice, DeviceError};
use client::transport::Address;
use client::volume::{OpenError, Options, Volume};
use protocol::session::SessionRefusal;
use protocol::storage::MapKind;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::work::Trouble;

/// What this program is called in messages of `storaged`.
const PROGRAM: &str = "cinder-api";
/// How long a volume that somebody else has open is waited for: gateways let go when nobody uses them.
const WAIT: Duration = Duration::from_secs(30);

/// Work with a device, on the device's thread.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, Trouble>> + 'a>>;

/// Opens a volume (or its snapshot, for reading), works with it on a thread of its own, and gives it back. If whoever waits
/// for that goes away, the work ends.
pub async fn with<T, W>(session_socket: &Path, name: (&str, Option<&str>), work: W) -> Result<T, Trouble>
where
    T: Send + 'static,
    W: for<'a> FnOnce(&'a dyn BlockDevice) -> Work<'a, T> + Send + 'static,
{
    let options = Options {
        program: PROGRAM.to_owned(),
        storaged: vec![Address::Unix(session_socket.to_owned())],
        volume: name.0.to_owned(),
        snapshot: name.1.map(str::to_owned),
        read_only: name.1.is_some(),
        wait: WAIT,
        read_cache: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::Later(format!("no thread for a volume: {error}")))?;
    let (done, mut answer) = oneshot::channel();
    let (leave, left) = oneshot::channel::<()>();
    let span = tracing::Span::current();
    let body = move || {
        let _entered = span.enter();
        let worked = LocalSet::new().block_on(&runtime, async {
            tokio::select! {
                worked = perform(options, work) => worked,
                _ = left => Err(Trouble::Later("nobody waits for it any more".to_owned())),
            }
        });
        // Whoever waited may be gone.
        let _ = done.send(worked);
    };
    // The kernel cuts a thread's name at 15 bytes.
    std::thread::Builder::new()
        .name("volume".to_owned())
        .spawn(body)
        .map_err(|error| Trouble::Later(format!("no thread for a volume: {error}")))?;
    let worked = (&mut answer).await;
    drop(leave);
    worked.unwrap_or_else(|_| {
        Err(Trouble::Failed(
            "the work with a volume ended in a panic".to_owned(),
        ))
    })
}

async fn perform<T, W>(options: Options, work: W) -> Result<T, Trouble>
where
    W: for<'a> FnOnce(&'a dyn BlockDevice) -> Work<'a, T>,
{
    let volume = Rc::new(Volume::open(options).await?);
    let worked = work(&*volume).await;
    volume.close().await;
    worked
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        match &error {
            OpenError::Unreachable { .. }
            | OpenError::Refused {
                kind: SessionRefusal::Unavailable | SessionRefusal::Lost,
                ..
            } => Self::Later(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<DeviceError> for Trouble {
    fn from(error: DeviceError) -> Self {
        match error {
            // Somebody took it, or the storage was restarted: the job begins anew.
            DeviceError::Lost | DeviceError::Closed => Self::Later(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Which pieces of a window of a device hold anything but zeros, by the runs that it consists of. Pieces have `piece` bytes;
/// the last one may be shorter.
pub fn held(window: u64, piece: u64, runs: &[(u64, MapKind)]) -> Vec<bool> {
    let mut held = vec![false; usize::try_from(window.div_ceil(piece)).unwrap_or(0)];
    let mut at = 0;
    for (length, kind) in runs {
        let end = (at + length).min(window);
        if *kind == MapKind::Data && end > at {
            for index in at / piece..end.div_ceil(piece) {
                if let Some(holds) = usize::try_from(index).ok().and_then(|index| held.get_mut(index)) {
                    *holds = true;
                }
            }
        }
        at = end;
    }
    // What no run speaks of is read.
    for holds in held.iter_mut().skip(usize::try_from(at / piece).unwrap_or(0)) {
        *holds |= at < window;
    }
    held
}

#[cfg(test)]
mod tests {
    //! Which pieces of a window are read.
    use super::*;

    #[test]
    fn a_piece_is_read_if_any_byte_of_it_may_be_something() {
        use MapKind::{Data, Hole, Zero};
        assert_eq!(held(40, 10, &[(40, Hole)]), [false; 4]);
        assert_eq!(
            held(40, 10, &[(12, Zero), (1, Data), (27, Hole)]),
            [false, true, false, false]
        );
        assert_eq!(
            held(40, 10, &[(9, Hole), (2, Data), (29, Zero)]),
            [true, true, false, false]
        );
        assert_eq!(
            held(35, 10, &[(30, Hole), (500, Data)]),
            [false, false, false, true]
        );
        assert_eq!(
            held(40, 10, &[(25, Hole)]),
            [false, false, true, true],
            "nobody said"
        );
        assert_eq!(held(40, 10, &[]), [true; 4], "nobody said");
    }
}
