//! Where the disks of a node listen: on a unix socket for its own front ends, and on a TCP port for those of
//! other nodes. A port stays a disk's for good once it has it, so that firewalls can be told of it.

use std::collections::BTreeSet;

use client::transport::{Address, Role};
use coordination::keys::Key;
use coordination::records::{DiskRecord, encode};
use coordination::{ClusterMap, Compare, Transaction};
use protocol::DiskId;

use super::Place;
use crate::volumes::{Decision, OperationError, Plan};

impl Place {
    /// Where a disk is to listen, best first.
    pub(super) fn addresses(&self, id: DiskId, map: &ClusterMap) -> Vec<String> {
        let socket = Address::Unix(self.sockets.join(format!("{}.sock", id.0)));
        let mut addresses = vec![socket.to_string()];
        if let Some(listen) = &self.listen {
            let port = match listen.port {
                0 => Some(0),
                base => self.port_of(id, map, base),
            };
            addresses.extend(port.map(|port| self.reached_at(&listen.host, &port.to_string())));
        }
        addresses
    }

    fn reached_at(&self, host: &str, port: &str) -> String {
        if self.credentials.is_none() {
            return format!("tcp:{host}:{port}");
        }
        format!("tls:{}@{host}:{port}", Role::Node(self.node.0).name())
    }

    /// The port that a disk has by its record, or the first after `base` that no other disk of the node has;
    /// nothing if all are taken.
    fn port_of(&self, id: DiskId, map: &ClusterMap, base: u16) -> Option<u16> {
        let ports_of = |record: &DiskRecord| record.addresses.iter().find_map(|text| port(text));
        let mut taken = BTreeSet::new();
        for (other, disk) in map.disks_on(self.node) {
            match ports_of(&disk.record) {
                Some(port) if other == id && port > base => return Some(port),
                Some(port) if other != id => {
                    taken.insert(port);
                }
                _ => {}
            }
        }
        (base.checked_add(1)?..=u16::MAX).find(|port| !taken.contains(port))
    }

    /// Where others are told to look for a disk that listens at these addresses: by the name of the host that
    /// they can reach, not by what it was resolved to.
    pub(super) fn announced(&self, listens: &[Address]) -> Vec<String> {
        let told = listens.iter().map(|address| match (address, &self.listen) {
            (Address::Tcp(at) | Address::Tls { host: at, .. }, Some(listen)) => {
                let port = at.rsplit_once(':').map_or("", |(_, port)| port);
                self.reached_at(&listen.advertised, port)
            }
            _ => address.to_string(),
        });
        told.collect()
    }
}

fn port(address: &str) -> Option<u16> {
    match address.parse().ok()? {
        Address::Unix(_) => None,
        Address::Tcp(at) | Address::Tls { host: at, .. } => at.rsplit_once(':')?.1.parse().ok(),
    }
}

/// As addresses that can be listened at.
pub(super) fn parsed(addresses: &[String]) -> Vec<Address> {
    addresses
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect()
}

/// Writes into a disk's record where it listens, if that is news.
pub(super) fn plan_move(
    map: &ClusterMap,
    id: DiskId,
    addresses: &[String],
) -> Result<Decision<()>, OperationError> {
    let Some(disk) = map.disks().get(&id) else {
        return Err(OperationError::NotFound(format!("there is no disk {}", id.0)));
    };
    if disk.record.addresses == addresses {
        return Ok(Decision::Unchanged(()));
    }
    let key = Key::Disk(id).to_text();
    let record = DiskRecord {
        addresses: addresses.to_vec(),
        ..disk.record.clone()
    };
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), disk.modified))
        .put(key, encode(&record)?);
    Ok(Plan::decide_quietly(transaction, ()))
}

#[cfg(test)]
mod tests {
    //! A port is one disk's, and stays it.
    use std::sync::Arc;

    use coordination::store::Entry;
    use coordination::{Revision, map::ClusterMap, store::Range};
    use protocol::NodeId;

    use super::*;
    use crate::config::Listen;

    fn place(port: u16) -> Place {
        Place {
            slow: Arc::default(),
            node: NodeId(1),
            cluster: [0; 16],
            sockets: "/w/disks".into(),
            memory_per_disk: 0,
            log_bytes: 0,
            direct_reads: false,
            listen: Some(Listen {
                host: "a".to_owned(),
                advertised: "a".to_owned(),
                port,
                plaintext: true,
            }),
            credentials: None,
            wishes: None,
            recovery_rate: 0,
            scrub_rate: 0,
        }
    }

    fn map(disks: &[(u32, u32, &str)]) -> ClusterMap {
        let entry = |(id, node, address): &(u32, u32, &str)| {
            let record = DiskRecord {
                node: NodeId(*node),
                path: String::new(),
                weight: 1,
                share: None,
                draining: false,
                addresses: vec!["unix:/x".to_owned(), (*address).to_owned()],
                capacity: None,
                created_ms: 0,
                newer: coordination::records::NewerFields::default(),
            };
            Entry {
                key: Key::Disk(DiskId(*id)).to_text(),
                value: encode(&record).unwrap(),
                created: Revision(1),
                modified: Revision(1),
                lease: None,
            }
        };
        ClusterMap::build(&Range {
            entries: disks.iter().map(entry).collect(),
            revision: Revision(1),
        })
        .unwrap()
    }

    #[test]
    fn a_disk_keeps_its_port_and_a_new_one_gets_the_first_that_is_free() {
        let map = map(&[(1, 1, "tcp:a:102"), (2, 1, "tcp:a:101"), (3, 2, "tcp:b:103")]);
        let at = |id| place(100).addresses(DiskId(id), &map);
        assert_eq!(at(1), ["unix:/w/disks/1.sock", "tcp:a:102"]);
        assert_eq!(at(2)[1], "tcp:a:101");
        assert_eq!(at(9)[1], "tcp:a:103");
        assert_eq!(place(0).addresses(DiskId(1), &map)[1], "tcp:a:0");
        assert_eq!(place(u16::MAX).addresses(DiskId(9), &map).len(), 1);
        let alone = Place {
            listen: None,
            ..place(100)
        };
        assert_eq!(alone.addresses(DiskId(1), &map), ["unix:/w/disks/1.sock"]);
    }

    #[test]
    fn others_are_told_the_host_that_they_can_reach() {
        let listens = [Address::Unix("/x".into()), Address::Tcp("127.0.0.1:7".to_owned())];
        assert_eq!(place(0).announced(&listens), ["unix:/x", "tcp:a:7"]);
        let mut translated = place(0);
        if let Some(listen) = &mut translated.listen {
            listen.advertised = "outside".to_owned();
        }
        assert_eq!(translated.announced(&listens), ["unix:/x", "tcp:outside:7"]);
        // It listens where it is.
        assert_eq!(translated.addresses(DiskId(1), &map(&[]))[1], "tcp:a:0");
    }
}
