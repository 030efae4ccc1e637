//! Tokens that Keystone has vouched for lately, and those that it has not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::token::Token;

/// Tokens that are remembered. Beyond that the oldest half is forgotten: they are asked for again.
const TOKENS_MAX: usize = 20_000;

/// Remembers for a while. The tokens themselves are the keys: whoever can read this memory has them anyway.
#[derive(Debug)]
pub(super) struct Cache {
    time: Duration,
    entries: Mutex<HashMap<Arc<str>, Entry>>,
}

/// What Keystone has said of a token.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// It vouches for it.
    Good(Arc<Token>),
    /// It does not know it.
    Bad,
}

#[derive(Clone, Debug)]
struct Entry {
    known: Known,
    learned: Instant,
}

impl Cache {
    /// One that remembers for so long; with no time, nothing.
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            entries: Mutex::default(),
        }
    }

    /// What was learned of a token, if that is not too long ago. A token that has ended since is for the caller to find.
    pub(super) fn get(&self, text: &str) -> Option<Known> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(text)?;
        (entry.learned.elapsed() < self.time).then(|| entry.known.clone())
    }

    /// Remembers what was learned.
    pub(super) fn put(&self, text: &str, known: Known) {
        if self.time.is_zero() {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= TOKENS_MAX {
            let mut ages: Vec<Instant> = entries.values().map(|entry| entry.learned).collect();
            ages.sort_unstable();
            let median = ages.get(ages.len() / 2).copied();
            entries.retain(|_, entry| Some(entry.learned) > median);
        }
        let learned = Instant::now();
        entries.insert(text.into(), Entry { known, learned });
    }
}

#[cfg(test)]
mod tests {
    //! What is remembered is found, and there is an end to how much that is.
    use super::*;

    #[test]
    fn unknown_tokens_are_remembered_as_such_and_room_is_made_for_new_ones() {
        let cache = Cache::new(Duration::from_mins(1));
        assert!(cache.get("a").is_none());
        cache.put("a", Known::Bad);
        assert!(matches!(cache.get("a"), Some(Known::Bad)));
        for number in 0..2 * TOKENS_MAX {
            cache.put(&number.to_string(), Known::Bad);
        }
        assert!(cache.entries.lock().unwrap().len() <= TOKENS_MAX);
        assert!(cache.get(&(2 * TOKENS_MAX - 1).to_string()).is_some());
    }

    #[test]
    fn without_time_nothing_is_remembered() {
        let cache = Cache::new(Duration::ZERO);
        cache.put("a", Known::Bad);
        assert!(cache.get("a").is_none());
    }
}
