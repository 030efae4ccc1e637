//! The owner's rules, one by one, with disks whose answers the test gives in the worst order. The
//! counterexamples of the protocol's two reviews are named by their numbers.

use std::sync::Arc;

use bytes::Bytes;
use protocol::message::{Refusal, Request, Response, VERSIONS};
use protocol::rows::RowCode;
use protocol::session::{DiskView, GroupView, Slot, SlotState, VolumeView};
use protocol::storage::{Change, MapKind, MapRun};
use protocol::{
    BlockRange, DiskId, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, PoolId, Stamp, TreeRevision,
    VolumeId,
};

mod again;
mod eviction;
mod heartbeats;
mod renaming;
mod reviews;
mod rows;
mod takeover;

use super::limits::COMPLETE_INTERVAL_MS;
use super::{Action, Event, Failure, IoId, Operation, Outcome, Owner};
use crate::moment::Moment;
use crate::samples::Parity;

const PG: PgId = PgId {
    pool: PoolId(1),
    number: 0,
};
const A: DiskId = DiskId(1);
const B: DiskId = DiskId(2);
const LEASE_MS: u64 = 5_000;

fn view() -> VolumeView {
    let slot = |disk| Slot::of_copy(disk, SlotState::InSync);
    let disk = |disk: DiskId| DiskView {
        disk,
        addresses: Vec::new(),
        local: disk == A,
    };
    VolumeView {
        volume: VolumeId(1),
        name: "v".to_owned(),
        size: 4 << 20,
        family: FamilyId(1),
        head: LayerId(1),
        revision: TreeRevision(1),
        generation: Generation(2),
        lease_ms: LEASE_MS,
        read_only: false,
        pool: PoolId(1),
        min_in_sync: 1,
        groups: vec![GroupView {
            pg: PG,
            interval: Interval(1),
            slots: vec![slot(A), slot(B)],
        }],
        disks: vec![disk(A), disk(B)],
        cluster: [0; 16],
        moving: None,
        limits: protocol::limits::VolumeLimits::default(),
        erasure: None,
    }
}

/// A request on its way: to which disk, with which number.
type Sent = (DiskId, u64, Request);

/// A connection is up, to a disk of this version.
fn connected(disk: DiskId) -> Event {
    Event::Connected {
        disk,
        version: *VERSIONS.end(),
    }
}

/// An owner whose disks and clock are played by the test.
struct Bed {
    owner: Owner,
    now: Moment,
    next: u64,
}

impl Bed {
    fn connected() -> (Self, Vec<Sent>) {
        Self::connected_to(view(), *VERSIONS.end())
    }

    /// An owner of this volume, connected to nobody yet.
    fn unconnected(view: VolumeView) -> Self {
        let code = view.erasure.map(|_| Arc::new(Parity) as Arc<dyn RowCode>);
        Self {
            owner: Owner::open_encoded(Moment(0), Moment(0), view, code, &mut Vec::new()),
            now: Moment(0),
            next: 0,
        }
    }

    /// An owner of this volume, connected to disk A, which speaks this version of the messages, and to disk B.
    fn connected_to(view: VolumeView, version: u16) -> (Self, Vec<Sent>) {
        let mut bed = Self::unconnected(view);
        let mut fences = sent(&bed.event(Event::Connected { disk: A, version }));
        fences.extend(sent(&bed.event(connected(B))));
        (bed, fences)
    }

    /// An owner that serves, with nothing in doubt anywhere.
    fn open() -> Self {
        Self::open_to(view(), *VERSIONS.end())
    }

    /// The same, as in [`Bed::connected_to`].
    fn open_to(view: VolumeView, version: u16) -> Self {
        let (mut bed, fences) = Self::connected_to(view, version);
        bed.serve(fences);
        bed
    }

    /// One that also knows the stamp of object 0.
    fn learned() -> Self {
        let mut bed = Self::open();
        let map = bed.submit(Operation::Map {
            offset: 0,
            length: 4096,
        });
        bed.answer(&sent(&map)[0], map_of(Stamp::ZERO));
        bed
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.owner.apply(self.now, event, &mut out);
        out
    }

    fn submit(&mut self, operation: Operation) -> Vec<Action> {
        self.next += 1;
        self.event(Event::Submit {
            id: IoId(self.next),
            operation,
        })
    }

    fn write(&mut self) -> Vec<Action> {
        self.submit(Operation::Write {
            offset: 0,
            bytes: Bytes::from(vec![1; 4096]),
            checksums: Arc::from([1]),
        })
    }

    fn read(&mut self) -> Vec<Action> {
        self.submit(Operation::Read {
            offset: 0,
            length: 4096,
        })
    }

    fn answer(&mut self, request: &Sent, response: Response) -> Vec<Action> {
        self.event(Event::Response {
            disk: request.0,
            number: request.1,
            response,
        })
    }
}

fn sent(actions: &[Action]) -> Vec<Sent> {
    let sent = |action: &Action| match action {
        Action::Send {
            disk,
            number,
            request,
        } => Some((*disk, *number, request.clone())),
        _ => None,
    };
    actions.iter().filter_map(sent).collect()
}

fn results(actions: &[Action]) -> Vec<Result<Outcome, Failure>> {
    let result = |action: &Action| match action {
        Action::Complete { result, .. } => Some(result.clone()),
        _ => None,
    };
    actions.iter().filter_map(result).collect()
}

fn map_of(stamp: Stamp) -> Response {
    let range = BlockRange::new(0, 1).unwrap();
    Response::Map {
        stamp,
        runs: vec![MapRun {
            range,
            kind: MapKind::Data,
        }],
    }
}

fn data() -> Response {
    Response::Data {
        stamp: Stamp::ZERO,
        checksums: Arc::from([1]),
        bytes: Bytes::from(vec![1; 4096]),
    }
}

fn stamp(generation: u64, count: u64) -> Stamp {
    Stamp {
        generation: Generation(generation),
        count,
    }
}

fn counts(requests: &[Sent]) -> Vec<u64> {
    let count = |request: &Sent| match &request.2 {
        Request::Write { write, .. } => Some(write.stamp.count),
        _ => None,
    };
    requests.iter().filter_map(count).collect()
}

#[test]
fn a_write_is_acknowledged_when_every_replica_said_ok() {
    // Rule 3.
    let mut bed = Bed::learned();
    let writes = sent(&bed.write());
    assert_eq!(writes.len(), 2);
    assert!(results(&bed.answer(&writes[0], Response::Ok)).is_empty());
    assert_eq!(
        results(&bed.answer(&writes[1], Response::Ok)),
        [Ok(Outcome::Done)]
    );
}

#[test]
fn a_read_that_overlaps_a_write_in_flight_waits_for_it() {
    // V1: else it shows the new bytes of one disk, and the next one the old bytes of another.
    let mut bed = Bed::learned();
    let writes = sent(&bed.write());
    assert!(sent(&bed.read()).is_empty());
    bed.answer(&writes[0], Response::Ok);
    let out = bed.answer(&writes[1], Response::Ok);
    assert!(matches!(sent(&out)[..], [(A, _, Request::Read { .. })]));
}

#[test]
fn an_answer_that_may_hold_a_write_in_flight_is_kept_until_that_is_acknowledged() {
    // V1, the other half: the write came while the read was on its way.
    let mut bed = Bed::learned();
    let read = sent(&bed.read());
    let writes = sent(&bed.write());
    assert!(results(&bed.answer(&read[0], data())).is_empty());
    bed.answer(&writes[0], Response::Ok);
    assert_eq!(results(&bed.answer(&writes[1], Response::Ok)).len(), 2);
}

#[test]
fn oks_of_a_former_interval_do_not_count() {
    // V6: the disk that said so may have been replaced since.
    let mut bed = Bed::learned();
    let writes = sent(&bed.write());
    bed.answer(&writes[0], Response::Ok);
    let mut next = view();
    next.groups[0].interval = Interval(2);
    let fences = sent(&bed.event(Event::View(Box::new(next))));
    assert!(results(&bed.answer(&writes[1], Response::Ok)).is_empty());
    let mut again = Vec::new();
    for fence in &fences {
        again.extend(sent(&bed.answer(
            fence,
            Response::Doubt {
                objects: Vec::new(),
                more: false,
            },
        )));
    }
    assert_eq!(counts(&again), [1, 1]);
    bed.answer(&again[0], Response::Ok);
    assert_eq!(results(&bed.answer(&again[1], Response::Ok)), [Ok(Outcome::Done)]);
}

#[test]
fn nothing_is_sent_when_the_lease_is_used_up() {
    // Rule 1: 0.8 lease times after the last good renewal was sent; retries too.
    let mut bed = Bed::learned();
    bed.now = Moment(LEASE_MS * 8 / 10);
    // The questions whether the disks still serve us are no use of the volume.
    let asks = |request: &Sent| matches!(request.2, Request::Ping { .. });
    assert!(sent(&bed.write()).iter().all(asks));
    assert!(sent(&bed.read()).iter().all(asks));
    let out = bed.event(Event::Renewed {
        sent: Moment(LEASE_MS * 8 / 10),
    });
    assert_eq!(counts(&sent(&out)), [1, 1]);
}

#[test]
fn what_was_not_confirmed_is_sent_again_in_stamp_order_before_anything_new() {
    // W5: a live owner levels nothing.
    let mut bed = Bed::learned();
    for _ in 0..3 {
        bed.write();
    }
    bed.event(Event::Disconnected { disk: B });
    bed.write();
    let out = bed.event(connected(B));
    assert_eq!(counts(&sent(&out)), [1, 2, 3, 4]);
}

#[test]
fn a_gap_convicts_only_a_disk_that_had_said_ok_before_it_was_asked() {
    // Q2. The answer to a write that was sent too early may come after the ok of the one before.
    let mut bed = Bed::learned();
    let first = sent(&bed.write());
    let second = sent(&bed.write());
    bed.answer(&first[1], Response::Ok);
    let out = bed.answer(&second[1], Response::Refused(Refusal::Gap(Stamp::ZERO)));
    assert!(!out.iter().any(|action| matches!(action, Action::Suspect { .. })));
    let again = sent(&out);
    assert_eq!(counts(&again), [2]);
    let out = bed.answer(&again[0], Response::Refused(Refusal::Gap(Stamp::ZERO)));
    assert!(
        out.iter()
            .any(|action| matches!(action, Action::Suspect { disk: B, .. }))
    );
}

#[test]
fn a_write_that_met_a_full_disk_goes_again_from_the_reserve_and_the_next_is_refused() {
    // docs/decisions: what was sent is neither given up nor changed; what was not sent is refused.
    let mut bed = Bed::learned();
    let writes = sent(&bed.write());
    let again = sent(&bed.answer(&writes[1], Response::Refused(Refusal::Full)));
    assert!(matches!(&again[..], [(B, _, Request::Write { write, .. })] if write.use_reserve));
    assert_eq!(results(&bed.write()), [Err(Failure::Full)]);
    let zero = sent(&bed.submit(Operation::Zero {
        offset: 0,
        length: 4096,
    }));
    assert!(matches!(&zero[0].2, Request::Write { write, .. } if write.change == Change::Zero));
    bed.now = Moment(600);
    let probe = sent(&bed.event(Event::Tick));
    let probe = probe
        .iter()
        .find(|request| matches!(request.2, Request::Ping { .. }))
        .unwrap();
    bed.answer(probe, Response::Ok);
    assert_eq!(counts(&sent(&bed.write())), [3, 3]);
}

#[test]
fn only_a_view_ends_a_quiescence_that_was_reported() {
    // A transaction that seals the head may be under way for however long.
    let mut bed = Bed::learned();
    let out = bed.event(Event::Quiesce {
        token: 9,
        limit_ms: 100,
    });
    assert!(
        out.iter()
            .any(|action| matches!(action, Action::Quiesced { token: 9 }))
    );
    bed.now = Moment(1_000);
    assert!(
        sent(&bed.write())
            .iter()
            .all(|request| !matches!(request.2, Request::Write { .. }))
    );
    assert_eq!(counts(&sent(&bed.event(Event::View(Box::new(view()))))), [1, 1]);
}

#[test]
fn complete_is_said_up_to_the_first_write_that_is_not_acknowledged_and_again_after_a_reconnect() {
    // Rule 6, W10. The second half was found by the simulator: told once, lost, never told again.
    let mut bed = Bed::learned();
    let first = sent(&bed.write());
    bed.write();
    for write in &first {
        bed.answer(write, Response::Ok);
    }
    bed.now = Moment(501);
    let told = |actions: &[Action]| -> Vec<(DiskId, u64)> {
        let told = |request: &Sent| match request.2 {
            Request::Complete { up_to, .. } => Some((request.0, up_to)),
            _ => None,
        };
        sent(actions).iter().filter_map(told).collect()
    };
    assert_eq!(told(&bed.event(Event::Tick)), [(A, 1), (B, 1)]);
    bed.event(Event::Disconnected { disk: B });
    bed.now = Moment(1_100);
    assert_eq!(told(&bed.event(connected(B))), [(B, 1)]);
}

#[test]
fn a_block_that_is_damaged_on_one_disk_is_read_from_another_and_fails_if_it_is_damaged_on_all() {
    // P5.
    let mut bed = Bed::learned();
    let damaged = Response::Refused(Refusal::Damaged { index: 0, block: 0 });
    let first = sent(&bed.read());
    let second = sent(&bed.answer(&first[0], damaged.clone()));
    assert_eq!((first[0].0, second[0].0), (A, B));
    assert_eq!(
        results(&bed.answer(&second[0], damaged)),
        [Err(Failure::Damaged { offset: 0 })]
    );
}

#[test]
fn a_newer_owner_ends_everything() {
    // P4.
    let mut bed = Bed::learned();
    let writes = sent(&bed.write());
    let out = bed.answer(&writes[0], Response::Refused(Refusal::Fenced(Generation(3))));
    assert!(matches!(out.last(), Some(Action::Deposed)));
    assert!(bed.write().is_empty());
    let out = bed.event(Event::Lost);
    assert_eq!(results(&out), [Err(Failure::Lost), Err(Failure::Lost)]);
    assert_eq!(results(&bed.write()), [Err(Failure::Lost)]);
}

#[test]
fn a_flush_waits_for_the_writes_before_it_and_for_no_others() {
    let mut bed = Bed::learned();
    let writes = sent(&bed.write());
    assert!(results(&bed.submit(Operation::Flush)).is_empty());
    bed.write();
    bed.answer(&writes[0], Response::Ok);
    assert_eq!(results(&bed.answer(&writes[1], Response::Ok)).len(), 2);
}

#[test]
fn a_discard_of_what_was_never_written_costs_no_write() {
    let mut bed = Bed::open();
    let learn = sent(&bed.submit(Operation::Zero {
        offset: 0,
        length: 4 << 20,
    }));
    let hole = Response::Map {
        stamp: Stamp::ZERO,
        runs: vec![MapRun {
            range: BlockRange::OBJECT,
            kind: MapKind::Hole,
        }],
    };
    let out = bed.answer(&learn[0], hole);
    assert!(sent(&out).is_empty());
    assert_eq!(results(&out), [Ok(Outcome::Done)]);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut bed = Bed::open();
    for (offset, length) in [(0, 0), (512, 4096), (4 << 20, 4096), (u64::MAX - 4095, 4096)] {
        let out = bed.submit(Operation::Read { offset, length });
        assert_eq!(results(&out), [Err(Failure::Invalid)], "{offset} {length}");
    }
}

/// Law: a read that the driver did itself is a read, and says nothing of the object's stamp: the next
/// write still has to learn it.
#[test]
fn a_read_done_without_the_disk_teaches_no_stamp() {
    let direct = |bed: &mut Bed, number| {
        bed.event(Event::ReadDirectly {
            disk: A,
            number,
            bytes: Bytes::from(vec![1; 4096]),
        })
    };
    let mut bed = Bed::open();
    let (disk, number, _) = sent(&bed.read())[0].clone();
    assert_eq!(disk, A);
    let done = direct(&mut bed, number);
    let bytes = Bytes::from(vec![1; 4096]);
    assert_eq!(results(&done), [Ok(Outcome::Data(vec![bytes]))]);
    assert_eq!(direct(&mut bed, number).len(), 0, "it is answered once");
    let asked = sent(&bed.write());
    assert!(matches!(asked[..], [(_, _, Request::Map { .. })]), "{asked:?}");
}

/// Defect guarded: a disk that had taken doubts of a former owner off came back having forgotten that
/// it had, and an owner that had told it nothing yet never did: they stayed until the next take-over.
#[test]
fn a_disk_that_comes_back_is_told_what_is_complete_even_if_it_was_told_nothing_before() {
    let mut bed = Bed::open();
    bed.event(Event::Disconnected { disk: B });
    bed.event(connected(B));
    bed.now = bed.now + COMPLETE_INTERVAL_MS;
    let told = sent(&bed.event(Event::Tick));
    let complete = |request: &Sent| request.0 == B && matches!(request.2, Request::Complete { .. });
    assert!(told.iter().any(complete), "{told:?}");
}
