//! Records about who has a volume open, besides the owner's own: who had it last, and who shares it.

use protocol::{Generation, NodeId};
use serde::{Deserialize, Serialize};

use crate::Revision;

/// A front end that shares a volume with others. Its key goes away with its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedRecord {
    /// The node whose `storaged` keeps the lease.
    pub node: NodeId,
    /// What kind of front end, for people.
    pub program: String,
    /// Its process on that node.
    pub pid: u32,
    /// Where others reach it when it owns the volume, best first.
    pub addresses: Vec<String>,
    /// When it came, in milliseconds since 1970.
    pub attached_ms: u64,
}

/// Who opened a volume last. Stays when the volume is closed: whoever had it before that, and stood still for longer
/// than its lease, finds out here whether it may go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastOwnerRecord {
    /// Who, for people: `nbd (process 12 on node-3)`.
    pub by: String,
    /// Whether it shared the volume: others may still have it open then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Whether it gave the volume back, or is known to be dead: it does not come again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// When, in milliseconds since 1970.
    pub opened_ms: u64,
    /// Its generation, if this was written again since. Otherwise that is the revision that wrote it:
    /// [`LastOwnerRecord::generation_at`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The generation that it had before, if it went on with that. A front end that never heard that it has the volume again
    /// still asks for it with this one, and nothing was done with the new one then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub went_on_from: Option<Generation>,
}

impl LastOwnerRecord {
    /// The generation that the volume was owned with, by a record that was written with this revision.
    pub fn generation_at(&self, written: Revision) -> Generation {
        self.generation.unwrap_or(Generation(written.0))
    }

    /// Whether nobody has owned the volume since somebody did with this generation, by a record that was written with this
    /// revision.
    pub fn is_of(&self, generation: Generation, written: Revision) -> bool {
        self.generation_at(written) == generation || self.went_on_from == Some(generation)
    }
}
