//! The login phase as a pure state machine (RFC 7143 section 6): requests in, answers out.
//!
//! `security` proves who the initiator is, `parameters` agrees on how to talk. Refuses to know sockets, sessions
//! that exist, and where targets come from: the caller says what the target demands.

pub mod chap;
pub mod parameters;
pub mod security;

use crate::wire::request::LoginRequest;
use crate::wire::text::{TEXT_MAX, Text, TextError};
use admin_api::iscsi::Credentials;
use parameters::Parameters;
use security::{Proof, Security};

/// Requests of one login. Initiators need 2 to 6; more is a negotiation that does not end.
const REQUESTS_MAX: u32 = 64;

/// The stages of a login (RFC 7143 section 11.12.3).
const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
/// The full feature phase, in which commands are taken.
pub const FULL_FEATURE: u8 = 3;

/// Why a login is refused: class and detail (RFC 7143 section 11.13.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Anything that no rule allows.
    #[error("the initiator broke the rules of the login")]
    Initiator,
    /// It did not prove who it is.
    #[error("the initiator did not prove who it is")]
    Authentication,
    /// It is nobody who may use this target.
    #[error("the initiator is not on the target's access list")]
    Authorization,
    /// There is no such target.
    #[error("there is no such target here")]
    NotFound,
    /// It speaks no version that is spoken here.
    #[error("the initiator speaks another version of iSCSI")]
    Version,
    /// The session has as many connections as it may, or there are too many sessions.
    #[error("there are too many connections")]
    TooMany,
    /// A name is missing.
    #[error("the first request of the login names no initiator or no target")]
    Missing,
    /// A session of another kind than the standard's two.
    #[error("the session is of an unknown type")]
    SessionType,
    /// The session that a connection wants to join is not there.
    #[error("there is no such session")]
    NoSession,
    /// This gateway cannot serve the target at present.
    #[error("the target cannot be served at present")]
    Unavailable,
}

impl Refusal {
    /// As it travels.
    pub fn status(self) -> (u8, u8) {
        match self {
            Self::Initiator => (2, 0),
            Self::Authentication => (2, 1),
            Self::Authorization => (2, 2),
            Self::NotFound => (2, 3),
            Self::Version => (2, 5),
            Self::TooMany => (2, 6),
            Self::Missing => (2, 7),
            Self::SessionType => (2, 9),
            Self::NoSession => (2, 10),
            Self::Unavailable => (3, 1),
        }
    }
}

/// Who wants what: the names in the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The initiator.
    pub initiator: String,
    /// The target; nothing for a discovery session.
    pub target: Option<String>,
}

impl Names {
    /// Reads them from the first request's text.
    pub fn of(text: &Text) -> Result<Self, Refusal> {
        let initiator = text.get("InitiatorName").filter(|name| !name.is_empty());
        let initiator = initiator.ok_or(Refusal::Missing)?.to_lowercase();
        let target = match text.get("SessionType").unwrap_or("Normal") {
            "Normal" => {
                let target = text.get("TargetName").filter(|name| !name.is_empty());
                Some(target.ok_or(Refusal::Missing)?.to_lowercase())
            }
            "Discovery" => None,
            _ => return Err(Refusal::SessionType),
        };
        Ok(Self { initiator, target })
    }
}

/// What is asked of an initiator before it is let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// It must prove that it knows this secret.
    pub chap: Option<Credentials>,
    /// We prove that we know this one, if asked.
    pub mutual: Option<Credentials>,
    /// The tag of the portal group that it came in by; nothing in a discovery session.
    pub portal_group: Option<u16>,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// More of the request's text is to come: an answer without any.
    Continue,
    /// Text, and whether the wished transit is granted.
    Text {
        /// Whether the next stage begins.
        transit: bool,
        /// The present stage and the next.
        stages: (u8, u8),
        /// The keys.
        text: Vec<u8>,
    },
    /// No.
    Refuse(Refusal),
}

/// Text of requests that go on in the next one.
#[derive(Debug, Default)]
pub struct Gathered(Vec<u8>);

impl Gathered {
    /// Takes one request's text; gives the whole when none is to follow.
    pub fn take(&mut self, text: &[u8], continues: bool) -> Result<Option<Text>, TextError> {
        if self.0.len() + text.len() > TEXT_MAX {
            return Err(TextError::TooLong);
        }
        self.0.extend_from_slice(text);
        if continues {
            return Ok(None);
        }
        Text::parse(&std::mem::take(&mut self.0)).map(Some)
    }
}

/// A login that goes on.
#[derive(Debug)]
pub struct Login {
    stage: Option<u8>,
    requests: u32,
    gathered: Gathered,
    security: Security,
    parameters: Parameters,
    portal_group: Option<u16>,
}

impl Login {
    /// A login that has not begun. `entropy` is what challenges are made of: new random bytes each time.
    pub fn new(demands: Demands, entropy: [u8; 33]) -> Self {
        let discovery = demands.portal_group.is_none();
        Self {
            stage: None,
            requests: 0,
            gathered: Gathered::default(),
            portal_group: demands.portal_group,
            security: Security::new(demands, entropy),
            parameters: Parameters::new(discovery),
        }
    }

    /// What was agreed on so far; final once [`FULL_FEATURE`] was granted.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Whether the initiator proved who it is, where that is asked for.
    pub fn proof(&self) -> Proof {
        self.security.proof()
    }

    /// Takes the next request with its text.
    pub fn take(&mut self, request: &LoginRequest, text: &[u8]) -> Answer {
        self.answer(request, text).unwrap_or_else(Answer::Refuse)
    }

    fn answer(&mut self, request: &LoginRequest, text: &[u8]) -> Result<Answer, Refusal> {
        self.requests += 1;
        if self.requests > REQUESTS_MAX || (request.transit && request.continues) {
            return Err(Refusal::Initiator);
        }
        if request.version_min > 0 {
            return Err(Refusal::Version);
        }
        self.enter(request)?;
        let taken = self.gathered.take(text, request.continues);
        let Some(text) = taken.map_err(|_| Refusal::Initiator)? else {
            return Ok(Answer::Continue);
        };
        let mut answer = Text::default();
        if let Some(group) = self.portal_group.take() {
            answer.add("TargetPortalGroupTag", group.to_string());
        }
        let stage = request.stage;
        let ready = if stage == SECURITY {
            self.security.take(&text, &mut answer)?
        } else {
            self.parameters
                .take(&text, &mut answer)
                .map_err(|_| Refusal::Initiator)?;
            true
        };
        if stage == SECURITY {
            // Operational keys may not come yet, but what the session is does.
            self.parameters.declare(&text).map_err(|_| Refusal::Initiator)?;
        }
        let transit = request.transit && ready;
        if transit && request.next_stage == FULL_FEATURE {
            self.parameters.finish(&mut answer);
        }
        if transit {
            self.stage = Some(request.next_stage);
        }
        Ok(Answer::Text {
            transit,
            stages: (stage, request.next_stage),
            text: answer.encode(),
        })
    }

    /// Whether a request may be of the stage that it says it is.
    fn enter(&mut self, request: &LoginRequest) -> Result<(), Refusal> {
        let known = matches!(request.stage, SECURITY | OPERATIONAL);
        let forward = !request.transit
            || (matches!(request.next_stage, OPERATIONAL | FULL_FEATURE)
                && request.next_stage > request.stage);
        if !known || !forward || self.stage.is_some_and(|stage| stage != request.stage) {
            return Err(Refusal::Initiator);
        }
        if request.stage == OPERATIONAL && self.security.proof() == Proof::Awaited {
            return Err(Refusal::Authentication);
        }
        self.stage = Some(request.stage);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
