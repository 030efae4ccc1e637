//! A bucket of tokens that fills at a rate: who wants something takes tokens for it, and waits until they are there.
//!
//! Time comes in as a number, in milliseconds. More than fits into the bucket can be had too: a full bucket gives it, and
//! owes it afterwards. So in any time t no more than `capacity + rate * t` is taken, and what one taker had beyond the capacity.

use protocol::limits::Rate;
use replication::Moment;

/// Levels are counted in thousandths of a token, for that is what a token a second brings in a millisecond.
const PARTS: i128 = 1000;
/// Of a rate without a burst, this part of a second's tokens fits into the bucket: enough for what comes together, too
/// little for anybody to notice as a burst.
const BURST_PART: u64 = 10;
/// At least so many tokens: who waits for one is looked at up to some milliseconds late, and what flows in meanwhile must fit
/// in, or a slow rate would be slower than was said.
const BURST_MIN: u64 = 2;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    per_second: u64,
    capacity: u64,
    /// At `at`, in thousandths. Below zero it owes.
    level: i128,
    at: Moment,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, now: Moment) -> Self {
        let per_second = rate.per_second.get();
        let burst = rate.burst.map(std::num::NonZeroU64::get);
        let capacity = burst.unwrap_or((per_second / BURST_PART).max(BURST_MIN));
        Self {
            per_second,
            capacity,
            level: i128::from(capacity) * PARTS,
            at: now,
        }
    }

    /// From now on another rate. What it holds or owes stays, as far as it fits in.
    pub fn change(&mut self, rate: Rate, now: Moment) {
        self.fill(now);
        let level = self.level;
        *self = Self::new(rate, now);
        self.level = self.level.min(level);
    }

    fn fill(&mut self, now: Moment) {
        let filled = i128::from(self.per_second).saturating_mul(i128::from(now.since(self.at)));
        let full = i128::from(self.capacity) * PARTS;
        self.level = self.level.saturating_add(filled).min(full);
        self.at = self.at.max(now);
    }

    /// Whether it holds as much as it can: then it is as good as a new one.
    pub fn is_full(&mut self, now: Moment) -> bool {
        self.fill(now);
        self.level == i128::from(self.capacity) * PARTS
    }

    /// In how many milliseconds so many tokens can be had; 0 if now.
    pub fn wait(&mut self, tokens: u64, now: Moment) -> u64 {
        self.fill(now);
        // Nothing can be had at any time.
        if tokens == 0 {
            return 0;
        }
        let missing = i128::from(tokens.min(self.capacity)) * PARTS - self.level;
        if missing <= 0 {
            return 0;
        }
        let rate = i128::from(self.per_second.max(1));
        u64::try_from((missing + rate - 1) / rate).unwrap_or(u64::MAX)
    }

    /// Takes so many, whether they are there or not.
    pub fn take(&mut self, tokens: u64, now: Moment) {
        self.fill(now);
        self.level = self.level.saturating_sub(i128::from(tokens) * PARTS);
    }
}

#[cfg(test)]
mod tests {
    //! What a bucket gives in any time, and when.
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u64, burst: u64) -> Rate {
        Rate {
            per_second: NonZeroU64::new(per_second).unwrap(),
            burst: NonZeroU64::new(burst),
        }
    }

    #[test]
    fn a_full_bucket_gives_its_burst_at_once_and_then_what_flows_in() {
        let mut bucket = Bucket::new(rate(100, 20), Moment(0));
        for _ in 0..20 {
            assert_eq!(bucket.wait(1, Moment(0)), 0);
            bucket.take(1, Moment(0));
        }
        assert_eq!(bucket.wait(1, Moment(0)), 10, "a hundredth of a second each");
        assert_eq!(bucket.wait(5, Moment(0)), 50);
        assert_eq!(bucket.wait(1, Moment(10)), 0);
        // It never holds more than fits in.
        assert_eq!(bucket.wait(20, Moment(1_000_000)), 0);
        bucket.take(20, Moment(1_000_000));
        assert_eq!(bucket.wait(1, Moment(1_000_000)), 10);
    }

    #[test]
    fn without_a_burst_a_tenth_of_a_second_fits_in_and_two_at_least() {
        assert_eq!(Bucket::new(rate(1000, 0), Moment(0)).capacity, 100);
        assert_eq!(Bucket::new(rate(3, 0), Moment(0)).capacity, 2);
    }

    #[test]
    fn more_than_fits_in_is_given_by_a_full_bucket_that_owes_it_then() {
        let mut bucket = Bucket::new(rate(100, 10), Moment(0));
        assert_eq!(bucket.wait(60, Moment(0)), 0);
        bucket.take(60, Moment(0));
        // 50 are owed, and the next one needs one more.
        assert_eq!(bucket.wait(1, Moment(0)), 510);
        assert_eq!(
            bucket.wait(0, Moment(0)),
            0,
            "what costs nothing waits for nothing"
        );
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let mut bucket = Bucket::new(rate(1, 1), Moment(5000));
        bucket.take(1, Moment(5000));
        assert_eq!(bucket.wait(1, Moment(0)), 1000);
        assert_eq!(bucket.wait(1, Moment(5999)), 1);
        assert_eq!(bucket.wait(1, Moment(6000)), 0);
    }

    #[test]
    fn another_rate_keeps_what_is_owed_and_gives_nothing_away() {
        let mut bucket = Bucket::new(rate(10, 10), Moment(0));
        bucket.take(30, Moment(0));
        bucket.change(rate(100, 1000), Moment(0));
        assert_eq!(bucket.wait(1, Moment(0)), 210, "20 are owed still");
        bucket.change(rate(100, 5), Moment(10_000));
        assert_eq!(bucket.level, 5 * PARTS, "no more than fits in");
    }

    proptest! {
        /// Law: in no time is more taken than the bucket holds and what flows in meanwhile, by whoever waits as he is told; and
        /// who waits as long as he is told, gets it.
        #[test]
        fn what_is_taken_keeps_to_the_rate(
            per_second in 1u64..5000,
            burst in 0u64..5000,
            steps in prop::collection::vec((0u64..300, 1u64..9000), 1..60),
        ) {
            let mut bucket = Bucket::new(rate(per_second, burst), Moment(0));
            let capacity = i128::from(bucket.capacity);
            let mut now = Moment(0);
            let mut taken: Vec<(u64, i128)> = Vec::new();
            for (pause, tokens) in steps {
                now = now + pause;
                now = now + bucket.wait(tokens, now);
                prop_assert_eq!(bucket.wait(tokens, now), 0);
                bucket.take(tokens, now);
                taken.push((now.0, i128::from(tokens)));
            }
            for (first, (began, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (ended, tokens) in &taken[first..] {
                    let flowed = i128::from(per_second) * i128::from(ended - began);
                    // What comes last may be more than fits in.
                    let last = tokens.min(&capacity);
                    prop_assert!((sum + last) * PARTS <= capacity * PARTS + flowed);
                    sum += tokens;
                }
            }
        }
    }
}
