//! Why an operation was not carried out: a kind for programs, a sentence for people.

use admin_api::iscsi::IscsiNameError;
use admin_api::names::NameError;
use admin_api::sizes::SizeError;
use admin_api::{ErrorBody, ErrorKind};
use coordination::CoordinationError;
use coordination::records::RecordError;

use super::rest::RestError;

/// Why an operation was not carried out. Nothing was changed, unless the message says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// A name breaks the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name of a target or an initiator breaks the rules.
    #[error(transparent)]
    IscsiName(#[from] IscsiNameError),
    /// A size is none that a volume can have.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// What is named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// Somebody uses it.
    #[error("{0}")]
    InUse(String),
    /// The volume has snapshots, and they may not go.
    #[error("{0}")]
    HasSnapshots(String),
    /// The volume would become smaller, and that was not allowed.
    #[error("{0}")]
    WouldShrink(String),
    /// Others changed the same things all the time, or are not done yet.
    #[error("{0}")]
    Conflict(String),
    /// There are too few disks.
    #[error("{0}")]
    NotEnoughDisks(String),
    /// Something that is needed is away.
    #[error("{0}")]
    Unavailable(String),
    /// The owner did not come to rest.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The coordination store did not do as it was asked.
    #[error(transparent)]
    Store(#[from] CoordinationError),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A fault of the program.
    #[error("{0}")]
    Internal(String),
}

impl OperationError {
    /// Others were faster too often.
    pub fn contended() -> Self {
        Self::Conflict(
            "others changed the same things at the same moment, again and again; nothing was done: try again"
                .to_owned(),
        )
    }

    /// The kind, as the admin API names it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) | Self::IscsiName(_) => ErrorKind::InvalidName,
            Self::Size(_) => ErrorKind::InvalidSize,
            Self::Invalid(_) => ErrorKind::InvalidRequest,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Self::InUse(_) | Self::Rest(RestError::InUse(_)) => ErrorKind::InUse,
            Self::HasSnapshots(_) => ErrorKind::HasSnapshots,
            Self::WouldShrink(_) => ErrorKind::WouldShrink,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::NotEnoughDisks(_) => ErrorKind::NotEnoughDisks,
            Self::Unavailable(_)
            | Self::Rest(_)
            | Self::Store(CoordinationError::Unavailable(_) | CoordinationError::Unknown(_)) => {
                ErrorKind::Unavailable
            }
            Self::Store(_) | Self::Record(_) | Self::Internal(_) => ErrorKind::Internal,
        }
    }
}

impl From<OperationError> for ErrorBody {
    fn from(error: OperationError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
