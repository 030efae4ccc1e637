//! An image's copy in the storage, from which volumes are cloned: one in each pool.

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::names::named;
use super::table::Record;

named! {
    /// What a copy is at.
    CopyStatus {
        /// A job is writing it.
        Copying = "copying",
        /// Volumes can be cloned from it.
        Ready = "ready",
        /// It could not be made.
        Failed = "failed",
        /// It is being deleted.
        Leaving = "leaving",
    }
}

/// A copy of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCopy {
    /// See [`ImageCopy::key`].
    pub id: String,
    /// The image.
    pub image_id: String,
    /// The pool that it lies in.
    pub pool: String,
    /// What the volume is called in the storage that holds it.
    pub storage_name: String,
    /// What it is at.
    pub status: CopyStatus,
    /// The job that writes it. When that is gone, another one takes over.
    pub job_id: String,
    /// Its size in GiB; 0 until it is known.
    #[serde(default)]
    pub size: u64,
    /// Where Glance is.
    pub endpoint: String,
    /// Why it failed.
    #[serde(default)]
    pub fail_reason: Option<String>,
    /// When it was begun.
    pub created_at: Instant,
    /// When it was used last, or has failed.
    pub used_at: Instant,
}

impl ImageCopy {
    /// The identity of the record.
    pub fn key(image_id: &str, pool: &str) -> String {
        format!("{image_id}-{}", super::names::key(pool))
    }
}

impl Record for ImageCopy {
    const KIND: &'static str = "image-copy";

    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}
