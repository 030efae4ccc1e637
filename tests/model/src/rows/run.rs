//! Explores a scope of rows, and says what it found.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use stateright::{Model, Property};

use super::action::Action;
use super::law::{self, SIGHTS};
use super::world::{Scope, World};
use crate::search::{Bounds, Figures, LAWS, Seen, Violation, search};

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
    seen: Arc<Seen>,
}

impl Model for Explored {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::begin(&self.scope)]
    }

    fn actions(&self, _world: &World, actions: &mut Vec<Action>) {
        Action::candidates(actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        // What is lost already is not looked at any further.
        let next = action.happen(&self.scope, world).filter(|_| !world.lost)?;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(LAWS, |model: &Self, world| {
            let sights = SIGHTS.iter();
            model.seen.look(sights.map(|sight| || (sight.seen)(world)));
            law::broken(&model.scope, world).is_none()
        })]
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
    Report {
        scope,
        figures,
        violation,
        seen: seen.of(SIGHTS.iter().map(|sight| sight.name)).collect(),
    }
}

impl Report {
    /// What should have come about and did not.
    pub fn unseen(&self) -> Vec<&'static str> {
        let names = SIGHTS.iter().map(|sight| sight.name);
        names.filter(|name| !self.seen.contains(name)).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.scope.name, self.figures)
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "    owner {}: {:?}, knows {:?}",
            self.owner, self.phase, self.known
        )?;
        for (number, disk) in self.disks.iter().enumerate() {
            let away = if self.in_sync & 1 << number == 0 {
                ", away"
            } else {
                ""
            };
            writeln!(f, "    disk {number}{away}: {disk:?}")?;
        }
        writeln!(f, "    must {:?}, dead {:?}", self.must, self.dead)
    }
}
