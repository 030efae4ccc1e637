//! What is here of a group that the disk lost goes, and nothing else does.

use protocol::storage::ObjectState;

use super::reclaiming::{merge_over_rows, row};
use super::*;

/// The group is on other disks now.
fn lost(bed: &mut Bed) {
    bed.map.group.interval = Interval(2);
    bed.map.group.slots[0].disk = DiskId(9);
    let map = Arc::new(bed.map.clone());
    bed.apply(Event::Map(map));
}

fn nudge(bed: &mut Bed) -> Vec<Action> {
    bed.apply(Event::Nudge { returns: false })
}

fn requests(actions: &[Action]) -> Vec<StorageRequest> {
    let request = |action: &Action| match action {
        Action::Store { request, .. } => Some(request.clone()),
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

fn page(objects: &[ObjectId]) -> StorageReply {
    let state = |object: &ObjectId| ObjectState {
        object: *object,
        stamp: stamp(1, 1),
        chunks: Vec::new(),
    };
    StorageReply::Listed {
        objects: objects.iter().map(state).collect(),
        more: false,
    }
}

/// Lists once, and makes it durable that the group was lost.
fn listed(bed: &mut Bed, objects: &[ObjectId]) -> Vec<Action> {
    let out = nudge(bed);
    let out = bed.stored(&out, Ok(page(objects)));
    let raises = matches!(
        requests(&out)[..],
        [StorageRequest::RaiseInterval(PG, Interval(2))]
    );
    assert!(raises, "{out:?}");
    bed.stored(&out, Ok(StorageReply::Done));
    let out = nudge(bed);
    bed.stored(&out, Ok(page(objects)))
}

#[test]
fn what_is_here_of_a_lost_group_goes_and_its_doubt_with_it() {
    let mut bed = Bed::fenced(1);
    let write = bed.request(bed.write(Stamp::ZERO, stamp(1, 1)));
    bed.stored(&write, Ok(StorageReply::Done));
    assert_eq!(bed.replica.in_doubt(), 1);
    assert!(!bed.replica.has_strays());
    lost(&mut bed);
    let out = listed(&mut bed, &[object()]);
    assert_eq!(requests(&out), [StorageRequest::Drop(object())]);
    bed.stored(&out, Ok(StorageReply::Done));
    assert_eq!(bed.replica.in_doubt(), 0);
    assert!(!bed.replica.has_strays());
}

#[test]
fn what_is_of_a_family_that_the_map_does_not_have_stays() {
    // P5: only the map says what is not needed, and what it does not know it says nothing of.
    let mut bed = Bed::fenced(1);
    lost(&mut bed);
    let unknown = ObjectId {
        family: FamilyId(7),
        ..object()
    };
    let out = nudge(&mut bed);
    assert!(requests(&bed.stored(&out, Ok(page(&[unknown])))).is_empty());
}

#[test]
fn a_map_of_the_past_takes_nothing_away() {
    // Records that were restored from a backup of before we got the group: others put them right, or nobody serves.
    let mut bed = Bed::fenced(1);
    bed.map.group.slots[0].disk = DiskId(9);
    bed.map.group.interval = Interval(0);
    let map = Arc::new(bed.map.clone());
    bed.apply(Event::Map(map));
    let out = nudge(&mut bed);
    assert!(requests(&bed.stored(&out, Ok(page(&[object()])))).is_empty());
}

#[test]
fn a_group_that_we_are_out_of_and_come_back_to_keeps_what_is_here() {
    let mut bed = Bed::fenced(1);
    lost(&mut bed);
    bed.map.group.interval = Interval(3);
    bed.map
        .group
        .slots
        .push(Slot::of_copy(DiskId(1), SlotState::Down));
    let map = Arc::new(bed.map.clone());
    bed.apply(Event::Map(map));
    let out = nudge(&mut bed);
    assert!(requests(&bed.stored(&out, Ok(page(&[object()])))).is_empty());
}

#[test]
fn nothing_goes_under_a_read_that_was_let_in_before() {
    let mut bed = Bed::fenced(1);
    let read = Request::Read {
        scope: bed.scope(1),
        family: FAMILY,
        layer: bed.map.head,
        index: 0,
        range: BlockRange::OBJECT,
    };
    let read = bed.request(read);
    lost(&mut bed);
    assert!(requests(&listed(&mut bed, &[object()])).is_empty());
    bed.stored(&read, Err(StorageError::Busy));
    let out = nudge(&mut bed);
    let out = bed.stored(&out, Ok(page(&[object()])));
    assert_eq!(requests(&out), [StorageRequest::Drop(object())]);
}

#[test]
fn a_write_that_was_let_in_before_is_searched_for_once_it_is_there() {
    let mut bed = Bed::fenced(1);
    let write = bed.request(bed.write(Stamp::ZERO, stamp(1, 1)));
    lost(&mut bed);
    let out = nudge(&mut bed);
    bed.stored(&out, Ok(page(&[])));
    assert!(bed.replica.has_strays());
    bed.stored(&write, Ok(StorageReply::Done));
    let out = listed(&mut bed, &[object()]);
    assert_eq!(requests(&out), [StorageRequest::Drop(object())]);
}

#[test]
fn what_a_merge_moves_while_it_is_searched_for_is_searched_for_again() {
    // Seed 64876 of its time: the parent was listed, merged into its child, and dropped in vain; the child stayed for ever.
    let mut bed = Bed::fenced(1);
    bed.map = bed.map.sealed(LayerUse::Inner);
    bed.map.head = LayerId(2);
    lost(&mut bed);
    let parent = listed(&mut bed, &[object()]);
    assert_eq!(requests(&parent), [StorageRequest::Drop(object())]);
    let request = merge(1, 2);
    let merge = bed.apply(Event::Reclaim { token: 1, request });
    bed.stored(&merge, Ok(StorageReply::Done));
    bed.stored(&parent, Ok(StorageReply::Done));
    let child = ObjectId {
        layer: LayerId(2),
        ..object()
    };
    let out = nudge(&mut bed);
    let out = bed.stored(&out, Ok(page(&[child])));
    assert_eq!(requests(&out), [StorageRequest::Drop(child)]);
}

#[test]
fn a_doubt_about_an_object_that_has_nothing_left_goes_with_its_group() {
    // Seed 333 of the large worlds of rows, of its time: all that an object had was given back, which put it in doubt, and
    // then its group was lost. A search finds no such object.
    let mut bed = Bed::fenced(1);
    let write = bed.request(bed.write(Stamp::ZERO, stamp(1, 1)));
    bed.stored(&write, Ok(StorageReply::Done));
    assert_eq!(bed.replica.in_doubt(), 1);
    lost(&mut bed);
    let out = nudge(&mut bed);
    bed.stored(&out, Ok(page(&[])));
    assert_eq!(bed.replica.in_doubt(), 0);
}

#[test]
fn a_merge_that_waited_for_rows_goes_on_when_they_are_gone_with_their_group() {
    // Seed 2029 of the large worlds of rows: nothing else happened on the disk after that, and the merge waited for ever.
    let mut bed = Bed::merging();
    let written = bed.request(row(Stamp::ZERO, stamp(1, 1)));
    bed.stored(&written, Ok(StorageReply::Done));
    assert!(tokens(&bed.reclaim(1, merge_over_rows(1, 2))).is_empty());
    lost(&mut bed);
    let out = nudge(&mut bed);
    let out = bed.stored(&out, Ok(page(&[])));
    assert_eq!(requests(&out), [merge_over_rows(1, 2)]);
}
