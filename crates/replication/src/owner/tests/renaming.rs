//! What an owner has becomes another volume's, with the same owner: disks are told so before anything else.

use super::*;

const OTHER: VolumeId = VolumeId(9);

fn renamed() -> VolumeView {
    VolumeView {
        volume: OTHER,
        revision: TreeRevision(2),
        ..view()
    }
}

fn volumes(requests: &[Sent]) -> Vec<VolumeId> {
    let volume = |request: &Sent| match &request.2 {
        Request::Write { scope, .. } | Request::Fence { scope, .. } => Some(scope.volume),
        _ => None,
    };
    requests.iter().filter_map(volume).collect()
}

#[test]
fn an_owner_that_holds_still_goes_on_under_another_number_when_every_disk_was_told() {
    let mut bed = Bed::learned();
    bed.event(Event::Quiesce {
        token: 1,
        limit_ms: 100,
    });
    let held = sent(&bed.write());
    assert!(volumes(&held).is_empty());
    let fences = sent(&bed.event(Event::View(Box::new(renamed()))));
    assert!(
        fences
            .iter()
            .all(|request| !matches!(request.2, Request::Write { .. }))
    );
    assert_eq!(volumes(&fences), [OTHER, OTHER]);
    let mut after = Vec::new();
    let nothing = Response::Doubt {
        objects: Vec::new(),
        more: false,
    };
    for fence in fences
        .iter()
        .filter(|request| matches!(request.2, Request::Fence { .. }))
    {
        after.extend(sent(&bed.answer(fence, nothing.clone())));
    }
    // What it knows of ranges may be of another chain of layers; it asks again, and then writes.
    let maps: Vec<Sent> = after
        .iter()
        .filter(|request| matches!(request.2, Request::Map { .. }))
        .cloned()
        .collect();
    for map in maps {
        after.extend(sent(&bed.answer(&map, map_of(Stamp::ZERO))));
    }
    assert_eq!(counts(&after), [1, 1]);
    assert!(volumes(&after).iter().all(|volume| *volume == OTHER));
}

#[test]
fn an_owner_that_does_not_hold_still_keeps_its_number() {
    // A write under way would be judged by disks as one of a volume that it is not of any more.
    let mut bed = Bed::learned();
    let first = sent(&bed.write());
    bed.event(Event::View(Box::new(renamed())));
    assert_eq!(bed.owner.view().volume, VolumeId(1));
    for write in &first {
        bed.answer(write, Response::Ok);
    }
    bed.event(Event::View(Box::new(renamed())));
    assert_eq!(
        bed.owner.view().volume,
        VolumeId(1),
        "nobody asked it to hold still"
    );
}

#[test]
fn an_owner_whose_generation_ended_goes_on_with_what_became_another_volumes_meanwhile() {
    let mut bed = Bed::learned();
    bed.event(Event::Revoked);
    let again = Event::Again {
        leased: bed.now,
        view: Box::new(VolumeView {
            generation: Generation(3),
            ..renamed()
        }),
    };
    assert!(results(&bed.event(again)).is_empty());
    assert_eq!(bed.owner.view().volume, OTHER);
}
