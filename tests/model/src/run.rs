//! Explores a scope with stateright, breadth first, and says what it found.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stateright::{Checker, Model, Property};

use crate::action::Action;
use crate::law::{self, SIGHTS};
use crate::scope::Scope;
use crate::state::World;
use crate::{group, symmetry};

/// The one property: no law is broken.
const LAWS: &str = "no law is broken";

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
pub struct Report {
    /// Which scope.
    pub scope: Scope,
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
    pub violation: Option<Violation>,
    /// What came about, of what must somewhere.
    pub seen: BTreeSet<&'static str>,
}

/// The shortest way to a world that must not be.
#[derive(Debug)]
pub struct Violation {
    /// The law.
    pub law: &'static str,
    /// What happened, and the world after each.
    pub steps: Vec<(Option<Action>, World)>,
}

struct Explored {
    scope: Scope,
    /// What has come about: a bit for each of [`SIGHTS`].
    seen: AtomicU32,
}

impl Model for Explored {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = self.scope.begin();
        self.settle(&mut world);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        Action::candidates(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = action.happen(&self.scope, world)?;
        self.settle(&mut next);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(LAWS, |model: &Self, world| {
            model.look(world);
            law::broken(&model.scope, world).is_none()
        })]
    }
}

impl Explored {
    fn settle(&self, world: &mut World) {
        group::tidy(&self.scope, world);
        symmetry::order(world);
    }

    /// Notes what has come about.
    fn look(&self, world: &World) {
        let seen = self.seen.load(Ordering::Relaxed);
        for (number, sight) in SIGHTS.iter().enumerate() {
            let bit = 1 << number;
            if seen & bit == 0 && (sight.seen)(&self.scope, world) {
                self.seen.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }
}

/// Explores a scope.
pub fn explore(scope: Scope, bounds: Bounds) -> Report {
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
    let path = checker.discovery(LAWS);
    let violation = path.map(|path| {
        let mut steps = Vec::new();
        let mut action = None;
        for (world, next) in path.into_vec() {
            steps.push((action, world));
            action = next;
        }
        let last = steps.last().map(|(_, world)| *world);
        let law = last.and_then(|world| law::broken(&scope, &world)).unwrap_or(LAWS);
        Violation { law, steps }
    });
    let within = |used: usize, bound: Option<usize>| bound.is_none_or(|bound| used < bound);
    let whole = violation.is_none() && within(checker.state_count(), bounds.transitions);
    let seen = checker.model().seen.load(Ordering::Relaxed);
    let seen = SIGHTS
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

impl Report {
    /// What should have come about and did not.
    pub fn unseen(&self) -> Vec<&'static str> {
        let due = SIGHTS.iter().filter(|sight| (sight.expected)(&self.scope));
        due.map(|sight| sight.name)
            .filter(|name| !self.seen.contains(name))
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} states, {} transitions, depth {}, {:.1} s, {}",
            self.scope.name,
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

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, after {} steps:",
            self.law,
            self.steps.len().saturating_sub(1)
        )?;
        for (action, world) in &self.steps {
            if let Some(action) = action {
                writeln!(f, "  {action:?}")?;
            }
            write!(f, "{world}")?;
        }
        Ok(())
    }
}
