//! The secrets of targets as records keep them: sealed if this node has something to seal them with and all nodes that are
//! up read what is sealed, and otherwise in the clear.

use std::sync::Arc;

use admin_api::iscsi::{Credentials, SecretsState};
use coordination::ClusterMap;
use coordination::records::{CredentialsRecord, FORMAT_OF_SEALS, SecretRecord, TargetRecord};

use crate::cluster::seal::{Seal, SealError};

/// See the module.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// What this node has of the cluster's authority; nothing where nodes speak in plaintext.
    seal: Option<Arc<Seal>>,
}

impl Secrets {
    /// What a node can do with them that has this.
    pub fn new(seal: Option<Arc<Seal>>) -> Self {
        Self { seal }
    }

    /// Seals all secrets in a target's record that stand in it in the clear, if that may be.
    pub fn seal(&self, map: &ClusterMap, target: &str, record: &mut TargetRecord) -> Result<(), SealError> {
        let Some(seal) = self.seal.as_ref().filter(|_| all_read_seals(map)) else {
            return Ok(());
        };
        for access in &mut record.access {
            if let Some(chap) = &mut access.chap {
                seal_one(seal, target, Some(&access.initiator), chap)?;
            }
        }
        match &mut record.mutual {
            Some(own) => seal_one(seal, target, None, own),
            None => Ok(()),
        }
    }

    /// The name and the secret that `initiator` shows at a target, or the target itself if nobody is named; nothing if the
    /// secret was sealed for somebody else or by another cluster.
    pub fn open(
        &self,
        target: &str,
        initiator: Option<&str>,
        record: &CredentialsRecord,
    ) -> Option<Credentials> {
        let secret = match &record.secret {
            SecretRecord::Clear(secret) => secret.clone(),
            SecretRecord::Sealed(sealed) => {
                let place = place(target, initiator, &record.user);
                self.seal.as_ref()?.open(&place, sealed)?
            }
        };
        Some(Credentials {
            user: record.user.clone(),
            secret,
        })
    }

    /// Whether what is kept for `initiator`, or for the target itself, is already what is wanted. Of what does not open nobody
    /// knows.
    pub fn are(
        &self,
        wanted: Option<&Credentials>,
        target: &str,
        initiator: Option<&str>,
        kept: Option<&CredentialsRecord>,
    ) -> bool {
        match (wanted, kept) {
            (None, None) => true,
            (Some(wanted), Some(kept)) => self.open(target, initiator, kept).as_ref() == Some(wanted),
            _ => false,
        }
    }

    /// How the secrets of a target are kept; nothing if it has none.
    pub fn state(&self, target: &str, record: &TargetRecord) -> Option<SecretsState> {
        let judge = |(initiator, credentials): (Option<&str>, &CredentialsRecord)| match self.open(
            target,
            initiator,
            credentials,
        ) {
            None => SecretsState::Lost,
            Some(_) if credentials.secret.is_sealed() => SecretsState::Sealed,
            Some(_) => SecretsState::Clear,
        };
        record.credentials().map(judge).max()
    }
}

fn seal_one(
    seal: &Seal,
    target: &str,
    initiator: Option<&str>,
    record: &mut CredentialsRecord,
) -> Result<(), SealError> {
    if let SecretRecord::Clear(secret) = &record.secret {
        let place = place(target, initiator, &record.user);
        record.secret = SecretRecord::Sealed(seal.seal(&place, secret)?);
    }
    Ok(())
}

/// Where a secret stands: no name has a zero byte in it.
fn place(target: &str, initiator: Option<&str>, user: &str) -> String {
    format!(
        "iscsi-target\0{target}\0{}\0{user}",
        initiator.unwrap_or_default()
    )
}

/// Nobody who is up would refuse a record with seals.
fn all_read_seals(map: &ClusterMap) -> bool {
    let mut up = map.up().values();
    up.all(|up| up.record.reads(FORMAT_OF_SEALS))
}
