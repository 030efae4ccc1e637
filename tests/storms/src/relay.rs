//! Relays: what nodes say to the disks of one node goes through here, and meets the weather that a scenario makes. TCP
//! only, and nothing is known of what it carries.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::network;

/// Bytes that are taken at once.
const PIECE: usize = 32 * 1024;
/// Pieces on their way in one direction of a connection: whoever sends more waits, as behind a full window.
const PIECES_MAX: usize = 128;
/// The ports of a node that are relayed: where machines join, and some disks.
const PORTS: std::ops::Range<u16> = 7470..7474;

/// What becomes of what passes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// How long everything takes in each direction.
    pub(crate) delay: Duration,
    /// Up to so much longer, by chance.
    pub(crate) jitter: Duration,
    /// Bytes a second in each direction of a connection; 0: no limit.
    pub(crate) bandwidth: u64,
    /// What goes to the node is swallowed, and the connection stays.
    pub(crate) deaf: bool,
    /// What comes from the node is swallowed, and the connection stays.
    pub(crate) mute: bool,
    /// One bit in so many bytes is turned over; 0: none.
    pub(crate) corrupt: u64,
}

/// The relays of one node.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    /// Its thread ends when this is gone.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    weather: Mutex<Weather>,
    /// Whether there is any: looked at for each piece.
    fair: AtomicBool,
    /// Connections end when it changes.
    resets: watch::Sender<u64>,
    corrupted: AtomicU64,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToNode,
    FromNode,
}

struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

impl Relay {
    /// Relays for a node, counted from 0, at the address that the network has for it.
    pub(crate) fn start(node: usize) -> Result<Self> {
        let ends = PORTS.map(|port| {
            (
                SocketAddr::from((network::relayed(node), port)),
                SocketAddr::from((network::address(node), port)),
            )
        });
        Self::between(ends).map(|(relay, _)| relay)
    }

    /// A relay from each of the first addresses to the second; also where they listen.
    fn between(ends: impl Iterator<Item = (SocketAddr, SocketAddr)>) -> Result<(Self, Vec<SocketAddr>)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a relay")?;
        let shared = Arc::new(Shared {
            weather: Mutex::default(),
            fair: AtomicBool::new(true),
            resets: watch::Sender::new(0),
            corrupted: AtomicU64::new(0),
        });
        let mut listens = Vec::new();
        for (at, to) in ends {
            let listener = runtime
                .block_on(TcpListener::bind(at))
                .with_context(|| format!("listen at {at}"))?;
            listens.push(listener.local_addr()?);
            runtime.spawn(accept(listener, to, Arc::clone(&shared)));
        }
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            // Nothing is ever said there: it ends when the other end is gone.
            let _ = runtime.block_on(stopped);
        });
        let relay = Self {
            shared,
            stop: Some(stop),
            thread: Some(thread),
        };
        Ok((relay, listens))
    }

    /// Makes the weather.
    pub(crate) fn set(&self, weather: Weather) {
        *self.shared.weather() = weather;
        self.shared.fair.store(false, Ordering::Relaxed);
    }

    /// Everything passes at once and unchanged. Connections that something was swallowed of stay as they are: both
    /// ends wait for what is gone, and have to find out.
    pub(crate) fn calm(&self) {
        *self.shared.weather() = Weather::default();
        self.shared.fair.store(true, Ordering::Relaxed);
    }

    /// Ends all connections at once, in the middle of whatever is said.
    pub(crate) fn reset(&self) {
        self.shared.resets.send_modify(|resets| *resets += 1);
    }

    /// How many bits were turned over.
    pub(crate) fn corrupted(&self) -> u64 {
        self.shared.corrupted.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The next one listens at the same ports.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn weather(&self) -> std::sync::MutexGuard<'_, Weather> {
        // It is replaced as a whole.
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Refused there: the connection here ends, which is all that can be said in its place.
            if let Ok(node) = TcpStream::connect(to).await {
                carry(stream, node, shared).await;
            }
        });
    }
}

/// Carries a connection until either end closes it, or it is reset.
async fn carry(front: TcpStream, node: TcpStream, shared: Arc<Shared>) {
    let _ = (front.set_nodelay(true), node.set_nodelay(true));
    let mut resets = shared.resets.subscribe();
    let ((front_in, front_out), (node_in, node_out)) = (front.into_split(), node.into_split());
    tokio::select! {
        () = one_way(front_in, node_out, Way::ToNode, &shared) => {}
        () = one_way(node_in, front_out, Way::FromNode, &shared) => {}
        _ = resets.changed() => {}
    }
}

async fn one_way(from: OwnedReadHalf, to: OwnedWriteHalf, way: Way, shared: &Shared) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let giving = give(to, receiver);
    tokio::pin!(giving);
    tokio::select! {
        // What was said before the end is said on.
        () = take(from, sender, way, shared) => giving.await,
        () = &mut giving => {}
    }
}

/// Takes what comes, and says when it is due at the other end.
async fn take(mut from: OwnedReadHalf, pieces: Sender<Piece>, way: Way, shared: &Shared) {
    let mut line_free = Instant::now();
    let mut until_corrupt = None;
    loop {
        let mut bytes = vec![0; PIECE];
        let Ok(count @ 1..) = from.read(&mut bytes).await else {
            return;
        };
        bytes.truncate(count);
        let mut due = Instant::now();
        if !shared.fair.load(Ordering::Relaxed) {
            let weather = *shared.weather();
            if weather.deaf && way == Way::ToNode || weather.mute && way == Way::FromNode {
                continue;
            }
            if weather.corrupt > 0 {
                turn_over(&mut bytes, weather.corrupt, &mut until_corrupt, shared);
            }
            if weather.bandwidth > 0 {
                let takes = Duration::from_secs_f64(exact(count) / exact_u64(weather.bandwidth));
                line_free = line_free.max(due) + takes;
                due = line_free;
            }
            due += weather.delay + weather.jitter.mul_f64(rand::rng().random());
        }
        // What was said first arrives first.
        line_free = line_free.max(due);
        if pieces
            .send(Piece {
                due: line_free,
                bytes,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Turns over one bit in so many bytes, on an average.
fn turn_over(bytes: &mut [u8], every: u64, until: &mut Option<u64>, shared: &Shared) {
    let mut random = rand::rng();
    let mut draw = || random.random_range(1..=every.saturating_mul(2));
    let mut left = until.unwrap_or_else(&mut draw);
    for byte in bytes {
        left -= 1;
        if left == 0 {
            left = draw();
            *byte ^= 0x10;
            shared.corrupted.fetch_add(1, Ordering::Relaxed);
        }
    }
    *until = Some(left);
}

async fn give(mut to: OwnedWriteHalf, mut pieces: Receiver<Piece>) {
    while let Some(Piece { due, bytes }) = pieces.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn exact(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn exact_u64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    //! The weather is what was asked for: else a storm proves nothing.
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// How long nothing must come before it is believed that nothing will.
    const SILENCE: Duration = Duration::from_millis(200);
    const WORD: &[u8] = b"said to an echo";

    /// A relay to somebody who says everything back, and a connection through it.
    fn echoed() -> (Relay, TcpStream) {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = echo.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = echo.accept().unwrap();
            let mut back = stream.try_clone().unwrap();
            // It ends when the test does.
            let _ = std::io::copy(&mut stream, &mut back);
        });
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (relay, listens) = Relay::between(std::iter::once((at, to))).unwrap();
        let stream = TcpStream::connect(listens[0]).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        (relay, stream)
    }

    fn heard(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        stream.write_all(WORD)?;
        let mut heard = vec![0; WORD.len()];
        stream.read_exact(&mut heard)?;
        Ok(heard)
    }

    #[test]
    fn fair_weather_changes_nothing_and_corruption_one_bit_in_a_while() {
        let (relay, mut stream) = echoed();
        // The connection behind it is being made still.
        stream.set_read_timeout(None).unwrap();
        assert_eq!(heard(&mut stream).unwrap(), WORD);
        relay.set(Weather {
            corrupt: 4,
            ..Weather::default()
        });
        // A bit that is turned over both ways is as it was; that does not happen every time.
        assert!((0..8).any(|_| heard(&mut stream).unwrap() != WORD));
        assert!(relay.corrupted() > 0);
        relay.calm();
        assert_eq!(heard(&mut stream).unwrap(), WORD);
    }

    #[test]
    fn what_is_swallowed_leaves_the_connection_and_a_reset_ends_it() {
        for (deaf, mute) in [(true, false), (false, true)] {
            let (relay, mut stream) = echoed();
            relay.set(Weather {
                deaf,
                mute,
                ..Weather::default()
            });
            let silence = heard(&mut stream).unwrap_err();
            assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock, "{silence}");
            relay.calm();
            stream.set_read_timeout(None).unwrap();
            assert_eq!(heard(&mut stream).unwrap(), WORD);
            relay.reset();
            assert!(heard(&mut stream).is_err());
        }
    }
}
