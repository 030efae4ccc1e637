//! The owner of a volume: orders its writes, sends each to every replica, answers the device layer.
//!
//! Pure: operations, answers, connections and time arrive as [`Event`]s, and what must be done
//! leaves as [`Action`]s. It knows neither sockets nor how a disk stores a byte.

mod event;

pub use event::{Action, Event, Failure, IoId, Operation, Outcome};

use protocol::session::VolumeView;

use crate::moment::Moment;

/// One open volume.
#[derive(Debug)]
pub struct Owner {
    view: VolumeView,
}

impl Owner {
    /// An owner of the volume that `view` describes, whose key was taken by a request that was sent
    /// at `leased`. Asks for connections at once, and takes the volume over as they come up.
    /// With generation 0 it is a reader of a sealed layer, who fences and leases nothing.
    pub fn open(now: Moment, leased: Moment, view: VolumeView, out: &mut Vec<Action>) -> Self {
        let _ = (now, leased);
        out.extend(view.disks.iter().cloned().map(Action::Connect));
        Self { view }
    }

    /// Takes in one event and appends what must be done for it to `out`, in order.
    pub fn apply(&mut self, now: Moment, event: Event, out: &mut Vec<Action>) {
        let _ = (now, event, out);
    }

    /// When [`Event::Tick`] is wanted at the latest, if nothing else happens before.
    pub fn deadline(&self) -> Option<Moment> {
        None
    }

    /// The view that the owner goes by.
    pub fn view(&self) -> &VolumeView {
        &self.view
    }

    /// What operations wait for, in sentences, for people: empty when nothing waits.
    pub fn waiting(&self, now: Moment) -> Vec<String> {
        let _ = now;
        Vec::new()
    }
}
