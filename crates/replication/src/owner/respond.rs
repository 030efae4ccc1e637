//! Connections that come and go, and answers that come in: finds out what each is about.

use std::sync::Arc;

use bytes::Bytes;
use protocol::message::{Refusal, Response};
use protocol::{DiskId, Generation, Stamp};

use super::Owner;
use super::event::Action;
use super::limits::{BUSY_PAUSE_MS, TROUBLE_PAUSE_MS};
use super::link::Sent;
use super::write::Progress;
use crate::moment::Moment;
use crate::mutation::{self, Mutation};

impl Owner {
    /// A connection is up. What it still lacks goes out with the next pump, in stamp order (W5).
    pub(super) fn connected(&mut self, now: Moment, disk: DiskId, version: u16) {
        self.disconnected(now, disk);
        if let Some(link) = self.links.get_mut(&disk) {
            link.connect(now, version);
        }
    }

    /// A connection is gone: whether what was in flight arrived is unknown, so it is asked again.
    pub(super) fn disconnected(&mut self, now: Moment, disk: DiskId) {
        let Some(link) = self.links.get_mut(&disk) else {
            return;
        };
        let lost = link.disconnect(now);
        self.tell_again(disk);
        for (number, sent) in lost {
            match sent {
                Sent::Write(count) if mutation::active(Mutation::ForgetOnReconnect) => {
                    let write = self.writes.sent.get_mut(&count);
                    if let Some(progress) = write.and_then(|write| write.progress(disk)) {
                        *progress = Progress::Ok;
                    }
                }
                Sent::Write(count) => {
                    self.put_back(disk, count, number);
                }
                Sent::Lookup(id) => self.lookup_lost(id, number),
                Sent::Lookups(asked) => {
                    for (id, _) in asked {
                        self.lookup_lost(id, number);
                    }
                }
                Sent::GiveBack(index) => self.give_back_answered(disk, (index, number), None),
                Sent::Fence(..)
                | Sent::Level { .. }
                | Sent::Settle { .. }
                | Sent::Probe
                | Sent::Heartbeat(_) => {
                    self.take_over_lost(disk, number, &sent);
                }
            }
        }
    }

    /// What was told on a connection that ended may not have arrived, or the disk may have forgotten
    /// it: it is told again. Also where this owner told nothing yet: the disk may have come back with
    /// doubts of former owners, which it had taken off and forgot that it had.
    fn tell_again(&mut self, disk: DiskId) {
        for (pg, group) in &mut self.groups {
            let told = group.told.remove(&disk).is_some();
            if told || group.awaited().any(|awaited| awaited == disk) {
                self.untold.insert(*pg);
            }
        }
    }

    /// An answer came in.
    pub(super) fn respond(
        &mut self,
        now: Moment,
        disk: DiskId,
        number: u64,
        response: Response,
        out: &mut Vec<Action>,
    ) {
        let Some((sent, asked)) = self
            .links
            .get_mut(&disk)
            .and_then(|link| link.answered(now, number))
        else {
            return;
        };
        if let Response::Refused(Refusal::Fenced(generation)) = response
            && generation > self.view.generation
            && self.view.generation > Generation(0)
        {
            self.depose(out);
            return;
        }
        match sent {
            Sent::Write(count) => match response {
                Response::Ok => {
                    self.pace.answered(disk, now.since(asked));
                    self.write_ok(disk, count, number, out);
                }
                Response::Refused(refusal) => self.write_refused(now, disk, (count, number), &refusal, out),
                _ => self.write_refused(now, disk, (count, number), &Refusal::Invalid, out),
            },
            Sent::Lookup(id) => self.lookup_answered(now, (id, number), response, out),
            Sent::Lookups(asked) => self.lookups_answered(now, disk, (asked, number), response, out),
            Sent::Fence(pg, interval) => {
                self.fence_answered(now, disk, number, (pg, interval), response, out);
            }
            Sent::Level { .. } => self.level_answered(now, disk, number, &sent, response, out),
            Sent::Settle { .. } => self.step_answered(now, disk, number, &sent, response, out),
            Sent::GiveBack(index) => self.give_back_answered(disk, (index, number), Some(&response)),
            Sent::Probe => self.probed(now, disk, &response, out),
            Sent::Heartbeat(round) => self.heartbeat_answered(now, disk, round, &response, out),
        }
    }

    /// A read was done without asking the disk's process, of which it says nothing.
    pub(super) fn read_directly(
        &mut self,
        now: Moment,
        (disk, number): (DiskId, u64),
        bytes: Bytes,
        out: &mut Vec<Action>,
    ) {
        let link = self.links.get_mut(&disk);
        match link.and_then(|link| link.done_without(number)) {
            Some(Sent::Lookup(id)) => self.lookup_read((id, number), bytes, out),
            Some(Sent::Lookups(asked)) => self.lookups_read((asked, number), &bytes, out),
            Some(sent @ Sent::Settle { .. }) => {
                // Of what a disk would say with the bytes a take-over wants nothing.
                let response = Response::Data {
                    stamp: Stamp::ZERO,
                    checksums: Arc::default(),
                    bytes,
                };
                self.step_answered(now, disk, number, &sent, response, out);
            }
            // Nothing else reads.
            _ => {}
        }
    }

    /// A disk refused something that must be asked again: how soon depends on why.
    pub(super) fn slow_down(&mut self, now: Moment, disk: DiskId, refusal: &Refusal, out: &mut Vec<Action>) {
        match refusal {
            Refusal::Busy => self.pause(now, disk, BUSY_PAUSE_MS),
            Refusal::Interval(_) | Refusal::Revision(_) | Refusal::NotInSync | Refusal::Sealed => {
                self.map_pause(now, disk);
                self.want_view(now, out);
            }
            Refusal::Mismatch | Refusal::Full | Refusal::Gap(_) => self.map_pause(now, disk),
            Refusal::Stranger
            | Refusal::Fenced(_)
            | Refusal::Damaged { .. }
            | Refusal::Poisoned
            | Refusal::Invalid
            | Refusal::Version { .. } => {
                self.pause(now, disk, TROUBLE_PAUSE_MS);
                self.suspect(now, disk, &format!("it refuses: {refusal}"), out);
            }
        }
    }

    fn pause(&mut self, now: Moment, disk: DiskId, milliseconds: u64) {
        if let Some(link) = self.links.get_mut(&disk) {
            link.pause(now, milliseconds);
        }
    }

    /// Says that a disk is in trouble, and again while it stays so.
    fn suspect(&mut self, now: Moment, disk: DiskId, reason: &str, out: &mut Vec<Action>) {
        if let Some(link) = self.links.get_mut(&disk)
            && link.suspect(now)
        {
            out.push(Action::Suspect {
                disk,
                reason: reason.to_owned(),
            });
        }
    }

    /// Suspects the disks that keep something waiting, and resets connections that are dead.
    pub(super) fn watch_links(&mut self, now: Moment, out: &mut Vec<Action>) {
        let disks: Vec<DiskId> = self.links.keys().copied().collect();
        for disk in disks {
            let Some(link) = self.links.get(&disk) else {
                continue;
            };
            if link.silent(now) {
                out.push(Action::Reset { disk });
                self.disconnected(now, disk);
            } else if let Some(trouble) = link.trouble(now) {
                if self.awaits(disk) {
                    self.suspect(now, disk, &format!("it {trouble}"), out);
                }
            } else if let Some(link) = self.links.get_mut(&disk) {
                link.trust();
            }
        }
    }

    /// Whether anything waits for this disk.
    pub(super) fn awaits(&self, disk: DiskId) -> bool {
        let link = self.links.get(&disk);
        if link.is_some_and(|link| link.load() > 0 || !link.pending.is_empty()) {
            return true;
        }
        let mut unready = self.unready.iter().filter_map(|pg| self.groups.get(pg));
        unready.any(|group| group.awaited().any(|awaited| awaited == disk))
    }
}
