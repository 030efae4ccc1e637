//! Takes away messages that have been kept for their time. Every process does it; who comes second finds nothing.

use std::time::Duration;

use tracing::warn;

use crate::records::{Instant, RecordsError};
use crate::service::Service;

/// Between looks.
const LOOK_EVERY: Duration = Duration::from_mins(10);
/// The most messages that one transaction takes away.
const AT_ONCE: usize = 50;

/// Looks from time to time, until it is dropped.
pub(super) async fn run(service: &Service) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep(service).await {
            warn!(%error, "old messages stay for now");
        }
    }
}

async fn sweep(service: &Service) -> Result<(), RecordsError> {
    let now = Instant::now();
    loop {
        let gone = service.records.edit(|edit| {
            let all = edit.tables.messages.iter();
            let old: Vec<_> = all
                .filter(|message| message.expires_at <= now)
                .take(AT_ONCE)
                .collect();
            for message in &old {
                edit.remove(message);
            }
            Ok::<_, RecordsError>(old.len())
        });
        if gone.await? < AT_ONCE {
            return Ok(());
        }
    }
}
