//! Any message of the data path that this crate can encode.

use bytes::Bytes;
use proptest::prelude::*;
use protocol::codec::Message;
use protocol::message::{Refusal, Request, Response, Scope, VOUCH_GROUPS_MAX, Vouch};
use protocol::place::{ChunkPlaces, Place};
use protocol::recovery::{Ask, Question, Told};
use protocol::shared::{COMPARE_MAX, CompareAndWrite, Compared};
use protocol::storage::{Change, ChunkState, MapKind, MapRun, ObjectDelta, ObjectState, ObjectWrite};
use protocol::{
    BlockRange, BlockRanges, DiskId, FamilyId, Generation, Interval, LayerId, ObjectId, PgId, PoolId, Stamp,
    TreeRevision, VolumeId,
};

prop_compose! {
    fn scope()(pool: u32, number: u32, interval: u64, volume: u64, generation: u64, revision: u64) -> Scope {
        Scope {
            pg: PgId { pool: PoolId(pool), number },
            interval: Interval(interval),
            volume: VolumeId(volume),
            generation: Generation(generation),
            revision: TreeRevision(revision),
        }
    }
}

prop_compose! {
    fn object()(family: u64, index: u32, layer: u64) -> ObjectId {
        ObjectId { family: FamilyId(family), index, layer: LayerId(layer) }
    }
}

prop_compose! {
    fn stamp()(generation: u64, count: u64) -> Stamp {
        Stamp { generation: Generation(generation), count }
    }
}

/// As many as may be, of all lengths that so many may have.
fn ranges() -> impl Strategy<Value = BlockRanges> {
    let range = (0u32..1008, 1u32..=16).prop_filter_map("leaves the object", |(start, count)| {
        BlockRange::new(start, count)
    });
    prop::collection::vec(range, 1..=BlockRanges::COUNT_MAX)
        .prop_map(|ranges| BlockRanges::new(ranges).unwrap())
}

prop_compose! {
    fn range()(start in 0u32..1024)(start in Just(start), count in 1..=1024 - start) -> BlockRange {
        BlockRange::new(start, count).unwrap()
    }
}

fn payload(blocks: usize, seed: u32) -> (Bytes, Vec<u32>) {
    let byte = seed.to_le_bytes()[0];
    (
        Bytes::from(vec![byte; blocks * 4096]),
        (0..).map(|n| n ^ seed).take(blocks).collect(),
    )
}

fn change(blocks: u32) -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::Zero),
        any::<u32>().prop_map(move |seed| {
            let (bytes, checksums) = payload(blocks as usize, seed);
            Change::Data {
                bytes,
                checksums: checksums.into(),
            }
        }),
    ]
}

prop_compose! {
    fn write()(range in range())(
        range in Just(range),
        change in change(range.count()),
        object in object(),
        follows in stamp(),
        stamp in stamp(),
        use_reserve in any::<bool>(),
        floor in prop_oneof![Just(Stamp::ZERO), stamp()],
    ) -> ObjectWrite {
        ObjectWrite { object, follows, stamp, range, change, use_reserve, floor }
    }
}

prop_compose! {
    fn chunks()(
        chunks in prop::collection::btree_map(0u8..64, (stamp(), any::<u16>(), any::<u16>()), 0..6),
    ) -> Vec<ChunkState> {
        chunks
            .into_iter()
            .map(|(chunk, (stamp, present, zero))| ChunkState { chunk, stamp, present, zero: zero & present })
            .collect()
    }
}

prop_compose! {
    fn delta()(
        object in object(),
        object_stamp in stamp(),
        merged in prop::collection::vec(any::<u64>().prop_map(LayerId), 0..5),
        chunks in chunks(),
        seed: u32,
    ) -> ObjectDelta {
        let blocks = chunks.iter().map(|c| (c.present & !c.zero).count_ones() as usize).sum();
        let (bytes, checksums) = payload(blocks, seed);
        ObjectDelta { object, stamp: object_stamp, merged, chunks, checksums: checksums.into(), bytes }
    }
}

fn request() -> impl Strategy<Value = Request> {
    let area = || (scope(), any::<u64>(), any::<u64>(), any::<u32>(), range());
    prop_oneof![
        (any::<u16>(), any::<u16>(), any::<[u8; 16]>(), any::<u32>()).prop_map(
            |(version_min, version_max, cluster, disk)| {
                Request::Hello {
                    version_min,
                    version_max,
                    cluster,
                    disk: DiskId(disk),
                }
            }
        ),
        (scope(), any::<u64>(), prop::option::of(object())).prop_map(|(scope, family, after)| {
            Request::Fence {
                scope,
                family: FamilyId(family),
                after,
            }
        }),
        area().prop_map(|(scope, family, layer, index, range)| {
            Request::Read {
                scope,
                family: FamilyId(family),
                layer: LayerId(layer),
                index,
                range,
            }
        }),
        (scope(), object(), ranges()).prop_map(|(scope, object, ranges)| {
            Request::ReadSeveral {
                scope,
                family: object.family,
                layer: object.layer,
                index: object.index,
                ranges,
            }
        }),
        area().prop_map(|(scope, family, layer, index, range)| {
            Request::Map {
                scope,
                family: FamilyId(family),
                layer: LayerId(layer),
                index,
                range,
            }
        }),
        Just(Request::Share),
        area().prop_map(|(scope, family, layer, index, range)| {
            Request::Places {
                scope,
                family: FamilyId(family),
                layer: LayerId(layer),
                index,
                range,
            }
        }),
        (scope(), write()).prop_map(|(scope, write)| Request::Write { scope, write }),
        (scope(), object(), stamp()).prop_map(|(scope, object, above)| Request::Pull {
            scope,
            object,
            above
        }),
        (scope(), stamp(), delta()).prop_map(|(scope, follows, delta)| Request::Level {
            scope,
            follows,
            delta
        }),
        (scope(), stamp(), delta()).prop_map(|(scope, follows, delta)| Request::Replace {
            scope,
            follows,
            delta
        }),
        (scope(), object()).prop_map(|(scope, object)| Request::Column {
            scope,
            family: object.family,
            layer: object.layer,
            index: object.index,
        }),
        (scope(), any::<u64>()).prop_map(|(scope, up_to)| Request::Complete { scope, up_to }),
        scope().prop_map(|scope| Request::Ping { scope }),
        vouch().prop_map(Request::Vouch),
        question().prop_map(Request::Question),
    ]
}

fn vouch() -> impl Strategy<Value = Vouch> {
    (scope(), prop::collection::vec(scope(), 1..=VOUCH_GROUPS_MAX)).prop_map(|(of, groups)| Vouch {
        volume: of.volume,
        generation: of.generation,
        revision: of.revision,
        groups: groups
            .into_iter()
            .map(|group| (group.pg, group.interval))
            .collect(),
    })
}

fn question() -> impl Strategy<Value = Question> {
    let ask = prop_oneof![
        Just(Ask::Table),
        prop::option::of(object()).prop_map(|after| Ask::List { after }),
        any::<(u64, u32)>().prop_map(|(family, index)| Ask::Column {
            family: FamilyId(family),
            index
        }),
        (object(), chunks()).prop_map(|(object, have)| Ask::Difference { object, have }),
    ];
    (scope(), any::<u32>(), ask).prop_map(|(scope, from, ask)| Question {
        pg: scope.pg,
        interval: scope.interval,
        from: DiskId(from),
        ask,
    })
}

fn state() -> impl Strategy<Value = ObjectState> {
    (object(), stamp(), chunks()).prop_map(|(object, stamp, chunks)| ObjectState {
        object,
        stamp,
        chunks,
    })
}

fn told() -> impl Strategy<Value = Told> {
    let volume = any::<(u64, u64, bool)>()
        .prop_map(|(volume, generation, served)| (VolumeId(volume), Generation(generation), served));
    prop_oneof![
        prop::collection::vec(volume, 0..40).prop_map(Told::Table),
        (prop::collection::vec(state(), 0..5), prop::option::of(object()))
            .prop_map(|(objects, next)| Told::Listed { objects, next }),
        (delta(), any::<bool>()).prop_map(|(delta, doubt)| Told::Difference { delta, doubt }),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        any::<u64>().prop_map(|n| Refusal::Interval(Interval(n))),
        any::<u64>().prop_map(|n| Refusal::Revision(TreeRevision(n))),
        any::<u64>().prop_map(|n| Refusal::Fenced(Generation(n))),
        stamp().prop_map(Refusal::Gap),
        any::<(u32, u32)>().prop_map(|(index, block)| Refusal::Damaged { index, block }),
        Just(Refusal::Busy),
        Just(Refusal::Poisoned),
    ]
}

fn response() -> impl Strategy<Value = Response> {
    let kind = prop::sample::select(vec![MapKind::Data, MapKind::Zero, MapKind::Hole]);
    let run = (range(), kind).prop_map(|(range, kind)| MapRun { range, kind });
    prop_oneof![
        any::<(u16, u32)>().prop_map(|(version, disk)| Response::Welcome {
            version,
            disk: DiskId(disk)
        }),
        Just(Response::Ok),
        (prop::collection::vec((object(), stamp()), 0..40), any::<bool>())
            .prop_map(|(objects, more)| Response::Doubt { objects, more }),
        (stamp(), 0usize..70, any::<u32>()).prop_map(|(stamp, blocks, seed)| {
            let (bytes, checksums) = payload(blocks, seed);
            Response::Data {
                stamp,
                checksums: checksums.into(),
                bytes,
            }
        }),
        (stamp(), prop::collection::vec(run, 0..40)).prop_map(|(stamp, runs)| Response::Map { stamp, runs }),
        delta().prop_map(Response::Delta),
        (prop::collection::vec(any::<u8>(), 0..80), any::<[u8; 16]>())
            .prop_map(|(directory, opening)| Response::Shared { directory, opening }),
        placed(),
        told().prop_map(Response::Told),
        prop::collection::vec(state(), 0..5).prop_map(|objects| Response::Column { objects }),
        prop::collection::vec(
            (scope().prop_map(|scope| scope.pg), refusal()),
            0..=VOUCH_GROUPS_MAX
        )
        .prop_map(|refused| Response::Standing { refused }),
        refusal().prop_map(Response::Refused),
    ]
}

fn placed() -> impl Strategy<Value = Response> {
    let place = prop_oneof![
        Just(Place::Unknown),
        Just(Place::Zero),
        (0..protocol::place::FILE_BLOCKS_MAX, any::<u32>())
            .prop_map(|(block, checksum)| Place::At { block, checksum }),
    ];
    let places = prop::array::uniform16(place);
    let chunks = prop::collection::btree_map(0u8..64, (any::<u64>(), places), 0..8);
    (any::<u64>(), chunks).prop_map(|(admission, chunks)| {
        let chunk = |(chunk, (moves, places))| ChunkPlaces { chunk, moves, places };
        Response::Placed {
            admission,
            chunks: chunks.into_iter().map(chunk).collect(),
        }
    })
}

/// A request or an answer.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        request().prop_map(Message::Request),
        response().prop_map(Message::Response),
        compare().prop_map(Message::Compare),
        compared().prop_map(Message::Compared)
    ]
}

prop_compose! {
    fn compare()(start in 0..960u32, count in 1..=COMPARE_MAX / 4096, volume: u64, index: u32, seed: u32) -> CompareAndWrite {
        let (bytes, checksums) = payload(2 * count as usize, seed);
        CompareAndWrite {
            volume: VolumeId(volume),
            index,
            range: BlockRange::new(start, count).unwrap(),
            checksums: checksums.into(),
            bytes,
        }
    }
}

fn compared() -> impl Strategy<Value = Compared> {
    prop_oneof![
        Just(Compared::Written),
        any::<u64>().prop_map(|offset| Compared::Differs { offset }),
        Just(Compared::NotKnown),
    ]
}
