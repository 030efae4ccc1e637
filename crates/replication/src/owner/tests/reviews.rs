//! Counterexamples of the reviews that only the owner can make (docs/lessons.md).

use super::*;

fn no_doubt() -> Response {
    Response::Doubt {
        objects: Vec::new(),
        more: false,
    }
}

fn written(requests: &[Sent]) -> Vec<(Stamp, Stamp)> {
    let write = |request: &Sent| match &request.2 {
        Request::Write { write, .. } => Some((write.follows, write.stamp)),
        _ => None,
    };
    requests.iter().filter_map(write).collect()
}

#[test]
fn a_discard_is_a_write_and_no_stamp_is_ever_used_again() {
    // P6: not after a whole object was discarded, and not by a write that came after one was refused.
    let mut bed = Bed::learned();
    let first = sent(&bed.write());
    let discard = sent(&bed.submit(Operation::Zero {
        offset: 0,
        length: 4 << 20,
    }));
    let second = sent(&bed.write());
    let all = [first, discard, second].concat();
    assert_eq!(
        written(&all),
        [
            (Stamp::ZERO, stamp(2, 1)),
            (Stamp::ZERO, stamp(2, 1)),
            (stamp(2, 1), stamp(2, 2)),
            (stamp(2, 1), stamp(2, 2)),
            (stamp(2, 2), stamp(2, 3)),
            (stamp(2, 2), stamp(2, 3)),
        ]
    );
}

#[test]
fn a_resend_has_the_stamp_and_the_bytes_of_the_first() {
    // Q3: equal stamps mean equal bytes, also when the guest has changed its memory or given up meanwhile.
    let mut bed = Bed::learned();
    let first = sent(&bed.write());
    bed.event(Event::Disconnected { disk: B });
    let again = sent(&bed.event(connected(B)));
    assert_eq!(first[1].2, again[0].2);
    let again = sent(&bed.answer(&again[0], Response::Refused(Refusal::Full)));
    let (Request::Write { write: first, .. }, Request::Write { write: again, .. }) =
        (&first[1].2, &again[0].2)
    else {
        panic!("{again:?}");
    };
    assert_eq!((&first.change, first.stamp), (&again.change, again.stamp));
}

#[test]
fn a_list_of_doubt_is_read_to_its_last_page() {
    // Q8: what stands on the second page is level too before anything is served.
    let (mut bed, fences) = Bed::connected();
    let object = |index| ObjectId {
        family: FamilyId(1),
        index,
        layer: LayerId(1),
    };
    bed.answer(&fences[1], no_doubt());
    let page = |index, more| Response::Doubt {
        objects: vec![(object(index), stamp(1, 7))],
        more,
    };
    let next = sent(&bed.answer(&fences[0], page(0, true)));
    let [(A, _, Request::Fence { after, .. })] = &next[..] else {
        panic!("{next:?}");
    };
    assert_eq!(*after, Some(object(0)));
    let out = sent(&bed.answer(&next[0], page(1, false)));
    let asked = |request: &Sent| match &request.2 {
        Request::Pull { object, .. } => Some(object.index),
        _ => None,
    };
    let asked: Vec<u32> = out.iter().filter_map(asked).collect();
    assert_eq!(asked, [0, 1]);
    assert!(!bed.owner.is_open());
}

#[test]
fn a_growth_that_reaches_another_group_fences_and_levels_it_before_anything_is_served_there() {
    // Q9: nobody of that group knows this owner, and an older one may have left something half done.
    let (small, large, new) = two_groups();
    let (mut bed, fences) = Bed::connected_to(small, *VERSIONS.end());
    let of_new = |request: &Sent| matches!(&request.2, Request::Fence { scope, .. } if scope.pg == new);
    assert!(!fences.iter().any(of_new), "the volume has nothing there");
    for fence in &fences {
        bed.answer(fence, no_doubt());
    }
    assert!(bed.owner.is_open());
    let size = large.size;
    let fences = sent(&bed.event(Event::View(Box::new(large))));
    assert_eq!(fences.iter().filter(|request| of_new(request)).count(), 2);
    let write = bed.submit(Operation::Write {
        offset: size - 4096,
        bytes: Bytes::from(vec![1; 4096]),
        checksums: Arc::from([1]),
    });
    assert!(sent(&write).is_empty(), "{write:?}");
    let object = ObjectId {
        family: FamilyId(1),
        index: u32::try_from((size - 1) / (4 << 20)).unwrap(),
        layer: LayerId(1),
    };
    let doubt = Response::Doubt {
        objects: vec![(object, stamp(1, 7))],
        more: false,
    };
    bed.answer(&fences[0], doubt);
    let out = sent(&bed.answer(&fences[1], no_doubt()));
    assert!(matches!(out[..], [(B, _, Request::Pull { .. })]), "{out:?}");
}

/// A volume that has all its objects in one of two groups, the same when its last object is in the other one,
/// and which that is.
fn two_groups() -> (VolumeView, VolumeView, PgId) {
    let mut small = view();
    let other = PgId {
        pool: PoolId(1),
        number: 1,
    };
    small.groups.push(GroupView {
        pg: other,
        ..small.groups[0].clone()
    });
    let group = |index| protocol::placement::placement_group(PoolId(1), 2, FamilyId(1), index);
    let first = group(0);
    let reached = (1..64).find(|index| group(*index) != first).unwrap();
    // As many objects as leave out no group by the owner's rule are more than these.
    assert!(reached < 15, "{reached}");
    small.size = u64::from(reached) * (4 << 20);
    let mut large = small.clone();
    large.size += 4 << 20;
    large.revision = TreeRevision(2);
    (small, large, group(reached))
}
