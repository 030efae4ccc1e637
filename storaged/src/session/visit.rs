//! A visitor: this `storaged` itself as the owner of a volume that nobody has open.
//!
//! It opens the volume through the session socket like any front end, on a thread of its own,
//! because a volume lives on one thread; so nothing is special about it on the disks.

use std::sync::Arc;
use std::time::Duration;

use client::device::{BlockDevice, DeviceError, DeviceEvent};
use client::request;
use client::volume::{OpenError, Options, Volume};
use protocol::session::SessionRefusal;
use protocol::{Generation, VolumeId};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::Sessions;
use super::rest::VISIT_LIMIT;
use crate::volumes::rest::RestError;

/// The name that the daemon's own sessions go by.
pub(super) const PROGRAM: &str = "storaged";
/// The name of those that do what can wait (move a volume to another pool, encode what is at rest), and let it go for
/// whoever wants it.
pub(super) const CARETAKER: &str = "storaged (caretaker)";

/// Whether a session of our own process is a visitor's, by its name.
pub(super) fn is_visit(program: &str) -> bool {
    [PROGRAM, CARETAKER].contains(&program)
}

/// How long to wait for an owner that is just leaving.
const OPEN_WAIT: Duration = Duration::from_secs(2);
/// Between two looks whether all is encoded: that takes seconds at least.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes that are zeroed in one request: 16 objects.
const STEP: u64 = 64 << 20;

/// What is done with a volume.
enum Order {
    /// Zero a range; answered when that is durable.
    Zero {
        offset: u64,
        length: u64,
        done: oneshot::Sender<Result<(), DeviceError>>,
    },
    /// Wait until all that is at rest is encoded, or until nobody waits for that any more.
    Encode(oneshot::Sender<()>),
}

/// A volume that this `storaged` has open. Dropping it closes the volume in the background.
pub(super) struct Visitor {
    volume: VolumeId,
    generation: Generation,
    orders: mpsc::Sender<Order>,
    wanted: Arc<Notify>,
    closed: oneshot::Receiver<()>,
}

impl Visitor {
    /// Takes the volume over, and returns when all its copies are level.
    pub(super) async fn enter(sessions: &Arc<Sessions>, volume: VolumeId) -> Result<Self, RestError> {
        Self::enter_as(sessions, volume, PROGRAM).await
    }

    /// As [`Visitor::enter`], under a name of its own.
    pub(super) async fn enter_as(
        sessions: &Arc<Sessions>,
        volume: VolumeId,
        program: &str,
    ) -> Result<Self, RestError> {
        let map = sessions.map.current();
        let Some((_, record)) = map.volume(volume) else {
            return Err(RestError::NotTakenOver(format!(
                "{volume} does not exist any more"
            )));
        };
        let name = record.record.name.clone();
        let options = Options {
            program: program.to_owned(),
            storaged: vec![sessions.settings.address.clone()],
            volume: name.clone(),
            snapshot: None,
            read_only: false,
            wait: OPEN_WAIT,
            read_cache: None,
        };
        let (entered, entry) = oneshot::channel();
        let (orders, received) = mpsc::channel(1);
        let (closing, closed) = oneshot::channel();
        let wanted = Arc::new(Notify::new());
        let told = Arc::clone(&wanted);
        std::thread::Builder::new()
            .name(format!("visit-{volume}"))
            .spawn(move || live(options, entered, received, &told, closing))
            .map_err(|error| RestError::NotTakenOver(format!("cannot start a thread: {error}")))?;
        match timeout(VISIT_LIMIT, entry).await {
            Ok(Ok(Ok(generation))) => Ok(Self {
                volume,
                generation,
                orders,
                wanted,
                closed,
            }),
            Ok(Ok(Err(OpenError::Refused {
                kind: SessionRefusal::Busy,
                message,
            }))) => Err(RestError::InUse(message)),
            Ok(Ok(Err(error))) => Err(RestError::NotTakenOver(error.to_string())),
            Ok(Err(_)) => Err(RestError::NotTakenOver(format!(
                "the visit of {name:?} ended unexpectedly"
            ))),
            Err(_) => Err(RestError::NotTakenOver(format!(
                "volume {name:?} could not be taken over in {} s: are enough of its disks up?",
                VISIT_LIMIT.as_secs()
            ))),
        }
    }

    /// Makes a range read as zeros, step by step.
    pub(super) async fn zero(
        &mut self,
        from: u64,
        to: u64,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RestError> {
        let ended = || RestError::NotTakenOver(format!("the visit of {} ended", self.volume));
        let mut at = from;
        while at < to {
            let length = STEP.min(to - at);
            let (done, answer) = oneshot::channel();
            self.orders
                .send(Order::Zero {
                    offset: at,
                    length,
                    done,
                })
                .await
                .map_err(|_| ended())?;
            let zeroed = answer.await.map_err(|_| ended())?;
            zeroed.map_err(|error| RestError::NotTakenOver(error.to_string()))?;
            at += length;
            progress(at - from);
        }
        Ok(())
    }

    /// Returns when all that is at rest is encoded.
    pub(super) async fn encoded(&self) {
        let (done, encoded) = oneshot::channel();
        let asked = self.orders.send(Order::Encode(done)).await;
        if asked.is_err() || encoded.await.is_err() {
            // The visit ended: that is for others to see.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until somebody wants the volume, or it is lost.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Gives the volume back; when it returns, the map does not show this owner any more.
    pub(super) async fn leave(self, sessions: &Sessions) {
        let Self {
            volume,
            generation,
            orders,
            closed,
            ..
        } = self;
        drop(orders);
        // The sender goes with the thread in any case.
        let _ = closed.await;
        sessions.until_not_owned(volume, generation).await;
    }
}

type Entered = oneshot::Sender<Result<Generation, OpenError>>;

fn live(
    options: Options,
    entered: Entered,
    mut orders: mpsc::Receiver<Order>,
    wanted: &Arc<Notify>,
    closing: oneshot::Sender<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let address = options
                .storaged
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            let _ = entered.send(Err(OpenError::Unreachable { address, source }));
            return;
        }
    };
    LocalSet::new().block_on(&runtime, async move {
        let volume = match Volume::open(options).await {
            Ok(volume) => volume,
            Err(error) => {
                let _ = entered.send(Err(error));
                return;
            }
        };
        let told = Arc::clone(wanted);
        volume.listen(Box::new(move |event| {
            if matches!(event, DeviceEvent::Wanted | DeviceEvent::Lost) {
                told.notify_one();
            }
        }));
        // Whoever waits may give up; then so does the visitor, though no copy is level yet.
        let mut entered = entered;
        tokio::select! {
            () = volume.opened() => {}
            () = entered.closed() => return,
        }
        let _ = entered.send(Ok(volume.generation()));
        while let Some(order) = orders.recv().await {
            match order {
                Order::Zero { offset, length, done } => {
                    let _ = done.send(request::discard(&volume, offset, length).await);
                }
                Order::Encode(mut done) => {
                    tokio::select! {
                        () = encoded(&volume) => { let _ = done.send(()); }
                        () = done.closed() => {}
                    }
                }
            }
        }
        volume.close().await;
    });
    let _ = closing.send(());
}

async fn encoded(volume: &Volume) {
    while !volume.is_encoded() {
        sleep(LOOK).await;
    }
}
