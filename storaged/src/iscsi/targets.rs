//! Making and deleting targets.

use admin_api::iscsi::normalise_name;
use coordination::keys::Key;
use coordination::records::{NewerFields, TargetRecord};
use coordination::{ClusterMap, Compare, Transaction};

use super::luns::without_lun;
use super::secrets::Secrets;
use super::{Iscsi, find_target, replacing};
use crate::moment::wall_clock_ms;
use crate::volumes::{Decision, OperationError, Plan, event};

/// LUNs that go in one transaction; of a target that has more, the lowest go first, in transactions of their own. Each
/// takes two changes: below the coordination store's limit, with room for the rest.
const LUNS_PER_TRANSACTION: usize = 50;

impl Iscsi {
    /// Makes a target without LUNs that lets nobody in. Returns its name as it is kept.
    pub async fn create_target(&self, name: &str) -> Result<String, OperationError> {
        let name = normalise_name(name)?;
        self.volumes.carry_out(|map| plan_creation(map, &name)).await?;
        Ok(name)
    }

    /// Deletes a target with all its LUNs and their reservations. The volumes stay.
    pub async fn delete_target(&self, name: &str) -> Result<(), OperationError> {
        let name = normalise_name(name)?;
        let plan = |map: &ClusterMap| plan_deletion(map, &self.secrets, &name);
        while !self.volumes.carry_out(plan).await? {}
        Ok(())
    }
}

fn plan_creation(map: &ClusterMap, name: &str) -> Result<Decision<()>, OperationError> {
    if map.iscsi().target(name).is_some() {
        return Err(OperationError::AlreadyExists(format!(
            "there is an iSCSI target {name:?} already: use another name"
        )));
    }
    let record = TargetRecord {
        luns: Vec::new(),
        access: Vec::new(),
        mutual: None,
        created_ms: wall_clock_ms(),
        newer: NewerFields::default(),
    };
    let key = Key::IscsiTarget(name.to_owned()).to_text();
    let transaction = Transaction::new()
        .when(Compare::Absent(key.clone()))
        .put(key, record.encode()?);
    let message = format!("iSCSI target {name} was created");
    Ok(Plan::decide(
        transaction,
        event("iscsi_target_created", name, message),
        (),
    ))
}

/// Answers whether the target is gone, or only some of its many LUNs.
fn plan_deletion(map: &ClusterMap, secrets: &Secrets, name: &str) -> Result<Decision<bool>, OperationError> {
    let target = find_target(map, name)?;
    let mut record = target.record.clone();
    let count = record.luns.len().min(LUNS_PER_TRANSACTION);
    let going: Vec<_> = record.luns.drain(..count).collect();
    let whole = record.luns.is_empty();
    let mut transaction = replacing(map, secrets, name, target, record)?;
    if whole {
        let key = Key::IscsiTarget(name.to_owned()).to_text();
        transaction.changes.clear();
        transaction = transaction.delete(key);
    }
    for lun in &going {
        transaction = without_lun(transaction, lun.volume);
    }
    if !whole {
        return Ok(Plan::decide_quietly(transaction, false));
    }
    let message = format!("iSCSI target {name} was deleted; the volumes that were its LUNs are still there");
    Ok(Plan::decide(
        transaction,
        event("iscsi_target_deleted", name, message),
        true,
    ))
}
