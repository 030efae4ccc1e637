//! Lookups that travel together: those of one event that want chunks of the same shard become one request, and its answer
//! is cut up again. In rows a large read is a chunk here and a chunk there, and a request for each costs more than its bytes.
//!
//! A lookup knows nothing of it but the number of its request. Two that want the same blocks, one for its own sake and one
//! to compute what a lost shard had, get them by being named once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use protocol::message::{Refusal, Request, Response};
use protocol::ranges::BlockRanges;
use protocol::rows::rows_index;
use protocol::{BlockRange, DiskId};

use crate::moment::Moment;
use crate::mutation::{self, Mutation};
use crate::owner::Owner;
use crate::owner::event::Action;
use crate::owner::link::{Link, Sent};
use crate::owner::rows::Target;

/// The lookups of one request, each with the blocks that it wants.
pub(in crate::owner) type Asked = Vec<(u64, BlockRange)>;

/// Requests that are being put together, by disk and range of the volume.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    open: BTreeMap<(DiskId, u32), Bundle>,
}

#[derive(Debug)]
struct Bundle {
    number: u64,
    asked: Asked,
    ranges: Vec<BlockRange>,
}

impl Bundle {
    /// Whether there is room for these blocks, or they are in it already.
    fn takes(&self, range: BlockRange) -> bool {
        let blocks: u32 = self.ranges.iter().map(|range| range.count()).sum();
        let fits =
            self.ranges.len() < BlockRanges::COUNT_MAX && blocks + range.count() <= BlockRanges::BLOCKS_MAX;
        fits || self.ranges.contains(&range)
    }

    fn add(&mut self, id: u64, range: BlockRange) {
        self.asked.push((id, range));
        if !self.ranges.contains(&range) {
            self.ranges.push(range);
        }
    }
}

impl Owner {
    /// Has a lookup go to a disk together with others. False: it must go in a request of its own.
    pub(super) fn send_together(
        &mut self,
        now: Moment,
        (id, disk): (u64, DiskId),
        bundles: &mut Bundles,
        out: &mut Vec<Action>,
    ) -> bool {
        let several = self.links.get(&disk).is_some_and(Link::reads_several);
        let lookup = self.lookups.get(id).filter(|lookup| several && !lookup.alone);
        let Some((Target::Shard { blocks, .. }, index)) =
            lookup.map(|lookup| (lookup.target, lookup.part.index))
        else {
            return false;
        };
        let place = (disk, index);
        if bundles
            .open
            .get(&place)
            .is_some_and(|bundle| !bundle.takes(blocks))
            && let Some(full) = bundles.open.remove(&place)
        {
            self.send_bundle(now, place, full, out);
        }
        let next = self.next_number;
        let bundle = bundles.open.entry(place).or_insert_with(|| Bundle {
            number: next,
            asked: Vec::new(),
            ranges: Vec::new(),
        });
        bundle.add(id, blocks);
        let number = bundle.number;
        if number == next {
            // It counts as sent from now on, so that no more are put together for a disk than it may have.
            self.next_number += 1;
            if let Some(link) = self.links.get_mut(&disk) {
                link.hold(now, number);
            }
        }
        self.note_lookup_sent(now, id, (disk, number));
        true
    }

    /// Sends what was put together.
    pub(super) fn send_bundles(&mut self, now: Moment, bundles: Bundles, out: &mut Vec<Action>) {
        for (place, bundle) in bundles.open {
            self.send_bundle(now, place, bundle, out);
        }
    }

    fn send_bundle(
        &mut self,
        now: Moment,
        (disk, index): (DiskId, u32),
        bundle: Bundle,
        out: &mut Vec<Action>,
    ) {
        let (scope, family, layer) = (self.scope(self.group_of(index)), self.view.family, self.view.head);
        let index = rows_index(index);
        let request = match (bundle.ranges.as_slice(), BlockRanges::new(bundle.ranges.clone())) {
            ([range], _) => Request::Read {
                scope,
                family,
                layer,
                index,
                range: *range,
            },
            (_, Some(ranges)) => Request::ReadSeveral {
                scope,
                family,
                layer,
                index,
                ranges,
            },
            // It has at least one range, and no more than fit.
            (_, None) => return,
        };
        if let Some(link) = self.links.get_mut(&disk) {
            link.send(now, bundle.number, Sent::Lookups(bundle.asked), request, out);
        }
    }

    /// An answer to lookups that travelled together: each gets its own part.
    pub(in crate::owner) fn lookups_answered(
        &mut self,
        now: Moment,
        disk: DiskId,
        (asked, number): (Asked, u64),
        response: Response,
        out: &mut Vec<Action>,
    ) {
        let refusal = match response {
            Response::Data { stamp, bytes, .. } => {
                if let Some(parts) = cut(&asked, &bytes) {
                    for (id, bytes) in parts {
                        let part = Response::Data {
                            stamp,
                            checksums: Arc::default(),
                            bytes,
                        };
                        self.lookup_answered(now, (id, number), part, out);
                    }
                    return;
                }
                Refusal::Invalid
            }
            Response::Refused(refusal) => refusal,
            _ => Refusal::Invalid,
        };
        for (id, range) in asked {
            // Of bytes that were damaged only those are to be had elsewhere that are; which, only a request of its own tells.
            let alone = match refusal {
                Refusal::Damaged { block, .. } => !range.blocks().contains(&block),
                Refusal::Mismatch => true,
                _ => false,
            };
            if alone {
                self.lookups.ask_alone((id, number), disk);
            } else {
                self.lookup_answered(now, (id, number), Response::Refused(refusal.clone()), out);
            }
        }
    }

    /// The driver did a request itself that was for several lookups.
    pub(in crate::owner) fn lookups_read(
        &mut self,
        (asked, number): (Asked, u64),
        bytes: &Bytes,
        out: &mut Vec<Action>,
    ) {
        for (id, bytes) in cut(&asked, bytes).into_iter().flatten() {
            self.lookup_read((id, number), bytes, out);
        }
    }
}

/// What each lookup wanted of the bytes of all. Nothing if these are not as many as all wanted.
fn cut(asked: &[(u64, BlockRange)], bytes: &Bytes) -> Option<Vec<(u64, Bytes)>> {
    let mut begins: BTreeMap<BlockRange, usize> = BTreeMap::new();
    let mut end = 0;
    for (_, range) in asked {
        begins.entry(*range).or_insert_with(|| {
            let begin = end;
            end += range.byte_len();
            begin
        });
    }
    if end != bytes.len() {
        return None;
    }
    let begin = |range: &BlockRange| {
        let begin = begins.get(range).copied().unwrap_or_default();
        let other = bytes.len() - range.byte_len() - begin;
        if mutation::active(Mutation::PartsSwapped) {
            other
        } else {
            begin
        }
    };
    let part = |(id, range): &(u64, BlockRange)| {
        let begin = begin(range);
        (*id, bytes.slice(begin..begin + range.byte_len()))
    };
    Some(asked.iter().map(part).collect())
}
