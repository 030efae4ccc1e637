//! Who may log in to a target, and with what both sides show who they are. No secret is in a line of the event log.

use admin_api::iscsi::{ACCESS_MAX, AddAccess, Credentials, normalise_name};
use coordination::ClusterMap;
use coordination::records::{AccessRecord, CredentialsRecord, TargetRecord};

use super::{Iscsi, find_target, replacing};
use crate::volumes::{Decision, OperationError, Plan, event};

impl Iscsi {
    /// Lets an initiator in, or changes what it must show.
    pub async fn add_access(&self, target: &str, request: &AddAccess) -> Result<(), OperationError> {
        let target = normalise_name(target)?;
        let chap = request.chap.as_ref().map(checked).transpose()?;
        let access = AccessRecord {
            initiator: normalise_name(&request.initiator)?,
            chap,
        };
        let plan = |map: &ClusterMap| plan_addition(map, &target, &access);
        self.volumes.carry_out(plan).await
    }

    /// Lets an initiator in no more.
    pub async fn remove_access(&self, target: &str, initiator: &str) -> Result<(), OperationError> {
        let target = normalise_name(target)?;
        let initiator = normalise_name(initiator)?;
        let plan = |map: &ClusterMap| plan_removal(map, &target, &initiator);
        self.volumes.carry_out(plan).await
    }

    /// Sets with what a target shows who it is; nothing: it cannot any more.
    pub async fn set_mutual(&self, target: &str, mutual: Option<&Credentials>) -> Result<(), OperationError> {
        let target = normalise_name(target)?;
        let mutual = mutual.map(checked).transpose()?;
        let plan = |map: &ClusterMap| plan_mutual(map, &target, mutual.as_ref());
        self.volumes.carry_out(plan).await
    }
}

fn checked(credentials: &Credentials) -> Result<CredentialsRecord, OperationError> {
    let checked = credentials.check();
    checked.map_err(|error| OperationError::Invalid(error.to_string()))?;
    Ok(CredentialsRecord {
        user: credentials.user.clone(),
        secret: credentials.secret.clone(),
    })
}

fn plan_addition(
    map: &ClusterMap,
    target: &str,
    access: &AccessRecord,
) -> Result<Decision<()>, OperationError> {
    let read = find_target(map, target)?;
    let mut record = read.record.clone();
    let initiator = &access.initiator;
    let done = match record
        .access
        .iter_mut()
        .find(|known| known.initiator == *initiator)
    {
        Some(known) if known == access => return Ok(Decision::Unchanged(())),
        Some(known) => {
            known.clone_from(access);
            "was changed"
        }
        None => {
            record.access.push(access.clone());
            "was allowed"
        }
    };
    if record.access.len() > ACCESS_MAX {
        return Err(OperationError::Conflict(format!(
            "the iSCSI target {target} lets {ACCESS_MAX} initiators in, and no target lets in more: make another target"
        )));
    }
    refuse_same_secret(&record)?;
    record
        .access
        .sort_by(|one, other| one.initiator.cmp(&other.initiator));
    let transaction = replacing(target, read, &record)?;
    let how = match &access.chap {
        Some(chap) => format!("with CHAP as {:?}", chap.user),
        None => "by its name alone".to_owned(),
    };
    let message = format!("access of {initiator} to the iSCSI target {target} {done}: {how}");
    Ok(Plan::decide(
        transaction,
        event("iscsi_access_added", target, message),
        (),
    ))
}

fn plan_removal(map: &ClusterMap, target: &str, initiator: &str) -> Result<Decision<()>, OperationError> {
    let read = find_target(map, target)?;
    let mut record = read.record.clone();
    record.access.retain(|access| access.initiator != initiator);
    if record.access.len() == read.record.access.len() {
        return Err(OperationError::NotFound(format!(
            "the iSCSI target {target} does not let {initiator} in: there is nothing to remove"
        )));
    }
    let transaction = replacing(target, read, &record)?;
    let message = format!("{initiator} may log in to the iSCSI target {target} no more");
    Ok(Plan::decide(
        transaction,
        event("iscsi_access_removed", target, message),
        (),
    ))
}

fn plan_mutual(
    map: &ClusterMap,
    target: &str,
    mutual: Option<&CredentialsRecord>,
) -> Result<Decision<()>, OperationError> {
    let read = find_target(map, target)?;
    if read.record.mutual.as_ref() == mutual {
        return Ok(Decision::Unchanged(()));
    }
    let mut record = read.record.clone();
    record.mutual = mutual.cloned();
    refuse_same_secret(&record)?;
    let transaction = replacing(target, read, &record)?;
    let (kind, message) = match mutual {
        Some(mutual) => (
            "iscsi_mutual_set",
            format!("iSCSI target {target} shows who it is as {:?}", mutual.user),
        ),
        None => (
            "iscsi_mutual_cleared",
            format!("iSCSI target {target} shows no more who it is"),
        ),
    };
    Ok(Plan::decide(transaction, event(kind, target, message), ()))
}

/// Both directions with one secret: whoever lets a target answer his own challenge could log in (RFC 7143
/// section 9.2.1), and initiators refuse it.
fn refuse_same_secret(record: &TargetRecord) -> Result<(), OperationError> {
    let Some(mutual) = &record.mutual else {
        return Ok(());
    };
    let same = |access: &&AccessRecord| {
        let chap = access.chap.as_ref();
        chap.is_some_and(|chap| chap.secret == mutual.secret)
    };
    match record.access.iter().find(same) {
        None => Ok(()),
        Some(access) => Err(OperationError::Invalid(format!(
            "the secret of the target is that of {} too: each direction needs a secret of its own",
            access.initiator
        ))),
    }
}
