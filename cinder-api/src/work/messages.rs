//! Tells users what went wrong after their request was answered: the API's messages.

use crate::records::message::Message;
use crate::records::{Edit, Instant, Job};

/// How long a message is kept, in seconds: 30 days, as Cinder's `message_ttl`.
const KEPT_S: i64 = 30 * 24 * 3600;

/// What happened, as clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// What was being done, in the code that Cinder gives it.
    action: &'static str,
    /// Why it failed, in that code.
    detail: &'static str,
    /// Both, for people.
    words: &'static str,
}

/// No pool fits a volume's type.
pub(super) const NO_BACKEND: Event = Event {
    action: "001",
    detail: "003",
    words: "schedule allocate volume:Could not find any available weighted backend.",
};
/// A volume could not be made.
pub(super) const NOT_MADE: Event = Event {
    action: "001",
    detail: "001",
    words: "schedule allocate volume:An unknown error occurred.",
};
/// An image could not be written to a volume.
pub(super) const NO_IMAGE: Event = Event {
    action: "005",
    detail: "004",
    words: "copy image to volume:Failed to copy image to volume.",
};
/// A volume could not be made larger.
pub(super) const NOT_EXTENDED: Event = Event {
    action: "007",
    detail: "001",
    words: "extend volume:An unknown error occurred.",
};
/// A snapshot could not be made.
pub(super) const NO_SNAPSHOT: Event = Event {
    action: "009",
    detail: "001",
    words: "create snapshot:An unknown error occurred.",
};
/// A snapshot could not be deleted.
pub(super) const SNAPSHOT_STAYS: Event = Event {
    action: "010",
    detail: "001",
    words: "delete snapshot:An unknown error occurred.",
};

/// Leaves a message about something, in the transaction that changes its state.
pub(super) fn leave(edit: &mut Edit<'_>, job: &Job, event: Event, (kind, id): (&str, &str)) {
    let now = Instant::now();
    edit.insert(&Message {
        id: uuid::Uuid::new_v4().to_string(),
        project_id: job.project_id.clone(),
        event_id: format!("VOLUME_{kind}_{}_{}", event.action, event.detail),
        user_message: event.words.to_owned(),
        message_level: "ERROR".to_owned(),
        resource_type: kind.to_owned(),
        resource_uuid: id.to_owned(),
        request_id: job.request_id.clone(),
        created_at: now,
        expires_at: now.plus_seconds(KEPT_S),
    });
}
