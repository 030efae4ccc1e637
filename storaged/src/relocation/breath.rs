//! Lets moving groups pause for a while when space waits to be given back: none is while a disk comes to a group
//! (`docs/decisions/0033-coming-back.md`), and moving all data may take a day.

use std::time::Duration;

use coordination::ClusterMap;
use protocol::session::SlotState;
use tokio::time::Instant;

/// For so long groups move, however much space waits.
const MOVES_FOR: Duration = Duration::from_mins(2);
/// For so long at most is waited until it is given back.
const PAUSES_FOR: Duration = Duration::from_mins(1);

/// Whether moves may begin.
#[derive(Debug, Default)]
pub(super) struct Breath {
    /// Since when groups move without a pause.
    moving_since: Option<Instant>,
    /// Since when nobody comes any more and space is given back.
    resting_since: Option<Instant>,
}

impl Breath {
    /// Looks at the map of this moment.
    pub(super) fn may_begin(&mut self, map: &ClusterMap, now: Instant) -> bool {
        let since = *self.moving_since.get_or_insert(now);
        if now - since < MOVES_FOR {
            return true;
        }
        let waits = map.families().any(|(_, family)| !family.reclaimable().is_empty());
        if !waits {
            *self = Self::default();
            return true;
        }
        let groups = map.pools().flat_map(|(pool, _)| map.groups(pool));
        let comes = |state: SlotState| state.comes_back();
        if groups
            .flat_map(|group| &group.slots)
            .any(|slot| comes(slot.state))
        {
            self.resting_since = None;
            return false; // Those that have begun come to their end.
        }
        let rests = *self.resting_since.get_or_insert(now);
        if now - rests < PAUSES_FOR {
            return false;
        }
        *self = Self::default();
        true
    }
}

#[cfg(test)]
mod tests {
    //! Without anything to give back there is no pause.
    use super::*;
    use crate::membership::fixture;

    #[test]
    fn groups_move_on_while_no_space_waits_and_pause_while_it_does() {
        let (mut breath, began) = (Breath::default(), Instant::now());
        let idle = fixture::map(2, 2);
        assert!(breath.may_begin(&idle, began));
        assert!(breath.may_begin(&idle, began + MOVES_FOR));
        let waiting = fixture::map_with_waste();
        assert!(breath.may_begin(&waiting, began + MOVES_FOR));
        let due = began + MOVES_FOR * 2;
        assert!(!breath.may_begin(&waiting, due));
        assert!(!breath.may_begin(&waiting, due + PAUSES_FOR / 2));
        assert!(breath.may_begin(&waiting, due + PAUSES_FOR));
    }
}
