//! Explores a scope of the model of copies, breadth first, and says what it found.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use stateright::{Model, Property};

use crate::action::Action;
use crate::law::{self, SIGHTS};
use crate::scope::Scope;
use crate::search::{Bounds, Figures, LAWS, Seen, Violation, search};
use crate::state::World;
use crate::{group, symmetry};

/// What an exploration found.
#[derive(Debug)]
pub struct Report {
    /// Which scope.
    pub scope: Scope,
    /// How much there was.
    pub figures: Figures,
    /// The steps to the first world in which a law is broken, and the law.
    pub violation: Option<Violation<Action, World>>,
    /// What came about, of what must somewhere.
    pub seen: BTreeSet<&'static str>,
}

struct Explored {
    scope: Scope,
    /// What has come about, of [`SIGHTS`].
    seen: Arc<Seen>,
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
            let sights = SIGHTS.iter();
            model
                .seen
                .look(sights.map(|sight| || (sight.seen)(&model.scope, world)));
            law::broken(&model.scope, world).is_none()
        })]
    }
}

impl Explored {
    fn settle(&self, world: &mut World) {
        group::tidy(&self.scope, world);
        symmetry::order(world);
    }
}

/// Explores a scope.
pub fn explore(scope: Scope, bounds: Bounds) -> Report {
    let seen = Arc::new(Seen::default());
    let model = Explored {
        scope,
        seen: Arc::clone(&seen),
    };
    let (figures, violation) = search(model, bounds, |world| law::broken(&scope, world));
    let sights = SIGHTS.iter().map(|sight| sight.name);
    Report {
        scope,
        figures,
        violation,
        seen: seen.of(sights).collect(),
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
        write!(f, "{}: {}", self.scope.name, self.figures)
    }
}
