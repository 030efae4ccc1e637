//! Where machines join: TLS for those that have no certificate, with one question and one answer. What it costs is
//! bounded: few at a time, each for a short time, few wrong tokens a minute.
//!
//! Which tokens are good is [`super::tokens`]'s business, what is handed over [`super::handover`]'s, and who listens
//! [`super::port`]'s.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use joining::message::{Answer, Question};
use joining::{Refusal, Token};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::StartHandshake;
use tracing::{info, warn};

use super::handover::Handover;
use super::tokens::{TokenRefused, Tokens};
use crate::volumes::OperationError;

/// Machines that are let in at the same time. A hundred are in within seconds.
const GUESTS_MAX: usize = 8;
/// Machines that wait for that; more are sent away.
const WAITING_MAX: usize = 256;
/// How long one may take from the connection to the end of the answer.
const VISIT_LIMIT: Duration = Duration::from_secs(20);
/// Wrong tokens that are looked at one after the other: a script that goes wrong, an operator that pastes.
const WRONG_MAX: u32 = 10;
/// After so long, one more. A secret has 128 bits: this is to keep work and log lines few.
const WRONG_EVERY: Duration = Duration::from_secs(6);

/// A token for a machine that joins, to be shown once.
#[derive(Debug)]
pub struct Invitation {
    /// The token.
    pub token: Token,
    /// Until when, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// See the module. Cheap to share.
pub struct Door {
    /// The tokens of the cluster.
    pub tokens: Tokens,
    handover: Handover,
    certificates: watch::Receiver<joining::Door>,
    /// The host and port that other machines reach this one by.
    address: String,
    waiting: Semaphore,
    guests: Semaphore,
    wrong: Mutex<WrongTokens>,
}

impl Door {
    /// For machines that come to this address, `HOST:PORT`, and are handed to [`Door::receive`].
    pub fn new(
        address: &str,
        tokens: Tokens,
        handover: Handover,
        certificates: watch::Receiver<joining::Door>,
    ) -> Self {
        Self {
            tokens,
            handover,
            certificates,
            address: address.to_owned(),
            waiting: Semaphore::new(WAITING_MAX),
            guests: Semaphore::new(GUESTS_MAX),
            wrong: Mutex::new(WrongTokens::new(Instant::now())),
        }
    }

    /// Makes a token that leads here.
    pub async fn invite(&self, limit: Duration) -> Result<Invitation, OperationError> {
        self.handover
            .check(self.address.rsplit_once(':').map_or("", |(host, _)| host))
            .map_err(|error| OperationError::Conflict(error.to_string()))?;
        let made = self.tokens.make(limit).await?;
        let token = Token {
            id: made.id,
            authority: self.certificates.borrow().authority(),
            secret: made.secret,
            addresses: vec![self.address.clone()],
        };
        Ok(Invitation {
            token,
            expires_ms: made.expires_ms,
        })
    }

    /// Lets a machine in, or tells it why not.
    pub async fn receive(&self, hello: StartHandshake<TcpStream>, from: SocketAddr) {
        let Ok(_waits) = self.waiting.try_acquire() else {
            return info!(%from, "too many machines want to join at the same time: one was sent away");
        };
        // It is never closed.
        let _place = self.guests.acquire().await;
        match timeout(VISIT_LIMIT, self.converse(hello, from)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => info!(%from, %error, "a visitor at the joining port left"),
            Err(_) => info!(%from, "a visitor at the joining port took too long"),
        }
    }

    async fn converse(&self, hello: StartHandshake<TcpStream>, from: SocketAddr) -> io::Result<()> {
        // The newest certificate, for each.
        let certificates = self.certificates.borrow().clone();
        let (question, asker) = certificates.hear_after(hello).await?;
        let answer = match self.consider(&question, from).await {
            Ok(granted) => granted,
            Err(TokenRefused::No(refusal, sentence)) => {
                warn!(%from, name = question.name, token = %question.id, ?refusal, "a machine was not let in");
                Answer::Refused(refusal, sentence)
            }
            Err(TokenRefused::Failed(error)) => {
                warn!(%from, name = question.name, token = %question.id, %error, "a machine cannot be let in");
                Answer::Refused(
                    Refusal::Unable,
                    format!("the node cannot let machines in now: {error}"),
                )
            }
        };
        asker.answer(&answer).await
    }

    async fn consider(&self, question: &Question, from: SocketAddr) -> Result<Answer, TokenRefused> {
        if !self.wrong().may_try(Instant::now()) {
            let sentence = "there were too many wrong tokens at this node lately: try again in a minute. The token was \
                            not looked at";
            return Err(TokenRefused::No(Refusal::Busy, sentence.to_owned()));
        }
        let good = match self.tokens.look(question.id, &question.secret).await {
            Ok(good) => good,
            Err(refused) => {
                // If the store is away, that says nothing of the token.
                if matches!(refused, TokenRefused::No(..)) {
                    self.wrong().count();
                }
                return Err(refused);
            }
        };
        // Before the token is used up: what cannot be read is not handed over.
        let bundle = self
            .handover
            .gather()
            .map_err(|error| TokenRefused::Failed(OperationError::Unavailable(error.to_string())))?;
        self.tokens
            .use_up(good, &question.name, &from.ip().to_string())
            .await?;
        info!(%from, name = question.name, token = %question.id, "a machine has the cluster's authority now");
        Ok(Answer::Granted(Box::new(bundle)))
    }

    fn wrong(&self) -> std::sync::MutexGuard<'_, WrongTokens> {
        // Nothing panics while it is held.
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many wrong tokens may still be looked at.
struct WrongTokens {
    left: u32,
    /// When the last one was added.
    since: Instant,
}

impl WrongTokens {
    fn new(now: Instant) -> Self {
        Self {
            left: WRONG_MAX,
            since: now,
        }
    }

    /// Whether one more token may be looked at.
    fn may_try(&mut self, now: Instant) -> bool {
        while self.left < WRONG_MAX && now.duration_since(self.since) >= WRONG_EVERY {
            self.left += 1;
            self.since += WRONG_EVERY;
        }
        if self.left == WRONG_MAX {
            self.since = now;
        }
        self.left > 0
    }

    /// It was a wrong one.
    fn count(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
