//! Security negotiation (RFC 7143 section 12): whether, and how, an initiator proves who it is.

use crate::login::chap::{Algorithm, answer_to, is_same};
use crate::login::{Demands, Refusal};
use crate::wire::text::{Text, binary, hexadecimal, number};
use admin_api::iscsi::Credentials;

/// Bytes of a challenge of ours.
const CHALLENGE_LENGTH: usize = 32;
/// Bytes of a challenge of an initiator's (RFC 7143 section 12.1.3).
const CHALLENGE_MAX: usize = 1024;

/// How far an initiator is from having proven who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing is asked for.
    NotAsked,
    /// It is still to come.
    Awaited,
    /// It was right.
    Given,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Methods are to be offered.
    Method,
    /// Algorithms are to be offered.
    Algorithms,
    /// The answer to the challenge is to come.
    Answer(Algorithm),
    /// Nothing more.
    Over,
}

/// The negotiation.
#[derive(Debug)]
pub struct Security {
    demands: Demands,
    identifier: u8,
    challenge: [u8; CHALLENGE_LENGTH],
    step: Step,
    proof: Proof,
}

impl Security {
    pub(super) fn new(demands: Demands, entropy: [u8; 1 + CHALLENGE_LENGTH]) -> Self {
        let [identifier, challenge @ ..] = entropy;
        let proof = if demands.chap.is_some() {
            Proof::Awaited
        } else {
            Proof::NotAsked
        };
        Self {
            demands,
            identifier,
            challenge,
            step: Step::Method,
            proof,
        }
    }

    pub(super) fn proof(&self) -> Proof {
        self.proof
    }

    /// Takes keys, adds answers; says whether the next stage may begin.
    pub(super) fn take(&mut self, text: &Text, answer: &mut Text) -> Result<bool, Refusal> {
        match self.step {
            Step::Method => self.choose_method(text, answer),
            Step::Algorithms => self.challenge(text, answer),
            Step::Answer(algorithm) => self.verify(algorithm, text, answer),
            Step::Over => Ok(true),
        }
    }

    fn choose_method(&mut self, text: &Text, answer: &mut Text) -> Result<bool, Refusal> {
        let Some(offered) = text.get("AuthMethod") else {
            // It may still offer something, unless it never has to.
            return Ok(self.proof != Proof::Awaited);
        };
        let method = if self.proof == Proof::Awaited {
            "CHAP"
        } else {
            "None"
        };
        if !offered.split(',').any(|name| name == method) {
            return Err(Refusal::Authentication);
        }
        answer.add("AuthMethod", method);
        self.step = match self.proof {
            Proof::Awaited => Step::Algorithms,
            Proof::NotAsked | Proof::Given => Step::Over,
        };
        Ok(self.step == Step::Over)
    }

    fn challenge(&mut self, text: &Text, answer: &mut Text) -> Result<bool, Refusal> {
        let offered = text.get("CHAP_A").ok_or(Refusal::Authentication)?;
        let algorithm = Algorithm::choose(offered).ok_or(Refusal::Authentication)?;
        answer.add("CHAP_A", algorithm.number().to_string());
        answer.add("CHAP_I", self.identifier.to_string());
        answer.add("CHAP_C", hexadecimal(&self.challenge));
        self.step = Step::Answer(algorithm);
        Ok(false)
    }

    fn verify(&mut self, algorithm: Algorithm, text: &Text, answer: &mut Text) -> Result<bool, Refusal> {
        let chap = self.demands.chap.as_ref().ok_or(Refusal::Authentication)?;
        let user = text.get("CHAP_N").ok_or(Refusal::Authentication)?;
        let given = text
            .get("CHAP_R")
            .and_then(binary)
            .ok_or(Refusal::Authentication)?;
        let right = answer_to(
            algorithm,
            self.identifier,
            chap.secret.as_bytes(),
            &self.challenge,
        );
        // Both are compared whatever the first says.
        if !(is_same(user.as_bytes(), chap.user.as_bytes()) & is_same(&given, &right)) {
            return Err(Refusal::Authentication);
        }
        if let Some(identifier) = text.get("CHAP_I") {
            let challenge = text
                .get("CHAP_C")
                .and_then(binary)
                .ok_or(Refusal::Authentication)?;
            let own = self.demands.mutual.as_ref().ok_or(Refusal::Authentication)?;
            self.prove(algorithm, own, identifier, &challenge, answer)?;
        }
        self.proof = Proof::Given;
        self.step = Step::Over;
        Ok(true)
    }

    /// Answers the initiator's challenge, unless it is our own, handed back to have us answer it.
    fn prove(
        &self,
        algorithm: Algorithm,
        own: &Credentials,
        identifier: &str,
        challenge: &[u8],
        answer: &mut Text,
    ) -> Result<(), Refusal> {
        let identifier = number(identifier).and_then(|number| u8::try_from(number).ok());
        let identifier = identifier.ok_or(Refusal::Authentication)?;
        if challenge.is_empty() || challenge.len() > CHALLENGE_MAX || is_same(challenge, &self.challenge) {
            return Err(Refusal::Authentication);
        }
        answer.add("CHAP_N", own.user.as_str());
        let proof = answer_to(algorithm, identifier, own.secret.as_bytes(), challenge);
        answer.add("CHAP_R", hexadecimal(&proof));
        Ok(())
    }
}
