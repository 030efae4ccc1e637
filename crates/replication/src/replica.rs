//! The replica on one disk: judges every request by generation, interval and layer tree, keeps the
//! list of objects in doubt, and asks the store for the rest.
//!
//! Pure: requests, the store's answers and map changes arrive as [`Event`]s, and what must be done
//! leaves as [`Action`]s. It knows neither sockets nor files, and no clock at all.

mod event;

pub use event::{Action, ConnectionId, Event, Map, Remembered};

use protocol::DiskId;

/// The replica state machine of one disk.
pub struct Replica {
    disk: DiskId,
    map: Map,
}

impl Replica {
    /// The replica on `disk`, with what its store remembers and the map as it is now.
    pub fn new(disk: DiskId, remembered: Remembered, map: Map) -> Self {
        let _ = remembered;
        Self { disk, map }
    }

    /// Takes in one event and appends what must be done for it to `out`, in order.
    pub fn apply(&mut self, event: Event, out: &mut Vec<Action>) {
        let _ = (event, out, &self.map);
    }

    /// The disk that this replica is on.
    pub fn disk(&self) -> DiskId {
        self.disk
    }
}
