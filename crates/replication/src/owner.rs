//! The owner of a volume: orders its writes, sends each to every replica, answers the device layer.
//!
//! Pure: operations, answers, connections and time arrive as [`Event`]s, and what must be done
//! leaves as [`Action`]s. It knows neither sockets nor how a disk stores a byte.

mod again;
mod complete;
mod event;
mod full;
mod group;
mod heartbeat;
mod lease;
mod limits;
mod link;
mod lookup;
mod opening;
mod operation;
mod pace;
mod quiesce;
mod respond;
mod rows;
mod status;
mod takeover;
mod view;
mod write;

pub use event::{Action, Event, Failure, IoId, Operation, Outcome};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::message::Scope;
use protocol::placement::placement_group;
use protocol::rows::RowCode;
use protocol::session::VolumeView;
use protocol::storage::Change;
use protocol::{BLOCK_SIZE, DiskId, Generation, PgId};

use crate::moment::Moment;
use crate::mutation::{self, Mutation};
use full::Fullness;
use group::{Group, Phase};
use heartbeat::Heartbeats;
use lease::Lease;
use link::Link;
use lookup::Lookups;
use operation::Operations;
use pace::Pace;
use quiesce::Quiescence;
use rows::Encoding;
use takeover::TakeOver;
use write::Writes;

/// How far the owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Taking over (rule 7): nothing is served.
    Opening,
    /// Serving.
    Open,
    /// Serving what was submitted, nothing new.
    Closing,
    /// The generation is over, by a lease that lapsed or by somebody else. Operations wait until it is known which.
    Deposed,
    /// Over, by [`Event::Close`].
    Closed,
    /// Over: the volume belongs to somebody else.
    Lost,
}

/// One open volume.
#[derive(Debug)]
pub struct Owner {
    view: VolumeView,
    stage: Stage,
    lease: Lease,
    heartbeats: Heartbeats,
    links: BTreeMap<DiskId, Link>,
    groups: BTreeMap<PgId, Group>,
    /// The groups that the volume has objects in and that are not serving yet.
    unready: BTreeSet<PgId>,
    operations: Operations,
    writes: Writes,
    lookups: Lookups,
    fullness: Fullness,
    pace: Pace,
    quiescence: Option<Quiescence>,
    /// Groups whose disks do not all know yet what is complete, and when they were told last.
    untold: BTreeSet<PgId>,
    told: Moment,
    writes_since_told: u64,
    view_wanted: Option<Moment>,
    next_number: u64,
    /// How rows are encoded, in a pool that does so.
    encoding: Option<Encoding>,
}

impl Owner {
    /// An owner of the volume that `view` describes, whose key was taken by a request that was sent
    /// at `leased`. Asks for connections at once, and takes the volume over as they come up.
    /// With generation 0 it is a reader of a sealed layer, who fences and leases nothing.
    pub fn open(now: Moment, leased: Moment, view: VolumeView, out: &mut Vec<Action>) -> Self {
        Self::open_encoded(now, leased, view, None, out)
    }

    /// As [`Self::open`], of a volume whose pool encodes rows if there is a code, which is that of the view's profile. A
    /// volume and a code that do not belong together are lost at once.
    pub fn open_encoded(
        now: Moment,
        leased: Moment,
        view: VolumeView,
        code: Option<Arc<dyn RowCode>>,
        out: &mut Vec<Action>,
    ) -> Self {
        let encoding = view
            .erasure
            .zip(code)
            .map(|(profile, code)| Encoding::new(profile, code));
        let fits = view.erasure.is_some() == encoding.is_some();
        let mut owner = Self::begin(now, leased, view, Operations::default(), 1, encoding);
        if fits {
            owner.begun(now, out);
        } else {
            owner.lose(out);
        }
        owner
    }

    fn begin(
        now: Moment,
        leased: Moment,
        view: VolumeView,
        operations: Operations,
        next_number: u64,
        encoding: Option<Encoding>,
    ) -> Self {
        let reader = view.generation == Generation(0);
        Self {
            stage: Stage::Opening,
            lease: if reader {
                Lease::not_needed()
            } else {
                Lease::new(view.lease_ms, leased)
            },
            heartbeats: Heartbeats::default(),
            links: BTreeMap::new(),
            groups: view
                .groups
                .iter()
                .map(|group| (group.pg, Group::new(group)))
                .collect(),
            unready: BTreeSet::new(),
            operations,
            writes: Writes::default(),
            lookups: Lookups::default(),
            fullness: Fullness::default(),
            pace: Pace::default(),
            quiescence: None,
            untold: BTreeSet::new(),
            told: now,
            writes_since_told: 0,
            view_wanted: None,
            next_number,
            encoding,
            view,
        }
    }

    fn begun(&mut self, now: Moment, out: &mut Vec<Action>) {
        self.link_up(now, out);
        self.use_groups();
        self.pump(now, out);
    }

    /// Takes in one event and appends what must be done for it to `out`, in order.
    pub fn apply(&mut self, now: Moment, event: Event, out: &mut Vec<Action>) {
        match self.stage {
            Stage::Closed | Stage::Lost => return self.refuse_late(&event, out),
            Stage::Deposed => return self.apply_deposed(now, event, out),
            Stage::Opening | Stage::Open | Stage::Closing => {}
        }
        match event {
            Event::View(view) => self.change_view(now, *view, out),
            Event::Submit { id, operation } => self.submit(id, operation, out),
            Event::Connected { disk, version } => self.connected(now, disk, version),
            Event::Disconnected { disk } => self.disconnected(now, disk),
            Event::Response {
                disk,
                number,
                response,
            } => self.respond(now, disk, number, response, out),
            Event::ReadDirectly { disk, number, bytes } => {
                self.read_directly(now, (disk, number), bytes, out);
            }
            Event::Renewed { sent } => self.lease.renewed(sent),
            Event::Revoked => self.depose(out),
            Event::Lost => self.lose(out),
            Event::Quiesce { token, limit_ms } => {
                self.quiescence = Some(Quiescence::new(now, token, limit_ms));
            }
            Event::Close => self.begin_close(out),
            // A volume that was not deposed is not taken again.
            Event::Tick | Event::Again { .. } => {}
        }
        self.pump(now, out);
    }

    /// When [`Event::Tick`] is wanted at the latest, if nothing else happens before.
    pub fn deadline(&self, now: Moment) -> Option<Moment> {
        if matches!(self.stage, Stage::Deposed | Stage::Closed | Stage::Lost) {
            return None;
        }
        let links = self
            .links
            .iter()
            .filter_map(|(disk, link)| link.deadline(now, || self.awaits(*disk)));
        // What cannot be sent now has no deadline: the event that lets it go is another one.
        let sends = self.is_open() && self.may_send(now);
        let told = self.told + limits::COMPLETE_INTERVAL_MS;
        let others = [
            self.lease.renewal_due(),
            self.heartbeat_due(),
            (sends && !self.untold.is_empty()).then_some(told),
            self.lookups.deadline(now),
            self.fullness.deadline().filter(|_| sends),
            self.give_back_due().filter(|_| sends),
            self.rest_due().filter(|_| sends),
            self.quiescence.as_ref().map(Quiescence::deadline),
        ];
        links
            .chain(others.into_iter().flatten())
            .min()
            .map(|moment| moment.max(now + 1))
    }

    /// The view that the owner goes by.
    pub fn view(&self) -> &VolumeView {
        &self.view
    }

    /// Whether the take-over is done and the volume is served.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Closing)
    }

    /// How many operations are not answered.
    pub fn unanswered(&self) -> usize {
        self.operations.len()
    }

    fn refuse_late(&self, event: &Event, out: &mut Vec<Action>) {
        let failure = if self.stage == Stage::Lost {
            Failure::Lost
        } else {
            Failure::Closed
        };
        match event {
            Event::Submit { id, .. } => out.push(Action::Complete {
                id: *id,
                result: Err(failure),
            }),
            Event::Close => out.push(Action::Closed),
            _ => {}
        }
    }

    /// Checks an operation and takes it in.
    fn submit(&mut self, id: IoId, operation: Operation, out: &mut Vec<Action>) {
        if let Err(failure) = self.check(&operation) {
            out.push(Action::Complete {
                id,
                result: Err(failure),
            });
        } else {
            self.operations.add(Some(id), operation);
        }
    }

    fn check(&self, operation: &Operation) -> Result<(), Failure> {
        let block = u64::from(BLOCK_SIZE);
        let (offset, length, writes) = match operation {
            Operation::Read { offset, length } | Operation::Map { offset, length } => {
                (*offset, *length, false)
            }
            Operation::Zero { offset, length } => (*offset, *length, true),
            Operation::Write {
                offset,
                bytes,
                checksums,
            } => {
                let length = bytes.len() as u64;
                if checksums.len() as u64 != length / block {
                    return Err(Failure::Invalid);
                }
                (*offset, length, true)
            }
            Operation::Flush => return Ok(()),
        };
        if self.stage == Stage::Closing {
            return Err(Failure::Closed);
        }
        let aligned = offset.is_multiple_of(block) && length.is_multiple_of(block);
        let inside = offset
            .checked_add(length)
            .is_some_and(|end| end <= self.view.size);
        if length == 0 || !aligned || !inside {
            return Err(Failure::Invalid);
        }
        if writes && (self.view.read_only || self.view.generation == Generation(0)) {
            return Err(Failure::ReadOnly);
        }
        Ok(())
    }

    /// Does all that can be done now. The order matters: what is in flight goes before what is new.
    fn pump(&mut self, now: Moment, out: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Deposed | Stage::Closed | Stage::Lost) {
            return;
        }
        if self.lease.ask(now) {
            out.push(Action::Renew);
        }
        self.watch_links(now, out);
        self.pace.look(now, out);
        self.ask_slots(now, out);
        if self.may_send(now) {
            self.drive_take_overs(now, out);
        }
        if self.is_open() {
            self.issue_writes(out);
            if self.may_send(now) {
                self.encode_resting(now);
            }
            self.issue_reads();
            if self.may_send(now) {
                self.send_writes(now, out);
                self.send_lookups(now, out);
                self.probe_full(now, out);
                self.tell_complete(now, false, out);
                self.give_back(now, out);
            }
        }
        self.operations.finish_flushes(out);
        self.check_quiesced(now, out);
        self.check_closed(now, out);
    }

    /// Somebody else has the volume: every operation ends here, whether it was applied or not.
    fn lose(&mut self, out: &mut Vec<Action>) {
        self.stage = Stage::Lost;
        self.operations.fail_all(Failure::Lost, out);
        self.writes = Writes::default();
        self.lookups = Lookups::default();
        out.push(Action::Lost);
    }

    /// What was submitted ends first; before the take-over is done, nothing was served.
    fn begin_close(&mut self, out: &mut Vec<Action>) {
        if self.stage == Stage::Opening {
            self.stage = Stage::Closed;
            self.operations.fail_all(Failure::Closed, out);
            out.push(Action::Closed);
        } else {
            self.stage = Stage::Closing;
            self.operations.drop_gathers();
        }
    }

    fn check_closed(&mut self, now: Moment, out: &mut Vec<Action>) {
        let busy = !self.operations.is_empty() || !self.writes.is_empty();
        if self.stage != Stage::Closing || busy || self.gives_back() {
            return;
        }
        if self.may_send(now) {
            self.tell_complete(now, true, out);
        }
        self.stage = Stage::Closed;
        out.push(Action::Closed);
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn group_of(&self, index: u32) -> PgId {
        let count = u32::try_from(self.view.groups.len()).unwrap_or(u32::MAX);
        placement_group(self.view.pool, count, self.view.family, index)
    }

    /// What every request about this group says first.
    fn scope(&self, pg: PgId) -> Scope {
        Scope {
            pg,
            interval: self
                .groups
                .get(&pg)
                .map(|group| group.interval)
                .unwrap_or_default(),
            volume: self.view.volume,
            generation: self.view.generation,
            revision: self.view.revision,
        }
    }

    /// Asks for the present view, not too often.
    fn want_view(&mut self, now: Moment, out: &mut Vec<Action>) {
        if self
            .view_wanted
            .is_none_or(|at| now.since(at) >= limits::WANT_VIEW_MS)
        {
            self.view_wanted = Some(now);
            out.push(Action::WantView);
        }
    }

    /// Starts the take-over of every group that the volume has objects in and that has none yet.
    fn use_groups(&mut self) {
        let objects = self.view.size.div_ceil(u64::from(protocol::OBJECT_SIZE));
        let groups = self.view.groups.len() as u64;
        // With so many objects, chance leaves out hardly any group, and counting costs more.
        let needed: BTreeSet<PgId> = if objects >= groups.saturating_mul(8) {
            self.groups.keys().copied().collect()
        } else {
            (0..u32::try_from(objects).unwrap_or(u32::MAX))
                .map(|index| self.group_of(index))
                .collect()
        };
        let skip = self.view.generation == Generation(0) || mutation::active(Mutation::SkipFence);
        let encoding = self.encoding.as_ref();
        for group in self
            .groups
            .values_mut()
            .filter(|group| needed.contains(&group.pg))
        {
            if !matches!(group.phase, Phase::Unused) {
                continue;
            }
            // What was confirmed says nothing of this group.
            self.heartbeats.void();
            if skip {
                group.phase = Phase::Serving;
                group.served = true;
            } else {
                group.phase = Phase::TakeOver(TakeOver::new(group, encoding, false));
                self.unready.insert(group.pg);
            }
        }
    }
}

/// Bytes of memory that a change holds.
fn change_weight(change: &Change) -> usize {
    match change {
        Change::Data { bytes, .. } => bytes.len(),
        Change::Zero => 0,
    }
}

#[cfg(test)]
mod tests;
