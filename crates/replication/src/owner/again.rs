//! Taking one's own volume again, after its generation ended while this process lived: a lease that lapsed because
//! `storaged` or the coordination store was away, or a disk that was fenced for a moment's take-over.
//!
//! The old generation ends as if its owner had died. What it sent is there or not, and equal on all copies after the
//! take-over (rule 7); then what was not answered is submitted as new writes, in its old order (as in Q3). That is
//! right only if nobody else wrote in between, which whoever reports [`Event::Again`] has made sure of: the transaction
//! that takes the volume is on the condition that nobody has had it open since.

use protocol::session::VolumeView;

use super::event::{Action, Event, Failure};
use super::lookup::Lookups;
use super::write::Writes;
use super::{Owner, Stage};
use crate::moment::Moment;

impl Owner {
    /// The generation is over. A reader of a sealed layer has none that could begin again, and who is about to close
    /// does not begin again either.
    pub(super) fn depose(&mut self, out: &mut Vec<Action>) {
        if self.view.generation.0 == 0 || self.stage == Stage::Closing {
            return self.lose(out);
        }
        self.stage = Stage::Deposed;
        self.quiescence = None;
        for disk in std::mem::take(&mut self.links).into_keys() {
            out.push(Action::Disconnect { disk });
        }
        out.push(Action::Deposed);
    }

    /// What happens while it is not known whether the volume can be taken again.
    pub(super) fn apply_deposed(&mut self, now: Moment, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Submit { id, operation } => self.submit(id, operation, out),
            Event::Again { leased, view } => self.open_again(now, leased, *view, out),
            Event::Lost => self.lose(out),
            Event::Close => {
                self.stage = Stage::Closed;
                self.operations.fail_all(Failure::Closed, out);
                out.push(Action::Closed);
            }
            // Of the generation that is over.
            Event::View(_)
            | Event::Connected { .. }
            | Event::Disconnected { .. }
            | Event::Response { .. }
            | Event::ReadDirectly { .. }
            | Event::Renewed { .. }
            | Event::Revoked
            | Event::Quiesce { .. }
            | Event::Tick => {}
        }
    }

    /// It must be the same volume, or one with the same head: this one may have begun to move to another pool meanwhile, and
    /// what this owner has is a volume of its own since.
    fn open_again(&mut self, now: Moment, leased: Moment, view: VolumeView, out: &mut Vec<Action>) {
        let same = view.volume == self.view.volume || view.head == self.view.head;
        let same = same && view.family == self.view.family;
        if !same || view.generation <= self.view.generation {
            return self.lose(out);
        }
        self.answer_overtaken(out);
        let before = self.view.size;
        let mut operations = std::mem::take(&mut self.operations);
        operations.begin_again(self.writes.unanswered());
        operations.refuse_beyond(view.size, out);
        self.writes = Writes::default();
        self.lookups = Lookups::default();
        let next_number = self.next_number;
        if before != view.size {
            out.push(Action::Resized(view.size));
        }
        let encoding = self.encoding.take();
        *self = Self::begin(now, leased, view, operations, next_number, encoding);
        self.writes.redoing = self.operations.begins_again();
        self.begun(now, out);
    }
}
