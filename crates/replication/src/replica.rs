//! The replica on one disk: judges every request by generation, interval and layer tree, keeps the
//! list of objects in doubt, and asks the store for the rest.
//!
//! Pure: requests, the store's answers and map changes arrive as [`Event`]s, and what must be done
//! leaves as [`Action`]s. It knows neither sockets nor files, and no clock: where time must pass, it asks for an alarm.
//!
//! One file because the store's answers come back to where its requests were begun, and both read the same books.

mod clear;
mod copy;
mod doubt;
mod event;
mod fill;
mod flight;
mod judge;
mod look;
mod overtaken;
mod parity;
mod rebuild;
mod reclaim;
mod request;
mod scrub;
mod source;
mod strays;
mod vouching;

pub use event::{Action, ConnectionId, Event, Map, Remembered};

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use protocol::message::{Refusal, Request, Response, Scope};
use protocol::rows::RowCodes;
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{
    DiskId, FamilyId, Generation, Interval, LayerChain, LayerId, ObjectId, PgId, Stamp, VolumeId,
};

use crate::mutation::{self, Mutation};
use crate::recovery::Recovery;
use crate::scrub::Scrub;
use doubt::Doubt;
use flight::{Asker, Flight};
use judge::{Rising, Verdict};
use reclaim::Reclaims;
use strays::Strays;
use vouching::Vouching;

/// Requests of one connection that may be unanswered; one more is refused as busy. Four times what
/// an owner has in flight to one disk, so an honest owner does not meet it.
pub const REQUESTS_PER_CONNECTION_MAX: usize = 1024;
/// Bytes of writes of one connection that may be unanswered: twice what an owner has in flight.
pub const BYTES_PER_CONNECTION_MAX: usize = 64 * 1024 * 1024;

/// The replica state machine of one disk.
pub struct Replica {
    disk: DiskId,
    map: Map,
    generations: HashMap<VolumeId, Rising<Generation>>,
    intervals: HashMap<PgId, Rising<Interval>>,
    doubt: Doubt,
    vouching: Vouching,
    flight: Flight,
    reclaims: Reclaims,
    recovery: Recovery,
    /// The map by which the sources of a group's rows were asked last.
    rebuilt_by: BTreeMap<PgId, Map>,
    scrub: Scrub,
    strays: Strays,
    /// The arithmetic of groups of shards, if there is some.
    codes: Option<Arc<dyn RowCodes>>,
    connections: HashMap<ConnectionId, Load>,
    /// Requests that cannot be judged yet, in the order in which they came.
    parked: VecDeque<Parked>,
    /// What the store was asked, by token.
    asked: BTreeMap<u64, Asked>,
    next_token: u64,
    /// Whether [`Action::Refresh`] was said since the last map.
    refreshing: bool,
}

/// What a connection has unanswered.
#[derive(Debug, Default)]
struct Load {
    requests: HashMap<u64, usize>,
    bytes: usize,
}

/// A request that waits for something other than its own store request.
struct Parked {
    connection: ConnectionId,
    number: u64,
    request: Request,
    waits_for: Wait,
}

/// What a parked request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Map,
    Generation(VolumeId),
    Interval(PgId),
    /// A fence, for the end of the writes in flight that older owners sent; what looks at an object to make it level, for
    /// the end of all that is in flight for it.
    Drain,
    /// A write to rows, for the end of a merge that goes by what these are now.
    Merged(ObjectId),
    /// A fence, for the end of what was said to a former owner.
    Vouched,
    /// A write to an object of this group that is behind, until it is copied.
    Behind(PgId),
}

/// What the answer to a token is for.
#[derive(Debug)]
enum Asked {
    /// A write or a level: the object's stamp after it, and where its doubt is listed.
    Change {
        pg: PgId,
        object: ObjectId,
        stamp: Stamp,
        level: bool,
    },
    /// Something whose answer goes to the asker as it is.
    Answer(Asker),
    /// What there is of an object, of the layers of a chain.
    Column(Asker, LayerChain),
    /// Whether the disk still works, for an owner whose groups all stand.
    Standing(Asker),
    /// The same, for a read that was begun at a layer.
    Read(Asker, (FamilyId, LayerId), PgId),
    /// A merge or a drop of an object, by the token of whoever asked.
    Reclaim(u64, reclaim::Place),
    /// Raising a generation.
    Generation(VolumeId, Generation),
    /// Raising an interval.
    Interval(PgId, Interval),
    /// Something that another disk asked for in this group; whether it is a page of a list.
    Told {
        to: DiskId,
        number: u64,
        pg: PgId,
        page: bool,
    },
    /// A look at our own objects, for a group that we come back to, and which of its runs.
    Own(PgId, u64),
    /// An object that was made what the source has.
    Replaced {
        pg: PgId,
        run: u64,
        object: ObjectId,
        stamp: Stamp,
        doubt: bool,
    },
    /// Something that a scrub wanted, and in which of its steps.
    Scrub(u64),
    /// A page of our own objects, for those that are not ours any more; or that one of these goes.
    Strays(Option<ObjectId>),
    /// Taking doubt off: nobody waits.
    Settle,
}

impl Replica {
    /// The replica on `disk`, with what its store remembers and the map as it is now.
    pub fn new(disk: DiskId, remembered: Remembered, map: Map, out: &mut Vec<Action>) -> Self {
        let Remembered {
            generations,
            intervals,
            mut doubts,
            vouched,
        } = remembered;
        if mutation::active(Mutation::ForgetDoubtOnRestart) {
            doubts.clear();
        }
        let is_new = generations.is_empty() && intervals.is_empty();
        let vouching = Vouching::after_start(vouched, &generations, out);
        let rising = generations
            .into_iter()
            .map(|(volume, value)| (volume, Rising::remembered(value)));
        let intervals = intervals
            .into_iter()
            .map(|(pg, value)| (pg, Rising::remembered(value)));
        let mut replica = Self {
            disk,
            map: map.clone(),
            generations: rising.collect(),
            intervals: intervals.collect(),
            doubt: Doubt::new(doubts),
            vouching,
            flight: Flight::default(),
            reclaims: Reclaims::default(),
            recovery: Recovery::default(),
            rebuilt_by: BTreeMap::new(),
            scrub: Scrub::default(),
            strays: Strays::of(disk, map.as_ref(), is_new),
            codes: None,
            connections: HashMap::new(),
            parked: VecDeque::new(),
            asked: BTreeMap::new(),
            next_token: 1,
            refreshing: false,
        };
        let intervals = replica.intervals.iter();
        replica.recovery.served_before = intervals.map(|(pg, rising)| (*pg, rising.durable)).collect();
        replica.change_map(map, out);
        replica
    }

    /// Takes in one event and appends what must be done for it to `out`, in order.
    pub fn apply(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Map(map) => self.change_map(map, out),
            Event::Closed { connection } => {
                self.connections.remove(&connection);
                self.parked.retain(|parked| parked.connection != connection);
            }
            Event::Request {
                connection,
                number,
                request,
            } => self.admit(connection, number, request, out),
            Event::Reclaim { token, request } => self.reclaim(token, request, out),
            Event::Question {
                from,
                number,
                question,
            } => self.question(from, number, question, out),
            Event::Told { number, told } => self.heard(number, told, out),
            Event::Alarm { volume } => self.alarm(volume, out),
            Event::Proposed { pg } => self.proposed(pg, out),
            Event::Nudge { returns } => {
                self.nudge(returns, out);
                self.search_for_strays(out);
            }
            Event::Scrub { run, order } => self.begin_scrub(run, order),
            Event::ScrubStep => self.scrub_step(out),
            Event::Stored { token, result } => self.stored(token, result, out),
        }
    }

    /// The disk that this replica is on.
    pub fn disk(&self) -> DiskId {
        self.disk
    }

    /// How many objects are in doubt here.
    pub fn in_doubt(&self) -> usize {
        self.doubt.len()
    }

    /// Whether the disk comes back to a group, as far as it knows itself: its map may be behind.
    pub fn comes_back_anywhere(&self) -> bool {
        !self.recovery.groups.is_empty() || !self.recovery.proposing.is_empty()
    }

    /// Objects that the store has yet to change, for owners or as copies.
    fn coming(&self) -> impl Iterator<Item = ObjectId> {
        let replaced = self.asked.values().filter_map(|asked| match asked {
            Asked::Replaced { object, .. } => Some(*object),
            _ => None,
        });
        self.flight.objects().chain(replaced)
    }

    /// Whether an object has, or is about to have, a write that may be on some of its copies only. The store shows a
    /// write before its answer comes here.
    fn may_be_torn(&self, object: ObjectId) -> bool {
        self.doubt.has(object) || self.flight.concerns(object)
    }

    /// How many requests are unanswered, over all connections.
    pub fn unanswered(&self) -> usize {
        self.connections.values().map(|load| load.requests.len()).sum()
    }

    fn change_map(&mut self, map: Map, out: &mut Vec<Action>) {
        self.map = map;
        self.refreshing = false;
        out.push(Action::Readmit);
        let settled = self.doubt.follow_map(self.map.as_ref());
        self.settle(settled, out);
        self.unpark(|wait| wait == Wait::Map, true, out);
        self.resume_reclaims(out);
        self.follow_groups(out);
        self.follow_strays();
        self.retake_questions(out);
    }

    /// Counts a request in, or refuses it when its connection has too much unanswered.
    fn admit(&mut self, connection: ConnectionId, number: u64, request: Request, out: &mut Vec<Action>) {
        if let Request::Complete { scope, up_to } = request {
            self.complete(&scope, up_to, out);
            return;
        }
        let weight = request::weight(&request);
        let load = self.connections.entry(connection).or_default();
        let full = load.requests.len() >= REQUESTS_PER_CONNECTION_MAX
            || (load.bytes > 0 && load.bytes + weight > BYTES_PER_CONNECTION_MAX);
        if full || load.requests.contains_key(&number) {
            let refusal = if full { Refusal::Busy } else { Refusal::Invalid };
            out.push(Action::Reply {
                connection,
                number,
                response: Response::Refused(refusal),
            });
            return;
        }
        load.requests.insert(number, weight);
        load.bytes += weight;
        self.handle((connection, number), request, false, out);
    }

    /// Judges a request and starts it, answers it, or parks it. `map_is_new` says that it waited for
    /// a map and that a new one came: what cannot be looked up now is refused (rule 2).
    fn handle(&mut self, asker: Asker, request: Request, map_is_new: bool, out: &mut Vec<Action>) {
        if let Request::Vouch(vouch) = request {
            return self.judge_all(asker, vouch, map_is_new, out);
        }
        let Some((scope, need)) = request::scope_and_need(&request) else {
            self.answer(asker, Response::Refused(Refusal::Invalid), out);
            return;
        };
        if self.recovery.proposing.contains(&scope.pg) {
            // P9: of what interval this is will only be known when the swap's outcome is.
            self.answer(asker, Response::Refused(Refusal::Busy), out);
            return;
        }
        match self.bench().judge(&scope, need) {
            Verdict::Pass => self.start(asker, scope, request, out),
            Verdict::Refuse(refusal) => self.answer(asker, Response::Refused(refusal), out),
            Verdict::AwaitMap if map_is_new => {
                let refusal = self.behind(&scope);
                self.answer(asker, Response::Refused(refusal), out);
            }
            Verdict::AwaitMap => {
                self.refresh(out);
                self.park(asker, request, Wait::Map);
            }
            Verdict::RaiseGeneration => {
                self.raise_generation(scope.volume, scope.generation, out);
                self.park(asker, request, Wait::Generation(scope.volume));
            }
            Verdict::RaiseInterval => {
                self.raise_interval(scope.pg, scope.interval, out);
                self.park(asker, request, Wait::Interval(scope.pg));
            }
        }
    }

    /// Says, once for each map, that a newer one is known to be there.
    fn refresh(&mut self, out: &mut Vec<Action>) {
        if !self.refreshing {
            self.refreshing = true;
            out.push(Action::Refresh);
        }
    }

    /// The refusal for a request that is of a newer map than this replica can get.
    fn behind(&self, scope: &Scope) -> Refusal {
        let interval = self
            .map
            .group(scope.pg)
            .map(|group| group.interval)
            .unwrap_or_default();
        if scope.interval == interval {
            Refusal::Revision(
                self.map
                    .volume(scope.volume)
                    .map(|volume| volume.revision)
                    .unwrap_or_default(),
            )
        } else {
            Refusal::Interval(interval)
        }
    }

    fn park(&mut self, (connection, number): Asker, request: Request, waits_for: Wait) {
        self.parked.push_back(Parked {
            connection,
            number,
            request,
            waits_for,
        });
    }

    /// Takes up again, in order, what waited for something that has happened.
    fn unpark(&mut self, ready: impl Fn(Wait) -> bool, map_is_new: bool, out: &mut Vec<Action>) {
        if !self.parked.iter().any(|parked| ready(parked.waits_for)) {
            return;
        }
        let (ready, waiting) = self.parked.drain(..).partition(|parked| ready(parked.waits_for));
        self.parked = waiting;
        let ready: VecDeque<Parked> = ready;
        for parked in ready {
            self.handle(
                (parked.connection, parked.number),
                parked.request,
                map_is_new,
                out,
            );
        }
    }

    fn raise_generation(&mut self, volume: VolumeId, generation: Generation, out: &mut Vec<Action>) {
        let known = self.generations.entry(volume).or_default();
        if known.asked && known.seen >= generation {
            return;
        }
        // Seen at once: from here on older owners are refused, and what they sent before is in flight.
        known.seen = known.seen.max(generation);
        known.asked = true;
        let seen = known.seen;
        out.push(Action::Readmit);
        self.ask(
            Asked::Generation(volume, seen),
            StorageRequest::RaiseGeneration(volume, seen),
            out,
        );
    }

    fn raise_interval(&mut self, pg: PgId, interval: Interval, out: &mut Vec<Action>) {
        let known = self.intervals.entry(pg).or_default();
        if known.asked && known.seen >= interval {
            return;
        }
        known.seen = known.seen.max(interval);
        known.asked = true;
        let seen = known.seen;
        out.push(Action::Readmit);
        self.ask(
            Asked::Interval(pg, seen),
            StorageRequest::RaiseInterval(pg, seen),
            out,
        );
    }

    fn ask(&mut self, asked: Asked, request: StorageRequest, out: &mut Vec<Action>) {
        let token = self.next_token;
        self.next_token += 1;
        self.asked.insert(token, asked);
        out.push(Action::Store { token, request });
    }

    fn answer(&mut self, (connection, number): Asker, response: Response, out: &mut Vec<Action>) {
        // A connection that is closed has no load any more, and gets no answer.
        let Some(load) = self.connections.get_mut(&connection) else {
            return;
        };
        let Some(weight) = load.requests.remove(&number) else {
            return;
        };
        load.bytes -= weight;
        out.push(Action::Reply {
            connection,
            number,
            response,
        });
    }

    fn settle(&mut self, objects: Vec<(ObjectId, Stamp)>, out: &mut Vec<Action>) {
        if !objects.is_empty() {
            self.ask(Asked::Settle, StorageRequest::Settle(objects), out);
        }
    }

    /// Takes in the store's answer.
    fn stored(&mut self, token: u64, result: Result<StorageReply, StorageError>, out: &mut Vec<Action>) {
        let asked = self.asked.remove(&token);
        if let (Err(error), false) = (&result, matches!(asked, Some(Asked::Scrub(_)))) {
            self.note_damage(error);
        }
        match asked {
            Some(Asked::Scrub(serial)) => self.scrub_stored(serial, result, out),
            Some(Asked::Change {
                pg,
                object,
                stamp,
                level,
            }) => {
                self.changed(pg, object, stamp, level, result, out);
                self.resume_reclaims(out);
            }
            Some(Asked::Answer(asker)) => self.answer(asker, request::response(result), out),
            Some(Asked::Column(asker, chain)) => self.column(asker, &chain, result, out),
            Some(Asked::Standing(asker)) => self.answer(asker, vouching::response(result), out),
            Some(Asked::Read(asker, layer, pg)) => {
                self.answer(asker, request::response(result), out);
                if self.reclaims.read_ends(layer, pg) {
                    self.resume_reclaims(out);
                }
            }
            Some(Asked::Told { to, number, pg, page }) => self.told((to, number), (pg, page), result, out),
            Some(Asked::Own(pg, run)) => self.own_told((pg, run), result, out),
            Some(Asked::Replaced {
                pg,
                run,
                object,
                stamp,
                doubt,
            }) => {
                if result.is_ok() {
                    self.doubt.replace(pg, object, stamp, doubt);
                }
                self.own_told((pg, run), result, out);
                self.resume_reclaims(out);
            }
            Some(Asked::Strays(object)) => self.strays_told(object, result, out),
            Some(Asked::Reclaim(token, place)) => self.reclaimed((token, place), result, out),
            Some(Asked::Generation(volume, generation)) => {
                let known = self.generations.entry(volume).or_default();
                known.asked = known.seen > generation;
                match result {
                    Ok(_) => known.durable = known.durable.max(generation),
                    Err(error) => return self.refuse_parked(Wait::Generation(volume), &error, out),
                }
                self.unpark(|wait| wait == Wait::Generation(volume), false, out);
                self.resume_groups(out);
            }
            Some(Asked::Interval(pg, interval)) => {
                let known = self.intervals.entry(pg).or_default();
                known.asked = known.seen > interval;
                match result {
                    Ok(_) => known.durable = known.durable.max(interval),
                    Err(error) => {
                        self.refuse_questions(&error, out);
                        return self.refuse_parked(Wait::Interval(pg), &error, out);
                    }
                }
                self.unpark(|wait| wait == Wait::Interval(pg), false, out);
                self.resume_groups(out);
                self.retake_questions(out);
            }
            Some(Asked::Settle) | None => {}
        }
    }

    /// The store would not remember what these requests need remembered.
    fn refuse_parked(&mut self, wait: Wait, error: &StorageError, out: &mut Vec<Action>) {
        match wait {
            Wait::Generation(volume) => self.generations.entry(volume).or_default().asked = false,
            Wait::Interval(pg) => self.intervals.entry(pg).or_default().asked = false,
            Wait::Map | Wait::Drain | Wait::Merged(_) | Wait::Vouched | Wait::Behind(_) => {}
        }
        let (refused, waiting) = self.parked.drain(..).partition(|parked| parked.waits_for == wait);
        self.parked = waiting;
        let refused: VecDeque<Parked> = refused;
        for parked in refused {
            let response = request::response(Err(error.clone()));
            self.answer((parked.connection, parked.number), response, out);
        }
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("disk", &self.disk)
            .field("unanswered", &self.unanswered())
            .field("in_doubt", &self.in_doubt())
            .field("for_example", &self.doubt.example())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
