//! The connection to one disk, as the owner sees it: what is in flight on it, what must still be
//! sent on it, and whether it is to be trusted with more.

use std::collections::{BTreeMap, BTreeSet};

use protocol::message::{Request, SEVERAL_SINCE, Scope, VOUCH_GROUPS_MAX, VOUCH_SINCE};
use protocol::session::DiskView;
use protocol::{DiskId, Interval, ObjectId, PgId};

use super::event::Action;
use super::limits::{LINK_HEARTBEATS_MAX, LINK_REQUESTS_MAX, SILENCE_MS, STALL_MS, SUSPECT_AGAIN_MS};
use super::lookup::Asked;
use crate::moment::{Moment, VOUCHED_MS};

/// What a request in flight was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// A write, by its count.
    Write(u64),
    /// A read, a map, or the learning of a stamp.
    Lookup(u64),
    /// Several reads, each with the blocks that it wants.
    Lookups(Asked),
    /// The fence of a group in an interval.
    Fence(PgId, Interval),
    /// A step of making an object level.
    Level {
        pg: PgId,
        interval: Interval,
        object: ObjectId,
        /// The disk that is made level by it; the request itself may go to another, the source.
        subject: DiskId,
    },
    /// A step of making the rows of a range level.
    Settle {
        pg: PgId,
        interval: Interval,
        index: u32,
    },
    /// What rows no longer need is given back, of this object.
    GiveBack(u32),
    /// A question whether there is room.
    Probe,
    /// A question whether interval and generation still stand, in one round of such.
    Heartbeat(u64),
}

/// One disk's connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) disk: DiskView,
    pub(super) connected: bool,
    /// The version of the messages that the disk speaks with us; of use while connected.
    version: u16,
    /// When it was connected, lost, or first wanted.
    pub(super) changed: Moment,
    /// When anything was heard last.
    heard: Moment,
    in_flight: BTreeMap<u64, (Sent, Moment)>,
    /// How many of these ask whether interval and generation still stand.
    heartbeats: usize,
    /// Writes to send, by count: in stamp order, which is also the order of a resend (W5).
    pub(super) pending: BTreeSet<u64>,
    /// Nothing is sent before this.
    pub(super) paused_until: Option<Moment>,
    /// When the present trouble was told last.
    suspected: Option<Moment>,
}

impl Link {
    pub(super) fn new(now: Moment, disk: DiskView) -> Self {
        Self {
            disk,
            connected: false,
            version: 0,
            changed: now,
            heard: now,
            in_flight: BTreeMap::new(),
            heartbeats: 0,
            pending: BTreeSet::new(),
            paused_until: None,
            suspected: None,
        }
    }

    /// Whether one more request may go out now.
    pub(super) fn open(&self, now: Moment) -> bool {
        self.connected
            && self.in_flight.len() - self.heartbeats < LINK_REQUESTS_MAX
            && self.paused_until.is_none_or(|until| until <= now)
    }

    /// How many groups one question may be about whether interval and generation still stand.
    pub(super) fn groups_at_once(&self) -> usize {
        if self.version >= VOUCH_SINCE {
            VOUCH_GROUPS_MAX
        } else {
            1
        }
    }

    /// Whether questions about so many groups may go out now.
    pub(super) fn takes_heartbeats(&self, groups: usize) -> bool {
        let questions = groups.div_ceil(self.groups_at_once());
        self.connected && self.heartbeats + questions <= LINK_HEARTBEATS_MAX
    }

    /// Whether one request may be about several ranges.
    pub(super) fn reads_several(&self) -> bool {
        self.version >= SEVERAL_SINCE
    }

    /// A request with this number follows at once, and counts already.
    pub(super) fn hold(&mut self, now: Moment, number: u64) {
        self.in_flight.insert(number, (Sent::Lookups(Asked::new()), now));
    }

    /// How many requests are unanswered.
    pub(super) fn load(&self) -> usize {
        self.in_flight.len()
    }

    /// Sends a request.
    pub(super) fn send(
        &mut self,
        now: Moment,
        number: u64,
        sent: Sent,
        request: Request,
        out: &mut Vec<Action>,
    ) {
        self.heartbeats += usize::from(matches!(sent, Sent::Heartbeat(_)));
        self.in_flight.insert(number, (sent, now));
        out.push(Action::Send {
            disk: self.disk.disk,
            number,
            request,
        });
    }

    /// Sends what has no answer.
    pub(super) fn tell(&self, number: u64, scope: Scope, up_to: u64, out: &mut Vec<Action>) {
        let request = Request::Complete { scope, up_to };
        out.push(Action::Send {
            disk: self.disk.disk,
            number,
            request,
        });
    }

    /// An answer came: what it is the answer to, and when that was sent, if it is still awaited.
    pub(super) fn answered(&mut self, now: Moment, number: u64) -> Option<(Sent, Moment)> {
        let answered = self.in_flight.remove(&number)?;
        self.heartbeats -= usize::from(matches!(answered.0, Sent::Heartbeat(_)));
        self.heard = now;
        Some(answered)
    }

    /// A request was done without the disk's process, which was not heard by it: what it was, if that
    /// is still awaited.
    pub(super) fn done_without(&mut self, number: u64) -> Option<Sent> {
        self.in_flight.remove(&number).map(|(sent, _)| sent)
    }

    /// The connection is up.
    pub(super) fn connect(&mut self, now: Moment, version: u16) {
        self.connected = true;
        self.version = version;
        self.changed = now;
        self.heard = now;
        self.paused_until = None;
    }

    /// The connection is gone; returns what was in flight, in the order in which it was sent.
    pub(super) fn disconnect(&mut self, now: Moment) -> Vec<(u64, Sent)> {
        self.connected = false;
        self.changed = now;
        self.paused_until = None;
        self.heartbeats = 0;
        let lost = std::mem::take(&mut self.in_flight);
        lost.into_iter()
            .map(|(number, (sent, _))| (number, sent))
            .collect()
    }

    /// Sends nothing for a while.
    pub(super) fn pause(&mut self, now: Moment, milliseconds: u64) {
        let until = now + milliseconds;
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }

    /// When the oldest request in flight was sent.
    fn oldest(&self) -> Option<Moment> {
        self.in_flight.first_key_value().map(|(_, (_, sent))| *sent)
    }

    /// When the first answer is overdue. A fence may take longer than other requests: the disk waits out what it has
    /// vouched for to a former owner, which is no fault of its own.
    fn overdue(&self) -> Option<Moment> {
        let mut fence: Option<Moment> = None;
        for (sent, at) in self.in_flight.values() {
            if matches!(sent, Sent::Fence(..)) {
                fence = fence.or(Some(*at + VOUCHED_MS + STALL_MS));
            } else {
                let other = *at + STALL_MS;
                return Some(fence.map_or(other, |fence| fence.min(other)));
            }
        }
        fence
    }

    /// What is wrong with it, if anything, in words that follow "disk-2".
    pub(super) fn trouble(&self, now: Moment) -> Option<&'static str> {
        if !self.connected {
            return (now.since(self.changed) >= STALL_MS).then_some("is not connected");
        }
        let stalled = self.overdue().is_some_and(|overdue| now >= overdue);
        stalled.then_some("has not answered for half a second or longer")
    }

    /// Whether it has been silent for so long that it is taken for dead.
    pub(super) fn silent(&self, now: Moment) -> bool {
        self.connected
            && self.oldest().is_some_and(|sent| now.since(sent) >= SILENCE_MS)
            && now.since(self.heard) >= SILENCE_MS
    }

    /// Whether to complain of it now; notes that it was done.
    pub(super) fn suspect(&mut self, now: Moment) -> bool {
        let due = self
            .suspected
            .is_none_or(|last| now.since(last) >= SUSPECT_AGAIN_MS);
        if due {
            self.suspected = Some(now);
        }
        due
    }

    /// The trouble is over.
    pub(super) fn trust(&mut self) {
        self.suspected = None;
    }

    /// When to look at it again; `awaited` says whether anything waits for it.
    pub(super) fn deadline(&self, now: Moment, awaited: impl FnOnce() -> bool) -> Option<Moment> {
        // It takes a look at all groups, and is asked after every event.
        let awaited = (!self.connected || self.suspected.is_some()) && awaited();
        let pause = self.paused_until.filter(|until| *until > now);
        let since = if self.connected {
            self.oldest()
        } else {
            awaited.then_some(self.changed)
        };
        let stall = if self.connected {
            self.overdue()
        } else {
            since.map(|since| since + STALL_MS)
        };
        let silence = since.filter(|_| self.connected).map(|since| since + SILENCE_MS);
        let again = self
            .suspected
            .filter(|_| awaited)
            .map(|last| last + SUSPECT_AGAIN_MS);
        let looks = [stall, silence, again].into_iter().flatten();
        looks.filter(|moment| *moment > now).chain(pause).min()
    }
}
