//! What is under way, and what ends it: aborts, reservations, time, the path, a device that fails.
use super::*;
use std::cell::Cell;

#[test]
fn a_copy_that_is_aborted_at_either_unit_writes_no_more_and_is_settled() {
    alone(async {
        for aborts_at_destination in [false, true] {
            let source = unit(0, 4096);
            let (destination, device) = held(1);
            let data = pattern(1, 8 * MIB);
            fill(&source, 0, &data).await;
            let copying = tokio::task::spawn_local({
                let (source, destination) = (Rc::clone(&source), Rc::clone(&destination));
                async move { copy(&[&source, &destination], &[(0, 1, false, 2048, 0, 0)]).await }
            });
            until_waiting(&device, 1).await;
            let unit = if aborts_at_destination {
                &destination
            } else {
                &source
            };
            let tasks = unit.tasks.abort(None, |task| task.nexus == nexus("a"));
            assert_eq!(tasks.len(), 1);
            assert!(!tasks[0].is_settled(), "a write is under way");
            release_until(&device, || copying.is_finished()).await;
            crate::unit::tasks::settled(tasks).await;
            // Only the piece that was under way was written.
            let aborted = Sense::COPY_ABORTED.of_segment(0).at(2048 - 256);
            assert_eq!(copying.await.unwrap(), Err(aborted));
            // Nobody asks for what was aborted.
            let told = source.copies.ask(&nexus("a"), 9).map(|progress| progress.state);
            assert_eq!(told, aborts_at_destination.then_some(State::Failed));
        }
    });
}

#[test]
fn a_copy_ends_when_its_path_is_over_or_the_destination_is_reserved() {
    alone(async {
        for reserves in [false, true] {
            let source = unit(0, 4096);
            let (destination, device) = held(1);
            fill(&source, 0, &pattern(1, 4 * MIB)).await;
            let wanted = Rc::new(Cell::new(true));
            let copying = tokio::task::spawn_local({
                let (source, destination, wanted) =
                    (Rc::clone(&source), Rc::clone(&destination), Rc::clone(&wanted));
                async move {
                    let wishes = [(0, 1, false, 1024, 0, 0)];
                    copy_while(&[&source, &destination], &wishes, &|| wanted.get()).await
                }
            });
            until_waiting(&device, 1).await;
            let expected = if reserves {
                reserve(&destination, "b");
                Sense::COPY_TARGET_FAILED.about(48)
            } else {
                wanted.set(false);
                Sense::COPY_ABORTED
            };
            release_until(&device, || copying.is_finished()).await;
            // Only the piece that was under way was written.
            let expected = expected.of_segment(0).at(1024 - 256);
            assert_eq!(copying.await.unwrap(), Err(expected));
        }
    });
}

#[test]
fn a_destination_that_fails_midway_is_told_with_what_is_missing() {
    alone(async {
        let source = unit(0, 4096);
        let (destination, device) = held(1);
        fill(&source, 0, &pattern(1, 4 * MIB)).await;
        let copying = tokio::task::spawn_local({
            let (source, destination) = (Rc::clone(&source), Rc::clone(&destination));
            async move { copy(&[&source, &destination], &[(0, 1, false, 1024, 0, 0)]).await }
        });
        until_waiting(&device, 1).await;
        device.release(0);
        until_waiting(&device, 1).await;
        device.resize(MIB);
        release_until(&device, || copying.is_finished()).await;
        let failed = Sense::COPY_TARGET_FAILED.about(48).of_segment(0).at(1024 - 256);
        assert_eq!(copying.await.unwrap(), Err(failed));
        let failed = Progress {
            state: State::Failed,
            segments: 1,
            bytes: 1 << 20,
        };
        assert_eq!(source.copies.ask(&nexus("a"), 9), Some(failed));
    });
}

#[test]
fn a_copy_reads_ahead_by_one_piece_and_no_more() {
    alone(async {
        let (source, reads) = held(0);
        let (destination, writes) = held(1);
        let filling = tokio::task::spawn_local({
            let source = Rc::clone(&source);
            async move { fill(&source, 0, &pattern(1, 4 * MIB)).await }
        });
        release_until(&reads, || filling.is_finished()).await;
        let copying = tokio::task::spawn_local({
            let (source, destination) = (Rc::clone(&source), Rc::clone(&destination));
            async move { copy(&[&source, &destination], &[(0, 1, false, 1024, 0, 0)]).await }
        });
        // The map, and the first piece.
        for _ in 0..2 {
            until_waiting(&reads, 1).await;
            reads.release(0);
        }
        until_waiting(&reads, 1).await;
        until_waiting(&writes, 1).await;
        reads.release(0);
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
        assert_eq!((reads.waiting(), writes.waiting()), (0, 1));
        let go_on = async {
            tokio::join!(
                release_until(&reads, || copying.is_finished()),
                release_until(&writes, || copying.is_finished())
            );
        };
        go_on.await;
        assert_eq!(copying.await.unwrap(), Ok(Done::good()));
    });
}

#[test]
fn a_copy_that_takes_too_long_ends() {
    alone(async {
        let (source, destination) = (unit(0, 4096), unit(1, 4096));
        fill(&source, 0, &pattern(1, 4096)).await;
        let place = source.tasks.begin(&nexus("a"), 1);
        let commission = Commission {
            receiver: &source,
            units: &[Rc::clone(&source), Rc::clone(&destination)],
            task: &place.task,
            wanted: &|| true,
            limit: Duration::ZERO,
        };
        let list = list(&[&source, &destination], &[(0, 1, false, 1, 0, 0)]);
        let done = perform(&commission, &list, list.len()).await;
        assert_eq!(done, Err(Sense::COPY_ABORTED.of_segment(0).into()));
        assert!(
            bytes_of(&destination, 0, 4096)
                .await
                .iter()
                .all(|byte| *byte == 0)
        );
    });
}

#[test]
fn a_device_that_is_not_there_any_more_has_no_map() {
    alone(async {
        let (source, device) = held(0);
        let destination = unit(1, 4096);
        let copying = tokio::task::spawn_local({
            let (source, destination) = (Rc::clone(&source), Rc::clone(&destination));
            async move { copy(&[&source, &destination], &[(0, 1, false, 1, 0, 0)]).await }
        });
        until_waiting(&device, 1).await;
        device.forget();
        let failed = Sense::COPY_TARGET_FAILED.about(16).of_segment(0);
        assert_eq!(copying.await.unwrap(), Err(failed));
    });
}
