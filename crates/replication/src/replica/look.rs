//! Requests that look at an object through layers: which layers these are, that they stay meanwhile, and that what counts
//! as done is durable. What there is to be seen is the store's business.

use protocol::message::{Refusal, Request, Response, Scope};
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{BlockRanges, FamilyId, LayerChain, LayerId, ObjectId, Stamp};

use super::event::Action;
use super::flight::Asker;
use super::{Asked, Replica, Wait, request};

impl Replica {
    /// Reads of an object through the layers from one down.
    pub(super) fn read(
        &mut self,
        asker: Asker,
        scope: &Scope,
        (family, layer, index): (FamilyId, LayerId, u32),
        ranges: BlockRanges,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let read = |chain| StorageRequest::Read {
            chain,
            family,
            index,
            ranges,
        };
        self.look(asker, scope, (family, layer, index), read, out)
    }

    /// Looks at an object through the layers from one down. That layer stays until the answer is there.
    pub(super) fn look(
        &mut self,
        asker: Asker,
        scope: &Scope,
        (family, layer, index): (FamilyId, LayerId, u32),
        request: impl FnOnce(LayerChain) -> StorageRequest,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let chain = self.chain(scope, family, layer, index)?;
        self.reclaims.read_begins((family, layer), scope.pg);
        let asked = Asked::Read(asker, (family, layer), scope.pg);
        self.ask(asked, request(chain), out);
        Ok(())
    }

    /// The layers that a request may look through.
    pub(super) fn chain(
        &self,
        scope: &Scope,
        family: FamilyId,
        layer: LayerId,
        index: u32,
    ) -> Result<LayerChain, Refusal> {
        self.bench().readable(scope, family, layer)?;
        if self.map.placement(family, index) != Some(scope.pg) {
            return Err(Refusal::Invalid);
        }
        self.map.chain(family, layer).ok_or(Refusal::Invalid)
    }

    /// Rule 7 c. What is told of an object that is written to counts as done: a change that is on its way to the disk is
    /// shown by the store already, and a crash could still take it away. So it is waited for, whoever's it is: an owner
    /// whose connection broke does not know what became of its own.
    pub(super) fn pull(
        &mut self,
        asker: Asker,
        scope: Scope,
        object: ObjectId,
        above: Stamp,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.bench().writable(&scope, object)?;
        if self.flight.concerns(object) {
            let pull = Request::Pull { scope, object, above };
            self.park(asker, pull, Wait::Drain);
        } else {
            self.ask(Asked::Answer(asker), StorageRequest::Pull { object, above }, out);
        }
        Ok(())
    }

    /// As a pull.
    pub(super) fn look_at_column(
        &mut self,
        asker: Asker,
        scope: Scope,
        object: ObjectId,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let ObjectId { family, index, layer } = object;
        let chain = self.chain(&scope, family, layer, index)?;
        if self.flight.concerns(object) {
            let column = Request::Column {
                scope,
                family,
                layer,
                index,
            };
            self.park(asker, column, Wait::Drain);
        } else {
            self.ask(
                Asked::Column(asker, chain),
                StorageRequest::Column { family, index },
                out,
            );
        }
        Ok(())
    }

    /// What the store has of an object, of the layers that were asked about.
    pub(super) fn column(
        &mut self,
        asker: Asker,
        chain: &LayerChain,
        result: Result<StorageReply, StorageError>,
        out: &mut Vec<Action>,
    ) {
        let response = match result {
            Ok(StorageReply::Listed { mut objects, .. }) => {
                objects.retain(|state| chain.depth_of(state.object.layer).is_some());
                let response = Response::Column { objects };
                if response.fits() {
                    response
                } else {
                    Response::Refused(Refusal::Invalid)
                }
            }
            other => request::response(other),
        };
        self.answer(asker, response, out);
    }
}
