//! The model of copies as a space that can be explored.

use crate::action::Action;
use crate::law::{self, SIGHTS};
use crate::scope::Scope;
use crate::search::{Sight, Space};
use crate::state::World;
use crate::{group, symmetry};

impl Space for Scope {
    type World = World;
    type Action = Action;
    const SIGHTS: &'static [Sight<Self>] = SIGHTS;

    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&self) -> World {
        settled(self, self.first())
    }

    fn candidates(&self, world: &World, actions: &mut Vec<Action>) {
        Action::candidates(world, actions);
    }

    fn happen(&self, world: &World, action: Action) -> Option<World> {
        action.happen(self, world).map(|next| settled(self, next))
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        law::broken(self, world)
    }
}

/// The same world, as all that are like it are written.
fn settled(scope: &Scope, mut world: World) -> World {
    group::tidy(scope, &mut world);
    symmetry::order(&mut world);
    world
}
