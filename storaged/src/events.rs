//! The event log: what happened, in the order in which it was committed.
//!
//! A line is written in the transaction that it tells of, so the log neither misses a change nor
//! tells of one that was not made. An event's number is the revision of its transaction. The newest
//! are kept in memory too; old ones are deleted from the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admin_api::events::{Event, EventPage, Severity};
use coordination::keys::{Counter, Key};
use coordination::records::{self, EventRecord};
use coordination::{Coordination, CoordinationError, Entry, Transaction, Watch};
use tokio::sync::watch;
use tracing::warn;

use crate::identities::Identities;
use crate::moment::wall_clock_ms;
use crate::volumes::OperationError;

/// Events that are kept.
const EVENTS_MAX: usize = 10_000;
/// Events that are deleted from the store at once, when there are more.
const PRUNE: usize = 100;
/// Between attempts to read the log again when the store is away: a guess that neither presses nor dawdles.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The event log. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    store: Arc<dyn Coordination>,
    identities: Arc<Identities>,
    shared: Arc<Shared>,
}

struct Shared {
    log: Mutex<Log>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    /// By number.
    events: VecDeque<(Event, String)>,
    /// Events up to this number may be forgotten.
    forgotten: u64,
}

/// Keeps the log in memory up with the store: [`EventKeeper::run`] it as a task.
pub struct EventKeeper {
    events: Events,
    watch: Watch,
}

impl Events {
    /// Reads the log.
    pub async fn start(
        store: Arc<dyn Coordination>,
        identities: Arc<Identities>,
    ) -> Result<(Self, EventKeeper), CoordinationError> {
        let (newest, _) = watch::channel(0);
        let shared = Arc::new(Shared {
            log: Mutex::default(),
            newest,
        });
        let events = Self {
            store,
            identities,
            shared,
        };
        let watch = events.list_again().await?;
        Ok((events.clone(), EventKeeper { events, watch }))
    }

    /// Writes a line about something that no transaction tells of.
    pub async fn write(
        &self,
        severity: records::Severity,
        kind: &str,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Result<(), OperationError> {
        let record = EventRecord {
            time_ms: wall_clock_ms(),
            severity,
            kind: kind.to_owned(),
            subject: subject.into(),
            message: message.into(),
        };
        let number = self.identities.next(Counter::Event).await?;
        let transaction = Transaction::new().put(Key::Event(number).to_text(), records::encode(&record)?);
        self.store.commit(transaction).await?;
        Ok(())
    }

    /// Up to `limit` events after the one numbered `after`; without it the newest.
    pub fn page(&self, after: Option<u64>, limit: usize) -> EventPage {
        let log = self.log();
        let all = &log.events;
        let first = match after {
            Some(after) => all.partition_point(|(event, _)| event.number <= after),
            None => all.len().saturating_sub(limit),
        };
        let events: Vec<Event> = all
            .range(first..)
            .take(limit)
            .map(|(event, _)| event.clone())
            .collect();
        let next_after = events.last().map_or(after.unwrap_or(0), |event| event.number);
        EventPage {
            events,
            next_after,
            gap: after.is_some_and(|after| after < log.forgotten),
        }
    }

    /// Waits until there is an event after the one numbered `after`.
    pub async fn wait_after(&self, after: u64) {
        let mut newest = self.shared.newest.subscribe();
        // The sender lives as long as this.
        let _ = newest.wait_for(|newest| *newest > after).await;
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn list_again(&self) -> Result<Watch, CoordinationError> {
        let prefix = Key::Event(0).to_text();
        let prefix = prefix.trim_end_matches('0');
        let range = self.store.range(prefix).await?;
        let watch = self.store.watch(prefix, range.revision).await?;
        let mut entries = range.entries;
        entries.sort_by_key(|entry| entry.created);
        // The first line of all has the number 1 in its key: if it is gone, so may others be.
        let complete = entries
            .iter()
            .any(|entry| Key::parse(&entry.key) == Some(Key::Event(1)));
        let mut log = self.log();
        log.events.clear();
        if !complete && let Some(oldest) = entries.first() {
            log.forgotten = oldest.created.0.saturating_sub(1);
        }
        drop(log);
        for entry in &entries {
            self.append(entry);
        }
        Ok(watch)
    }

    fn append(&self, entry: &Entry) {
        let record: EventRecord = match records::decode(entry) {
            Ok(record) => record,
            Err(error) => {
                warn!(%error, "an event cannot be read, it is left out");
                return;
            }
        };
        let event = Event {
            number: entry.created.0,
            time_ms: record.time_ms,
            severity: match record.severity {
                records::Severity::Info => Severity::Info,
                records::Severity::Warning => Severity::Warning,
                records::Severity::Error => Severity::Error,
            },
            kind: record.kind,
            subject: record.subject,
            message: record.message,
        };
        let number = event.number;
        self.log().events.push_back((event, entry.key.clone()));
        self.shared.newest.send_replace(number);
    }

    /// Keys of the oldest events, if there are too many; they are forgotten in memory.
    fn take_old(&self) -> Vec<String> {
        let mut log = self.log();
        if log.events.len() < EVENTS_MAX + PRUNE {
            return Vec::new();
        }
        let old: Vec<_> = log.events.drain(..PRUNE).collect();
        log.forgotten = old.last().map_or(log.forgotten, |(event, _)| event.number);
        old.into_iter().map(|(_, key)| key).collect()
    }
}

impl EventKeeper {
    /// Follows the log until the store is gone.
    pub async fn run(mut self) {
        loop {
            match self.watch.next().await {
                Ok(batch) => {
                    for event in batch.events {
                        if let coordination::Event::Put(entry) = event {
                            self.events.append(&entry);
                        }
                    }
                }
                Err(_) => match self.events.list_again().await {
                    Ok(watch) => self.watch = watch,
                    // It does not come back by itself.
                    Err(error @ CoordinationError::Failed(_)) => {
                        warn!(%error, "the event log ends here");
                        return;
                    }
                    Err(error) => {
                        warn!(%error, "cannot read the event log, trying again");
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                },
            }
            self.prune().await;
        }
    }

    async fn prune(&self) {
        let mut transaction = Transaction::new();
        for key in self.events.take_old() {
            transaction = transaction.delete(key);
        }
        if transaction.changes.is_empty() {
            return;
        }
        if let Err(error) = self.events.store.commit(transaction).await {
            warn!(%error, "old events could not be deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    //! Followers miss nothing that is kept, and are told when something is not kept any more.
    use super::*;
    use coordination::Embedded;

    async fn start() -> (Events, Arc<dyn Coordination>) {
        let store: Arc<dyn Coordination> = Arc::new(Embedded::in_memory().unwrap());
        let identities = Arc::new(Identities::new(store.clone()));
        let (events, keeper) = Events::start(store.clone(), identities).await.unwrap();
        tokio::spawn(keeper.run());
        (events, store)
    }

    async fn write(events: &Events, subject: &str) {
        events
            .write(records::Severity::Info, "test", subject, "something happened")
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_follower_gets_every_event_once_and_in_order() {
        let (events, _) = start().await;
        for number in 0..10 {
            write(&events, &number.to_string()).await;
        }
        let mut after = 0;
        let mut subjects = Vec::new();
        while subjects.len() < 10 {
            events.wait_after(after).await;
            let page = events.page(Some(after), 3);
            assert!(!page.gap);
            subjects.extend(page.events.iter().map(|event| event.subject.clone()));
            after = page.next_after;
        }
        assert_eq!(subjects, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        assert!(events.page(Some(after), 3).events.is_empty());
        assert_eq!(events.page(None, 3).events.len(), 3);
    }

    #[tokio::test]
    async fn who_asks_for_what_was_forgotten_is_told_so_also_after_a_restart() {
        let (events, store) = start().await;
        for _ in 0..EVENTS_MAX + PRUNE {
            write(&events, "x").await;
        }
        // The last of them makes the oldest go.
        let prefix = "/storaged/event/";
        let mut watch = store
            .watch(prefix, store.range(prefix).await.unwrap().revision)
            .await
            .unwrap();
        if store.range(prefix).await.unwrap().entries.len() > EVENTS_MAX {
            watch.next().await.unwrap();
        }
        assert!(events.page(Some(0), 10).gap);
        let identities = Arc::new(Identities::new(store.clone()));
        let (again, _keeper) = Events::start(store, identities).await.unwrap();
        assert!(again.page(Some(0), 10).gap);
        let first = again.page(Some(0), 1).events[0].number;
        assert!(!again.page(Some(first), 10).gap);
    }
}
