//! What a new owner does before it serves: everything in doubt is made level, and it does not wait for
//! what needs no making.

use super::*;

impl Bed {
    /// No disk has anything in doubt: the owner opens.
    pub(super) fn serve(&mut self, mut fences: Vec<Sent>) {
        while let Some(fence) = fences.pop() {
            let none = Response::Doubt {
                objects: Vec::new(),
                more: false,
            };
            fences.extend(sent(&self.answer(&fence, none)));
        }
        assert!(self.owner.is_open());
    }
}

#[test]
fn nothing_is_served_before_what_is_in_doubt_is_level() {
    // 7 c and d, W11; the highest stamp wins, also over a disk that does not list the object.
    let (mut bed, fences) = Bed::connected();
    let object = ObjectId {
        family: FamilyId(1),
        index: 0,
        layer: LayerId(1),
    };
    bed.write();
    bed.answer(
        &fences[0],
        Response::Doubt {
            objects: vec![(object, stamp(1, 7))],
            more: false,
        },
    );
    let out = bed.answer(
        &fences[1],
        Response::Doubt {
            objects: Vec::new(),
            more: false,
        },
    );
    let asks = sent(&out);
    assert!(matches!(asks[..], [(B, _, Request::Pull { above, .. })] if above == stamp(1, 7)));
    let delta = |at| protocol::storage::ObjectDelta {
        object,
        stamp: at,
        merged: Vec::new(),
        chunks: Vec::new(),
        checksums: Arc::from([]),
        bytes: Bytes::new(),
    };
    let pull = sent(&bed.answer(&asks[0], Response::Delta(delta(stamp(1, 3)))));
    assert!(matches!(pull[..], [(A, _, Request::Pull { above, .. })] if above == stamp(1, 3)));
    let level = sent(&bed.answer(&pull[0], Response::Delta(delta(stamp(1, 7)))));
    assert!(matches!(level[..], [(B, _, Request::Level { follows, .. })] if follows == stamp(1, 3)));
    assert!(!bed.owner.is_open());
    let out = bed.answer(&level[0], Response::Ok);
    assert!(bed.owner.is_open());
    assert!(matches!(sent(&out)[0].2, Request::Map { .. }));
}

#[test]
fn a_take_over_ends_when_what_is_in_doubt_is_level_already() {
    // Found by the kills: `storaged` and the owner died together after the write was on all disks and
    // before anybody was told so. All listed it at one stamp, and the next owner waited for answers
    // to questions that it had no reason to ask.
    let (mut bed, fences) = Bed::connected();
    let object = ObjectId {
        family: FamilyId(1),
        index: 0,
        layer: LayerId(1),
    };
    let mut out = Vec::new();
    for fence in &fences {
        assert!(!bed.owner.is_open());
        out = bed.answer(
            fence,
            Response::Doubt {
                objects: vec![(object, stamp(1, 7))],
                more: false,
            },
        );
    }
    assert!(bed.owner.is_open());
    assert!(out.iter().any(|action| matches!(action, Action::Opened)));
    // The doubt is taken off, or it would be listed at every take-over to come.
    bed.now = Moment(501);
    let told = sent(&bed.event(Event::Tick));
    let complete = |(_, _, request): &Sent| matches!(request, Request::Complete { .. });
    assert_eq!(told.iter().filter(|request| complete(request)).count(), 2);
}

#[test]
fn nothing_is_copied_for_a_disk_that_is_not_there() {
    // Found by a scripted cluster (W3): while the disk that lacked something was away, its source was asked for
    // it again with each answer, as fast as both could.
    let (mut bed, fences) = Bed::connected();
    let object = ObjectId {
        family: FamilyId(1),
        index: 0,
        layer: LayerId(1),
    };
    let doubt = |objects| Response::Doubt { objects, more: false };
    bed.answer(&fences[0], doubt(vec![(object, stamp(1, 7))]));
    let asks = sent(&bed.answer(&fences[1], doubt(Vec::new())));
    let delta = |at| {
        Response::Delta(protocol::storage::ObjectDelta {
            object,
            stamp: at,
            merged: Vec::new(),
            chunks: Vec::new(),
            checksums: Arc::from([]),
            bytes: Bytes::new(),
        })
    };
    let pull = sent(&bed.answer(&asks[0], delta(stamp(1, 3))));
    assert!(matches!(pull[..], [(A, _, Request::Pull { .. })]));
    bed.event(Event::Disconnected { disk: B });
    assert!(sent(&bed.answer(&pull[0], delta(stamp(1, 7)))).is_empty());
    let pull = sent(&bed.event(connected(B)));
    let copied = |request: &Sent| matches!(request, (A, _, Request::Pull { .. }));
    assert!(pull.iter().any(copied), "{pull:?}");
}
