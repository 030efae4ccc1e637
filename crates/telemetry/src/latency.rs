//! How long things took: counted in a histogram of fixed size, shown as percentiles and as steps.

use std::time::Duration;

use admin_api::figures::{Bucket, Latency};
use hdrhistogram::Histogram;

/// The shortest time that is told apart from none, in nanoseconds.
const LATENCY_MIN_NS: u64 = 1 << 10;
/// The longest time that is told apart, in nanoseconds: two minutes and a bit. What waits longer waits
/// for a disk or a daemon that is away, and the exact figure does not matter.
const LATENCY_MAX_NS: u64 = 1 << 37;
/// Times are kept to two digits: within one in a hundred.
const LATENCY_DIGITS: u8 = 2;
/// The steps of the histogram that is shown, in microseconds: from a read in the same machine's memory to
/// a disk that is away.
const BUCKETS_US: [u64; 20] = [
    20, 50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    250_000, 1_000_000, 5_000_000, 30_000_000,
];
/// Nanoseconds in a microsecond.
const NS: u64 = 1_000;

/// Times of one kind. Takes 28 KiB, all of it when it is made: recording allocates nothing.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// Nothing if the bounds above were refused, which the test below shows not to happen.
    histogram: Option<Histogram<u64>>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// No times yet.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(LATENCY_MIN_NS, LATENCY_MAX_NS, LATENCY_DIGITS);
        Self {
            histogram: histogram.ok(),
        }
    }

    /// Counts one time. Those beyond the bounds count as the nearest bound.
    pub fn record(&mut self, time: Duration) {
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(nanoseconds(time));
        }
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// So much of the times, from 0 to 1, were no longer. Zero if there are none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let histogram = self.histogram.as_ref();
        Duration::from_nanos(histogram.map_or(0, |times| times.value_at_quantile(quantile)))
    }

    /// The times that were counted after `earlier`, a former state of these. All of them if it is none.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        let subtracted = match (&mut later.histogram, &earlier.histogram) {
            (Some(later), Some(earlier)) => later.subtract(earlier).is_ok(),
            _ => false,
        };
        if subtracted { later } else { self.clone() }
    }

    /// What is shown of them. Looks at every step of the histogram: not for the data path.
    pub fn summary(&self) -> Latency {
        let Some(times) = &self.histogram else {
            return Latency::default();
        };
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
            buckets: buckets(times),
        }
    }
}

/// Cumulative counts: each recorded value once, in the first step that it fits into.
fn buckets(times: &Histogram<u64>) -> Vec<Bucket> {
    let mut recorded = times.iter_recorded().peekable();
    let mut count = 0;
    let step = |up_to_us: u64| {
        while let Some(next) = recorded.next_if(|next| next.value_iterated_to() <= up_to_us * NS) {
            count += next.count_since_last_iteration();
        }
        Bucket { up_to_us, count }
    };
    BUCKETS_US.into_iter().map(step).collect()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn microseconds(nanoseconds: u64) -> f64 {
    exact(nanoseconds) / 1_000.0
}

/// A figure as JSON and Prometheus keep it: exact up to 2^53, and good to 16 digits beyond.
#[expect(
    clippy::cast_precision_loss,
    reason = "JSON and Prometheus know no other numbers"
)]
pub(crate) fn exact(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    //! What is shown is what was counted, to the histogram's two digits.
    use super::*;

    fn of(microseconds: &[u64]) -> Latencies {
        let mut times = Latencies::new();
        for time in microseconds {
            times.record(Duration::from_micros(*time));
        }
        times
    }

    #[test]
    fn steps_add_up_and_percentiles_lie_among_the_recorded_times() {
        let shown = of(&[40, 400, 400, 400, 4_000_000_000]).summary();
        let count = |up_to_us| {
            let mut steps = shown.buckets.iter();
            steps.find(|step| step.up_to_us == up_to_us).unwrap().count
        };
        assert_eq!([count(20), count(50), count(300), count(500)], [0, 1, 1, 4]);
        assert_eq!(count(30_000_000), 4, "what took longer is only in the total");
        assert!((396.0..=404.0).contains(&shown.p50_us), "{shown:?}");
        assert!(shown.max_us > 30_000_000.0, "{shown:?}");
    }

    #[test]
    fn without_times_everything_is_zero() {
        let shown = Latencies::new().summary();
        assert_eq!((shown.sum_us, shown.p999_us, shown.max_us), (0.0, 0.0, 0.0));
        assert!(shown.buckets.iter().all(|step| step.count == 0));
        assert_eq!(shown.buckets.len(), BUCKETS_US.len(), "the bounds are accepted");
    }

    #[test]
    fn the_sum_is_what_the_times_add_up_to() {
        assert!((19_800.0..=20_200.0).contains(&of(&[5_000, 15_000]).summary().sum_us));
    }

    #[test]
    fn a_time_beyond_all_bounds_is_counted_too() {
        let mut times = of(&[0]);
        times.record(Duration::MAX);
        assert_eq!(times.count(), 2);
    }

    #[test]
    fn a_window_holds_only_what_came_in_it() {
        let earlier = of(&[100, 100, 100]);
        let mut later = earlier.clone();
        later.record(Duration::from_millis(50));
        let window = later.since(&earlier);
        assert_eq!(window.count(), 1);
        assert!(window.quantile(0.5) > Duration::from_millis(49), "{window:?}");
        // A disk that was opened anew counts from zero: its former figures are no former state of these.
        assert_eq!(of(&[7]).since(&later).count(), 1);
    }
}
