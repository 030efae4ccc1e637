//! Where machines join: a TLS listener for those that have no certificate, with one question and one answer. What it
//! costs is bounded: few at a time, each for a short time, few wrong tokens a minute.
//!
//! Which tokens are good is [`super::tokens`]'s business, what is handed over [`super::handover`]'s.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use joining::message::{Answer, Question};
use joining::{Refusal, Token};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{Instrument, info, warn};

use super::handover::Handover;
use super::tokens::{TokenRefused, Tokens};
use crate::config::Listen;
use crate::volumes::OperationError;

/// Machines that are let in at the same time; others wait in the kernel's queue. A hundred are in within seconds.
const GUESTS_MAX: usize = 8;
/// How long one may take from the connection to the end of the answer.
const VISIT_LIMIT: Duration = Duration::from_secs(20);
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
    listener: TcpListener,
    /// The host that other machines reach this one by.
    host: String,
    port: u16,
    wrong: Mutex<WrongTokens>,
}

impl Door {
    /// Listens at the node's own port; serves when [`Door::serve`] runs.
    pub async fn bind(
        listen: &Listen,
        tokens: Tokens,
        handover: Handover,
        certificates: watch::Receiver<joining::Door>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(format!("{}:{}", listen.host, listen.port)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self {
            tokens,
            handover,
            certificates,
            listener,
            host: listen.advertised.clone(),
            port,
            wrong: Mutex::new(WrongTokens::new(Instant::now())),
        })
    }

    /// Where it is reached.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Makes a token that leads here.
    pub async fn invite(&self, limit: Duration) -> Result<Invitation, OperationError> {
        self.handover
            .check(&self.host)
            .map_err(|error| OperationError::Conflict(error.to_string()))?;
        let made = self.tokens.make(limit).await?;
        let token = Token {
            id: made.id,
            authority: self.certificates.borrow().authority(),
            secret: made.secret,
            addresses: vec![self.address()],
        };
        Ok(Invitation {
            token,
            expires_ms: made.expires_ms,
        })
    }

    /// Lets machines in, for ever: run it as a task.
    pub async fn serve(self: Arc<Self>) {
        let room = Arc::new(Semaphore::new(GUESTS_MAX));
        let mut guests = JoinSet::new();
        loop {
            // It is never closed.
            let Ok(place) = room.clone().acquire_owned().await else {
                return;
            };
            while guests.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let door = Arc::clone(&self);
                    let visit = async move {
                        let visit = timeout(VISIT_LIMIT, door.receive(stream, from)).await;
                        match visit {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => info!(%from, %error, "a visitor at the joining port left"),
                            Err(_) => info!(%from, "a visitor at the joining port took too long"),
                        }
                        drop(place);
                    };
                    guests.spawn(visit.in_current_span());
                }
                Err(error) => {
                    warn!(%error, "cannot accept at the joining port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn receive(&self, stream: TcpStream, from: SocketAddr) -> io::Result<()> {
        // The newest certificate, for each.
        let certificates = self.certificates.borrow().clone();
        let (question, asker) = certificates.hear(stream).await?;
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
