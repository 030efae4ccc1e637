//! Looks after the disks and writes into the event log what changes with them by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use admin_api::disks::DiskState;
use coordination::records::Severity;
use protocol::DiskId;
use tracing::warn;

use crate::disks::{Condition, Disks};
use crate::events::Events;
use crate::membership::{Leave, Wish, Wishes};
use crate::progress::Progress;
use crate::slow::{Judge, Policy, Verdict, Windows};

/// How often the disks are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Looks for ever: run it as a task. Disks that are too slow by the policy are to leave their groups.
pub async fn run(disks: Arc<Disks>, events: Events, policy: Policy, wishes: Wishes, progress: Arc<Progress>) {
    let mut known: BTreeMap<DiskId, DiskState> = BTreeMap::new();
    let mut changes = disks.subscribe();
    let mut pace = Pace::new(policy);
    loop {
        for (id, verdict) in pace.look(&disks).await {
            let (severity, kind, message) = telling_of_pace(id, &verdict);
            if let Err(error) = events.write(severity, kind, id.to_string(), message).await {
                warn!(%error, "an event could not be written");
            }
        }
        for (id, why) in pace.judge.unbearable() {
            let leave = Leave::Slow(id, why.to_string());
            // With no room it is wished again. Else it is carried out to the end, in as many transactions as it takes.
            if leave.matters(&disks.map()) && wishes.try_send(Wish::Leave(leave)).is_ok() {
                pace.judge.put_out(id);
            }
        }
        let mut copied = BTreeMap::new();
        for id in disks.ids().await {
            let condition = disks.condition(id).await;
            copied.insert(id, condition.figures.copied);
            // A disk that serves from the start is as it should be.
            let before = known.insert(id, condition.state).unwrap_or(DiskState::Up);
            let Some((severity, kind, message)) = telling(id, before, &condition) else {
                continue;
            };
            if let Err(error) = events.write(severity, kind, id.to_string(), message).await {
                warn!(%error, "an event could not be written");
            }
        }
        progress.look(&disks.map(), &copied, Instant::now());
        // A disk that starts or stops is looked at without delay.
        let _ = tokio::time::timeout(EVERY, changes.changed()).await;
    }
}

/// Compares the disks' times with each other.
struct Pace {
    window: Duration,
    began: Option<Instant>,
    known: BTreeSet<DiskId>,
    windows: Windows,
    judge: Judge,
}

impl Pace {
    fn new(policy: Policy) -> Self {
        Self {
            window: policy.window(),
            began: None,
            known: BTreeSet::new(),
            windows: Windows::default(),
            judge: Judge::new(policy),
        }
    }

    /// What has changed, if a window is over.
    async fn look(&mut self, disks: &Disks) -> Vec<(DiskId, Verdict)> {
        if self.began.is_some_and(|began| began.elapsed() < self.window) {
            return Vec::new();
        }
        self.began = Some(Instant::now());
        let mut media = BTreeMap::new();
        for id in disks.ids().await {
            if let Some(times) = disks.times(id).await {
                media.insert(id, times.medium);
            }
        }
        // Of a disk that was stopped, nothing is thought any more.
        let gone = self.known.iter().filter(|id| !media.contains_key(id));
        gone.for_each(|id| disks.mark_slow(*id, None));
        self.known = media.keys().copied().collect();
        let verdicts = self.judge.judge(&self.windows.close(media));
        for (id, verdict) in &verdicts {
            let why = match verdict {
                Verdict::Slow(why) => Some(why.to_string()),
                Verdict::Well => None,
            };
            disks.mark_slow(*id, why);
        }
        verdicts
    }
}

/// What to tell of a disk whose pace has changed.
fn telling_of_pace(id: DiskId, verdict: &Verdict) -> (Severity, &'static str, String) {
    match verdict {
        Verdict::Slow(why) => (Severity::Warning, "disk_slow", format!("{id} is slow: {why}")),
        Verdict::Well => (
            Severity::Info,
            "disk_not_slow",
            format!("{id} is as fast as its peers again"),
        ),
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
            slow: None,
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
