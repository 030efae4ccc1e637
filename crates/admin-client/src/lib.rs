//! What other processes ask of the `storaged` of their node, over its admin socket: gateways about iSCSI ([`IscsiDirectory`]),
//! cinder-api about volumes ([`VolumeDirectory`]).
//!
//! What follows from the answers, and when to ask again, is theirs. People ask with `storagectl`.
#![forbid(unsafe_code)]

mod asker;
mod iscsi;
mod volumes;

pub use asker::{AskError, Observer};
pub use iscsi::IscsiDirectory;
pub use volumes::VolumeDirectory;

#[cfg(test)]
mod tests {
    //! Who does not answer is named. Answers of a real `storaged` are in its own tests.
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_storaged_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let directory = IscsiDirectory::new(&folder.path().join("none.sock")).unwrap();
        let error = directory.configuration(None, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, AskError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("none.sock"), "{error}");
    }
}
