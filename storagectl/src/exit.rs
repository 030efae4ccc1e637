//! Exit codes: the part of an error that a script can read. They are listed in `--help` and do not change.

use admin_api::ErrorKind;

use joining::{KnockError, Refusal};

use crate::api::ApiError;

/// storaged refused, or something else went wrong; the sentence on standard error says what.
pub(crate) const FAILED: u8 = 1;
/// What was named does not exist.
pub(crate) const NOT_FOUND: u8 = 3;
/// storaged cannot be reached, or cannot serve just now: the same command may work later.
pub(crate) const UNAVAILABLE: u8 = 4;
/// A check ran to its end and found that something is not well.
pub(crate) const UNWELL: u8 = 5;
/// The question whether to go on was not answered with the name.
pub(crate) const NOT_CONFIRMED: u8 = 6;
/// The reader of our output went away: nothing to say, and nobody to say it to.
pub(crate) const QUIET: u8 = 141;

/// The list for `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0  done
  1  refused or failed: standard error says why
  2  wrong usage
  3  what was named does not exist
  4  storaged cannot be reached or cannot serve just now; try again
  5  a check found that something is not well
  6  a dangerous command was not confirmed; nothing was changed";

/// An end that is decided here and not by storaged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// See [`UNWELL`].
    #[error("{0}")]
    Unwell(String),
    /// See [`NOT_CONFIRMED`].
    #[error("{0}")]
    NotConfirmed(String),
}

/// The exit code of an error, wherever in its chain the cause is.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(stop) = cause.downcast_ref::<Stop>() {
            return match stop {
                Stop::Unwell(_) => UNWELL,
                Stop::NotConfirmed(_) => NOT_CONFIRMED,
            };
        }
        if let Some(api) = cause.downcast_ref::<ApiError>() {
            return match api {
                ApiError::Refused(body) if body.kind == ErrorKind::NotFound => NOT_FOUND,
                ApiError::Refused(body) if body.kind == ErrorKind::Unavailable => UNAVAILABLE,
                ApiError::Unreachable { .. } => UNAVAILABLE,
                ApiError::Refused(_) | ApiError::Broken { .. } => FAILED,
            };
        }
        if let Some(knock) = cause.downcast_ref::<KnockError>() {
            return match knock {
                KnockError::Unreachable(_)
                | KnockError::Refused {
                    refusal: Refusal::Busy | Refusal::Unable,
                    ..
                } => UNAVAILABLE,
                _ => FAILED,
            };
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::BrokenPipe
        {
            return QUIET;
        }
    }
    FAILED
}

#[cfg(test)]
mod tests {
    //! Scripts compare these numbers.
    use super::*;
    use admin_api::ErrorBody;
    use anyhow::Context;

    #[test]
    fn the_cause_decides_however_much_context_lies_around_it() {
        let refused = |kind| anyhow::Error::from(ApiError::Refused(ErrorBody::new(kind, "no")));
        assert_eq!(
            code(&refused(ErrorKind::NotFound).context("delete a volume")),
            NOT_FOUND
        );
        assert_eq!(code(&refused(ErrorKind::Unavailable)), UNAVAILABLE);
        assert_eq!(code(&refused(ErrorKind::AlreadyExists)), FAILED);
        let knock = |refusal| {
            anyhow::Error::from(KnockError::Refused {
                refusal,
                sentence: "no".into(),
            })
        };
        assert_eq!(code(&knock(Refusal::Busy)), UNAVAILABLE);
        assert_eq!(code(&knock(Refusal::Used)), FAILED);
        assert_eq!(code(&Stop::NotConfirmed("no".into()).into()), NOT_CONFIRMED);
        assert_eq!(code(&Stop::Unwell("bad".into()).into()), UNWELL);
        let pipe: anyhow::Result<()> =
            Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).context("print");
        assert_eq!(code(&pipe.unwrap_err()), QUIET);
    }
}
