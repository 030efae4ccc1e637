//! What the two say to each other, and its bytes: one question, one answer. TLS keeps the bytes whole; here they
//! are only bounded and understood. See `docs/protocol/joining.md`.

use crate::bytes::Reader;
use crate::token::{Secret, TokenId};

/// The version of the question and the answer.
const VERSION: u16 = 1;
/// What a question begins with.
const QUESTION_MAGIC: [u8; 4] = *b"sdjq";
/// What an answer begins with.
const ANSWER_MAGIC: [u8; 4] = *b"sdja";
/// The length of a question without the name.
pub(crate) const QUESTION_LENGTH: usize = 32;
/// The length of an answer without its body.
pub(crate) const ANSWER_LENGTH: usize = 12;
/// The longest name of a machine.
pub const NAME_LENGTH_MAX: usize = 63;
/// The longest body: certificates and keys are a few KiB each.
pub const BODY_LENGTH_MAX: usize = 256 * 1024;

/// Bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Something else speaks there.
    #[error("what came is not of the joining protocol")]
    Foreign,
    /// A newer program speaks there.
    #[error("it speaks version {0} of the joining protocol, and this program version {VERSION}")]
    Version(u16),
    /// Lengths or fields are wrong.
    #[error("what came makes no sense")]
    Malformed,
}

/// What a machine asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// With which token.
    pub id: TokenId,
    /// Its proof.
    pub secret: Secret,
    /// What the machine is called, for the event log.
    pub name: String,
}

/// How to reach the etcd of the cluster, with the texts of the files that are needed for it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EtcdAccess {
    /// Its members' client addresses.
    pub endpoints: Vec<String>,
    /// What is put before every key.
    pub prefix: String,
    /// Certificates to check the members' with.
    pub ca: Option<Vec<u8>>,
    /// A certificate to show.
    pub certificate: Option<Vec<u8>>,
    /// The private key of that.
    pub key: Option<Vec<u8>>,
    /// A user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Vec<u8>>,
}

/// What a machine is given to become a node.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The cluster.
    pub cluster: [u8; 16],
    /// The authority's certificate, as the text of a PEM file.
    pub certificate: String,
    /// The authority's private key, as the text of a PEM file.
    pub key: String,
    /// How to reach etcd.
    pub etcd: EtcdAccess,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bundle")
    }
}

/// Why a machine is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The cluster knows no such token.
    Unknown,
    /// The secret is not that of the token.
    Wrong,
    /// The token's time is over.
    Expired,
    /// Somebody was let in with it.
    Used,
    /// There were too many wrong tokens lately.
    Busy,
    /// The node cannot hand over now.
    Unable,
}

impl Refusal {
    const ALL: [(Self, u16); 6] = [
        (Self::Unknown, 1),
        (Self::Wrong, 2),
        (Self::Expired, 3),
        (Self::Used, 4),
        (Self::Busy, 5),
        (Self::Unable, 6),
    ];

    fn number(self) -> u16 {
        let found = Self::ALL.into_iter().find(|(refusal, _)| *refusal == self);
        found.map_or(0, |(_, number)| number)
    }

    fn of_number(number: u16) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, known)| *known == number);
        found.map(|(refusal, _)| refusal)
    }
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Here is everything. The token is used up.
    Granted(Box<Bundle>),
    /// Nothing was done, for this reason, which the sentence tells a person.
    Refused(Refusal, String),
}

impl Question {
    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        if self.name.len() > NAME_LENGTH_MAX {
            return Err(MessageError::Malformed);
        }
        let length = u16::try_from(self.name.len()).map_err(|_| MessageError::Malformed)?;
        let mut bytes = QUESTION_MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(self.name.as_bytes());
        Ok(bytes)
    }

    /// How long the name is that follows these first bytes.
    pub(crate) fn name_length(head: &[u8; QUESTION_LENGTH]) -> Result<usize, MessageError> {
        let mut reader = Reader(head);
        begin(&mut reader, QUESTION_MAGIC)?;
        let length = usize::from(reader.short().ok_or(MessageError::Malformed)?);
        (length <= NAME_LENGTH_MAX)
            .then_some(length)
            .ok_or(MessageError::Malformed)
    }

    /// A question from its bytes.
    pub fn decode(head: &[u8; QUESTION_LENGTH], name: &[u8]) -> Result<Self, MessageError> {
        if Self::name_length(head)? != name.len() {
            return Err(MessageError::Malformed);
        }
        let mut reader = Reader(&head[8..]);
        let parts = (|| Some((u64::from_le_bytes(reader.array()?), reader.array()?)))();
        let (id, secret) = parts.ok_or(MessageError::Malformed)?;
        let name = std::str::from_utf8(name).map_err(|_| MessageError::Malformed)?;
        if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(MessageError::Malformed);
        }
        Ok(Self {
            id: TokenId(id),
            secret: Secret(secret),
            name: name.to_owned(),
        })
    }
}

fn begin(reader: &mut Reader<'_>, magic: [u8; 4]) -> Result<(), MessageError> {
    if reader.array() != Some(magic) {
        return Err(MessageError::Foreign);
    }
    match reader.short() {
        Some(VERSION) => Ok(()),
        Some(version) => Err(MessageError::Version(version)),
        None => Err(MessageError::Malformed),
    }
}

/// Which part of a bundle a field is.
mod tag {
    pub(super) const CLUSTER: u16 = 1;
    pub(super) const CERTIFICATE: u16 = 2;
    pub(super) const KEY: u16 = 3;
    pub(super) const ETCD_ENDPOINT: u16 = 4;
    pub(super) const ETCD_PREFIX: u16 = 5;
    pub(super) const ETCD_CA: u16 = 6;
    pub(super) const ETCD_CERTIFICATE: u16 = 7;
    pub(super) const ETCD_KEY: u16 = 8;
    pub(super) const ETCD_USER: u16 = 9;
    pub(super) const ETCD_PASSWORD: u16 = 10;
}

impl Answer {
    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let (number, body) = match self {
            Self::Granted(bundle) => (0, bundle.encode()?),
            Self::Refused(refusal, sentence) => (refusal.number(), sentence.as_bytes().to_vec()),
        };
        if body.len() > BODY_LENGTH_MAX {
            return Err(MessageError::Malformed);
        }
        let mut bytes = ANSWER_MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&length_of(&body)?);
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// How long the body is that follows these first bytes.
    pub(crate) fn body_length(head: &[u8; ANSWER_LENGTH]) -> Result<usize, MessageError> {
        let mut reader = Reader(head);
        begin(&mut reader, ANSWER_MAGIC)?;
        let parts = (|| Some((reader.short()?, reader.word()?)))();
        let (_, length) = parts.ok_or(MessageError::Malformed)?;
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= BODY_LENGTH_MAX)
            .ok_or(MessageError::Malformed)
    }

    /// An answer from its bytes.
    pub fn decode(head: &[u8; ANSWER_LENGTH], body: &[u8]) -> Result<Self, MessageError> {
        if Self::body_length(head)? != body.len() {
            return Err(MessageError::Malformed);
        }
        let number = Reader(&head[6..]).short().ok_or(MessageError::Malformed)?;
        if number == 0 {
            let bundle = Bundle::decode(body).ok_or(MessageError::Malformed)?;
            return Ok(Self::Granted(Box::new(bundle)));
        }
        let refusal = Refusal::of_number(number).ok_or(MessageError::Malformed)?;
        let sentence = std::str::from_utf8(body).map_err(|_| MessageError::Malformed)?;
        Ok(Self::Refused(refusal, sentence.to_owned()))
    }
}

fn length_of(bytes: &[u8]) -> Result<[u8; 4], MessageError> {
    let length = u32::try_from(bytes.len()).map_err(|_| MessageError::Malformed)?;
    Ok(length.to_le_bytes())
}

impl Bundle {
    /// The cluster's identity, as people read it.
    pub fn cluster_text(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.cluster)
    }

    fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let etcd = &self.etcd;
        let mut fields: Vec<(u16, &[u8])> = vec![
            (tag::CLUSTER, &self.cluster),
            (tag::CERTIFICATE, self.certificate.as_bytes()),
            (tag::KEY, self.key.as_bytes()),
            (tag::ETCD_PREFIX, etcd.prefix.as_bytes()),
        ];
        let endpoints = etcd.endpoints.iter();
        fields.extend(endpoints.map(|endpoint| (tag::ETCD_ENDPOINT, endpoint.as_bytes())));
        let user = etcd.user.as_ref().map(String::as_bytes);
        for (tag, bytes) in [
            (tag::ETCD_CA, etcd.ca.as_deref()),
            (tag::ETCD_CERTIFICATE, etcd.certificate.as_deref()),
            (tag::ETCD_KEY, etcd.key.as_deref()),
            (tag::ETCD_USER, user),
            (tag::ETCD_PASSWORD, etcd.password.as_deref()),
        ] {
            fields.extend(bytes.map(|bytes| (tag, bytes)));
        }
        let mut all = Vec::new();
        for (tag, bytes) in fields {
            all.extend_from_slice(&tag.to_le_bytes());
            all.extend_from_slice(&0_u16.to_le_bytes());
            all.extend_from_slice(&length_of(bytes)?);
            all.extend_from_slice(bytes);
        }
        Ok(all)
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let mut reader = Reader(body);
        let (mut cluster, mut certificate, mut key) = (None, None, None);
        let mut etcd = EtcdAccess::default();
        while !reader.0.is_empty() {
            let tag = reader.short()?;
            reader.short()?;
            let length = usize::try_from(reader.word()?).ok()?;
            let bytes = reader.take(length)?;
            match tag {
                tag::CLUSTER => cluster = Some(bytes.try_into().ok()?),
                tag::CERTIFICATE => certificate = Some(text(bytes)?),
                tag::KEY => key = Some(text(bytes)?),
                tag::ETCD_ENDPOINT => etcd.endpoints.push(text(bytes)?),
                tag::ETCD_PREFIX => etcd.prefix = text(bytes)?,
                tag::ETCD_CA => etcd.ca = Some(bytes.to_vec()),
                tag::ETCD_CERTIFICATE => etcd.certificate = Some(bytes.to_vec()),
                tag::ETCD_KEY => etcd.key = Some(bytes.to_vec()),
                tag::ETCD_USER => etcd.user = Some(text(bytes)?),
                tag::ETCD_PASSWORD => etcd.password = Some(bytes.to_vec()),
                // What a later version may add, and one can do without.
                _ => {}
            }
        }
        Some(Self {
            cluster: cluster?,
            certificate: certificate?,
            key: key?,
            etcd,
        })
    }
}

#[cfg(test)]
mod tests;
