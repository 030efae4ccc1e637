//! Counted figures in the words of the API.

use admin_api::vhost::{Bucket, Latency, RequestFigures};

use crate::traffic::{Figures, Kind};

/// The steps of the histogram that is shown, in microseconds: from a read in the same machine's memory to
/// a disk that is away.
const BUCKETS_US: [u64; 20] = [
    20, 50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    250_000, 1_000_000, 5_000_000, 30_000_000,
];
/// Nanoseconds in a microsecond.
const NS: u64 = 1_000;

/// What requests of one kind amounted to.
pub(super) fn of(kind: Kind, figures: &Figures) -> RequestFigures {
    RequestFigures {
        kind: kind.name().to_owned(),
        requests: figures.requests,
        bytes: figures.bytes,
        errors: figures.errors,
        latency: latency(figures),
    }
}

fn latency(figures: &Figures) -> Latency {
    let times = &figures.latency;
    let at = |quantile| microseconds(times.value_at_quantile(quantile));
    let mean_us = times.mean() / 1_000.0;
    Latency {
        sum_us: mean_us * exact(times.len()),
        mean_us,
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: microseconds(times.max()),
        buckets: buckets(figures),
    }
}

/// Cumulative counts: each recorded value once, in the first step that it fits into.
fn buckets(figures: &Figures) -> Vec<Bucket> {
    let mut recorded = figures.latency.iter_recorded().peekable();
    let mut count = 0;
    let step = |up_to_us: u64| {
        while let Some(next) = recorded.next_if(|next| next.value_iterated_to() <= up_to_us * NS) {
            count += next.count_since_last_iteration();
        }
        Bucket { up_to_us, count }
    };
    BUCKETS_US.into_iter().map(step).collect()
}

fn microseconds(nanoseconds: u64) -> f64 {
    exact(nanoseconds) / 1_000.0
}

/// Exact up to 2^53, and good to 16 digits beyond.
#[expect(
    clippy::cast_precision_loss,
    reason = "JSON and Prometheus know no other numbers"
)]
pub(super) fn exact(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    //! What is shown is what was counted, to the histogram's two digits.
    use std::time::{Duration, Instant};

    use super::*;
    use crate::traffic::Traffic;

    #[test]
    fn steps_add_up_and_percentiles_lie_among_the_recorded_times() {
        let traffic = Traffic::new();
        let (_, mut figures) = traffic.figures().swap_remove(0);
        for microseconds in [40, 400, 400, 400, 4_000_000_000] {
            figures.requests += 1;
            figures.latency.saturating_record(microseconds * NS);
        }
        let shown = of(Kind::Read, &figures).latency;
        let count = |up_to_us| {
            shown
                .buckets
                .iter()
                .find(|step| step.up_to_us == up_to_us)
                .unwrap()
                .count
        };
        assert_eq!([count(20), count(50), count(300), count(500)], [0, 1, 1, 4]);
        assert_eq!(count(30_000_000), 4, "what took longer is only in the total");
        assert!((396.0..=404.0).contains(&shown.p50_us), "{shown:?}");
        assert!(shown.max_us > 30_000_000.0, "{shown:?}");
    }

    #[test]
    fn without_requests_everything_is_zero() {
        let traffic = Traffic::new();
        let shown = of(Kind::Write, &traffic.figures().swap_remove(1).1).latency;
        assert_eq!((shown.sum_us, shown.p999_us, shown.max_us), (0.0, 0.0, 0.0));
        assert!(shown.buckets.iter().all(|step| step.count == 0));
    }

    #[test]
    fn the_sum_is_what_the_requests_took_together() {
        let traffic = Traffic::new();
        let before = Instant::now().checked_sub(Duration::from_millis(10)).unwrap();
        traffic.publish([traffic.take(before), traffic.take(before)].into_iter());
        let figures = traffic.figures();
        let (kind, refused) = figures.last().unwrap();
        assert!(of(*kind, refused).latency.sum_us >= 19_800.0);
    }
}
