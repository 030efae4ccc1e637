//! How fast each project may ask, so that one that never stops leaves the service to all others: section `[limits]` of the
//! configuration. Knows nothing of requests but whose they are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use client::clock::Moment;
use client::throttle::bucket::Bucket;
use protocol::limits::Rate;

/// Projects that are kept count of. Beyond that those that have rested are forgotten, which changes nothing for them; if all
/// are busy, all of them, which lets each ask a burst anew.
const PROJECTS_MAX: usize = 10_000;

/// What each project may still ask now.
#[derive(Debug)]
pub struct ProjectRates {
    rate: Option<Rate>,
    projects: Mutex<HashMap<Box<str>, Bucket>>,
}

impl ProjectRates {
    /// Nobody has asked yet. Without a rate everybody may always ask.
    pub fn new(rate: Option<Rate>) -> Self {
        Self {
            rate,
            projects: Mutex::default(),
        }
    }

    /// Counts a request, if the project may ask now.
    pub fn admits(&self, project: &str, now: Moment) -> bool {
        let Some(rate) = self.rate else {
            return true;
        };
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = projects.get_mut(project) {
            let admitted = bucket.wait(1, now) == 0;
            if admitted {
                bucket.take(1, now);
            }
            return admitted;
        }
        if projects.len() >= PROJECTS_MAX {
            projects.retain(|_, bucket| !bucket.is_full(now));
        }
        if projects.len() >= PROJECTS_MAX {
            projects.clear();
        }
        let mut bucket = Bucket::new(rate, now);
        bucket.take(1, now);
        projects.insert(project.into(), bucket);
        true
    }
}

#[cfg(test)]
mod tests {
    //! A project that asks too fast is refused, and nobody else is.
    use std::num::NonZeroU64;

    use super::*;

    fn rates(per_second: u64, burst: u64) -> ProjectRates {
        ProjectRates::new(Some(Rate {
            per_second: NonZeroU64::new(per_second).unwrap(),
            burst: NonZeroU64::new(burst),
        }))
    }

    #[test]
    fn a_project_asks_a_burst_and_then_as_fast_as_its_rate() {
        let rates = rates(10, 3);
        let now = client::clock::now();
        let admitted = |project, now| rates.admits(project, now);
        assert!((0..3).all(|_| admitted("a", now)));
        assert!(!admitted("a", now) && !admitted("a", now + 99));
        assert!(admitted("b", now), "another one is not concerned");
        assert!(admitted("a", now + 100) && !admitted("a", now + 100));
    }

    #[test]
    fn without_a_rate_everybody_asks() {
        let now = client::clock::now();
        let free = ProjectRates::new(None);
        assert!((0..100_000).all(|_| free.admits("a", now)));
    }

    #[test]
    fn those_that_have_rested_are_forgotten_and_those_that_have_not_are_kept() {
        let rates = rates(10, 1);
        let now = client::clock::now();
        for number in 1..PROJECTS_MAX {
            assert!(rates.admits(&number.to_string(), now));
        }
        assert!(rates.admits("busy", now + 100));
        assert!(rates.admits("one more", now + 100));
        assert!(!rates.admits("busy", now + 100));
        assert_eq!(rates.projects.lock().unwrap().len(), 2);
    }
}
