//! Laws of the throttle, on a clock of the test's own: what begins keeps to every limit, in its order, and all of it begins.
use std::num::NonZeroU64;

use proptest::prelude::*;

use super::*;

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    NonZeroU64::new(per_second).map(|per_second| Rate {
        per_second,
        burst: NonZeroU64::new(burst),
    })
}

fn read(bytes: u64) -> Cost {
    Cost {
        direction: Direction::Read,
        operations: 1,
        bytes,
    }
}

fn write(bytes: u64) -> Cost {
    Cost {
        direction: Direction::Write,
        operations: 1,
        bytes,
    }
}

const FLUSH: Cost = Cost {
    direction: Direction::Write,
    operations: 0,
    bytes: 0,
};

fn limited(limits: VolumeLimits) -> Throttle<usize> {
    let mut throttle = Throttle::default();
    throttle.set(limits, Moment(0));
    throttle
}

/// All that begin at a moment.
fn begun(throttle: &mut Throttle<usize>, now: Moment) -> Vec<usize> {
    std::iter::from_fn(|| throttle.next(now)).collect()
}

fn enter_all(throttle: &mut Throttle<usize>, costs: &[Cost]) {
    for (number, cost) in costs.iter().enumerate() {
        throttle.enter(*cost, number, Moment(0));
    }
}

#[test]
fn without_limits_everything_begins_at_once() {
    let mut throttle = Throttle::default();
    enter_all(&mut throttle, &[read(1 << 40), write(1), FLUSH]);
    assert_eq!(begun(&mut throttle, Moment(0)).len(), 3);
    assert_eq!(throttle.pause(Moment(0)), None);
    assert_eq!(throttle.throttled(), Throttled::default());
}

#[test]
fn reads_that_wait_hold_back_no_write_and_no_flush() {
    let mut limits = VolumeLimits::default();
    limits.operations.read = rate(1, 1);
    let mut throttle = limited(limits);
    enter_all(&mut throttle, &[read(1), read(1), write(1), FLUSH, read(1)]);
    assert_eq!(begun(&mut throttle, Moment(0)), [0, 2, 3]);
    assert_eq!(throttle.pause(Moment(0)), Some(1000));
    assert_eq!(begun(&mut throttle, Moment(1000)), [1]);
    assert_eq!(begun(&mut throttle, Moment(2000)), [4]);
    let waited = Throttled {
        requests: 2,
        waited_ms: 3000,
    };
    assert_eq!(throttle.throttled(), waited);
}

#[test]
fn a_flush_comes_after_the_writes_before_it_and_needs_no_tokens() {
    let mut limits = VolumeLimits::default();
    limits.operations.total = rate(1, 1);
    let mut throttle = limited(limits);
    enter_all(&mut throttle, &[write(1), write(1), FLUSH, read(1)]);
    assert_eq!(begun(&mut throttle, Moment(0)), [0]);
    assert_eq!(begun(&mut throttle, Moment(1000)), [1, 2]);
    // One that comes when tokens are owed and no write waits is not kept.
    throttle.enter(FLUSH, 9, Moment(1000));
    assert_eq!(begun(&mut throttle, Moment(1000)), [9]);
    assert_eq!(begun(&mut throttle, Moment(2000)), [3]);
}

#[test]
fn a_large_write_is_not_starved_by_small_reads_that_come_later() {
    let mut limits = VolumeLimits::default();
    limits.bytes.total = rate(1000, 1000);
    let mut throttle = limited(limits);
    enter_all(&mut throttle, &[write(600), write(900), read(10)]);
    assert_eq!(
        begun(&mut throttle, Moment(0)),
        [0],
        "the read could, and must not"
    );
    assert_eq!(throttle.pause(Moment(0)), Some(500));
    assert_eq!(begun(&mut throttle, Moment(499)), Vec::<usize>::new());
    assert_eq!(begun(&mut throttle, Moment(500)), [1]);
    assert_eq!(begun(&mut throttle, Moment(510)), [2]);
}

#[test]
fn what_waits_for_its_own_tokens_leaves_those_of_both_to_the_other() {
    let mut limits = VolumeLimits::default();
    limits.operations.total = rate(100, 100);
    limits.operations.read = rate(1, 1);
    let mut throttle = limited(limits);
    enter_all(&mut throttle, &[read(1), read(1), write(1), write(1)]);
    assert_eq!(begun(&mut throttle, Moment(0)), [0, 2, 3]);
}

#[test]
fn a_longer_operation_counts_as_several_if_that_is_said() {
    let mut limits = VolumeLimits {
        operation_bytes: NonZeroU64::new(4096),
        ..VolumeLimits::default()
    };
    limits.operations.total = rate(10, 10);
    let mut throttle = limited(limits);
    enter_all(&mut throttle, &[read(4096 * 9 + 1), read(1)]);
    assert_eq!(begun(&mut throttle, Moment(0)), [0]);
    assert_eq!(throttle.pause(Moment(0)), Some(100), "all ten were taken");
}

#[test]
fn other_limits_hold_for_what_waits_already_and_none_let_it_go() {
    let mut limits = VolumeLimits::default();
    limits.operations.total = rate(1, 1);
    let mut throttle = limited(limits);
    enter_all(&mut throttle, &[read(1); 4]);
    assert_eq!(begun(&mut throttle, Moment(0)), [0]);
    limits.operations.total = rate(1000, 1);
    throttle.set(limits, Moment(0));
    assert_eq!(throttle.pause(Moment(0)), Some(1));
    assert_eq!(begun(&mut throttle, Moment(1)), [1]);
    throttle.set(VolumeLimits::default(), Moment(1));
    assert_eq!(begun(&mut throttle, Moment(1)), [2, 3]);
}

#[test]
fn what_is_let_through_is_owed() {
    let mut limits = VolumeLimits::default();
    limits.operations.total = rate(10, 1);
    let mut throttle = limited(limits);
    enter_all(&mut throttle, &[read(1), write(1), read(1), FLUSH]);
    let through: Vec<usize> = std::iter::from_fn(|| throttle.let_through(Moment(0))).collect();
    assert_eq!(through, [0, 1, 2, 3]);
    throttle.enter(read(1), 4, Moment(0));
    assert_eq!(throttle.pause(Moment(0)), Some(300));
}

/// A request and when it comes after the one before, in milliseconds.
fn arrivals() -> impl Strategy<Value = Vec<(u64, Cost)>> {
    let direction = prop_oneof![Just(Direction::Read), Just(Direction::Write)];
    let cost = (direction, 0u64..2, 0u64..100_000).prop_map(|(direction, operations, bytes)| {
        if operations == 0 {
            return FLUSH;
        }
        Cost {
            direction,
            operations,
            bytes,
        }
    });
    prop::collection::vec((0u64..50, cost), 1..60)
}

fn some_rate(most: u64) -> impl Strategy<Value = Option<Rate>> {
    prop_oneof![
        Just(None),
        (1..most, 0..most).prop_map(|(per_second, burst)| rate(per_second, burst))
    ]
}

fn some_limits() -> impl Strategy<Value = VolumeLimits> {
    let each = |most| (some_rate(most), some_rate(most), some_rate(most));
    let limits = |(total, read, write)| DirectionLimits { total, read, write };
    (each(500), each(1_000_000), prop::option::of(1u64..50_000)).prop_map(move |(operations, bytes, size)| {
        VolumeLimits {
            operations: limits(operations),
            bytes: limits(bytes),
            operation_bytes: size.and_then(NonZeroU64::new),
        }
    })
}

/// Which began when, played to the end on the times that the throttle itself asks to be looked at.
fn play(limits: VolumeLimits, arrivals: &[(u64, Cost)]) -> Vec<(u64, usize)> {
    /// Of each request: it comes, it begins, and once more because it is held back.
    const LOOKS_MAX: usize = 4;
    let mut throttle = limited(limits);
    let (mut now, mut began) = (Moment(0), Vec::new());
    let look = |throttle: &mut Throttle<usize>, now: Moment, began: &mut Vec<(u64, usize)>| {
        began.extend(begun(throttle, now).into_iter().map(|number| (now.0, number)));
    };
    let mut looks = 0;
    for (number, (pause, cost)) in arrivals.iter().enumerate() {
        let comes = now + *pause;
        while let Some(wait) = throttle.pause(now).filter(|wait| now + *wait <= comes) {
            now = now + wait.max(1).min(comes.since(now).max(1));
            look(&mut throttle, now, &mut began);
            looks += 1;
            if now >= comes {
                break;
            }
        }
        now = now.max(comes);
        throttle.enter(*cost, number, now);
        look(&mut throttle, now, &mut began);
    }
    while let Some(wait) = throttle.pause(now) {
        assert!(wait > 0, "what may begin has begun");
        now = now + wait;
        look(&mut throttle, now, &mut began);
        looks += 1;
        assert!(
            looks <= LOOKS_MAX * arrivals.len(),
            "it is looked at again and again"
        );
    }
    began
}

/// What a rate lets begin: what fits in and what flows, with the last one's whole size if that is more than fits in.
fn keeps(rate: Option<Rate>, taken: &[(u64, u64)]) -> bool {
    let Some(rate) = rate else { return true };
    let per_second = rate.per_second.get();
    let capacity = rate.burst.map_or((per_second / 10).max(2), NonZeroU64::get);
    (0..taken.len()).all(|first| {
        let mut sum = 0;
        taken[first..].iter().all(|(at, tokens)| {
            let flowed = u128::from(per_second) * u128::from(at - taken[first].0);
            let fits =
                (sum + u128::from((*tokens).min(capacity))) * 1000 <= u128::from(capacity) * 1000 + flowed;
            sum += u128::from(*tokens);
            fits
        })
    })
}

proptest! {
    /// Laws: everything begins; reads and writes each in their order; every limit holds over every span of time.
    #[test]
    fn all_begins_in_its_order_and_within_every_limit(limits in some_limits(), arrivals in arrivals()) {
        let began = play(limits, &arrivals);
        prop_assert_eq!(began.len(), arrivals.len());
        let throttle = limited(limits);
        for direction in [Direction::Read, Direction::Write] {
            let order: Vec<usize> = began
                .iter()
                .map(|(_, number)| *number)
                .filter(|number| arrivals[*number].1.direction == direction)
                .collect();
            prop_assert!(order.is_sorted());
        }
        let taken = |of: &dyn Fn(Cost) -> u64, direction: Option<Direction>| -> Vec<(u64, u64)> {
            let costs = began.iter().map(|(at, number)| (*at, arrivals[*number].1));
            costs
                .filter(|(_, cost)| direction.is_none_or(|direction| direction == cost.direction))
                .map(|(at, cost)| (at, of(cost)))
                .filter(|(_, tokens)| *tokens > 0)
                .collect()
        };
        let operations = |cost| throttle.operations_of(cost);
        let bytes = |cost: Cost| cost.bytes;
        for (limits, of) in [
            (&limits.operations, &operations as &dyn Fn(Cost) -> u64),
            (&limits.bytes, &bytes),
        ] {
            prop_assert!(keeps(limits.total, &taken(of, None)));
            prop_assert!(keeps(limits.read, &taken(of, Some(Direction::Read))));
            prop_assert!(keeps(limits.write, &taken(of, Some(Direction::Write))));
        }
    }

    /// Law: a limit is used up: as long as something waits, what may flow does.
    #[test]
    fn what_waits_gets_all_that_the_limit_allows(per_second in 1u64..1000, count in 1usize..200) {
        let mut limits = VolumeLimits::default();
        limits.operations.total = rate(per_second, 0);
        let arrivals = vec![(0, read(1)); count];
        let last = play(limits, &arrivals).last().map(|(at, _)| *at).unwrap();
        let waiting = (count as u64).saturating_sub((per_second / 10).max(2));
        let needed = waiting * 1000 / per_second;
        // A millisecond is the clock's step.
        prop_assert!((needed..=needed + 1).contains(&last), "{last} ms for {needed}");
    }
}
