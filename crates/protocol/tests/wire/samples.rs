//! One message of each kind, and each refusal, with fields that can be told apart in a dump. One file because it is one list.

use std::sync::Arc;

use bytes::Bytes;
use protocol::codec::Message;
use protocol::message::{Refusal, Request, Response, Scope, Vouch};
use protocol::place::{ChunkPlaces, Place};
use protocol::recovery::{Ask, Question, Told};
use protocol::session::{OpenMode, SessionPush, SessionReply, SessionRequest};
use protocol::shared::{CompareAndWrite, Compared};
use protocol::storage::{Change, ChunkState, MapKind, MapRun, ObjectDelta, ObjectState, ObjectWrite};
use protocol::{
    BlockRange, BlockRanges, DiskId, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, PoolId, Stamp,
    TreeRevision, VolumeId, checksum,
};

fn scope() -> Scope {
    Scope {
        pg: PgId {
            pool: PoolId(0x11),
            number: 0x22,
        },
        interval: Interval(0x33),
        volume: VolumeId(0x44),
        generation: Generation(0x55),
        revision: TreeRevision(0x66),
    }
}

fn object() -> ObjectId {
    ObjectId {
        family: FamilyId(0x77),
        layer: LayerId(0x88),
        index: 0x99,
    }
}

fn stamp(count: u64) -> Stamp {
    Stamp {
        generation: Generation(0x55),
        count,
    }
}

fn range() -> BlockRange {
    BlockRange::new(0x101, 2).unwrap()
}

fn write(change: Change, floor: Stamp) -> Message {
    let write = ObjectWrite {
        object: object(),
        follows: stamp(1),
        stamp: stamp(2),
        range: range(),
        change,
        use_reserve: true,
        floor,
    };
    Message::Request(Request::Write {
        scope: scope(),
        write,
    })
}

fn chunks() -> Vec<ChunkState> {
    vec![
        ChunkState {
            chunk: 1,
            stamp: stamp(8),
            present: 0b0111,
            zero: 0b0001,
        },
        ChunkState {
            chunk: 63,
            stamp: stamp(9),
            present: 0,
            zero: 0,
        },
    ]
}

fn delta() -> ObjectDelta {
    let bytes = Bytes::from(vec![0xab; 2 * 4096]);
    ObjectDelta {
        object: object(),
        stamp: stamp(9),
        merged: vec![LayerId(0xaa)],
        chunks: chunks(),
        checksums: checksum::of_blocks(&bytes),
        bytes,
    }
}

fn shared_write() -> Message {
    let write = ObjectWrite {
        object: object(),
        follows: stamp(1),
        stamp: stamp(2),
        range: BlockRange::new(16, 16).unwrap(),
        change: Change::Data {
            bytes: Bytes::new(),
            checksums: (0..16).collect(),
        },
        use_reserve: true,
        floor: Stamp::ZERO,
    };
    Message::Request(Request::WriteShared {
        scope: scope(),
        write,
        at: 0x5_0000,
    })
}

fn shared() -> Response {
    Response::Shared {
        directory: b"/srv/disk-1".to_vec(),
        opening: [0x5a; 16],
    }
}

fn placed() -> Response {
    let mut places = [Place::Unknown; 16];
    places[1] = Place::Zero;
    places[2] = Place::At {
        block: 0x1234,
        checksum: 0x5678_9abc,
    };
    Response::Placed {
        admission: 0x11,
        chunks: vec![
            ChunkPlaces {
                chunk: 3,
                moves: 0x22,
                places,
            },
            ChunkPlaces {
                chunk: 63,
                moves: 0x23,
                places: [Place::Unknown; 16],
            },
        ],
    }
}

fn question(ask: Ask) -> Message {
    Message::Request(Request::Question(Question {
        pg: scope().pg,
        interval: scope().interval,
        from: DiskId(0x12),
        ask,
    }))
}

fn questions() -> Vec<(&'static str, Message)> {
    let column = Ask::Column {
        family: FamilyId(0x77),
        index: 0x99,
    };
    let difference = Ask::Difference {
        object: object(),
        have: chunks(),
    };
    vec![
        ("question-table", question(Ask::Table)),
        ("question-list-first", question(Ask::List { after: None })),
        (
            "question-list-after",
            question(Ask::List {
                after: Some(object()),
            }),
        ),
        ("question-column", question(column)),
        ("question-difference", question(difference)),
    ]
}

fn told() -> Vec<(&'static str, Message)> {
    let state = ObjectState {
        object: object(),
        stamp: stamp(9),
        chunks: chunks(),
    };
    let listed = Told::Listed {
        objects: vec![state],
        next: Some(object()),
    };
    let difference = Told::Difference {
        delta: delta(),
        doubt: true,
    };
    let table = Told::Table(vec![(VolumeId(0x44), Generation(0x55), true)]);
    let all = [
        ("told-table", table),
        ("told-listed", listed),
        ("told-difference", difference),
    ];
    let message = |(name, told)| (name, Message::Response(Response::Told(told)));
    all.into_iter().map(message).collect()
}

/// All samples, by name.
pub(crate) fn all() -> Vec<(&'static str, Message)> {
    let mut all = requests();
    all.extend(questions());
    all.extend(responses());
    all.extend(told());
    all.extend(sessions());
    all.extend(rows());
    all.extend(comparisons());
    all
}

/// What came with the rows of erasure-coded pools, last, so that the lines before stay where they are.
fn rows() -> Vec<(&'static str, Message)> {
    let column = Request::Column {
        scope: scope(),
        family: FamilyId(0x77),
        layer: LayerId(0x88),
        index: 0x8000_0099,
    };
    let replace = Request::Replace {
        scope: scope(),
        follows: stamp(4),
        delta: delta(),
    };
    let state = ObjectState {
        object: object(),
        stamp: stamp(9),
        chunks: chunks(),
    };
    let objects = Response::Column { objects: vec![state] };
    let chunks = [16, 64].map(|start| BlockRange::new(start, 16).unwrap());
    let several = Request::ReadSeveral {
        scope: scope(),
        family: FamilyId(0x77),
        layer: LayerId(0x88),
        index: 0x8000_0099,
        ranges: BlockRanges::new(chunks.to_vec()).unwrap(),
    };
    vec![
        ("write-front", write(Change::Zero, stamp(7))),
        ("column", Message::Request(column)),
        ("replace", Message::Request(replace)),
        ("columns", Message::Response(objects)),
        ("read-several", Message::Request(several)),
    ]
}

/// What those who share a volume say to each other, after that.
fn comparisons() -> Vec<(&'static str, Message)> {
    let bytes = Bytes::from(vec![0xcd; 4 * 4096]);
    let compare = CompareAndWrite {
        volume: VolumeId(0x44),
        index: 0x99,
        range: range(),
        checksums: checksum::of_blocks(&bytes),
        bytes,
    };
    let offset = 0x1234_5678_9000;
    let compared = [
        ("compared-written", Compared::Written),
        ("compared-differs", Compared::Differs { offset }),
        ("compared-not-known", Compared::NotKnown),
    ];
    let mut all = vec![("compare", Message::Compare(compare))];
    all.extend(compared.map(|(name, compared)| (name, Message::Compared(compared))));
    all
}

fn requests() -> Vec<(&'static str, Message)> {
    let data = Bytes::from(vec![0xcd; 2 * 4096]);
    let checksums = checksum::of_blocks(&data);
    let (family, layer, index) = (FamilyId(0x77), LayerId(0x88), 0x99);
    let hello = Request::Hello {
        version_min: 1,
        version_max: 2,
        cluster: [0xee; 16],
        disk: DiskId(7),
    };
    let fence = |after| {
        Message::Request(Request::Fence {
            scope: scope(),
            family,
            after,
        })
    };
    vec![
        ("hello", Message::Request(hello)),
        ("fence-first", fence(None)),
        ("fence-after", fence(Some(object()))),
        (
            "read",
            Message::Request(Request::Read {
                scope: scope(),
                family,
                layer,
                index,
                range: range(),
            }),
        ),
        (
            "write-data",
            write(
                Change::Data {
                    bytes: data,
                    checksums,
                },
                Stamp::ZERO,
            ),
        ),
        ("write-zero", write(Change::Zero, Stamp::ZERO)),
        (
            "map",
            Message::Request(Request::Map {
                scope: scope(),
                family,
                layer,
                index,
                range: range(),
            }),
        ),
        ("share", Message::Request(Request::Share)),
        (
            "places",
            Message::Request(Request::Places {
                scope: scope(),
                family,
                layer,
                index,
                range: range(),
            }),
        ),
        ("area", Message::Request(Request::Area { descriptor: 0x1234 })),
        ("write-shared", shared_write()),
        (
            "pull",
            Message::Request(Request::Pull {
                scope: scope(),
                object: object(),
                above: stamp(3),
            }),
        ),
        (
            "level",
            Message::Request(Request::Level {
                scope: scope(),
                follows: stamp(4),
                delta: delta(),
            }),
        ),
        (
            "complete",
            Message::Request(Request::Complete {
                scope: scope(),
                up_to: 5,
            }),
        ),
        ("ping", Message::Request(Request::Ping { scope: scope() })),
        (
            "vouch",
            Message::Request(Request::Vouch(Vouch {
                volume: scope().volume,
                generation: scope().generation,
                revision: scope().revision,
                groups: vec![
                    (scope().pg, scope().interval),
                    (scope().pg, Interval(scope().interval.0 + 1)),
                ],
            })),
        ),
    ]
}

fn responses() -> Vec<(&'static str, Message)> {
    let bytes = Bytes::from(vec![0xcd; 4096]);
    let checksums: Arc<[u32]> = checksum::of_blocks(&bytes);
    let doubt = Response::Doubt {
        objects: vec![(object(), stamp(6))],
        more: true,
    };
    let runs = vec![
        MapRun {
            range: BlockRange::new(0, 1).unwrap(),
            kind: MapKind::Data,
        },
        MapRun {
            range: BlockRange::new(1, 2).unwrap(),
            kind: MapKind::Zero,
        },
        MapRun {
            range: BlockRange::new(3, 1021).unwrap(),
            kind: MapKind::Hole,
        },
    ];
    let mut all = vec![
        (
            "welcome",
            Message::Response(Response::Welcome {
                version: 1,
                disk: DiskId(7),
            }),
        ),
        ("ok", Message::Response(Response::Ok)),
        ("doubt", Message::Response(doubt)),
        (
            "data",
            Message::Response(Response::Data {
                stamp: stamp(7),
                checksums,
                bytes,
            }),
        ),
        (
            "runs",
            Message::Response(Response::Map {
                stamp: stamp(7),
                runs,
            }),
        ),
        ("delta", Message::Response(Response::Delta(delta()))),
        ("shared", Message::Response(shared())),
        ("placed", Message::Response(placed())),
        (
            "standing",
            Message::Response(Response::Standing { refused: Vec::new() }),
        ),
        (
            "standing-but-for",
            Message::Response(Response::Standing {
                refused: vec![
                    (scope().pg, Refusal::Interval(Interval(0x34))),
                    (scope().pg, Refusal::NotInSync),
                ],
            }),
        ),
    ];
    let refusals = [
        ("refused-stranger", Refusal::Stranger),
        ("refused-interval", Refusal::Interval(Interval(0x33))),
        ("refused-revision", Refusal::Revision(TreeRevision(0x66))),
        ("refused-fenced", Refusal::Fenced(Generation(0x55))),
        ("refused-sealed", Refusal::Sealed),
        ("refused-not-in-sync", Refusal::NotInSync),
        ("refused-gap", Refusal::Gap(stamp(8))),
        ("refused-mismatch", Refusal::Mismatch),
        ("refused-full", Refusal::Full),
        ("refused-busy", Refusal::Busy),
        (
            "refused-damaged",
            Refusal::Damaged {
                index: 0x99,
                block: 0x101,
            },
        ),
        ("refused-poisoned", Refusal::Poisoned),
        ("refused-invalid", Refusal::Invalid),
        (
            "refused-version",
            Refusal::Version {
                lowest: 4,
                highest: 6,
            },
        ),
    ];
    all.extend(refusals.map(|(name, refusal)| (name, Message::Response(Response::Refused(refusal)))));
    all
}

fn sessions() -> Vec<(&'static str, Message)> {
    let (volume, generation) = (VolumeId(0x44), Generation(0x55));
    let open = SessionRequest::Open {
        volume: "alpha".into(),
        snapshot: None,
        mode: OpenMode::ReadWrite,
        wait_ms: 1000,
        succeeds: false,
        again: None,
        attachment: None,
    };
    let revoked = SessionPush::Revoked {
        volume,
        reason: "taken over".into(),
    };
    vec![
        ("session-open", Message::SessionRequest(open)),
        (
            "session-renew",
            Message::SessionRequest(SessionRequest::Renew { volume, generation }),
        ),
        (
            "session-moved",
            Message::SessionRequest(SessionRequest::Moved {
                volume,
                generation,
                moved: 0x80_0000,
            }),
        ),
        ("session-ok", Message::SessionReply(SessionReply::Ok)),
        ("session-revoked", Message::SessionPush(revoked)),
    ]
}
