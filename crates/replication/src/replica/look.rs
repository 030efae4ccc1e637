//! Requests that look at an object through layers: which layers these are, and that they stay meanwhile. What there is to
//! be seen is the store's business.

use protocol::message::{Refusal, Response, Scope};
use protocol::storage::{StorageError, StorageReply, StorageRequest};
use protocol::{BlockRanges, FamilyId, LayerChain, LayerId};

use super::event::Action;
use super::flight::Asker;
use super::{Asked, Replica, request};

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
