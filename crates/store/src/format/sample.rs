//! One record of each kind, the same for ever: what the golden bytes and the fuzzer begin with.

use protocol::storage::ChunkState;
use protocol::{
    BlockRange, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, PoolId, Stamp, VolumeId,
};

use crate::format::record::{LevelChunk, Piece, Place, Record, Slot};

fn stamp(count: u64) -> Stamp {
    Stamp {
        generation: Generation(0x0102),
        count,
    }
}

fn piece(start: u32, count: u32, place: Place) -> Option<Piece> {
    Some(Piece {
        range: BlockRange::new(start, count)?,
        place,
    })
}

/// Each with a name.
pub(crate) fn records() -> Vec<(&'static str, Record)> {
    let object = ObjectId {
        family: FamilyId(0x11),
        index: 0x22,
        layer: LayerId(0x33),
    };
    let (follows, new) = (stamp(4), stamp(5));
    let write = |pieces: [Option<Piece>; 1]| {
        let pieces = pieces.into_iter().flatten().collect();
        Record::Write {
            object,
            follows,
            stamp: new,
            pieces,
        }
    };
    let inline = Place::Inline([0xaaaa_0001, 0xaaaa_0002].into());
    let direct = Place::Direct(Slot(0x0405), (0..16).collect());
    let state = |chunk, present, zero| ChunkState {
        chunk,
        stamp: new,
        present,
        zero,
    };
    let level = vec![
        LevelChunk {
            state: state(1, 0b111, 0b100),
            slot: Some(Slot(9)),
            checksums: vec![7, 8],
        },
        LevelChunk {
            state: state(2, 0b1, 0),
            slot: None,
            checksums: vec![9],
        },
        LevelChunk {
            state: state(3, 0b11, 0b11),
            slot: None,
            checksums: Vec::new(),
        },
    ];
    let merged = vec![LayerId(1), LayerId(2)];
    let (family, index) = (object.family, object.index);
    let pg = PgId {
        pool: PoolId(6),
        number: 7,
    };
    [
        ("write-inline", write([piece(3, 2, inline)])),
        ("write-direct", write([piece(16, 16, direct)])),
        ("write-zero", write([piece(0, 1024, Place::Zero)])),
        (
            "level",
            Record::Level {
                object,
                follows,
                stamp: new,
                merged,
                chunks: level,
            },
        ),
        (
            "replace",
            Record::Replace {
                object,
                follows,
                stamp: new,
                doubt: true,
                merged: vec![LayerId(1)],
                chunks: vec![
                    LevelChunk {
                        state: state(1, 0b111, 0b100),
                        slot: Some(Slot(9)),
                        checksums: vec![7, 8],
                    },
                    LevelChunk {
                        state: state(2, 0, 0),
                        slot: None,
                        checksums: Vec::new(),
                    },
                ],
            },
        ),
        (
            "adopt",
            Record::Adopt {
                object,
                chunk: 4,
                blocks: 0b101,
                checksums: vec![5, 6],
            },
        ),
        (
            "merge",
            Record::Merge {
                family,
                index,
                parent: LayerId(1),
                child: LayerId(2),
                left_out: 0,
            },
        ),
        ("drop", Record::Drop(object)),
        ("generation", Record::Generation(VolumeId(8), Generation(9))),
        ("interval", Record::Interval(pg, Interval(10))),
        ("seal", Record::Seal),
    ]
    .into_iter()
    .chain(records_of_rows(object, (follows, new)))
    .collect()
}

/// What came with pools that encode rows.
fn records_of_rows(object: ObjectId, (follows, new): (Stamp, Stamp)) -> [(&'static str, Record); 2] {
    let (family, index) = (object.family, object.index);
    [
        (
            "write-fresh",
            Record::Write {
                object,
                follows,
                stamp: new,
                pieces: [
                    piece(16, 32, Place::Forgotten),
                    piece(30, 2, Place::Inline([0xaaaa_0003, 0xaaaa_0004].into())),
                ]
                .into_iter()
                .flatten()
                .collect(),
            },
        ),
        (
            "merge-front",
            Record::Merge {
                family,
                index,
                parent: LayerId(1),
                child: LayerId(2),
                left_out: 1 << 63 | 0b101,
            },
        ),
    ]
}
