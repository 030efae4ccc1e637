//! Watches: every transaction's changes once, in order, whatever happens to the stream that they come on.
//!
//! A watch follows all our keys, not only its own prefix, so that it knows of every revision; and for
//! those that others than us have made in the same etcd, it makes etcd say how far it is. After a broken
//! stream it goes on where it was. It ends, for its user to list again, if etcd has forgotten what comes
//! next (compacted) or was restored from a backup without it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;
use tracing::{debug, warn};

use super::core::{Core, View};
use super::layout::put;
use super::members::{Miss, Pauses, is_compacted, may_pass, next, refusal};
use super::messages::{
    EventKind, RangeRequest, RangeResponse, TransactionRequest, TransactionResponse, WatchCreate, WatchEvent,
    WatchRequest, WatchResponse, method,
};
use super::numbering::Numbering;
use crate::store::{Batch, CoordinationError, Event, Revision, Watch};

/// A watch that is behind what was told to callers for so long makes etcd say how far it is. Changes of
/// our own come sooner than that; only what others did in the same etcd does not come by itself.
const BEHIND_MAX: Duration = Duration::from_millis(100);
/// So often a silent watch makes etcd say how far it is; then another member is asked. Together as long as
/// an attempt at a call may take.
const ASKED_MAX: u32 = 20;
/// The longest pause between attempts to open a stream again; a watch lasts until etcd is back.
const PATIENCE: Duration = Duration::from_hours(24 * 365);

/// A stream of changes, opened and found to be complete.
struct Stream {
    answers: Streaming<WatchResponse>,
    member: usize,
    /// Which of etcd's histories it tells; another begins when etcd is restored from a backup.
    history: u64,
    numbering: Arc<Numbering>,
    /// The last revision whose changes were told.
    at: i64,
    /// Parts of an answer whose rest is to come.
    parts: Vec<WatchEvent>,
}

/// Why a stream is not opened.
enum Shut {
    /// What comes next is not to be had any more.
    Gone,
    /// Perhaps later.
    Away(CoordinationError),
}

/// Why a stream is not followed any longer.
enum Stop {
    /// It broke: open another.
    Broken(String),
    /// The watch is over.
    Over,
}

struct Follower {
    core: Arc<Core>,
    prefix: String,
    sender: mpsc::Sender<Batch>,
    /// The last revision that was told.
    told: Revision,
}

/// A watch from the transaction after `after` on.
pub(super) async fn watch(
    core: &Arc<Core>,
    prefix: &str,
    after: Revision,
) -> Result<Watch, CoordinationError> {
    // Refuses a prefix that cannot be ours.
    core.layout.span(prefix)?;
    let mut pauses = Pauses::until(core.members.deadline());
    let stream = loop {
        match open(core, after).await {
            Ok(stream) => break stream,
            Err(Shut::Gone) => return Err(CoordinationError::Compacted(after)),
            Err(Shut::Away(error @ CoordinationError::Invalid(_))) => return Err(error),
            Err(Shut::Away(error)) if !pauses.wait().await => return Err(error),
            Err(Shut::Away(_)) => {}
        }
    };
    let (sender, watch) = Watch::channel();
    let follower = Follower {
        core: core.clone(),
        prefix: prefix.to_owned(),
        sender,
        told: after,
    };
    tokio::spawn(follower.run(stream));
    Ok(watch)
}

/// Opens a stream, and makes sure that nothing is missing in it.
async fn open(core: &Core, after: Revision) -> Result<Stream, Shut> {
    let view = core.look(&[]).await.map_err(Shut::Away)?.view;
    let at = view.numbering.raw(after).ok_or(Shut::Gone)?;
    let (key, range_end) = core.layout.everything();
    let create = WatchCreate {
        key,
        range_end,
        start_revision: at + 1,
        progress_notify: true,
        fragment: true,
    };
    let request = WatchRequest { create: Some(create) };
    let opened = core
        .members
        .stream::<_, WatchResponse>(method::WATCH, request, true);
    let opened = opened.await.map_err(|miss| match miss {
        Miss::Refused(status) if is_compacted(&status) => Shut::Gone,
        miss => Shut::Away(miss.into_unavailable()),
    })?;
    if opened.first.canceled || !opened.first.created {
        core.members.turn_away_from(opened.member);
        return Err(Shut::Away(refused_watch(&opened.first)));
    }
    let stream = Stream {
        answers: opened.answers,
        member: opened.member,
        history: view.history,
        numbering: view.numbering.clone(),
        at,
        parts: Vec::new(),
    };
    stream.is_complete(core, &view, after).await?;
    Ok(stream)
}

fn refused_watch(answer: &WatchResponse) -> CoordinationError {
    CoordinationError::Unavailable(format!("etcd opens no watch: {:?}", answer.cancel_reason).into())
}

impl Stream {
    /// etcd says nothing if it was restored meanwhile and has not come as far as we were, and some
    /// versions leave out deletions in the very revision that was compacted. So one looks, after the
    /// stream is open, that it is still the same history and that the revision before it is readable.
    async fn is_complete(&self, core: &Core, opened: &View, after: Revision) -> Result<(), Shut> {
        let now = core.look(&[]).await.map_err(Shut::Away)?.view;
        if now.history != opened.history || now.numbering.raw(after) != Some(self.at) {
            return Err(Shut::Away(CoordinationError::Unavailable(
                "etcd was restored while it was asked".into(),
            )));
        }
        let probe = RangeRequest {
            key: core.layout.last.clone(),
            range_end: Vec::new(),
            limit: 1,
            revision: self.at.max(1),
        };
        match core.members.ask::<_, RangeResponse>(method::RANGE, &probe).await {
            Ok(_) => Ok(()),
            Err(CoordinationError::Compacted(_)) => Err(Shut::Gone),
            Err(error) => Err(Shut::Away(error)),
        }
    }

    /// The transactions that an answer completes, ascending; nothing that was told before.
    fn take(&mut self, answer: WatchResponse) -> Vec<(i64, Vec<WatchEvent>)> {
        let is_progress = self.parts.is_empty() && answer.events.is_empty();
        self.parts.extend(answer.events);
        if answer.fragment {
            return Vec::new();
        }
        let mut transactions: Vec<(i64, Vec<WatchEvent>)> = Vec::new();
        if is_progress {
            transactions.push((answer.header.map_or(0, |header| header.revision), Vec::new()));
        }
        for event in self.parts.drain(..) {
            let raw = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            match transactions.last_mut().filter(|(last, _)| *last == raw) {
                Some((_, events)) => events.push(event),
                None => transactions.push((raw, vec![event])),
            }
        }
        transactions.retain(|(raw, _)| *raw > self.at);
        transactions
    }
}

impl Follower {
    async fn run(mut self, mut stream: Stream) {
        loop {
            match self.follow(&mut stream).await {
                Stop::Over => return,
                Stop::Broken(why) => debug!(why, "a watch on etcd broke, it is opened again"),
            }
            match self.open_again().await {
                Some(opened) => stream = opened,
                None => return,
            }
        }
    }

    async fn open_again(&self) -> Option<Stream> {
        let mut pauses = Pauses::until(Instant::now() + PATIENCE);
        let mut closed = self.core.closed.subscribe();
        let mut warned = false;
        loop {
            let opened = tokio::select! {
                opened = open(&self.core, self.told) => opened,
                () = self.sender.closed() => return None,
                _ = closed.wait_for(|closed| *closed) => return None,
            };
            match opened {
                Ok(stream) => return Some(stream),
                Err(Shut::Gone) => return None,
                Err(Shut::Away(error)) => {
                    if !warned {
                        warn!(%error, "etcd is away: what it says is out of date until it is back");
                        warned = true;
                    }
                    pauses.rest().await;
                }
            }
        }
    }

    async fn follow(&mut self, stream: &mut Stream) -> Stop {
        let mut view = self.core.view.subscribe();
        let mut closed = self.core.closed.subscribe();
        let mut behind_since = None;
        let mut asked = 0;
        loop {
            let (history, seen) = {
                let view = view.borrow_and_update();
                (view.history, view.seen)
            };
            if history != stream.history {
                return Stop::Broken("etcd was restored".to_owned());
            }
            behind_since = (seen > stream.at).then(|| behind_since.unwrap_or_else(Instant::now));
            let ask_at = behind_since.map(|since| since + BEHIND_MAX);
            tokio::select! {
                answer = next(&mut stream.answers) => {
                    let stop = match answer {
                        Ok(answer) => self.take(stream, answer),
                        Err(Miss::Refused(status)) if !may_pass(&status) => {
                            Some(Stop::Broken(refusal(&status).to_string()))
                        }
                        Err(Miss::Refused(status)) => Some(Stop::Broken(status.to_string())),
                        Err(Miss::Lost(why)) => {
                            self.core.members.turn_away_from(stream.member);
                            Some(Stop::Broken(why))
                        }
                    };
                    if let Some(stop) = stop {
                        return stop;
                    }
                    // It is not silent.
                    asked = 0;
                    if seen <= stream.at {
                        behind_since = None;
                    }
                }
                () = tokio::time::sleep_until(ask_at.unwrap_or_else(Instant::now)), if ask_at.is_some() => {
                    if asked == ASKED_MAX {
                        self.core.members.turn_away_from(stream.member);
                        return Stop::Broken("it is silent".to_owned());
                    }
                    asked += 1;
                    self.ask_for_progress();
                    behind_since = Some(Instant::now());
                }
                Ok(()) = view.changed() => {}
                () = self.sender.closed() => return Stop::Over,
                _ = closed.wait_for(|closed| *closed) => return Stop::Over,
            }
        }
    }

    /// Makes a change, for the watch to come by. etcd can be asked without one, but up to 3.4.24 and
    /// 3.5.7 it then tells of a revision before it has told all changes up to it.
    fn ask_for_progress(&self) {
        let core = self.core.clone();
        tokio::spawn(async move {
            let request = TransactionRequest {
                compare: Vec::new(),
                success: vec![put(core.layout.tick.clone(), Vec::new(), 0)],
                failure: Vec::new(),
            };
            let attempt = core
                .members
                .attempt::<_, TransactionResponse>(method::TRANSACTION, request);
            if let Err(miss) = attempt.await {
                debug!(error = %miss.into_unavailable(), "etcd could not be made to say how far it is");
            }
        });
    }

    fn take(&mut self, stream: &mut Stream, answer: WatchResponse) -> Option<Stop> {
        if answer.canceled {
            // Compacted, or the user lost his role: the next attempt to open one finds out.
            return Some(Stop::Broken(format!(
                "it was cancelled: {}",
                answer.cancel_reason
            )));
        }
        for (raw, events) in stream.take(answer) {
            if let Err(stop) = self.learn(stream, raw, &events) {
                return Some(stop);
            }
            let revision = stream.numbering.revision(raw);
            let events = events.into_iter();
            let batch = Batch {
                revision,
                events: events
                    .filter_map(|event| self.event(event, &stream.numbering))
                    .collect(),
            };
            // Behind, or gone: it lists again, or does not care.
            if self.sender.try_send(batch).is_err() {
                return Some(Stop::Over);
            }
            stream.at = raw;
            self.told = revision;
        }
        None
    }

    /// Notices what a transaction says about etcd itself.
    fn learn(&self, stream: &mut Stream, raw: i64, events: &[WatchEvent]) -> Result<(), Stop> {
        let mut view = View {
            history: stream.history,
            ..self.core.view()
        };
        for kv in events.iter().filter_map(|event| event.kv.as_ref()) {
            if kv.key == self.core.layout.numbering {
                let numbering = Numbering::parse(&kv.value, raw).map_err(|error| {
                    warn!(%error, "a watch on etcd ends");
                    Stop::Over
                })?;
                stream.numbering = Arc::new(numbering);
            }
            if kv.key == self.core.layout.last {
                view.last = raw;
            }
        }
        view.numbering = stream.numbering.clone();
        view.seen = raw;
        self.core.learn(&view);
        Ok(())
    }

    fn event(&self, event: WatchEvent, numbering: &Numbering) -> Option<Event> {
        let kv = event.kv?;
        let key = self.core.layout.name(&kv.key)?;
        if !key.starts_with(&self.prefix) {
            return None;
        }
        if event.kind == i32::from(EventKind::Delete) {
            return Some(Event::Deleted(key));
        }
        self.core.layout.entry(kv, numbering).map(Event::Put)
    }
}
