//! Where gateways of this node serve: each says so again and again, and is forgotten when it does not.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use admin_api::iscsi::{ADDRESSES_MAX, AnnouncePortals, PORTAL_LEASE_MS};
use coordination::keys::Key;
use coordination::records::{PortalRecord, encode};
use coordination::store::LeaseId;
use coordination::{CoordinationError, Outcome, Transaction};

use super::Iscsi;
use crate::moment::wall_clock_ms;
use crate::volumes::OperationError;

impl Iscsi {
    /// A gateway of this node says where it serves. When it returns, the map shows it.
    pub async fn announce(&self, request: &AnnouncePortals) -> Result<(), OperationError> {
        let group = self.group(request.group)?;
        let addresses = checked_addresses(&request.addresses)?;
        self.refuse_group_of_others(group).await?;
        let mut gateways = self.gateways.lock().await;
        if addresses.is_empty() {
            return match gateways.remove(&group) {
                Some(lease) => self.forget(lease).await,
                None => Ok(()),
            };
        }
        if let Some(lease) = gateways.get(&group).copied() {
            match self.store.keep_lease(lease).await {
                Ok(()) if self.says_so_already(group, &addresses) => return Ok(()),
                Ok(()) => return self.write(group, addresses, lease).await,
                // This process, or the gateway, stood still for longer than the lease.
                Err(CoordinationError::NoLease) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let lease = self
            .store
            .grant_lease(Duration::from_millis(PORTAL_LEASE_MS))
            .await?;
        gateways.insert(group, lease);
        self.write(group, addresses, lease).await
    }

    /// The tag of a gateway's portal group. Nodes have different numbers, so theirs are good for one gateway each.
    fn group(&self, wanted: Option<u16>) -> Result<u16, OperationError> {
        match wanted {
            Some(0) => Err(OperationError::Invalid(
                "the tag of a portal group is from 1 to 65535, not 0".to_owned(),
            )),
            Some(group) => Ok(group),
            None => u16::try_from(self.node.0).map_err(|_| {
                OperationError::Invalid(format!(
                    "the number of {} is no tag of a portal group: name one, from 1 to 65535",
                    self.node
                ))
            }),
        }
    }

    /// Two gateways with one tag would be taken for one (RFC 7143 section 4.4). That they come at the very same moment
    /// is not seen here, but at the next word of either.
    async fn refuse_group_of_others(&self, group: u16) -> Result<(), OperationError> {
        let map = self.volumes.fresh_map().await?;
        let mut portals = map.iscsi().portals();
        let other = portals.find(|(node, tag, _)| *tag == u32::from(group) && *node != self.node);
        match other {
            None => Ok(()),
            Some((node, ..)) => Err(OperationError::InUse(format!(
                "a gateway on {node} has the portal group {group}: use another tag, or wait half a minute if that \
                 gateway is gone"
            ))),
        }
    }

    fn says_so_already(&self, group: u16, addresses: &[String]) -> bool {
        let map = self.volumes.map();
        let mut portals = map.iscsi().portals();
        portals.any(|(node, tag, portal)| {
            node == self.node && tag == u32::from(group) && portal.record.addresses == addresses
        })
    }

    async fn write(&self, group: u16, addresses: Vec<String>, lease: LeaseId) -> Result<(), OperationError> {
        let record = PortalRecord {
            addresses,
            since_ms: wall_clock_ms(),
        };
        let key = Key::IscsiPortal(self.node, u32::from(group)).to_text();
        let transaction = Transaction::new().put_leased(key, encode(&record)?, lease);
        // There are no conditions that could fail.
        let (Outcome::Committed(revision) | Outcome::Conflict(revision)) =
            self.store.commit(transaction).await?;
        self.volumes.watch().at_least(revision).await;
        Ok(())
    }

    async fn forget(&self, lease: LeaseId) -> Result<(), OperationError> {
        self.store.revoke_lease(lease).await?;
        self.volumes.fresh_map().await?;
        Ok(())
    }
}

fn checked_addresses(addresses: &[String]) -> Result<Vec<String>, OperationError> {
    if addresses.len() > ADDRESSES_MAX {
        return Err(OperationError::Invalid(format!(
            "{} addresses are too many for one gateway: at most {ADDRESSES_MAX}",
            addresses.len()
        )));
    }
    let mut checked = BTreeSet::new();
    for text in addresses {
        let wrong = |why: &str| OperationError::Invalid(format!("{text:?} is no portal's address: {why}"));
        let address: SocketAddr = text
            .parse()
            .map_err(|_| wrong("write IP:PORT, or [IP]:PORT for IPv6"))?;
        if address.port() == 0 || address.ip().is_unspecified() {
            return Err(wrong("initiators must be able to connect to it"));
        }
        checked.insert(address);
    }
    Ok(checked.iter().map(ToString::to_string).collect())
}
