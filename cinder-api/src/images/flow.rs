//! Bytes on their way between a volume, a file and a body, piece by piece: who gives and who takes are apart, with a short
//! queue between them, so that neither has more than a few pieces in memory.

use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use client::request;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tracing::info;

use super::checks;
use super::glance::Verifier;
use crate::device::{self, held};
use crate::http::Download;
use crate::work::Trouble;

/// Bytes of a piece; the last one may be shorter. Objects of the storage have as many.
pub const PIECE_BYTES: u64 = 4 << 20;
/// Pieces that wait between who gives and who takes.
const PIECES_WAITING: usize = 4;
/// What a device is asked at once about where it holds data, and as often the log says how far it is. In bytes.
const WINDOW_BYTES: u64 = 1 << 30;
/// What a write's length is a multiple of.
const BLOCK_BYTES: usize = protocol::BLOCK_SIZE as usize;

/// What who gives knows of who has gone.
const GONE: &str = "who takes the bytes has gone";
/// What who takes knows of who has gone.
const BROKEN_OFF: &str = "who gives the bytes has broken off";

/// A piece, in order.
#[derive(Clone, Debug)]
pub enum Piece {
    /// So many zeros.
    Zeros(u64),
    /// Bytes.
    Data(Bytes),
    /// That was all. Who gives and breaks off does not say so.
    End,
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Zeros(length) => *length,
            Self::Data(bytes) => bytes.len() as u64,
            Self::End => 0,
        }
    }
}

/// The giving end.
pub type Giver = mpsc::Sender<Piece>;
/// The taking end.
pub type Taker = mpsc::Receiver<Piece>;

/// A queue between two.
pub fn queue() -> (Giver, Taker) {
    mpsc::channel(PIECES_WAITING)
}

async fn give(giver: &Giver, piece: Piece) -> Result<(), Trouble> {
    let gone = |_| Trouble::Failed(GONE.to_owned());
    giver.send(piece).await.map_err(gone)
}

/// The next piece; nothing at the end. An error if who gives has broken off.
async fn take(taker: &mut Taker) -> Result<Option<Piece>, Trouble> {
    match taker.recv().await {
        Some(Piece::End) => Ok(None),
        Some(piece) => Ok(Some(piece)),
        None => Err(Trouble::Failed(BROKEN_OFF.to_owned())),
    }
}

/// Both ends at once. If both fail, one of them only knows that the other one has gone, and the other one's reason counts.
pub async fn join(
    giving: impl Future<Output = Result<(), Trouble>>,
    taking: impl Future<Output = Result<(), Trouble>>,
) -> Result<(), Trouble> {
    let (given, taken) = tokio::join!(giving, taking);
    match (given, taken) {
        (Err(Trouble::Failed(why)), Err(taken)) if why == GONE => Err(taken),
        (Err(given), _) => Err(given),
        (Ok(()), taken) => taken,
    }
}

/// Gives what a volume, or its snapshot, holds.
pub async fn from_volume(
    session_socket: &Path,
    name: (&str, Option<&str>),
    giver: Giver,
) -> Result<(), Trouble> {
    device::with(session_socket, name, move |device| {
        Box::pin(async move {
            let size = device.info().size;
            let mut at = 0;
            while at < size {
                let window = WINDOW_BYTES.min(size - at);
                let runs = request::map(device, at, window).await?;
                for holds in held(window, PIECE_BYTES, &runs) {
                    let length = PIECE_BYTES.min(size - at);
                    let piece = if holds {
                        Piece::Data(request::read(device, at, length).await?)
                    } else {
                        Piece::Zeros(length)
                    };
                    give(&giver, piece).await?;
                    at += length;
                }
                info!(percent = at * 100 / size.max(1), "a volume is being read");
            }
            give(&giver, Piece::End).await
        })
    })
    .await
}

/// Takes what comes into a volume, from its beginning; what follows behind that becomes zeros. Of a new volume, zeros are
/// left as they are.
pub async fn into_volume(
    session_socket: &Path,
    name: &str,
    is_new: bool,
    mut taker: Taker,
) -> Result<(), Trouble> {
    device::with(session_socket, (name, None), move |device| {
        Box::pin(async move {
            let size = device.info().size;
            let mut at = 0;
            while let Some(piece) = take(&mut taker).await? {
                let length = piece.length();
                if at + length > size {
                    let why = format!("the image is larger than the volume, which has {size} bytes");
                    return Err(Trouble::Failed(why));
                }
                match piece {
                    Piece::Data(bytes) if bytes.iter().any(|byte| *byte != 0) => {
                        request::write(device, at, whole_blocks(bytes)).await?;
                    }
                    _ if is_new => {}
                    _ => {
                        let end = at + length;
                        let blocks = end.next_multiple_of(BLOCK_BYTES as u64).min(size) - at;
                        request::discard(device, at, blocks).await?;
                    }
                }
                if at / WINDOW_BYTES != (at + length) / WINDOW_BYTES {
                    info!(
                        volume = device.info().name,
                        mib = at >> 20,
                        "a volume is being written"
                    );
                }
                at += length;
            }
            at = at.next_multiple_of(BLOCK_BYTES as u64);
            if !is_new && at < size {
                request::discard(device, at, size - at).await?;
            }
            request::flush(device).await?;
            Ok(())
        })
    })
    .await
}

/// The last piece of an image may end within a block: the rest of that is zeros.
fn whole_blocks(bytes: Bytes) -> Bytes {
    let over = bytes.len() % BLOCK_BYTES;
    if over == 0 {
        return bytes;
    }
    let mut whole = BytesMut::from(bytes);
    whole.resize(whole.len() + BLOCK_BYTES - over, 0);
    whole.freeze()
}

/// Gives an image's bytes as they are: those of a raw disk.
pub async fn from_body(
    mut body: Download,
    mut verifier: Option<Verifier>,
    length: Option<u64>,
    giver: Giver,
) -> Result<(), Trouble> {
    let mut piece = BytesMut::new();
    let piece_bytes = usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX);
    let mut is_first = true;
    let mut came = 0;
    loop {
        let next = next(&mut body).await?;
        let is_last = next.is_none();
        if let Some(bytes) = next {
            came += bytes.len() as u64;
            if let Some(verifier) = &mut verifier {
                verifier.update(&bytes);
            }
            piece.extend_from_slice(&bytes);
        }
        if is_first && (piece.len() >= BLOCK_BYTES || is_last) {
            checks::check_raw_beginning(&piece).map_err(Trouble::Failed)?;
            is_first = false;
        }
        while piece.len() >= piece_bytes {
            give(&giver, Piece::Data(piece.split_to(piece_bytes).freeze())).await?;
        }
        if is_last {
            break;
        }
    }
    if !piece.is_empty() {
        give(&giver, Piece::Data(piece.freeze())).await?;
    }
    check_end(verifier, length, came)?;
    give(&giver, Piece::End).await
}

/// Writes an image's bytes to a file.
pub async fn body_into_file(
    mut body: Download,
    mut verifier: Option<Verifier>,
    length: Option<u64>,
    path: &Path,
) -> Result<(), Trouble> {
    let mut file = tokio::fs::File::create(path).await.map_err(no_file(path))?;
    let mut came = 0;
    while let Some(bytes) = next(&mut body).await? {
        came += bytes.len() as u64;
        if length.is_some_and(|length| came > length) {
            break;
        }
        if let Some(verifier) = &mut verifier {
            verifier.update(&bytes);
        }
        file.write_all(&bytes).await.map_err(no_file(path))?;
    }
    file.flush().await.map_err(no_file(path))?;
    check_end(verifier, length, came)
}

async fn next(body: &mut Download) -> Result<Option<Bytes>, Trouble> {
    let broken = |error| Trouble::Later(format!("the image's bytes broke off: {error}"));
    body.next().await.map_err(broken)
}

fn check_end(verifier: Option<Verifier>, length: Option<u64>, came: u64) -> Result<(), Trouble> {
    if length.is_some_and(|length| length != came) {
        let why = "the image has another length than Glance says".to_owned();
        return Err(Trouble::Failed(why));
    }
    if verifier.is_some_and(|verifier| !verifier.is_right()) {
        let why = "the image's checksum is wrong: it was damaged where it is kept, or on its way".to_owned();
        return Err(Trouble::Failed(why));
    }
    Ok(())
}

fn no_file(path: &Path) -> impl Fn(io::Error) -> Trouble {
    let path = path.display().to_string();
    move |error| Trouble::Failed(format!("the file {path} cannot be used: {error}"))
}

/// Gives what a file holds.
pub async fn from_file(path: &Path, giver: Giver) -> Result<(), Trouble> {
    let mut file = tokio::fs::File::open(path).await.map_err(no_file(path))?;
    loop {
        let mut piece = Vec::new();
        let mut part = (&mut file).take(PIECE_BYTES);
        let read = part.read_to_end(&mut piece).await.map_err(no_file(path))?;
        if read == 0 {
            return give(&giver, Piece::End).await;
        }
        give(&giver, Piece::Data(piece.into())).await?;
    }
}

/// Takes what comes into a file; zeros become holes.
pub async fn into_file(path: &Path, mut taker: Taker) -> Result<(), Trouble> {
    let mut file = tokio::fs::File::create(path).await.map_err(no_file(path))?;
    let mut at = 0;
    while let Some(piece) = take(&mut taker).await? {
        match piece {
            Piece::End => break,
            Piece::Zeros(length) => {
                at += length;
                file.seek(io::SeekFrom::Start(at)).await.map_err(no_file(path))?;
            }
            Piece::Data(bytes) => {
                file.write_all(&bytes).await.map_err(no_file(path))?;
                at += bytes.len() as u64;
            }
        }
    }
    file.flush().await.map_err(no_file(path))?;
    file.set_len(at).await.map_err(no_file(path))
}

/// Takes what comes into a body that is being sent. If who gives breaks off, so does the body.
pub async fn into_body(mut taker: Taker, body: mpsc::Sender<io::Result<Bytes>>) -> Result<(), Trouble> {
    let zeros = Bytes::from(vec![0; usize::try_from(PIECE_BYTES).unwrap_or(0)]);
    loop {
        let bytes = match take(&mut taker).await {
            Ok(None | Some(Piece::End)) => return Ok(()),
            Err(broken) => {
                // Without this the body would only be shorter.
                let _ = body.send(Err(io::Error::other(BROKEN_OFF))).await;
                return Err(broken);
            }
            Ok(Some(Piece::Data(bytes))) => bytes,
            Ok(Some(Piece::Zeros(length))) => {
                zeros.slice(..usize::try_from(length).unwrap_or(zeros.len()).min(zeros.len()))
            }
        };
        if body.send(Ok(bytes)).await.is_err() {
            return Err(Trouble::Failed(GONE.to_owned()));
        }
    }
}
