//! Front ends whose generation ended while they live: they ask for their volume again, and go on with what was not
//! answered if nobody has had it open since.

use coordination::store::LeaseId;
use protocol::session::VolumeView;
use replication::Moment;
use replication::owner::Event;

use crate::cluster::{LEASE_MS, NODE};
use crate::world::{Happening, Life, World};

impl World {
    /// An owner's generation is over.
    pub(crate) fn deposed(&mut self, life: Life) {
        self.note(format_args!("front {} is deposed", life.front));
        let Some(front) = self.front_mut(life) else { return };
        front.deposed = true;
        let delay = self.delay(100_000);
        self.schedule.after(delay, Happening::Open { front: life.front });
    }

    /// It asks for its volume again.
    pub(crate) fn take_again(&mut self, index: usize) {
        let now = self.schedule.now;
        let front = &mut self.fronts[index];
        if front.is_stopped() {
            self.schedule.after(50_000, Happening::Open { front: index });
            return;
        }
        if !front.is_alive() {
            return;
        }
        let (volume, life, before) = (front.volume, front.life(index), front.generation());
        // The lease may not have lapsed: then it is given back first.
        let held = self.cluster.map.generation(volume) == Some(before);
        if let Some(lease) = self.fronts[index].lease.take_if(|_| held) {
            self.cluster.revoke(lease);
            self.map_changed();
        }
        if self.ending.closing || !self.cluster.was_last(volume, before) {
            self.fronts[index].deposed = false;
            return self.feed(life, Event::Lost);
        }
        let granted = self.cluster.acquire(now, volume).and_then(|(lease, generation)| {
            let view = self.cluster.map.volume_view(volume, NODE, generation, LEASE_MS)?;
            Some((view, lease))
        });
        let Some((view, lease)) = granted else {
            self.schedule.after(50_000, Happening::Open { front: index });
            return;
        };
        self.forget_guard(volume, life);
        self.note(format_args!(
            "front {index} is granted {volume} again, {}",
            view.generation
        ));
        self.meet("owner took its volume again");
        self.map_changed();
        let delay = self.delay(20_000);
        let granted = Happening::Granted {
            life,
            sent: now.moment(),
            view: Box::new(view),
            lease: Some(lease),
        };
        let at = self.session(life, delay);
        self.schedule.at(at, granted);
    }

    /// It has its volume again.
    pub(crate) fn granted_again(
        &mut self,
        life: Life,
        sent: Moment,
        view: VolumeView,
        lease: Option<LeaseId>,
    ) {
        self.carry_over(life, view.generation);
        let Some(front) = self.front_mut(life) else { return };
        front.deposed = false;
        front.lease = lease;
        front.renewed = sent;
        front.robbed = false;
        let view = Box::new(view);
        self.feed(life, Event::Again { leased: sent, view });
        self.push_view(life);
    }
}
