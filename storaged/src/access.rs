//! Who may ask the admin API over the network: access tokens are made, listed, taken back and judged. The coordination
//! store keeps a token's hash, so that every node knows its bearer; the token itself is nowhere.
//!
//! Nothing here knows how a token comes in, nor of TLS. What each role may ask for is [`permission`]'s.

pub mod permission;
pub mod word;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use admin_api::access_tokens::{AccessRole, NAME_LENGTH_MAX};
use coordination::keys::{ACCESS_TOKENS, Counter, Key};
use coordination::records::{self, AccessRole as StoredRole, AccessTokenRecord, encode};
use coordination::{Compare, Coordination, Outcome, Transaction};
use protocol::NodeId;
use rand::Rng;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::identities::Identities;
use crate::moment::wall_clock_ms;
use crate::volumes::{OperationError, event};
use word::{AccessId, Word};

/// How long a token is good, unless told otherwise.
pub const LIMIT_DEFAULT: Duration = Duration::from_hours(24 * 365);
/// The longest that one may be good.
pub const LIMIT_MAX: Duration = Duration::from_hours(24 * 3650);
/// The shortest.
pub const LIMIT_MIN: Duration = Duration::from_secs(1);
/// The most tokens of a cluster, expired ones included.
pub const TOKENS_MAX: usize = 256;
/// How old what is known of tokens may be: so long after it was taken back on another node may one still be good here.
const FRESH: Duration = Duration::from_secs(10);
/// How often the store is asked for a token that is not known, at most: whoever makes words up burdens nobody more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How old what figures tell of tokens may be.
const TOLD: Duration = Duration::from_mins(1);
/// How long figures wait for the store, at most: they are there when it is not.
const TOLD_PATIENCE: Duration = Duration::from_secs(1);
/// For how long what was known goes on to count while the store does not answer, so that one can look at what is wrong.
const STALE_MAX: Duration = Duration::from_mins(5);

/// See the module.
pub struct AccessTokens {
    store: Arc<dyn Coordination>,
    identities: Arc<Identities>,
    node: NodeId,
    known: Mutex<Known>,
}

/// All tokens, as they were when the store was read.
#[derive(Default)]
struct Known {
    tokens: HashMap<AccessId, AccessTokenRecord>,
    read: Option<Instant>,
}

impl Known {
    fn learn(&mut self, tokens: Vec<(AccessId, AccessTokenRecord)>) {
        self.tokens = tokens.into_iter().collect();
        self.read = Some(Instant::now());
    }

    fn is_older_than(&self, age: Duration) -> bool {
        self.read.is_none_or(|read| read.elapsed() > age)
    }
}

/// A token as it was just made: its word is nowhere else.
pub struct Made {
    /// The token.
    pub word: Word,
    /// Until when, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// With which token.
    pub id: AccessId,
    /// What that is for.
    pub name: String,
    /// What he may do.
    pub role: AccessRole,
}

/// Why somebody is not known.
#[derive(Debug, thiserror::Error)]
pub enum NotKnown {
    /// What he showed is no token of this cluster; whether there is one of that number is not told.
    #[error(
        "the token is none of this cluster's, or was taken back: `storagectl access create` on a node makes one"
    )]
    Wrong,
    /// It was one.
    #[error("the token {0} expired: `storagectl access create` on a node makes another one")]
    Expired(AccessId),
    /// The records cannot be read.
    #[error(transparent)]
    Failed(#[from] OperationError),
}

impl AccessTokens {
    /// The tokens of a cluster, as this node makes and judges them.
    pub fn new(store: Arc<dyn Coordination>, identities: Arc<Identities>, node: NodeId) -> Self {
        Self {
            store,
            identities,
            node,
            known: Mutex::default(),
        }
    }

    /// Makes a token for this, with which one may do that, for so long.
    pub async fn make(&self, name: &str, role: AccessRole, limit: Duration) -> Result<Made, OperationError> {
        check(name, limit)?;
        if self.all().await?.len() >= TOKENS_MAX {
            return Err(OperationError::Conflict(format!(
                "there are {TOKENS_MAX} access tokens already: take back those that nobody needs (`storagectl access \
                 list`, `storagectl access revoke`)"
            )));
        }
        let made_ms = wall_clock_ms();
        let word = Word {
            id: AccessId(rand::rng().random()),
            secret: rand::rng().random(),
        };
        let record = AccessTokenRecord {
            name: name.to_owned(),
            role: stored(role),
            hash: word.hash(),
            node: self.node,
            made_ms,
            expires_ms: made_ms.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        };
        let key = Key::AccessToken(word.id.0).to_text();
        let transaction = Transaction::new()
            .when(Compare::Absent(key.clone()))
            .put(key, encode(&record)?);
        let message = format!(
            "{} made the access token {} for {name:?}, {}",
            self.node,
            word.id,
            permission::in_words(role)
        );
        match self
            .commit(transaction, "access_token_made", word.id, message)
            .await?
        {
            Outcome::Committed(_) => Ok(Made {
                word,
                expires_ms: record.expires_ms,
            }),
            // Somebody drew the same 64 bits.
            Outcome::Conflict(_) => Err(OperationError::contended()),
        }
    }

    /// All tokens, in the order of their numbers.
    pub async fn all(&self) -> Result<Vec<(AccessId, AccessTokenRecord)>, OperationError> {
        let range = self.store.range(ACCESS_TOKENS).await?;
        let mut tokens = Vec::new();
        for entry in &range.entries {
            if let Some(Key::AccessToken(id)) = Key::parse(&entry.key) {
                tokens.push((AccessId(id), records::decode(entry)?));
            }
        }
        Ok(tokens)
    }

    /// Makes a token worthless: here at once, on other nodes within ten seconds.
    pub async fn revoke(&self, id: AccessId) -> Result<(), OperationError> {
        let key = Key::AccessToken(id.0).to_text();
        let missing = || OperationError::NotFound(format!("there is no access token {id}"));
        let entry = self.store.get(&key).await?.ok_or_else(missing)?;
        let transaction = Transaction::new()
            .when(Compare::Created(key.clone(), entry.created))
            .delete(key);
        let message = format!("the access token {id} was taken back: nobody asks with it any more");
        let outcome = self
            .commit(transaction, "access_token_revoked", id, message)
            .await?;
        match outcome {
            Outcome::Committed(_) => Ok(()),
            Outcome::Conflict(_) => Err(missing()),
        }
    }

    /// Who shows this text.
    pub async fn judge(&self, text: &str) -> Result<Caller, NotKnown> {
        let word: Word = text.parse().map_err(|_| NotKnown::Wrong)?;
        let mut known = self.known.lock().await;
        let patience = if known.tokens.contains_key(&word.id) {
            FRESH
        } else {
            LOOK_AGAIN
        };
        if known.is_older_than(patience) {
            match self.all().await {
                Ok(tokens) => known.learn(tokens),
                Err(error) if known.is_older_than(STALE_MAX) => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "access tokens are judged by what was known of them"),
            }
        }
        let record = known.tokens.get(&word.id).ok_or(NotKnown::Wrong)?;
        // Hashes may be compared in any time: how far two agree says nothing of what was hashed.
        if record.hash != word.hash() {
            return Err(NotKnown::Wrong);
        }
        if wall_clock_ms() >= record.expires_ms {
            return Err(NotKnown::Expired(word.id));
        }
        Ok(Caller {
            id: word.id,
            name: record.name.clone(),
            role: role(record.role),
        })
    }

    /// All tokens as they were within the last minute, or when the store answered last; nothing if it never did.
    pub async fn told(&self) -> Vec<(AccessId, AccessTokenRecord)> {
        let mut known = self.known.lock().await;
        if known.is_older_than(TOLD)
            && let Ok(Ok(tokens)) = timeout(TOLD_PATIENCE, self.all()).await
        {
            known.learn(tokens);
        }
        let mut tokens: Vec<_> = known
            .tokens
            .iter()
            .map(|(id, record)| (*id, record.clone()))
            .collect();
        tokens.sort_by_key(|(id, _)| id.0);
        tokens
    }

    async fn commit(
        &self,
        transaction: Transaction,
        kind: &str,
        id: AccessId,
        message: String,
    ) -> Result<Outcome, OperationError> {
        let number = self.identities.next(Counter::Event).await?;
        let line = encode(&event(kind, id.to_string(), message))?;
        let transaction = transaction.put(Key::Event(number).to_text(), line);
        let outcome = self.store.commit(transaction).await?;
        self.known.lock().await.read = None;
        Ok(outcome)
    }
}

fn check(name: &str, limit: Duration) -> Result<(), OperationError> {
    let is_plain = name.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if name.trim().is_empty() || name.len() > NAME_LENGTH_MAX || !is_plain {
        return Err(OperationError::Invalid(format!(
            "a token is for something: say it in 1 to {NAME_LENGTH_MAX} printing ASCII characters"
        )));
    }
    if !(LIMIT_MIN..=LIMIT_MAX).contains(&limit) {
        return Err(OperationError::Invalid(format!(
            "an access token is good for {} second to {} days, not for {} seconds",
            LIMIT_MIN.as_secs(),
            LIMIT_MAX.as_secs() / 86_400,
            limit.as_secs_f32()
        )));
    }
    Ok(())
}

fn stored(role: AccessRole) -> StoredRole {
    match role {
        AccessRole::Viewer => StoredRole::Viewer,
        AccessRole::Operator => StoredRole::Operator,
        AccessRole::Administrator => StoredRole::Administrator,
    }
}

/// The role that a record tells of.
pub fn role(stored: StoredRole) -> AccessRole {
    match stored {
        StoredRole::Viewer => AccessRole::Viewer,
        StoredRole::Operator => AccessRole::Operator,
        StoredRole::Administrator => AccessRole::Administrator,
    }
}

#[cfg(test)]
mod tests;
