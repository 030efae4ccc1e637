//! What all calls share: the members, where keys lie, and how far etcd was when we looked last.
//!
//! Here it is noticed that etcd was restored from a backup: it says less than it has said before. Then
//! its numbering is raised above all that we have seen, before anything else is done.

use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore, watch};
use tracing::warn;

use super::layout::{Layout, one, put, read, unchanged};
use super::mark::Marks;
use super::members::{Members, Miss, Pauses, refusal};
use super::messages::{RangeRequest, RangeResponse, TransactionRequest, TransactionResponse, method};
use super::numbering::Numbering;
use crate::store::{CoordinationError, Revision};

/// Transactions that are with etcd at once; more wait. A guess: operations are few, and etcd makes
/// one after the other.
pub(super) const IN_FLIGHT_MAX: usize = 16;
/// How far above the highest number that anybody remembers numbering is raised. There may be some that
/// were given out and nobody remembers: this is more than any storaged makes in weeks.
pub const MARGIN: u64 = 1 << 20;
/// How often a call looks again because etcd went back. Each time is a restored backup.
const LOOKS_MAX: usize = 4;

/// How far etcd was.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// How often it was seen to go back.
    pub(super) history: u64,
    /// How its revisions are numbered.
    pub(super) numbering: Arc<Numbering>,
    /// Its revision of the last transaction of anybody like us.
    pub(super) last: i64,
    /// The highest of its revisions that we have seen.
    pub(super) seen: i64,
}

/// What a look at etcd has shown, all at one of its revisions.
pub(super) struct Look {
    pub(super) view: View,
    pub(super) ranges: Vec<RangeResponse>,
}

impl Look {
    /// What a transaction's answer shows that begins by reading numbering and last.
    pub(super) fn of(history: u64, response: TransactionResponse) -> Result<Self, CoordinationError> {
        let seen = response.header.map_or(0, |header| header.revision);
        let mut ranges = response
            .responses
            .into_iter()
            .map(|result| result.range.unwrap_or_default());
        let numbering = match ranges.next().unwrap_or_default().kvs.first() {
            Some(kv) => Numbering::parse(&kv.value, kv.mod_revision)?,
            None => Numbering::default(),
        };
        let last = ranges.next().unwrap_or_default();
        Ok(Self {
            view: View {
                history,
                numbering: Arc::new(numbering),
                last: last.kvs.first().map_or(0, |kv| kv.mod_revision),
                seen,
            },
            ranges: ranges.collect(),
        })
    }

    /// What it is at.
    pub(super) fn revision(&self) -> Revision {
        self.view.numbering.revision(self.view.seen)
    }
}

/// What all calls share.
pub(super) struct Core {
    pub(super) members: Members,
    pub(super) layout: Layout,
    pub(super) marks: Marks,
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) view: watch::Sender<View>,
    /// True when nobody uses this any more.
    pub(super) closed: watch::Sender<bool>,
    raising: Mutex<()>,
}

impl Core {
    pub(super) fn new(members: Members, layout: Layout) -> Self {
        Self {
            members,
            layout,
            marks: Marks::new(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            view: watch::Sender::new(View::default()),
            closed: watch::Sender::new(false),
            raising: Mutex::default(),
        }
    }

    pub(super) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Reads keys, and how far etcd is. Linearizable. Raises the numbering first if etcd went back.
    pub(super) async fn look(&self, ranges: &[RangeRequest]) -> Result<Look, CoordinationError> {
        for _ in 0..LOOKS_MAX {
            let before = self.view();
            let look = self.look_as_it_is(before.history, ranges).await?;
            if went_back(&before, &look.view) {
                self.rise_after_a_restore(before.history).await?;
                continue;
            }
            self.learn(&look.view);
            return Ok(look);
        }
        Err(CoordinationError::Unavailable(
            "etcd goes back again and again: is it restored from a backup just now?".into(),
        ))
    }

    /// Remembers what a later moment of the same history has shown.
    pub(super) fn learn(&self, later: &View) {
        self.view.send_if_modified(|view| {
            if view.history != later.history {
                return false;
            }
            if later.numbering.written() > view.numbering.written() {
                view.numbering = later.numbering.clone();
            }
            view.last = view.last.max(later.last);
            let moved = later.seen > view.seen;
            view.seen = view.seen.max(later.seen);
            moved
        });
    }

    /// From now on, all numbers are above `floor`.
    pub(super) async fn raise(&self, floor: Revision) -> Result<(), CoordinationError> {
        self.look(&[]).await?;
        let look = self.raised_above(self.view().history, floor).await?;
        self.learn(&look.view);
        Ok(())
    }

    /// Numbering goes on above what we have seen. Whoever sees first that etcd went back does this.
    pub(super) async fn rise_after_a_restore(&self, history: u64) -> Result<(), CoordinationError> {
        let _one_at_a_time = self.raising.lock().await;
        let before = self.view();
        if before.history != history {
            return Ok(());
        }
        let floor = before.numbering.revision(before.seen);
        let mut look = self.raised_above(history, floor).await?;
        warn!(
            etcd_was = before.seen,
            etcd_is = look.view.seen,
            above = floor.0,
            "etcd lost changes, it was restored from a backup; its revisions are numbered above all that were seen"
        );
        look.view.history = history + 1;
        // Places of marks are as they were at the time of the backup: none can be relied upon.
        self.marks.forget();
        self.view.send_replace(look.view);
        Ok(())
    }

    async fn raised_above(&self, history: u64, floor: Revision) -> Result<Look, CoordinationError> {
        let mut pauses = Pauses::until(self.members.deadline());
        loop {
            let look = self.look_as_it_is(history, &[]).await?;
            let numbering = &look.view.numbering;
            let Some(record) = numbering.raised(look.view.seen, floor, MARGIN)? else {
                return Ok(look);
            };
            let request = TransactionRequest {
                compare: vec![unchanged(&self.layout.numbering, numbering.written())],
                success: vec![
                    put(self.layout.numbering.clone(), record, 0),
                    put(self.layout.last.clone(), Vec::new(), 0),
                ],
                failure: Vec::new(),
            };
            // Made or not, and by whom, the next look tells.
            let attempt = self
                .members
                .attempt::<_, TransactionResponse>(method::TRANSACTION, request);
            match attempt.await {
                Err(Miss::Refused(status)) => return Err(refusal(&status)),
                Err(miss @ Miss::Lost(_)) if !pauses.wait().await => return Err(miss.into_unavailable()),
                Ok(_) | Err(Miss::Lost(_)) => {}
            }
        }
    }

    async fn look_as_it_is(&self, history: u64, ranges: &[RangeRequest]) -> Result<Look, CoordinationError> {
        let own = [one(&self.layout.numbering), one(&self.layout.last)];
        let request = TransactionRequest {
            compare: Vec::new(),
            success: own.iter().chain(ranges).cloned().map(read).collect(),
            failure: Vec::new(),
        };
        let response: TransactionResponse = self.members.ask(method::TRANSACTION, &request).await?;
        Look::of(history, response)
    }
}

/// Whether a look that began after another was over shows less than it.
pub(super) fn went_back(before: &View, now: &View) -> bool {
    now.seen < before.seen || now.last < before.last
}
