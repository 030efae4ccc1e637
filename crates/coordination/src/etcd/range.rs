//! Reads: one key, or all with a prefix, page by page, as they were at one moment.

use super::core::Core;
use super::layout::one;
use super::messages::{RangeRequest, RangeResponse, method};
use crate::store::{CoordinationError, Entry, Range};

/// Keys in an answer. A guess: records are some hundred bytes, so that an answer is quick, and even
/// with the largest values it can be held in memory.
pub(super) const PAGE: usize = 256;
/// How often a read starts over because what it was reading was compacted away.
const ATTEMPTS_MAX: usize = 4;

impl Core {
    pub(super) async fn get(&self, key: &str) -> Result<Option<Entry>, CoordinationError> {
        let look = self.look(&[one(&self.layout.key(key)?)]).await?;
        let kv = look
            .ranges
            .into_iter()
            .next()
            .and_then(|range| range.kvs.into_iter().next());
        Ok(kv.and_then(|kv| self.layout.entry(kv, &look.view.numbering)))
    }

    pub(super) async fn range(&self, prefix: &str) -> Result<Range, CoordinationError> {
        let mut last = CoordinationError::Unavailable("nothing was tried".into());
        for _ in 0..ATTEMPTS_MAX {
            match self.range_once(prefix).await {
                // Compacted while it was read.
                Err(error @ CoordinationError::Compacted(_)) => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    async fn range_once(&self, prefix: &str) -> Result<Range, CoordinationError> {
        let (key, range_end) = self.layout.span(prefix)?;
        let mut request = RangeRequest {
            key,
            range_end,
            limit: i64::try_from(PAGE).unwrap_or(i64::MAX),
            revision: 0,
        };
        let look = self.look(std::slice::from_ref(&request)).await?;
        let revision = look.revision();
        let numbering = look.view.numbering;
        let mut page = look.ranges.into_iter().next().unwrap_or_default();
        let mut entries = Vec::new();
        // The other pages as of the first one.
        request.revision = look.view.seen;
        loop {
            let next = page.kvs.last().map(|kv| {
                let mut key = kv.key.clone();
                key.push(0);
                key
            });
            let read = page.kvs.into_iter();
            entries.extend(read.filter_map(|kv| self.layout.entry(kv, &numbering)));
            let Some(next) = next.filter(|_| page.more) else {
                return Ok(Range { entries, revision });
            };
            request.key = next;
            page = self
                .members
                .ask::<_, RangeResponse>(method::RANGE, &request)
                .await?;
        }
    }
}
