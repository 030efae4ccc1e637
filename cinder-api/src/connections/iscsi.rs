//! iSCSI, for every Nova, Ironic and os-brick there is: one target a volume, CHAP, all portals.

use std::collections::BTreeSet;

use admin_api::ErrorKind;
use admin_api::iscsi::{AddAccess, AddLun, Credentials, normalise_name};
use admin_client::AskError;
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{ConnectionError, Connector, Kind};
use crate::records::Volume;
use crate::records::volume::Chap;
use crate::storage::{Storage, unless_gone};

/// What the kind is called.
const NAME: &str = "iscsi";
/// The number of the one LUN.
const LUN: u16 = 0;

/// The kind for everybody.
pub struct Iscsi {
    prefix: String,
}

impl Iscsi {
    /// Targets are called by this, and the volume's identity after it.
    pub fn new(prefix: String) -> Self {
        Self { prefix }
    }

    fn target(&self, volume: &Volume) -> String {
        format!("{}{}", self.prefix, volume.id)
    }

    /// Every address once, in a stable order: one gateway is as good as another, but a host that asks twice gets the same.
    async fn portals(storage: &Storage) -> Result<Vec<String>, ConnectionError> {
        let portals = storage.directory().portals().await?.portals;
        let addresses: BTreeSet<String> = portals.into_iter().map(|portal| portal.address).collect();
        if addresses.is_empty() {
            let why = "No iSCSI gateway serves: start storaged-iscsi on a node, and try again.";
            return Err(ConnectionError::Away(why.to_owned()));
        }
        Ok(addresses.into_iter().collect())
    }

    async fn export(
        &self,
        storage: &Storage,
        volume: &Volume,
        initiator: &str,
        chap: &Chap,
    ) -> Result<(), AskError> {
        let target = self.target(volume);
        let directory = storage.directory();
        unless_there(directory.create_target(&target).await)?;
        let lun = AddLun {
            volume: volume.storage_name.clone(),
            number: Some(LUN),
            read_only: false,
            block_size: None,
        };
        unless_there(directory.add_lun(&target, &lun).await)?;
        let access = AddAccess {
            initiator: initiator.to_owned(),
            chap: Some(Credentials {
                user: chap.user.clone(),
                secret: chap.secret.clone(),
            }),
        };
        directory.add_access(&target, &access).await.map(|_| ())
    }
}

#[async_trait]
impl Kind for Iscsi {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn serves(&self, _: &Connector) -> Result<bool, ConnectionError> {
        Ok(true)
    }

    async fn open(
        &self,
        storage: &Storage,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<Map<String, Value>, ConnectionError> {
        let initiator = initiator(connector)?;
        let chap = volume.chap.as_ref();
        let chap =
            chap.ok_or_else(|| ConnectionError::Away("The volume has no secret yet; try again.".to_owned()))?;
        let portals = Self::portals(storage).await?;
        self.export(storage, volume, &initiator, chap).await?;
        let target = self.target(volume);
        let mut info = Map::new();
        let mut set = |key: &str, value: Value| info.insert(key.to_owned(), value);
        set("driver_volume_type", json!(NAME));
        set("target_discovered", json!(false));
        set("target_portal", json!(portals.first()));
        set("target_iqn", json!(target));
        set("target_lun", json!(LUN));
        if connector.get("multipath").and_then(Value::as_bool) == Some(true) {
            set("target_iqns", json!(vec![&target; portals.len()]));
            set("target_luns", json!(vec![LUN; portals.len()]));
            set("target_portals", json!(portals));
        }
        set("auth_method", json!("CHAP"));
        set("auth_username", json!(chap.user));
        set("auth_password", json!(chap.secret));
        set("volume_id", json!(volume.id));
        set("discard", json!(true));
        set("logical_block_size", json!("512"));
        set("physical_block_size", json!("4096"));
        Ok(info)
    }

    async fn close(
        &self,
        storage: &Storage,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<bool, ConnectionError> {
        let target = self.target(volume);
        let directory = storage.directory();
        let Some(found) = directory.target(&target).await? else {
            return Ok(false);
        };
        // Who could not come has not come.
        let leaving = initiator(connector).ok();
        let others = found
            .access
            .iter()
            .any(|access| Some(&access.initiator) != leaving.as_ref());
        match leaving {
            Some(initiator) if others => {
                unless_gone(directory.remove_access(&target, &initiator).await.map(|_| ()))?;
            }
            _ => unless_gone(directory.delete_target(&target).await)?,
        }
        Ok(true)
    }

    async fn withdraw(&self, storage: &Storage, volume: &Volume) -> Result<(), ConnectionError> {
        Ok(unless_gone(
            storage.directory().delete_target(&self.target(volume)).await,
        )?)
    }
}

/// The initiator's name, in lower case, in which targets compare it.
fn initiator(connector: &Connector) -> Result<String, ConnectionError> {
    let said = connector.get("initiator").and_then(Value::as_str);
    let said = said.filter(|name| !name.is_empty()).ok_or_else(|| {
        let why =
            "Connector doesn't have required information: initiator. Is open-iscsi installed on the host?";
        ConnectionError::Connector(why.to_owned())
    })?;
    normalise_name(said).map_err(|error| ConnectionError::Connector(error.to_string()))
}

fn unless_there<T>(made: Result<T, AskError>) -> Result<(), AskError> {
    match made {
        // A volume that is a LUN already is one of this target: nobody else makes targets of these names.
        Err(error) if matches!(error.kind(), Some(ErrorKind::AlreadyExists | ErrorKind::InUse)) => Ok(()),
        other => other.map(|_| ()),
    }
}
