//! How long things take that have a token: when each began, and what those that ended amount to.
//!
//! Everything is allocated when a ledger is made. It knows neither requests nor media, only their kinds' numbers.

use std::time::{Duration, Instant};

use telemetry::Figures;

/// What is counted, by kind: the kind's name and its figures.
pub type Entries = Vec<(&'static str, Figures)>;

/// What is under way and what has ended.
#[derive(Debug)]
pub(super) struct Ledger {
    names: &'static [&'static str],
    figures: Vec<Figures>,
    /// By the token's lowest bits.
    under_way: Vec<Option<UnderWay>>,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    token: u64,
    kind: usize,
    bytes: u64,
    began: Instant,
}

impl Ledger {
    /// For kinds of these names and about `places` things at once, a power of two. If there are more, some of
    /// them are not counted.
    pub(super) fn new(names: &'static [&'static str], places: usize) -> Self {
        Self {
            names,
            figures: vec![Figures::default(); names.len()],
            under_way: vec![None; places],
        }
    }

    /// Something begins. Tokens that are near each other do not disturb each other.
    pub(super) fn begin(&mut self, token: u64, kind: usize, bytes: u64) {
        let began = Instant::now();
        if let Some(place) = self.place(token) {
            *place = Some(UnderWay {
                token,
                kind,
                bytes,
                began,
            });
        }
    }

    /// Something has ended, at `now`.
    pub(super) fn end(&mut self, token: u64, failed: bool, now: Instant) {
        let Some(place) = self.place(token) else { return };
        let Some(ended) = place.take_if(|thing| thing.token == token) else {
            return;
        };
        if let Some(figures) = self.figures.get_mut(ended.kind) {
            let time = now.saturating_duration_since(ended.began);
            figures.count(ended.bytes, failed, time);
        }
    }

    /// For how long the oldest thing has been under way.
    pub(super) fn oldest(&self, now: Instant) -> Option<Duration> {
        let began = self.under_way.iter().flatten().map(|thing| thing.began).min()?;
        Some(now.saturating_duration_since(began))
    }

    /// What was counted so far.
    pub(super) fn entries(&self) -> Entries {
        let figures = self.figures.iter().cloned();
        self.names.iter().copied().zip(figures).collect()
    }

    fn place(&mut self, token: u64) -> Option<&mut Option<UnderWay>> {
        let mask = self.under_way.len().saturating_sub(1) as u64;
        let place = usize::try_from(token & mask).ok()?;
        self.under_way.get_mut(place)
    }
}

#[cfg(test)]
mod tests {
    //! Each thing is counted once, under its kind, and never under somebody else's beginning.
    use super::*;

    const NAMES: &[&str] = &["one", "other"];

    #[test]
    fn what_ends_is_counted_with_its_time_and_what_never_began_is_not() {
        let mut ledger = Ledger::new(NAMES, 4);
        ledger.begin(1, 0, 100);
        ledger.begin(2, 1, 50);
        assert!(ledger.oldest(Instant::now() + Duration::from_secs(3)) >= Some(Duration::from_secs(3)));
        let later = Instant::now() + Duration::from_millis(7);
        ledger.end(2, true, later);
        ledger.end(1, false, later);
        ledger.end(1, false, later);
        ledger.end(3, false, later);
        assert_eq!(ledger.oldest(Instant::now()), None);
        let [(_, one), (name, other)] = &ledger.entries()[..] else {
            panic!("two kinds");
        };
        assert_eq!((one.requests, one.bytes, one.errors), (1, 100, 0));
        assert_eq!(
            (*name, other.requests, other.bytes, other.errors),
            ("other", 1, 0, 1)
        );
        assert!(one.latency.quantile(0.5) >= Duration::from_millis(6));
    }

    #[test]
    fn one_too_many_is_left_out_and_not_mixed_up() {
        let mut ledger = Ledger::new(NAMES, 4);
        ledger.begin(1, 0, 0);
        ledger.begin(5, 1, 0);
        ledger.end(1, false, Instant::now());
        ledger.end(5, false, Instant::now());
        let counts: Vec<u64> = ledger
            .entries()
            .iter()
            .map(|(_, figures)| figures.requests)
            .collect();
        assert_eq!(counts, [0, 1]);
    }
}
