//! Who may log in to a target, and with what both sides show who they are. No secret is in a line of the event log.

use admin_api::iscsi::{ACCESS_MAX, AddAccess, Credentials, normalise_name};
use coordination::ClusterMap;
use coordination::records::{AccessRecord, CredentialsRecord, SecretRecord, TargetRecord};

use super::secrets::Secrets;
use super::{Iscsi, find_target, replacing};
use crate::volumes::{Decision, OperationError, Plan, event};

impl Iscsi {
    /// Lets an initiator in, or changes what it must show.
    pub async fn add_access(&self, target: &str, request: &AddAccess) -> Result<(), OperationError> {
        let target = normalise_name(target)?;
        let initiator = normalise_name(&request.initiator)?;
        let chap = request.chap.as_ref();
        chap.map_or(Ok(()), check)?;
        let plan = |map: &ClusterMap| plan_addition(map, &self.secrets, &target, &initiator, chap);
        self.volumes.carry_out(plan).await
    }

    /// Lets an initiator in no more.
    pub async fn remove_access(&self, target: &str, initiator: &str) -> Result<(), OperationError> {
        let target = normalise_name(target)?;
        let initiator = normalise_name(initiator)?;
        let plan = |map: &ClusterMap| plan_removal(map, &self.secrets, &target, &initiator);
        self.volumes.carry_out(plan).await
    }

    /// Sets with what a target shows who it is; nothing: it cannot any more.
    pub async fn set_mutual(&self, target: &str, mutual: Option<&Credentials>) -> Result<(), OperationError> {
        let target = normalise_name(target)?;
        mutual.map_or(Ok(()), check)?;
        let plan = |map: &ClusterMap| plan_mutual(map, &self.secrets, &target, mutual);
        self.volumes.carry_out(plan).await
    }
}

fn check(credentials: &Credentials) -> Result<(), OperationError> {
    let checked = credentials.check();
    checked.map_err(|error| OperationError::Invalid(error.to_string()))
}

/// What is kept of that, before it is sealed.
fn kept(credentials: &Credentials) -> CredentialsRecord {
    CredentialsRecord {
        user: credentials.user.clone(),
        secret: SecretRecord::Clear(credentials.secret.clone()),
    }
}

fn plan_addition(
    map: &ClusterMap,
    secrets: &Secrets,
    target: &str,
    initiator: &str,
    chap: Option<&Credentials>,
) -> Result<Decision<()>, OperationError> {
    let read = find_target(map, target)?;
    let mut record = read.record.clone();
    let known = record
        .access
        .iter_mut()
        .find(|known| known.initiator == initiator);
    let done = match known {
        Some(known) if secrets.are(chap, target, Some(initiator), known.chap.as_ref()) => {
            return Ok(Decision::Unchanged(()));
        }
        Some(known) => {
            known.chap = chap.map(kept);
            "was changed"
        }
        None => {
            record.access.push(AccessRecord {
                initiator: initiator.to_owned(),
                chap: chap.map(kept),
            });
            "was allowed"
        }
    };
    if record.access.len() > ACCESS_MAX {
        return Err(OperationError::Conflict(format!(
            "the iSCSI target {target} lets {ACCESS_MAX} initiators in, and no target lets in more: make another target"
        )));
    }
    refuse_same_secret(secrets, target, &record)?;
    record
        .access
        .sort_by(|one, other| one.initiator.cmp(&other.initiator));
    let transaction = replacing(map, secrets, target, read, record)?;
    let how = match chap {
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

fn plan_removal(
    map: &ClusterMap,
    secrets: &Secrets,
    target: &str,
    initiator: &str,
) -> Result<Decision<()>, OperationError> {
    let read = find_target(map, target)?;
    let mut record = read.record.clone();
    record.access.retain(|access| access.initiator != initiator);
    if record.access.len() == read.record.access.len() {
        return Err(OperationError::NotFound(format!(
            "the iSCSI target {target} does not let {initiator} in: there is nothing to remove"
        )));
    }
    let transaction = replacing(map, secrets, target, read, record)?;
    let message = format!("{initiator} may log in to the iSCSI target {target} no more");
    Ok(Plan::decide(
        transaction,
        event("iscsi_access_removed", target, message),
        (),
    ))
}

fn plan_mutual(
    map: &ClusterMap,
    secrets: &Secrets,
    target: &str,
    mutual: Option<&Credentials>,
) -> Result<Decision<()>, OperationError> {
    let read = find_target(map, target)?;
    if secrets.are(mutual, target, None, read.record.mutual.as_ref()) {
        return Ok(Decision::Unchanged(()));
    }
    let mut record = read.record.clone();
    record.mutual = mutual.map(kept);
    refuse_same_secret(secrets, target, &record)?;
    let transaction = replacing(map, secrets, target, read, record)?;
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
fn refuse_same_secret(secrets: &Secrets, target: &str, record: &TargetRecord) -> Result<(), OperationError> {
    let own = record.mutual.as_ref();
    // What does not open lets nobody in, and no initiator is shown it.
    let Some(own) = own.and_then(|own| secrets.open(target, None, own)) else {
        return Ok(());
    };
    let same = |access: &&AccessRecord| {
        let chap = access.chap.as_ref();
        let chap = chap.and_then(|chap| secrets.open(target, Some(&access.initiator), chap));
        chap.is_some_and(|chap| chap.secret == own.secret)
    };
    match record.access.iter().find(same) {
        None => Ok(()),
        Some(access) => Err(OperationError::Invalid(format!(
            "the secret of the target is that of {} too: each direction needs a secret of its own",
            access.initiator
        ))),
    }
}
