//! The world: everything that there is, and the loop that lets the next thing happen.
//!
//! One file because all that can happen is named in one list and handed on in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coordination::map::ClusterMap;
use erasure::Codes;
use protocol::message::{Request, Response};
use protocol::session::{SlotState, VolumeView};
use protocol::storage::{StorageReply, StorageRequest};
use protocol::{DiskId, PgId, VolumeId};
use replication::Moment;

use crate::Report;
use crate::chance::{Chance, Log};
use crate::cluster::{Cluster, Shape};
use crate::direct_reads::DirectRead;
use crate::disk::Disk;
use crate::front::Front;
use crate::network::Connection;
use crate::operator::{Guard, Reclaiming};
use crate::oracle::{Image, Oracle};
use crate::schedule::{Schedule, Time};
use crate::verdict::Ending;
use crate::workload::ACTIVE_BLOCKS;

/// How a world is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether every event is printed.
    pub verbose: bool,
    /// How long faults go on, in milliseconds of virtual time.
    pub faulty_ms: u64,
    /// Whether pools encode rows.
    pub encoded: bool,
    /// Whether everything that happens goes into the report's hash, to be compared with another run of the seed. Costs a
    /// tenth of the time.
    pub hashed: bool,
}

impl Default for Options {
    fn default() -> Self {
        // Long enough for some leases to lapse and some disks to come back; short enough for many seeds.
        Self {
            verbose: false,
            faulty_ms: 30_000,
            encoded: false,
            hashed: true,
        }
    }
}

/// Names a front end's process: which, and its how-manieth life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) front: usize,
    pub(crate) number: u64,
}

/// What can happen next.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A front end tries to reach a disk.
    Connect {
        life: Life,
        disk: DiskId,
    },
    /// A front end hears that its connection is open.
    Connected {
        connection: u64,
    },
    /// A request arrives at a disk.
    Request {
        connection: u64,
        number: u64,
        request: Request,
    },
    /// An answer arrives at a front end.
    Response {
        connection: u64,
        number: u64,
        response: Response,
    },
    /// One end learns that the connection is gone.
    FrontSeesEnd {
        connection: u64,
    },
    DiskSeesEnd {
        connection: u64,
    },
    /// The next change in a disk's queue becomes durable; its answer goes to the replica.
    Durable {
        disk: DiskId,
        life: u64,
        token: u64,
    },
    /// A turn of a real store's loop.
    Turn {
        disk: DiskId,
        life: u64,
    },
    /// The next step of a read that a front end does itself.
    Direct(Box<DirectRead>),
    /// A disk looks something up.
    Look {
        disk: DiskId,
        life: u64,
        token: u64,
        request: StorageRequest,
    },
    /// A disk answers at once.
    Stored {
        disk: DiskId,
        life: u64,
        token: u64,
        result: Result<StorageReply, protocol::storage::StorageError>,
    },
    /// A disk gets a newer map.
    MapArrives {
        disk: DiskId,
        life: u64,
        map: Arc<ClusterMap>,
    },
    /// A disk starts again.
    DiskStarts {
        disk: DiskId,
    },
    /// An owner wants to be woken.
    Tick {
        life: Life,
        at: Time,
    },
    /// A front end begins to live, or tries again to get its volume.
    Open {
        front: usize,
    },
    /// The answer to that.
    Granted {
        life: Life,
        sent: Moment,
        view: Box<VolumeView>,
        lease: Option<coordination::store::LeaseId>,
    },
    /// A renewal reaches storaged; its answer reaches the front end.
    Renewal {
        life: Life,
        sent: Moment,
    },
    Renewed {
        life: Life,
        sent: Moment,
    },
    Revoked {
        life: Life,
    },
    /// A view reaches a front end.
    ViewArrives {
        life: Life,
        view: Box<VolumeView>,
    },
    /// storaged answers a question for the view.
    ViewWanted {
        life: Life,
    },
    /// A quiescence reaches a front end; its answer reaches storaged; storaged gives up.
    QuiesceArrives {
        life: Life,
        token: u64,
    },
    QuiescedArrives {
        volume: VolumeId,
        token: u64,
    },
    QuiesceTimeout {
        volume: VolumeId,
        token: u64,
    },
    /// storaged learns that a front end's process is gone.
    DeathNoticed {
        lease: coordination::store::LeaseId,
    },
    /// A replica is woken, as it wished.
    Alarm {
        disk: DiskId,
        life: u64,
        volume: Option<VolumeId>,
    },
    /// A disk goes on with what was refused.
    Nudge {
        disk: DiskId,
        life: u64,
    },
    /// A disk's scrub takes its next step.
    ScrubStep {
        disk: DiskId,
        life: u64,
    },
    /// A question of a disk reaches another one; its answer reaches the first.
    Question {
        from: DiskId,
        life: u64,
        to: DiskId,
        number: u64,
        question: Box<protocol::recovery::Question>,
    },
    Told {
        disk: DiskId,
        life: u64,
        number: u64,
        told: Box<Result<protocol::recovery::Told, protocol::message::Refusal>>,
    },
    /// A disk's wish for a swap reaches storaged; the outcome reaches the disk.
    Propose {
        disk: DiskId,
        life: u64,
        group: (PgId, protocol::Interval),
        step: (SlotState, SlotState),
    },
    Proposed {
        disk: DiskId,
        life: u64,
        pg: PgId,
    },
    /// An owner's complaint of a disk reaches storaged.
    Evict {
        volume: VolumeId,
        generation: protocol::Generation,
        disk: DiskId,
    },
    /// A stopped process goes on.
    Resume {
        life: Life,
    },
    /// A front end's storaged reaches the coordination store again.
    Reached {
        life: Life,
    },
    /// A front end's user does something.
    Work {
        life: Life,
    },
    /// A step of reclaiming layers.
    Reclaim,
    /// storaged looks at the leases.
    Leases,
    /// The next fault.
    Fault,
    /// The faults are over; then: is all well again?
    Heal,
    Check,
}

/// Everything.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) options: Options,
    pub(crate) shape: Shape,
    pub(crate) chance: Chance,
    /// How rows are encoded.
    pub(crate) codes: Arc<Codes>,
    pub(crate) log: Log,
    pub(crate) schedule: Schedule<Happening>,
    pub(crate) cluster: Cluster,
    pub(crate) disks: BTreeMap<DiskId, Disk>,
    pub(crate) fronts: Vec<Front>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_connection: u64,
    pub(crate) oracle: Oracle,
    pub(crate) guards: BTreeMap<VolumeId, Guard>,
    pub(crate) next_token: u64,
    pub(crate) reclaiming: Option<Reclaiming>,
    pub(crate) evicted: BTreeSet<(PgId, DiskId)>,
    /// How many were put out so far.
    pub(crate) evictions: u64,
    /// Where groups are wanted that were made to move.
    pub(crate) wanted: BTreeMap<PgId, Vec<DiskId>>,
    /// The disk that died for good.
    pub(crate) dead: Option<DiskId>,
    /// The one disk whose blocks get damaged: with two, a block might be lost for good.
    pub(crate) damaged: Option<DiskId>,
    pub(crate) ending: Ending,
    pub(crate) operations: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) met: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let mut chance = Chance::new(seed);
        let shape = Shape::drawn(&mut chance, options.encoded);
        let mut world = Self {
            seed,
            options,
            shape,
            chance,
            codes: Arc::default(),
            log: Log::new(options.verbose, options.hashed),
            schedule: Schedule::new(),
            cluster: Cluster::new(shape),
            disks: BTreeMap::new(),
            fronts: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            oracle: Oracle::default(),
            guards: BTreeMap::new(),
            next_token: 1,
            reclaiming: None,
            evicted: BTreeSet::new(),
            evictions: 0,
            wanted: BTreeMap::new(),
            dead: None,
            damaged: None,
            ending: Ending::default(),
            operations: 0,
            violations: Vec::new(),
            met: BTreeMap::new(),
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        // Worlds on the real store and on the model take turns.
        let real = self.seed.is_multiple_of(2);
        for disk in (1..=self.shape.disks).map(DiskId) {
            self.add_disk(disk, real);
        }
        self.damaged = self.chance.percent(30).then_some(DiskId(1));
        for _ in 0..self.chance.between(1, 2) {
            let volume = self.cluster.create_volume(crate::workload::VOLUME_SIZE);
            self.oracle.volumes.insert(volume, Image::new(ACTIVE_BLOCKS));
            self.add_front(volume, None);
            // A rival for the same volume, so that hand-overs have somebody to go to.
            self.add_front(volume, None);
        }
        self.schedule.at(Time::milliseconds(20), Happening::Leases);
        self.schedule.at(Time::milliseconds(50), Happening::Fault);
        self.schedule.at(Time::milliseconds(500), Happening::Reclaim);
        self.schedule
            .at(Time::milliseconds(self.options.faulty_ms), Happening::Heal);
    }

    pub(crate) fn run(mut self) -> Report {
        let shape = self.shape;
        self.note(format_args!("{shape:?}"));
        while self.violations.is_empty() && !self.ending.over {
            let Some(happening) = self.schedule.next() else {
                self.violate("liveness: nothing happens any more".to_owned());
                break;
            };
            self.handle(happening);
        }
        Report {
            seed: self.seed,
            hash: self.log.hash(),
            events: self.log.lines(),
            simulated: Duration::from_micros(self.schedule.now.0),
            operations: self.operations,
            violations: self.violations,
            met: self.met,
        }
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Connect { life, disk } => self.connect(life, disk),
            Happening::Connected { connection } => self.connected(connection),
            Happening::Request {
                connection,
                number,
                request,
            } => {
                self.request_arrives(connection, number, request);
            }
            Happening::Response {
                connection,
                number,
                response,
            } => {
                self.response_arrives(connection, number, response);
            }
            Happening::FrontSeesEnd { connection } => self.front_sees_end(connection),
            Happening::DiskSeesEnd { connection } => self.disk_sees_end(connection),
            Happening::Durable { disk, life, token } => self.durable(disk, life, token),
            Happening::Turn { disk, life } => self.turn(disk, life),
            Happening::Direct(read) => self.direct_step(read),
            Happening::Look {
                disk,
                life,
                token,
                request,
            } => self.look(disk, life, token, &request),
            Happening::Stored {
                disk,
                life,
                token,
                result,
            } => self.stored(disk, life, token, result),
            Happening::MapArrives { disk, life, map } => self.map_arrives(disk, life, map),
            Happening::DiskStarts { disk } => self.start_disk(disk),
            Happening::Tick { life, at } => self.tick(life, at),
            Happening::Open { front } => self.open(front),
            Happening::Granted {
                life,
                sent,
                view,
                lease,
            } => self.granted(life, sent, *view, lease),
            Happening::Renewal { life, sent } => self.renewal(life, sent),
            Happening::Renewed { life, sent } => self.feed(life, replication::owner::Event::Renewed { sent }),
            Happening::Revoked { life } => self.feed(life, replication::owner::Event::Revoked),
            Happening::ViewArrives { life, view } => {
                self.feed(life, replication::owner::Event::View(view));
            }
            Happening::ViewWanted { life } => self.push_view(life),
            Happening::QuiesceArrives { life, token } => {
                let event = replication::owner::Event::Quiesce {
                    token,
                    limit_ms: 1_500,
                };
                if !self.is_cut_off(life) {
                    self.feed(life, event);
                }
            }
            Happening::QuiescedArrives { volume, token } => self.quiesced(volume, token),
            Happening::QuiesceTimeout { volume, token } => self.quiesce_timeout(volume, token),
            Happening::DeathNoticed { lease } => {
                self.cluster.revoke(lease);
                self.map_changed();
            }
            Happening::Alarm { disk, life, volume } => self.alarm(disk, life, volume),
            Happening::Nudge { disk, life } => self.nudge(disk, life),
            Happening::ScrubStep { disk, life } => self.scrub_step(disk, life),
            Happening::Question {
                from,
                life,
                to,
                number,
                question,
            } => self.question_arrives((from, life), to, number, *question),
            Happening::Told {
                disk,
                life,
                number,
                told,
            } => self.told_arrives(disk, life, number, *told),
            Happening::Propose {
                disk,
                life,
                group,
                step,
            } => self.proposal_arrives((disk, life), group, step),
            Happening::Proposed { disk, life, pg } => self.proposed(disk, life, pg),
            Happening::Evict {
                volume,
                generation,
                disk,
            } => self.evict(volume, generation, disk),
            Happening::Resume { life } => self.resume(life),
            Happening::Reached { life } => self.reach(life),
            Happening::Work { life } => self.work(life),
            Happening::Reclaim => self.reclaim(),
            Happening::Leases => self.look_at_leases(),
            Happening::Fault => self.fault(),
            Happening::Heal => self.heal(),
            Happening::Check => self.check(),
        }
    }

    fn look_at_leases(&mut self) {
        if self.cluster.expire(self.schedule.now) {
            self.meet("lease lapsed");
            self.map_changed();
        }
        self.schedule.after(20_000, Happening::Leases);
    }

    /// Everybody hears of a new map, sooner or later.
    pub(crate) fn map_changed(&mut self) {
        let disks: Vec<(DiskId, u64)> = self
            .disks
            .iter()
            .filter(|(_, disk)| disk.is_up())
            .map(|(id, disk)| (*id, disk.life))
            .collect();
        for (disk, life) in disks {
            let delay = self.delay(30_000);
            let map = self.cluster.map.clone();
            let at = self.disks.get_mut(&disk).map(|disk| {
                // One watch: what was sent first arrives first.
                disk.map_at = disk.map_at.max(self.schedule.now.after(delay));
                disk.map_at
            });
            if let Some(at) = at {
                self.schedule.at(at, Happening::MapArrives { disk, life, map });
            }
        }
        for front in 0..self.fronts.len() {
            let life = self.fronts[front].life(front);
            self.push_view(life);
        }
    }

    /// A delay of a message: mostly short, sometimes as long as `longest` microseconds.
    pub(crate) fn delay(&mut self, longest: u64) -> u64 {
        if self.chance.percent(90) {
            self.chance.between(20, 300)
        } else {
            self.chance.between(20, longest.max(300))
        }
    }

    pub(crate) fn note(&mut self, text: std::fmt::Arguments<'_>) {
        self.log.line(self.schedule.now.0, text);
    }

    pub(crate) fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }
}
