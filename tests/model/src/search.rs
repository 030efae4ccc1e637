//! Explores a space with stateright, breadth first, and says what it found. Which worlds it has, and what its laws are,
//! is not known here.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stateright::{Checker, Model, Property};

/// The one property: no law is broken.
const LAWS: &str = "no law is broken";

/// A bounded world, in which every order of everything is tried.
pub trait Space: Copy + fmt::Debug + Send + Sync + 'static {
    /// One instant of it.
    type World: Copy + fmt::Debug + fmt::Display + Hash + PartialEq + Send + Sync + 'static;
    /// What can happen in it.
    type Action: Copy + fmt::Debug + PartialEq + Send + Sync + 'static;
    /// What must come about somewhere, at most 32.
    const SIGHTS: &'static [Sight<Self>];

    /// Its name.
    fn name(&self) -> &'static str;

    /// The first instant.
    fn begin(&self) -> Self::World;

    /// All that might happen then.
    fn candidates(&self, world: &Self::World, actions: &mut Vec<Self::Action>);

    /// The world after it; nothing if it cannot happen.
    fn happen(&self, world: &Self::World, action: Self::Action) -> Option<Self::World>;

    /// The first law that a world breaks, in words.
    fn broken(&self, world: &Self::World) -> Option<&'static str>;
}

/// Something that must come about somewhere in each space that has it: a model in which nothing happens shows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Sight<S: Space> {
    /// In words.
    pub name: &'static str,
    /// Whether it can come about in a space at all.
    pub expected: fn(&S) -> bool,
    /// Whether it has come about in a world.
    pub seen: fn(&S, &S::World) -> bool,
}

/// How far to explore.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Threads.
    pub threads: usize,
    /// No further than so many transitions. There is no bound of time: stateright 0.30 holds a lock while it waits for
    /// one, which makes it a hundred times slower.
    pub transitions: Option<usize>,
}

/// What an exploration found.
#[derive(Debug)]
pub struct Report<S: Space> {
    /// Which space.
    pub scope: S,
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
    /// The steps to the first world in which a law is broken, and the law.
    pub violation: Option<Violation<S>>,
    /// What came about, of what must somewhere.
    pub seen: BTreeSet<&'static str>,
}

/// The shortest way to a world that must not be.
#[derive(Debug)]
pub struct Violation<S: Space> {
    /// The law.
    pub law: &'static str,
    /// What happened, and the world after each.
    pub steps: Vec<(Option<S::Action>, S::World)>,
}

struct Explored<S> {
    scope: S,
    /// What has come about: a bit for each of [`Space::SIGHTS`].
    seen: AtomicU32,
}

impl<S: Space> Model for Explored<S> {
    type State = S::World;
    type Action = S::Action;

    fn init_states(&self) -> Vec<S::World> {
        vec![self.scope.begin()]
    }

    fn actions(&self, world: &S::World, actions: &mut Vec<S::Action>) {
        self.scope.candidates(world, actions);
    }

    fn next_state(&self, world: &S::World, action: S::Action) -> Option<S::World> {
        let next = self.scope.happen(world, action)?;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(LAWS, |model: &Self, world| {
            model.look(world);
            model.scope.broken(world).is_none()
        })]
    }
}

impl<S: Space> Explored<S> {
    /// Notes what has come about.
    fn look(&self, world: &S::World) {
        let seen = self.seen.load(Ordering::Relaxed);
        for (number, sight) in S::SIGHTS.iter().enumerate() {
            let bit = 1 << number;
            if seen & bit == 0 && (sight.seen)(&self.scope, world) {
                self.seen.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }
}

/// Explores a space.
pub fn explore<S: Space>(scope: S, bounds: Bounds) -> Report<S> {
    let begun = Instant::now();
    let model = Explored {
        scope,
        seen: AtomicU32::new(0),
    };
    let mut builder = model.checker().threads(bounds.threads);
    if let Some(transitions) = bounds.transitions {
        builder = builder.target_state_count(transitions);
    }
    let checker = builder.spawn_bfs().join();
    let took = begun.elapsed();
    let violation = checker.discovery(LAWS).map(|path| {
        let mut steps = Vec::new();
        let mut action = None;
        for (world, next) in path.into_vec() {
            steps.push((action, world));
            action = next;
        }
        let last = steps.last().map(|(_, world)| *world);
        let law = last.and_then(|world| scope.broken(&world)).unwrap_or(LAWS);
        Violation { law, steps }
    });
    let within = |used: usize, bound: Option<usize>| bound.is_none_or(|bound| used < bound);
    let whole = violation.is_none() && within(checker.state_count(), bounds.transitions);
    let seen = checker.model().seen.load(Ordering::Relaxed);
    let seen = S::SIGHTS
        .iter()
        .enumerate()
        .filter(|(number, _)| seen & 1 << number != 0);
    let seen = seen.map(|(_, sight)| sight.name).collect();
    Report {
        scope,
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        took,
        whole,
        violation,
        seen,
    }
}

impl<S: Space> Report<S> {
    /// What should have come about and did not.
    pub fn unseen(&self) -> Vec<&'static str> {
        let due = S::SIGHTS.iter().filter(|sight| (sight.expected)(&self.scope));
        due.map(|sight| sight.name)
            .filter(|name| !self.seen.contains(name))
            .collect()
    }
}

impl<S: Space> fmt::Display for Report<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} states, {} transitions, depth {}, {:.1} s, {}",
            self.scope.name(),
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

impl<S: Space> fmt::Display for Violation<S> {
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
