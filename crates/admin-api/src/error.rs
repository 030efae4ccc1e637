//! The answer to a request that was not carried out: a kind for programs, a sentence for people.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for a program to decide on. Each kind has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name breaks the rules of [`crate::names`].
    InvalidName,
    /// A size cannot be read, is zero, or is above the limit.
    InvalidSize,
    /// The request is not understood: bad JSON, an unknown field, a value out of its range.
    InvalidRequest,
    /// The request came over the network and showed no token that is good.
    Unauthenticated,
    /// The bearer of the token may not do this.
    Forbidden,
    /// The thing that the path or the body names does not exist.
    NotFound,
    /// Something of that name exists already and is not what was asked for.
    AlreadyExists,
    /// The thing is open or otherwise used, and what was asked would hurt its user.
    InUse,
    /// The volume has snapshots, and the request did not say that they may go too.
    HasSnapshots,
    /// The new size is below the present one, and the request did not say that data may be cut off.
    WouldShrink,
    /// Others changed the same things all the time; nothing was done. Try again.
    Conflict,
    /// There are too few disks for what was asked.
    NotEnoughDisks,
    /// There is no room.
    Full,
    /// Something that is needed is away for now. The message says what; try again.
    Unavailable,
    /// The body is larger than the server accepts.
    TooLarge,
    /// The method is not one that this path answers to.
    MethodNotAllowed,
    /// A fault of storaged itself; its log says more.
    Internal,
}

impl ErrorKind {
    /// Every kind, for documents and tests.
    pub const ALL: [Self; 17] = [
        Self::InvalidName,
        Self::InvalidSize,
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::AlreadyExists,
        Self::InUse,
        Self::HasSnapshots,
        Self::WouldShrink,
        Self::Conflict,
        Self::NotEnoughDisks,
        Self::Full,
        Self::Unavailable,
        Self::TooLarge,
        Self::MethodNotAllowed,
        Self::Internal,
    ];

    /// The HTTP status that goes with the kind.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidName | Self::InvalidSize | Self::InvalidRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyExists | Self::InUse | Self::HasSnapshots | Self::WouldShrink | Self::Conflict => {
                409
            }
            Self::TooLarge => 413,
            Self::Internal => 500,
            Self::NotEnoughDisks | Self::Unavailable => 503,
            Self::Full => 507,
        }
    }
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: what happened, and what to do about it.
    pub message: String,
}

impl ErrorBody {
    /// An error of this kind that says this.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Kinds are an interface: programs compare their names and scripts their statuses.
    use super::*;

    #[test]
    fn every_kind_has_an_error_status_and_a_snake_case_name_that_reads_back() {
        for kind in ErrorKind::ALL {
            assert!((400..600).contains(&kind.status()), "{kind:?}");
            let text = serde_json::to_string(&kind).unwrap();
            assert!(
                text.trim_matches('"')
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '_'),
                "{text}"
            );
            assert_eq!(serde_json::from_str::<ErrorKind>(&text).unwrap(), kind);
        }
    }
}
