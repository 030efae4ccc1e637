//! Moves a volume to another pool, step by step, while its guest works with it.
//!
//! A step: new writes to what is to be moved wait; those that were sent are answered; what is there is copied; `storaged`
//! notes that it is moved; what waited goes to the new place. Whether a step that was noted counts is never in doubt:
//! from the moment on that it might be noted, it is asked for until the answer comes.

use std::rc::Rc;
use std::time::Duration;

use protocol::storage::MapKind;
use replication::owner::Operation as Asked;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::super::driver::Driver;
use super::super::owner_operation;
use super::Transit;
use crate::backoff::Backoff;
use crate::device::{DeviceError, Operation, Outcome};

/// How much is moved in one step where there is data: one object. A write to it waits for as long as that takes.
const STEP: u64 = protocol::OBJECT_SIZE as u64;
/// How much is moved in one step where there is none.
const EMPTY_STEP: u64 = 256 << 20;
/// Bytes that are read and written at once: as many whole rows as any pool has.
const COPY: u64 = 1 << 20;
/// Copies under way at once. Few: guests come first.
const COPIES_MAX: usize = 4;
/// While the guest works, the move rests this many times as long as a step took before it begins the next one: the guest has
/// the disks for itself three quarters of the time, and the move still comes to its end.
const RESTS_FOR_GUEST: u32 = 3;
/// After something failed, until it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a step was not done.
enum Obstacle {
    /// Nothing is to be moved any more just now.
    Stopped,
    /// The device says so.
    Device(DeviceError),
}

impl From<DeviceError> for Obstacle {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

/// Works until all is moved, or until it is told to stop: run it as a task.
pub(super) async fn run(transit: Rc<Transit>) {
    let read_only = transit.head.view(|view| view.read_only);
    let mut paid = Instant::now();
    while !read_only && !transit.stopping.get() && !transit.over.get() {
        if transit.rate.get() == 0 {
            // Somebody else does it, at another time.
            let may_go_on = || transit.rate.get() > 0 || transit.stopping.get() || transit.over.get();
            transit.until(may_go_on).await;
            continue;
        }
        let (begun, asked) = (Instant::now(), transit.asked.get());
        match step(&transit).await {
            Ok(bytes) => {
                transit.obstacle.take();
                let now = Instant::now();
                paid = paid.max(now) + cost(bytes, transit.rate.get());
                let guest = transit.asked.get() != asked;
                pause(&transit, paid.max(now + rest(now - begun, guest))).await;
            }
            Err(Obstacle::Stopped) => break,
            Err(Obstacle::Device(error)) => {
                warn!(%error, "the volume's move to another pool stands still");
                let told = format!("the move to another pool stands still: {error}");
                transit.obstacle.replace(Some(told));
                pause(&transit, Instant::now() + RETRY_AFTER).await;
            }
        }
    }
    transit.rested.set(true);
    transit.changed.notify_waiters();
}

/// How long so many bytes take at this rate, in bytes a second.
fn cost(bytes: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// How long the move keeps still after a step that took so long, if the guest asked for something meanwhile.
fn rest(step: Duration, guest: bool) -> Duration {
    if guest {
        step.saturating_mul(RESTS_FOR_GUEST)
    } else {
        Duration::ZERO
    }
}

async fn pause(transit: &Transit, until: Instant) {
    tokio::select! {
        () = sleep_until(until) => {}
        () = stopped(transit) => {}
    }
}

async fn stopped(transit: &Transit) {
    transit
        .until(|| transit.stopping.get() || transit.over.get())
        .await;
}

/// Moves what comes next; gives how many bytes were copied.
async fn step(transit: &Rc<Transit>) -> Result<u64, Obstacle> {
    let size = transit.head.view(|view| view.size);
    let from = transit.route.borrow().moved();
    let to = tokio::select! {
        to = end_of_step(transit, from, size) => to?,
        () = stopped(transit) => return Err(Obstacle::Stopped),
    };
    transit.open_window(to, to == size);
    let copied = tokio::select! {
        copied = copy(transit, from, to) => copied,
        () = stopped(transit) => Err(Obstacle::Stopped),
    };
    let bytes = match copied {
        Ok(bytes) => bytes,
        Err(obstacle) => {
            transit.close_window(false);
            return Err(obstacle);
        }
    };
    note(transit, to).await;
    transit.close_window(true);
    if to == size {
        // That was the last step, unless the volume has grown: the view says which.
        if let Some(open) = transit.open.upgrade() {
            open.refresh().await;
        }
        return Ok(bytes);
    }
    give_back(transit, from, to).await;
    Ok(bytes)
}

/// Where the step ends: soon where there is data, further on where there is none.
async fn end_of_step(transit: &Transit, from: u64, size: u64) -> Result<u64, Obstacle> {
    let far = size.min((from / EMPTY_STEP + 1) * EMPTY_STEP);
    let near = size.min((from / STEP + 1) * STEP);
    if near >= far {
        return Ok(far);
    }
    let runs = map(&transit.source, from, far).await?;
    let empty: u64 = runs
        .iter()
        .take_while(|(_, kind)| *kind != MapKind::Data)
        .map(|(length, _)| length)
        .sum();
    Ok(near.max((from + empty) / STEP * STEP).min(far))
}

/// Copies what the source has there, when all that was sent to it is answered. What it has not is made to read as zeros:
/// a step that was given up may have left something.
async fn copy(transit: &Rc<Transit>, from: u64, to: u64) -> Result<u64, Obstacle> {
    transit.source.settled().await;
    if from >= to {
        return Ok(0);
    }
    let mut bytes = 0;
    let mut copies = JoinSet::new();
    let mut at = from;
    for (length, kind) in map(&transit.source, from, to).await? {
        let end = at + length;
        if kind != MapKind::Data {
            zero(&transit.head, at, length).await?;
            at = end;
        }
        while at < end {
            let next = end.min((at / COPY + 1) * COPY);
            if copies.len() >= COPIES_MAX {
                finish_one(&mut copies).await?;
            }
            let (source, head) = (Rc::clone(&transit.source), Rc::clone(&transit.head));
            copies.spawn_local(async move { copy_one(&source, &head, at, next - at).await });
            bytes += next - at;
            at = next;
        }
    }
    while !copies.is_empty() {
        finish_one(&mut copies).await?;
    }
    Ok(bytes)
}

async fn finish_one(copies: &mut JoinSet<Result<(), DeviceError>>) -> Result<(), DeviceError> {
    match copies.join_next().await {
        Some(copied) => copied.unwrap_or(Err(DeviceError::Closed)),
        None => Ok(()),
    }
}

async fn copy_one(
    source: &Rc<Driver>,
    head: &Rc<Driver>,
    offset: u64,
    length: u64,
) -> Result<(), DeviceError> {
    let Outcome::Data(data) = source.ask(Asked::Read { offset, length }).await? else {
        return Err(DeviceError::Closed);
    };
    let write = owner_operation(Operation::Write { offset, data })?;
    head.ask(write).await.map(drop)
}

async fn zero(driver: &Rc<Driver>, offset: u64, length: u64) -> Result<(), DeviceError> {
    driver.ask(Asked::Zero { offset, length }).await.map(drop)
}

async fn map(driver: &Rc<Driver>, from: u64, to: u64) -> Result<Vec<(u64, MapKind)>, DeviceError> {
    let asked = Asked::Map {
        offset: from,
        length: to - from,
    };
    match driver.ask(asked).await? {
        Outcome::Map(runs) => Ok(runs),
        Outcome::Done | Outcome::Data(_) | Outcome::Differs { .. } => Err(DeviceError::Closed),
    }
}

/// Returns when it is noted that all up to here is moved. It may be noted although the answer was lost, so nothing else
/// can be done than to ask again.
async fn note(transit: &Transit, moved: u64) {
    let mut backoff = Backoff::default();
    while !transit.over.get() {
        let Some(open) = transit.open.upgrade() else {
            return;
        };
        let asked = open.view(|view| open.session.moved(view, moved));
        drop(open);
        if let Some(asked) = asked
            && asked.await == Ok(true)
        {
            return;
        }
        backoff.pause().await;
    }
}

/// Gives the room back that the source had for what is moved. Who still reads there is waited for: what was asked before
/// must not see it go.
async fn give_back(transit: &Transit, offset: u64, to: u64) {
    transit.source.settled().await;
    let length = to - offset;
    // Nothing depends on it: what is left goes with the rest of the source.
    let done = Box::new(|_| ());
    transit.source.submit(Asked::Zero { offset, length }, done);
}

#[cfg(test)]
mod tests {
    //! How fast a move goes.
    use super::*;

    #[test]
    fn a_guest_that_works_has_the_disks_for_three_quarters_of_the_time() {
        let step = Duration::from_millis(80);
        assert_eq!(rest(step, true), Duration::from_millis(240));
        assert_eq!(rest(step, false), Duration::ZERO);
    }

    #[test]
    fn an_object_at_the_rate_of_one_a_second_costs_a_second_and_no_rate_divides_by_zero() {
        assert_eq!(cost(STEP, STEP), Duration::from_secs(1));
        assert_eq!(cost(0, 0), Duration::ZERO);
        assert!(cost(u64::MAX, 0) > Duration::from_hours(1));
    }
}
