//! Rows as a space that can be explored.

use std::fmt;

use super::action::Action;
use super::law::{self, SIGHTS};
use super::world::{Scope, World};
use crate::search::{Sight, Space};

impl Space for Scope {
    type World = World;
    type Action = Action;
    const SIGHTS: &'static [Sight<Self>] = SIGHTS;

    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&self) -> World {
        World::begin(self)
    }

    fn candidates(&self, _world: &World, actions: &mut Vec<Action>) {
        Action::candidates(actions);
    }

    fn happen(&self, world: &World, action: Action) -> Option<World> {
        // What is lost already is not looked at any further.
        action.happen(self, world).filter(|_| !world.lost)
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        law::broken(self, world)
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
