//! Looks after the disks and writes into the event log what changes with them by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use admin_api::disks::DiskState;
use coordination::records::Severity;
use protocol::DiskId;
use tracing::warn;

use crate::disks::{Condition, Disks};
use crate::events::Events;

/// How often the disks are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Looks for ever: run it as a task.
pub async fn run(disks: Arc<Disks>, events: Events) {
    let mut known: BTreeMap<DiskId, DiskState> = BTreeMap::new();
    let mut changes = disks.subscribe();
    loop {
        for id in disks.ids().await {
            let condition = disks.condition(id).await;
            // A disk that serves from the start is as it should be.
            let before = known.insert(id, condition.state).unwrap_or(DiskState::Up);
            let Some((severity, kind, message)) = telling(id, before, &condition) else {
                continue;
            };
            if let Err(error) = events.write(severity, kind, id.to_string(), message).await {
                warn!(%error, "an event could not be written");
            }
        }
        // A disk that starts or stops is looked at without delay.
        let _ = tokio::time::timeout(EVERY, changes.changed()).await;
    }
}

/// What to tell of a disk that was in one state and is in another.
fn telling(id: DiskId, before: DiskState, condition: &Condition) -> Option<(Severity, &'static str, String)> {
    if condition.state == before {
        return None;
    }
    let reason = condition.reason.as_deref().unwrap_or("no reason is known");
    Some(match condition.state {
        DiskState::Up => (Severity::Info, "disk_up", format!("{id} serves again")),
        DiskState::Starting => (Severity::Info, "disk_starting", format!("{id} is being opened")),
        DiskState::Down => (
            Severity::Error,
            "disk_down",
            format!("{id} does not serve: {reason}"),
        ),
        DiskState::Poisoned => (
            Severity::Error,
            "disk_poisoned",
            format!("{id} is out of service: {reason}"),
        ),
    })
}

#[cfg(test)]
mod tests {
    //! Every change is told once, and nothing else.
    use super::*;
    use crate::disk::Figures;

    fn condition(state: DiskState) -> Condition {
        Condition {
            state,
            reason: Some("the cable is loose".to_owned()),
            figures: Figures::default(),
            here: true,
        }
    }

    #[test]
    fn a_disk_that_goes_and_comes_back_is_told_of_twice() {
        let id = DiskId(2);
        assert!(telling(id, DiskState::Up, &condition(DiskState::Up)).is_none());
        let (severity, kind, message) = telling(id, DiskState::Up, &condition(DiskState::Down)).unwrap();
        assert_eq!((severity, kind), (Severity::Error, "disk_down"));
        assert!(
            message.contains("disk-2") && message.contains("cable"),
            "{message}"
        );
        assert!(telling(id, DiskState::Down, &condition(DiskState::Down)).is_none());
        let (severity, kind, _) = telling(id, DiskState::Down, &condition(DiskState::Up)).unwrap();
        assert_eq!((severity, kind), (Severity::Info, "disk_up"));
    }
}
