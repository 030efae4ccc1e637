//! Explores a model with stateright, breadth first. Which model, and what its laws are, is not known here.

use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

/// The one property: no law is broken.
pub const LAWS: &str = "no law is broken";

/// How far to explore.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Threads.
    pub threads: usize,
    /// No further than so many transitions. There is no bound of time: stateright 0.30 holds a lock while it waits for
    /// one, which makes it a hundred times slower.
    pub transitions: Option<usize>,
}

/// How much was explored.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Worlds that are not the same.
    pub states: usize,
    /// Transitions between them.
    pub transitions: usize,
    /// Steps to the farthest.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether that is all of the space.
    pub whole: bool,
}

/// The shortest way to a world that must not be.
#[derive(Debug)]
pub struct Violation<A, W> {
    /// The law.
    pub law: &'static str,
    /// What happened, and the world after each.
    pub steps: Vec<(Option<A>, W)>,
}

/// What has come about, of what must somewhere: a bit for each.
#[derive(Debug, Default)]
pub struct Seen(AtomicU32);

impl Seen {
    /// Notes what a world shows. At most 32 things are looked for.
    pub fn look<F: FnOnce() -> bool>(&self, sights: impl Iterator<Item = F>) {
        let seen = self.0.load(Ordering::Relaxed);
        for (number, shows) in sights.enumerate() {
            let bit = 1 << number;
            if seen & bit == 0 && shows() {
                self.0.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Those of these names that have come about.
    pub fn of<T>(&self, names: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        let seen = self.0.load(Ordering::Relaxed);
        let named = names.enumerate();
        named
            .filter(move |(number, _)| seen & 1 << number != 0)
            .map(|(_, name)| name)
    }
}

/// The way of a model.
type WayOf<M> = Violation<<M as Model>::Action, <M as Model>::State>;

/// Explores a model that has [`LAWS`] as its property; `broken` tells which law a world breaks.
pub fn search<M>(
    model: M,
    bounds: Bounds,
    broken: impl Fn(&M::State) -> Option<&'static str>,
) -> (Figures, Option<WayOf<M>>)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + fmt::Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + fmt::Debug + PartialEq + Send + Sync + 'static,
{
    let begun = Instant::now();
    let mut builder = model.checker().threads(bounds.threads);
    if let Some(transitions) = bounds.transitions {
        builder = builder.target_state_count(transitions);
    }
    let checker = builder.spawn_bfs().join();
    let violation = checker.discovery(LAWS).map(|path| {
        let mut steps = Vec::new();
        let mut action = None;
        for (world, next) in path.into_vec() {
            steps.push((action, world));
            action = next;
        }
        let law = steps.last().and_then(|(_, world)| broken(world)).unwrap_or(LAWS);
        Violation { law, steps }
    });
    let within = |used: usize, bound: Option<usize>| bound.is_none_or(|bound| used < bound);
    let figures = Figures {
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        whole: violation.is_none() && within(checker.state_count(), bounds.transitions),
    };
    (figures, violation)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states, {} transitions, depth {}, {:.1} s, {}",
            self.states,
            self.transitions,
            self.depth,
            self.took.as_secs_f64(),
            if self.whole {
                "the whole space"
            } else {
                "not the whole space"
            }
        )
    }
}

impl<A: fmt::Debug, W: fmt::Display> fmt::Display for Violation<A, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps.len().saturating_sub(1);
        writeln!(f, "{}, after {steps} steps:", self.law)?;
        for (action, world) in &self.steps {
            if let Some(action) = action {
                writeln!(f, "  {action:?}")?;
            }
            write!(f, "{world}")?;
        }
        Ok(())
    }
}
