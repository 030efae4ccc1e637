//! The data thread's end: carries orders out, beside the rings.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use admin_api::vhost::{Announced, DeviceStatus, Hold, Resumed, RingStatus};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::holds::{Holds, milliseconds};
use super::{AnnounceError, Description, HoldError, Order};
use crate::backing::Backing;
use crate::front_end::FrontEnd;
use crate::tenure::Tenure;
use crate::worker::Worker;

/// What orders are carried out on.
pub struct Desk {
    /// The rings.
    pub worker: Rc<Worker>,
    /// What they share.
    pub backing: Rc<Backing>,
    /// What the guest is told.
    pub front_end: Arc<FrontEnd>,
    /// The volume, unless memory is offered.
    pub tenure: Option<Rc<Tenure>>,
    /// Which system calls are let through, in a word.
    pub seccomp: &'static str,
}

/// A desk at work.
struct Attendance {
    desk: Desk,
    holds: Holds,
    began: Instant,
    /// The size is being read anew: one such question is enough at a time.
    announcing: Cell<bool>,
}

impl Desk {
    /// Carries out what comes, until nobody can send any more. Must run on the worker's `LocalSet`.
    pub async fn attend(self, mut orders: mpsc::Receiver<Order>) {
        let attendance = Rc::new(Attendance {
            desk: self,
            holds: Holds::default(),
            began: Instant::now(),
            announcing: Cell::new(false),
        });
        while let Some(order) = orders.recv().await {
            // An answer that nobody waits for any more is dropped.
            match order {
                Order::Describe(done) => drop(done.send(attendance.describe())),
                // These wait, and nobody waits for them: there are as many as the limits allow.
                Order::Hold { limit, done } => Attendance::hold(&attendance, limit, done),
                Order::Release { hold, done } => drop(done.send(attendance.release(hold))),
                Order::Announce(done) => {
                    let attendance = Rc::clone(&attendance);
                    spawn_local(async move { drop(done.send(attendance.announce().await)) });
                }
            }
        }
    }
}

impl Attendance {
    fn describe(&self) -> Description {
        let Desk {
            worker,
            backing,
            front_end,
            tenure,
            seccomp,
        } = &self.desk;
        let info = backing.device().info();
        let shape = front_end.config().shape();
        let volume = tenure.as_ref().and_then(|tenure| tenure.volume());
        let volume = volume.as_ref();
        let throttled = volume.map(|volume| volume.throttled()).unwrap_or_default();
        let rings = worker.rings().into_iter().map(|(index, ring)| RingStatus {
            index,
            in_flight: ring.in_flight() as u64,
            broken: ring.is_broken(),
        });
        let status = DeviceStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.began.elapsed().as_secs(),
            volume: info.name,
            size: info.size,
            block_size: shape.block_size,
            read_only: shape.read_only,
            generation: volume.map_or(0, |volume| volume.generation().0),
            connected: front_end.is_connected(),
            queues: shape.queues,
            rings: rings.collect(),
            in_flight: backing.traffic().in_flight(),
            holds: self.holds.status(),
            waiting: volume.map(|volume| volume.waiting()).unwrap_or_default(),
            direct_reads: volume.map_or(0, |volume| volume.direct_reads()),
            shared_writes: volume.map_or(0, |volume| volume.shared_writes()),
            throttled_requests: throttled.requests,
            throttled_ms: throttled.waited_ms,
            seccomp: (*seccomp).to_owned(),
            requests: Vec::new(),
        };
        Description {
            status,
            figures: backing.traffic().figures(),
        }
    }

    fn hold(this: &Rc<Self>, limit: Duration, done: oneshot::Sender<Result<Hold, HoldError>>) {
        let began = Instant::now();
        let deadline = began + limit;
        let Some((hold, ended)) = this.holds.begin(deadline) else {
            let error = HoldError::TooMany(this.holds.numbers().len());
            return drop(done.send(Err(error)));
        };
        this.traffic().hold();
        info!(hold, limit_ms = limit.as_millis(), "no more requests are taken");
        let this = Rc::clone(this);
        spawn_local(async move {
            let rested = tokio::select! {
                rested = timeout_at(deadline, this.desk.backing.hurried(this.desk.backing.rested())) => rested.is_ok(),
                () = ended.notified() => return drop(done.send(Err(HoldError::Ended(hold)))),
            };
            let now = Instant::now();
            let answer = if rested {
                Ok(Hold {
                    hold,
                    drained_ms: milliseconds(now - began),
                    left_ms: milliseconds(deadline.saturating_duration_since(now)),
                })
            } else {
                Err(HoldError::StillUnderWay {
                    in_flight: this.traffic().in_flight(),
                    limit_ms: limit.as_millis(),
                })
            };
            // Who has gone away while it was waited for cannot end the rest: it ends now.
            let wanted = done.send(answer).is_ok();
            if rested && wanted && timeout_at(deadline, ended.notified()).await.is_ok() {
                return;
            }
            if this.end(hold) {
                warn!(
                    hold,
                    rested, wanted, "requests are taken again: the rest has ended by itself"
                );
            }
        });
    }

    fn release(&self, hold: Option<u64>) -> Result<Resumed, HoldError> {
        let ended = match hold {
            Some(hold) if self.end(hold) => vec![hold],
            Some(hold) => return Err(HoldError::Ended(hold)),
            None => {
                let all = self.holds.numbers();
                all.into_iter().filter(|hold| self.end(*hold)).collect()
            }
        };
        info!(?ended, "rests were ended");
        let left = self.holds.numbers();
        Ok(Resumed { ended, left })
    }

    /// Ends a rest. False if it was over.
    fn end(&self, hold: u64) -> bool {
        if !self.holds.end(hold) {
            return false;
        }
        if self.traffic().release() {
            for (_, ring) in self.desk.worker.rings() {
                ring.look_again();
            }
        }
        true
    }

    async fn announce(&self) -> Result<Announced, AnnounceError> {
        if self.announcing.replace(true) {
            return Err(AnnounceError::Busy);
        }
        let announced = self.read_and_tell().await;
        self.announcing.set(false);
        announced
    }

    async fn read_and_tell(&self) -> Result<Announced, AnnounceError> {
        let tenure = self.desk.tenure.as_ref();
        if let Some(volume) = tenure.and_then(|tenure| tenure.volume())
            && !volume.refresh().await
        {
            return Err(AnnounceError::Away);
        }
        let size = self.desk.backing.device().info().size;
        let front_end = &self.desk.front_end;
        // In case the listener was not told: it is the device's size that counts.
        front_end.config().resize(size);
        let told = front_end.announce();
        let told = told.map_err(|cause| AnnounceError::Untold(cause.to_string()))?;
        info!(size, told, "the size was announced anew");
        Ok(Announced { size, told })
    }

    fn traffic(&self) -> &telemetry::traffic::Traffic {
        self.desk.backing.traffic()
    }
}
