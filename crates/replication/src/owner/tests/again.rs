//! A generation that ends while its owner lives: what was not answered is done again if nobody came in between, and
//! fails, once, if somebody did.

use super::*;

fn next_view() -> VolumeView {
    VolumeView {
        generation: Generation(3),
        ..view()
    }
}

fn map_of_range(range: BlockRange) -> Response {
    Response::Map {
        stamp: Stamp::ZERO,
        runs: vec![MapRun {
            range,
            kind: MapKind::Data,
        }],
    }
}

impl Bed {
    /// The generation is over.
    fn depose(&mut self) {
        let out = self.event(Event::Revoked);
        assert!(results(&out).is_empty());
        assert!(out.iter().any(|action| matches!(action, Action::Deposed)));
        assert!(sent(&out).is_empty());
    }

    /// The volume is there again and level; the answer is what is sent then.
    fn again(&mut self, view: VolumeView) -> Vec<Action> {
        let again = Event::Again {
            leased: self.now,
            view: Box::new(view),
        };
        let mut out = self.event(again);
        let mut fences = Vec::new();
        for disk in [A, B] {
            fences.extend(sent(&self.event(connected(disk))));
        }
        for fence in &fences {
            assert!(matches!(&fence.2, Request::Fence { scope, .. } if scope.generation == Generation(3)));
            let nothing = Response::Doubt {
                objects: Vec::new(),
                more: false,
            };
            out.extend(self.answer(fence, nothing));
        }
        assert!(self.owner.is_open());
        out
    }

    /// Answers every request until none is left; the answer is the offsets in blocks of all writes to A, in order.
    fn drain(&mut self, mut requests: Vec<Sent>, out: &mut Vec<Action>) -> Vec<(u32, u32)> {
        let mut written = Vec::new();
        while let Some(request) = requests.pop() {
            let response = match &request.2 {
                Request::Write { write, .. } => {
                    assert_eq!(write.stamp.generation, self.owner.view().generation);
                    if request.0 == A {
                        written.push((write.object.index, write.range.start()));
                    }
                    Response::Ok
                }
                Request::Map { .. } => map_of(Stamp::ZERO),
                Request::Read { .. } => data(),
                _ => continue,
            };
            let next = self.answer(&request, response);
            requests.splice(0..0, sent(&next).into_iter().rev());
            out.extend(next);
        }
        written
    }
}

#[test]
fn what_was_not_answered_is_done_again_in_order_when_nobody_came_in_between() {
    let mut bed = Bed::learned();
    let writes = sent(&bed.write());
    bed.answer(&writes[0], Response::Ok);
    bed.depose();
    // Late words of the old generation say nothing.
    assert!(bed.answer(&writes[1], Response::Ok).is_empty());
    assert!(bed.write().is_empty());
    assert!(bed.submit(Operation::Flush).is_empty());
    let requests = sent(&bed.again(next_view()));
    let mut out = Vec::new();
    assert_eq!(bed.drain(requests, &mut out), [(0, 0), (0, 0)]);
    let done = Ok(Outcome::Done);
    assert_eq!(results(&out), [done.clone(), done.clone(), done]);
    assert_eq!(bed.owner.unanswered(), 0);
}

#[test]
fn a_part_that_was_answered_is_not_written_a_second_time() {
    // Somebody may have read it, and written something else there since.
    let wide = |view: VolumeView| VolumeView {
        size: 8 << 20,
        ..view
    };
    let mut bed = Bed::open();
    bed.event(Event::View(Box::new(wide(view()))));
    let both = bed.submit(Operation::Write {
        offset: (4 << 20) - 4096,
        bytes: Bytes::from(vec![1; 8192]),
        checksums: Arc::from([1, 1]),
    });
    let mut writes = Vec::new();
    for map in sent(&both) {
        let range = match &map.2 {
            Request::Map { range, .. } => *range,
            _ => panic!("{map:?}"),
        };
        writes.extend(sent(&bed.answer(&map, map_of_range(range))));
    }
    for request in &writes {
        if matches!(&request.2, Request::Write { write, .. } if write.object.index == 0) {
            bed.answer(request, Response::Ok);
        }
    }
    bed.depose();
    let requests = sent(&bed.again(wide(next_view())));
    let mut out = Vec::new();
    assert_eq!(bed.drain(requests, &mut out), [(1, 0)]);
    assert_eq!(results(&out), [Ok(Outcome::Done)]);
}

#[test]
fn a_write_that_an_acknowledged_one_overtook_is_not_done_again_after_it() {
    // Found by the simulator (seed 711): it undid what had been acknowledged. Whoever has the later one has it too.
    let mut bed = Bed::learned();
    let first = sent(&bed.write());
    let second = sent(&bed.write());
    bed.answer(&first[0], Response::Ok);
    bed.answer(&second[0], Response::Ok);
    assert_eq!(results(&bed.answer(&second[1], Response::Ok)).len(), 1);
    bed.depose();
    let mut out = bed.again(next_view());
    let requests = sent(&out);
    assert_eq!(bed.drain(requests, &mut out), []);
    assert_eq!(results(&out), [Ok(Outcome::Done)]);
}

#[test]
fn a_read_waits_for_what_is_done_again_and_a_snapshot_too() {
    let mut bed = Bed::learned();
    bed.write();
    assert!(sent(&bed.read()).is_empty());
    bed.depose();
    let requests = sent(&bed.again(next_view()));
    assert!(
        requests
            .iter()
            .all(|request| !matches!(request.2, Request::Read { .. }))
    );
    let held = bed.event(Event::Quiesce {
        token: 1,
        limit_ms: 1_000,
    });
    assert!(
        !held
            .iter()
            .any(|action| matches!(action, Action::Quiesced { .. }))
    );
    let mut out = Vec::new();
    bed.drain(requests, &mut out);
    assert_eq!(results(&out).len(), 2);
    assert!(
        out.iter()
            .any(|action| matches!(action, Action::Quiesced { token: 1 }))
    );
}

#[test]
fn what_waits_fails_once_and_for_good_when_somebody_else_came() {
    let mut bed = Bed::learned();
    bed.write();
    bed.depose();
    bed.read();
    let out = bed.event(Event::Lost);
    assert_eq!(results(&out), [Err(Failure::Lost), Err(Failure::Lost)]);
    assert!(out.iter().any(|action| matches!(action, Action::Lost)));
    assert_eq!(results(&bed.write()), [Err(Failure::Lost)]);
    let again = Event::Again {
        leased: bed.now,
        view: Box::new(next_view()),
    };
    assert!(bed.event(again).is_empty());
}

#[test]
fn another_volume_under_the_same_name_is_not_taken_for_the_old_one() {
    let mut bed = Bed::learned();
    bed.write();
    bed.depose();
    let again = Event::Again {
        leased: bed.now,
        view: Box::new(VolumeView {
            volume: VolumeId(2),
            head: LayerId(2),
            ..next_view()
        }),
    };
    assert_eq!(results(&bed.event(again)), [Err(Failure::Lost)]);
}
