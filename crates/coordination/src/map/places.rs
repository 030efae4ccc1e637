//! The disks that placement groups may be put on, as the map shows them.

use protocol::DiskId;

use super::ClusterMap;
use crate::placement::{Candidate, WHOLE};

impl ClusterMap {
    /// The disks that take placement groups: of those that a pool may use, if it names some, all that have a weight
    /// and are not being emptied.
    pub fn candidates(&self, only: Option<&[DiskId]>) -> Vec<Candidate> {
        let wanted = |id: &DiskId| only.is_none_or(|disks| disks.contains(id));
        let disks = self.disks().iter().filter(|(id, _)| wanted(id));
        let taking = disks.filter(|(_, disk)| disk.record.weight > 0 && !disk.record.draining);
        let candidate = |(id, disk): (&DiskId, &super::Versioned<crate::records::DiskRecord>)| {
            let node = disk.record.node;
            let known = self.nodes().get(&node);
            Candidate {
                disk: *id,
                weight: disk.record.weight,
                share: disk.record.share.unwrap_or(WHOLE),
                node: node.0,
                zone: known.map_or_else(String::new, |node| node.record.zone.clone()),
            }
        };
        taking.map(candidate).collect()
    }
}
