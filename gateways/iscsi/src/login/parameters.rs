//! Operational negotiation: every key of RFC 7143 section 13, and what comes out of it.

use crate::wire::text::{Text, number};

/// The most data of one PDU that this target takes, in bytes.
pub const RECEIVE_MAX: u32 = 256 * 1024;
/// The most unsolicited data of one command, in bytes.
pub const FIRST_BURST_MAX: u32 = 256 * 1024;
/// The most data of one sequence, in bytes.
pub const BURST_MAX: u32 = 1024 * 1024;
/// R2Ts of one command that may be open.
pub const OUTSTANDING_MAX: u32 = 1;
/// Connections of one session.
pub const CONNECTIONS_MAX: u32 = 8;
/// What an initiator takes in one PDU if it does not say (RFC 7143 section 13.12).
const SEND_DEFAULT: u32 = 8192;
/// Seconds that an initiator waits before it comes again (RFC 7143 section 13.15).
const TIME_TO_WAIT: u32 = 2;

/// A value that its key cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has a value that it cannot have")]
pub struct WrongValue;

/// What two sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Whether this is a discovery session.
    pub discovery: bool,
    /// Whether headers have digests.
    pub header_digest: bool,
    /// Whether data has digests.
    pub data_digest: bool,
    /// Connections of the session.
    pub connections_max: u32,
    /// Whether all data but immediate data waits for an R2T.
    pub initial_r2t: bool,
    /// Whether data may come with a command.
    pub immediate_data: bool,
    /// The most data of one PDU that the initiator takes, in bytes.
    pub send_max: u32,
    /// The most data of one sequence, in bytes.
    pub burst_max: u32,
    /// The most unsolicited data of one command, in bytes.
    pub first_burst: u32,
    /// R2Ts of one command that may be open.
    pub outstanding_r2t: u32,
    /// What the initiator calls itself to people.
    pub alias: Option<String>,
    pub(crate) declared: bool,
}

/// How two values become one.
#[derive(Clone, Copy)]
enum Rule {
    /// The smaller of the initiator's and ours; with the range that the standard allows.
    Smaller(u32, u32, u32),
    /// The greater one.
    Greater(u32, u32, u32),
    /// `Yes` if both say so.
    And(bool),
    /// `Yes` if one says so.
    Or(bool),
    /// The first of the initiator's list that we know: `CRC32C` or `None`.
    Digest,
    /// We have no markers.
    No,
    /// The initiator tells something.
    Declared,
    /// Of no use any more; we refuse it.
    Refused,
}

/// The standard's largest length: 24 bits.
const LENGTH_MAX: u32 = 0x00ff_ffff;

fn rule(key: &str) -> Option<Rule> {
    Some(match key {
        "HeaderDigest" | "DataDigest" => Rule::Digest,
        "MaxConnections" => Rule::Smaller(CONNECTIONS_MAX, 1, 65535),
        "InitialR2T" => Rule::Or(false),
        "ImmediateData" => Rule::And(true),
        "MaxBurstLength" => Rule::Smaller(BURST_MAX, 512, LENGTH_MAX),
        "FirstBurstLength" => Rule::Smaller(FIRST_BURST_MAX, 512, LENGTH_MAX),
        "DefaultTime2Wait" => Rule::Greater(TIME_TO_WAIT, 0, 3600),
        // Tasks do not outlive their connection at error recovery level 0.
        "DefaultTime2Retain" => Rule::Smaller(0, 0, 3600),
        "MaxOutstandingR2T" => Rule::Smaller(OUTSTANDING_MAX, 1, 65535),
        "DataPDUInOrder" | "DataSequenceInOrder" => Rule::Or(true),
        "ErrorRecoveryLevel" => Rule::Smaller(0, 0, 2),
        "IFMarker" | "OFMarker" => Rule::No,
        "IFMarkInt" | "OFMarkInt" | "TaskReporting" => Rule::Refused,
        "iSCSIProtocolLevel" => Rule::Smaller(1, 0, 31),
        "MaxRecvDataSegmentLength"
        | "InitiatorName"
        | "InitiatorAlias"
        | "TargetName"
        | "SessionType"
        | "AuthMethod" => Rule::Declared,
        _ => return None,
    })
}

impl Parameters {
    pub(crate) fn new(discovery: bool) -> Self {
        Self {
            discovery,
            header_digest: false,
            data_digest: false,
            connections_max: 1,
            initial_r2t: true,
            immediate_data: true,
            send_max: SEND_DEFAULT,
            burst_max: 256 * 1024,
            first_burst: 64 * 1024,
            outstanding_r2t: 1,
            alias: None,
            declared: false,
        }
    }

    /// Takes keys of the operational stage, and adds the answers.
    pub(super) fn take(&mut self, text: &Text, answer: &mut Text) -> Result<(), WrongValue> {
        self.declare(text)?;
        for (key, value) in text.iter() {
            match rule(key) {
                None => answer.add(key, "NotUnderstood"),
                Some(Rule::Declared) => {}
                Some(_) if matches!(value, "Irrelevant" | "Reject" | "NotUnderstood") => {}
                Some(rule) => {
                    let agreed = decide(rule, value)?;
                    self.keep(key, &agreed);
                    answer.add(key, agreed);
                }
            }
        }
        if !self.declared {
            answer.add("MaxRecvDataSegmentLength", RECEIVE_MAX.to_string());
            self.declared = true;
        }
        Ok(())
    }

    /// Takes what the initiator tells and nobody answers.
    pub(super) fn declare(&mut self, text: &Text) -> Result<(), WrongValue> {
        if let Some(value) = text.get("MaxRecvDataSegmentLength") {
            let length = number(value).filter(|length| (512..=LENGTH_MAX).contains(length));
            self.send_max = length.ok_or(WrongValue)?;
        }
        if let Some(alias) = text.get("InitiatorAlias") {
            self.alias = Some(alias.to_owned());
        }
        Ok(())
    }

    /// What both sides hold to once commands are taken.
    pub(super) fn finish(&mut self, _answer: &mut Text) {
        self.first_burst = self.first_burst.min(self.burst_max);
    }

    fn keep(&mut self, key: &str, agreed: &str) {
        let yes = agreed == "Yes";
        let count = number(agreed);
        match key {
            "HeaderDigest" => self.header_digest = agreed == "CRC32C",
            "DataDigest" => self.data_digest = agreed == "CRC32C",
            "InitialR2T" => self.initial_r2t = yes,
            "ImmediateData" => self.immediate_data = yes,
            "MaxConnections" => self.connections_max = count.unwrap_or(self.connections_max),
            "MaxBurstLength" => self.burst_max = count.unwrap_or(self.burst_max),
            "FirstBurstLength" => self.first_burst = count.unwrap_or(self.first_burst),
            "MaxOutstandingR2T" => self.outstanding_r2t = count.unwrap_or(self.outstanding_r2t),
            _ => {}
        }
    }
}

fn decide(rule: Rule, value: &str) -> Result<String, WrongValue> {
    let ranged = |least, most| {
        number(value)
            .filter(|value| (least..=most).contains(value))
            .ok_or(WrongValue)
    };
    let yes = match value {
        "Yes" => Ok(true),
        "No" => Ok(false),
        _ => Err(WrongValue),
    };
    let word = |yes: bool| if yes { "Yes" } else { "No" }.to_owned();
    Ok(match rule {
        Rule::Smaller(ours, least, most) => ranged(least, most)?.min(ours).to_string(),
        Rule::Greater(ours, least, most) => ranged(least, most)?.max(ours).to_string(),
        Rule::And(ours) => word(yes? && ours),
        Rule::Or(ours) => word(yes? || ours),
        Rule::No => {
            yes?;
            word(false)
        }
        Rule::Digest => {
            let mut offered = value.split(',');
            let known = offered.find(|name| matches!(*name, "CRC32C" | "None"));
            known.map_or_else(|| "Reject".to_owned(), str::to_owned)
        }
        Rule::Declared => String::new(),
        Rule::Refused => "Reject".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    //! Each rule, and values that no key can have.
    use super::*;
    use proptest::prelude::*;

    fn negotiate(text: &str) -> Result<(Parameters, Text), WrongValue> {
        let mut parameters = Parameters::new(false);
        let mut answer = Text::default();
        let text = Text::parse(text.replace(' ', "\0").as_bytes()).unwrap();
        parameters.take(&text, &mut answer)?;
        parameters.finish(&mut answer);
        Ok((parameters, answer))
    }

    #[test]
    fn what_open_iscsi_offers_is_agreed_on() {
        let (parameters, answer) = negotiate(
            "HeaderDigest=CRC32C,None DataDigest=None InitialR2T=No ImmediateData=Yes MaxBurstLength=16776192 \
             FirstBurstLength=262144 DefaultTime2Wait=2 DefaultTime2Retain=20 MaxOutstandingR2T=4 MaxConnections=1 \
             DataPDUInOrder=No DataSequenceInOrder=Yes ErrorRecoveryLevel=2 IFMarker=No OFMarkInt=1~65535 \
             X-com.example=1 MaxRecvDataSegmentLength=262144",
        )
        .unwrap();
        assert!(parameters.header_digest && !parameters.data_digest);
        assert!(!parameters.initial_r2t && parameters.immediate_data);
        assert_eq!(
            (parameters.burst_max, parameters.first_burst),
            (BURST_MAX, 262_144)
        );
        assert_eq!(parameters.send_max, 262_144);
        for (key, value) in [
            ("DefaultTime2Retain", "0"),
            ("MaxOutstandingR2T", "1"),
            ("DataPDUInOrder", "Yes"),
            ("ErrorRecoveryLevel", "0"),
            ("IFMarker", "No"),
            ("OFMarkInt", "Reject"),
            ("X-com.example", "NotUnderstood"),
            ("MaxRecvDataSegmentLength", "262144"),
        ] {
            assert_eq!(answer.get(key), Some(value), "{key}");
        }
    }

    #[test]
    fn a_first_burst_is_no_longer_than_a_burst() {
        let (parameters, _) = negotiate("MaxBurstLength=512 FirstBurstLength=65536").unwrap();
        assert_eq!((parameters.burst_max, parameters.first_burst), (512, 512));
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for text in [
            "MaxBurstLength=511",
            "InitialR2T=Maybe",
            "MaxConnections=0",
            "MaxRecvDataSegmentLength=1",
            "ErrorRecoveryLevel=3",
            "FirstBurstLength=99999999",
        ] {
            assert_eq!(negotiate(text).unwrap_err(), WrongValue, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_value_leads_outside_of_the_bounds(key in 0usize..8, value in "(Yes|No|[0-9]{1,9}|[a-z,~]{0,9})") {
            let key = ["MaxBurstLength", "FirstBurstLength", "InitialR2T", "ImmediateData", "HeaderDigest",
                       "MaxConnections", "MaxOutstandingR2T", "MaxRecvDataSegmentLength"][key];
            if let Ok((parameters, _)) = negotiate(&format!("{key}={value}")) {
                prop_assert!(parameters.first_burst <= parameters.burst_max && parameters.burst_max <= BURST_MAX);
                prop_assert!(parameters.send_max >= 512 && parameters.outstanding_r2t == 1);
                prop_assert!((1..=CONNECTIONS_MAX).contains(&parameters.connections_max));
            }
        }
    }
}
