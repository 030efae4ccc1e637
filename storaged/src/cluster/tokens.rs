//! One-time tokens with which machines join: made, looked at, used up, taken back. The coordination store keeps a
//! token's hash and its end, so that any node can let its bearer in, once; the token itself is nowhere.
//!
//! Who asks, and over what, is not known here.

use std::sync::Arc;
use std::time::Duration;

use coordination::keys::{Counter, JOIN_TOKENS, Key};
use coordination::records::{self, JoinTokenRecord, JoinUse, encode};
use coordination::{Compare, Coordination, Entry, Outcome, Transaction};
use joining::{Refusal, Secret, TokenId};
use protocol::NodeId;
use rand::Rng;

use crate::identities::Identities;
use crate::moment::wall_clock_ms;
use crate::volumes::{OperationError, event};

/// How long a token is good, unless told otherwise.
pub const LIMIT_DEFAULT: Duration = Duration::from_hours(1);
/// The longest that one may be good: what lies about for longer is found by somebody.
pub const LIMIT_MAX: Duration = Duration::from_hours(24 * 7);
/// The shortest.
pub const LIMIT_MIN: Duration = Duration::from_secs(1);
/// The most tokens that the store keeps, used and expired ones included: one for each machine of a large cluster
/// that is set up at once.
pub const TOKENS_MAX: usize = 256;
/// How long a token is remembered after its end, so that who comes late is told that.
const REMEMBERED: Duration = Duration::from_hours(1);

/// See the module.
pub struct Tokens {
    store: Arc<dyn Coordination>,
    identities: Arc<Identities>,
    node: NodeId,
}

/// A token as it was just made: the secret is nowhere else.
#[derive(Debug)]
pub struct Made {
    /// Which.
    pub id: TokenId,
    /// What makes it good.
    pub secret: Secret,
    /// Until when, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// A token that is good, as it was looked at.
#[derive(Debug)]
pub struct Good {
    id: TokenId,
    entry: Entry,
    record: JoinTokenRecord,
}

/// Why a token does not let anybody in.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefused {
    /// For a reason that its bearer is told.
    #[error("{1}")]
    No(Refusal, String),
    /// The records cannot be read or changed.
    #[error(transparent)]
    Failed(#[from] OperationError),
}

impl Tokens {
    /// The tokens of a cluster, as this node makes and takes them.
    pub fn new(store: Arc<dyn Coordination>, identities: Arc<Identities>, node: NodeId) -> Self {
        Self {
            store,
            identities,
            node,
        }
    }

    /// Makes a token that is good for so long, once.
    pub async fn make(&self, limit: Duration) -> Result<Made, OperationError> {
        if !(LIMIT_MIN..=LIMIT_MAX).contains(&limit) {
            return Err(OperationError::Invalid(format!(
                "a token is good for {} second to {} days, not for {} seconds",
                LIMIT_MIN.as_secs(),
                LIMIT_MAX.as_secs() / 86_400,
                limit.as_secs_f32()
            )));
        }
        if self.all().await?.len() >= TOKENS_MAX {
            return Err(OperationError::Conflict(format!(
                "there are {TOKENS_MAX} tokens already: take back those that nobody needs (`storagectl cluster \
                 tokens`, `storagectl cluster revoke`), or wait until they are forgotten"
            )));
        }
        let made_ms = wall_clock_ms();
        let made = Made {
            id: TokenId(rand::rng().random()),
            secret: Secret(rand::rng().random()),
            expires_ms: made_ms.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        };
        let record = JoinTokenRecord {
            hash: made.secret.hash(made.id),
            node: self.node,
            made_ms,
            expires_ms: made.expires_ms,
            used: None,
        };
        let key = Key::JoinToken(made.id.0).to_text();
        let lease = self.store.grant_lease(limit + REMEMBERED).await?;
        let transaction =
            Transaction::new()
                .when(Compare::Absent(key.clone()))
                .put_leased(key, encode(&record)?, lease);
        let message = format!(
            "{} made the token {}, with which one machine may join within {} s",
            self.node,
            made.id,
            limit.as_secs()
        );
        match self
            .commit(transaction, "join_token_made", made.id, message)
            .await?
        {
            Outcome::Committed(_) => Ok(made),
            // Somebody drew the same 64 bits.
            Outcome::Conflict(_) => Err(OperationError::contended()),
        }
    }

    /// All tokens that are remembered, in the order of their numbers.
    pub async fn all(&self) -> Result<Vec<(TokenId, JoinTokenRecord)>, OperationError> {
        let range = self.store.range(JOIN_TOKENS).await?;
        let mut tokens = Vec::new();
        for entry in &range.entries {
            if let Some(Key::JoinToken(id)) = Key::parse(&entry.key) {
                tokens.push((TokenId(id), records::decode(entry)?));
            }
        }
        Ok(tokens)
    }

    /// Makes a token worthless.
    pub async fn revoke(&self, id: TokenId) -> Result<(), OperationError> {
        let key = Key::JoinToken(id.0).to_text();
        let missing = || {
            OperationError::NotFound(format!(
                "there is no token {id}: it was taken back, or forgotten after its end"
            ))
        };
        let entry = self.store.get(&key).await?.ok_or_else(missing)?;
        let transaction = Transaction::new()
            .when(Compare::Created(key.clone(), entry.created))
            .delete(key);
        let message = format!("the token {id} was taken back: nobody joins with it any more");
        match self
            .commit(transaction, "join_token_revoked", id, message)
            .await?
        {
            Outcome::Committed(_) => {}
            Outcome::Conflict(_) => return Err(missing()),
        }
        if let Some(lease) = entry.lease {
            self.store.revoke_lease(lease).await?;
        }
        Ok(())
    }

    /// Whether a token is good. It still is afterwards.
    pub async fn look(&self, id: TokenId, secret: &Secret) -> Result<Good, TokenRefused> {
        let key = Key::JoinToken(id.0).to_text();
        let entry = self.store.get(&key).await.map_err(OperationError::from)?;
        let entry = entry.ok_or_else(|| unknown(id))?;
        let record: JoinTokenRecord = records::decode(&entry).map_err(OperationError::from)?;
        judge(id, &record, secret, wall_clock_ms())?;
        Ok(Good { id, entry, record })
    }

    /// Uses a token up, for a machine of this name that asks from there. When it returns well, nobody else was or
    /// will be let in with it.
    pub async fn use_up(&self, good: Good, name: &str, from: &str) -> Result<(), TokenRefused> {
        let Good { id, entry, record } = good;
        let used = JoinTokenRecord {
            used: Some(JoinUse {
                used_ms: wall_clock_ms(),
                name: name.to_owned(),
                from: from.to_owned(),
                node: self.node,
            }),
            ..record
        };
        let value = encode(&used).map_err(OperationError::from)?;
        let transaction = Transaction::new().when(Compare::Modified(entry.key.clone(), entry.modified));
        let transaction = match entry.lease {
            Some(lease) => transaction.put_leased(entry.key, value, lease),
            None => transaction.put(entry.key, value),
        };
        let message = format!(
            "{} handed the cluster's authority to {name:?}, which asked from {from} with the token {id}",
            self.node
        );
        match self.commit(transaction, "machine_joined", id, message).await? {
            Outcome::Committed(_) => Ok(()),
            Outcome::Conflict(_) => Err(TokenRefused::No(
                Refusal::Used,
                format!("somebody else used the token {id}, or took it back, at this moment: {ANOTHER}"),
            )),
        }
    }

    async fn commit(
        &self,
        transaction: Transaction,
        kind: &str,
        id: TokenId,
        message: String,
    ) -> Result<Outcome, OperationError> {
        let number = self.identities.next(Counter::Event).await?;
        let line = encode(&event(kind, id.to_string(), message))?;
        let transaction = transaction.put(Key::Event(number).to_text(), line);
        Ok(self.store.commit(transaction).await?)
    }
}

/// What to do where a token is worth nothing.
const ANOTHER: &str = "make another one with `storagectl cluster token` on a node";

fn unknown(id: TokenId) -> TokenRefused {
    let sentence = format!(
        "the cluster knows no token {id}: it was taken back, or its end is long over. If nobody did that, {ANOTHER}"
    );
    TokenRefused::No(Refusal::Unknown, sentence)
}

/// Whether a token is good at this time. Only who has the secret learns anything but that he has it not.
fn judge(id: TokenId, record: &JoinTokenRecord, secret: &Secret, now_ms: u64) -> Result<(), TokenRefused> {
    let no = |refusal, sentence| Err(TokenRefused::No(refusal, sentence));
    // Hashes may be compared in any time: how far two agree says nothing of what was hashed.
    if record.hash != secret.hash(id) {
        return no(
            Refusal::Wrong,
            format!("the secret in the token is not that of the cluster's token {id}: {ANOTHER}"),
        );
    }
    if let Some(used) = &record.used {
        let JoinUse { name, from, .. } = used;
        return no(
            Refusal::Used,
            format!(
                "the token {id} was used, by {name:?} from {from}: a token lets one machine in. If that was not \
                 one of yours, a stranger has the cluster's authority now; else {ANOTHER}"
            ),
        );
    }
    if now_ms >= record.expires_ms {
        let since = (now_ms - record.expires_ms) / 1000;
        return no(
            Refusal::Expired,
            format!("the token {id} expired {since} s ago: {ANOTHER}"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
