//! Transactions: made once at most, and told how they ended, if that can be found out at all.
//!
//! Beside its own conditions, each is bound to three: that numbering is as we know it, that etcd has not
//! gone back behind what we have seen, and that its mark's place is as we left it. Each runs to its end
//! in a task of its own, whether or not anybody still waits for it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::core::{Core, Look, View, went_back};
use super::layout::{one, put, read, unchanged, when};
use super::mark::{Fate, Place};
use super::members::{Miss, Pauses, is_lease_missing, may_pass, refusal};
use super::messages::{Relation, TransactionRequest, TransactionResponse, condition, method};
use crate::engine::check_limits;
use crate::store::{CoordinationError, Outcome, Transaction};

type Told = Result<Outcome, CoordinationError>;

/// How an attempt ended.
enum Step {
    /// That is it.
    Ended(Told),
    /// Nothing was made, and there is a reason to try again.
    Again,
}

/// A transaction on its way.
struct Commit {
    core: Arc<Core>,
    transaction: Transaction,
    deadline: Instant,
    /// Who waits. Nothing once they were told that the outcome is unknown.
    waiting: Option<oneshot::Sender<Told>>,
    _permit: OwnedSemaphorePermit,
}

/// Makes the changes if all conditions hold.
pub(super) async fn commit(core: &Arc<Core>, transaction: Transaction) -> Told {
    check_limits(&transaction)?;
    let deadline = core.members.deadline();
    let busy =
        || CoordinationError::Unavailable("too many transactions wait for etcd; nothing was changed".into());
    let permit = core.in_flight.clone().acquire_owned();
    let permit = tokio::time::timeout_at(deadline, permit)
        .await
        .map_err(|_| busy())?;
    let permit = permit.map_err(|_| busy())?;
    let (sender, receiver) = oneshot::channel();
    let commit = Commit {
        core: core.clone(),
        transaction,
        deadline,
        waiting: Some(sender),
        _permit: permit,
    };
    tokio::spawn(commit.run());
    let gone = || CoordinationError::Unknown("the program is ending".into());
    receiver.await.map_err(|_| gone())?
}

impl Commit {
    async fn run(mut self) {
        let told = self.attempts().await;
        self.tell(told);
    }

    fn tell(&mut self, told: Told) {
        if let Some(waiting) = self.waiting.take() {
            // If it fails, nobody wants to know.
            let _ = waiting.send(told);
        } else {
            debug!(?told, "a transaction ended of which nobody knew how it would");
        }
    }

    async fn attempts(&mut self) -> Told {
        let mut pauses = Pauses::until(self.deadline);
        loop {
            match self.attempt().await {
                Step::Ended(told) => return told,
                Step::Again if self.waiting.is_none() || !pauses.wait().await => {
                    let message = "etcd did not answer in time; nothing was changed";
                    return Err(CoordinationError::Unavailable(message.into()));
                }
                Step::Again => {}
            }
        }
    }

    async fn attempt(&mut self) -> Step {
        let lease = match self.core.marks_lease().await {
            Ok(lease) => lease,
            Err(error) => return Step::Ended(Err(error)),
        };
        let view = self.core.view();
        let place = self.core.marks.take(&self.core);
        let name = self.core.marks.name();
        let request = match self.request(&view, &place, &name, lease) {
            Ok(request) => request,
            Err(error) => {
                let written = place.written;
                self.core.marks.give_back(place, written);
                return Step::Ended(Err(error));
            }
        };
        let attempt = self.core.members.attempt(method::TRANSACTION, request);
        match attempt.await {
            Ok(response) => self.judge(&view, place, &name, response).await,
            Err(Miss::Refused(status)) => {
                let written = place.written;
                self.core.marks.give_back(place, written);
                if is_lease_missing(&status) {
                    return self.whose_lease_is_gone().await;
                }
                if may_pass(&status) {
                    return Step::Again;
                }
                Step::Ended(Err(refusal(&status)))
            }
            Err(Miss::Lost(why)) => self.doubt(&view, place, &name, &why).await,
        }
    }

    fn request(
        &self,
        view: &View,
        place: &Place,
        name: &[u8],
        lease: i64,
    ) -> Result<TransactionRequest, CoordinationError> {
        let layout = &self.core.layout;
        let not_back = condition::Value::Modified(view.last - 1);
        let mut request = TransactionRequest {
            compare: vec![
                unchanged(&layout.numbering, view.numbering.written()),
                when(layout.last.clone(), Relation::Greater, not_back),
                unchanged(&place.key, place.written),
            ],
            success: Vec::new(),
            failure: [&layout.numbering, &layout.last, &place.key]
                .map(|key| read(one(key)))
                .into(),
        };
        for compare in &self.transaction.compares {
            request.compare.push(layout.condition(compare, &view.numbering)?);
        }
        for change in &self.transaction.changes {
            request.success.push(layout.change(change)?);
        }
        request.success.push(put(layout.last.clone(), Vec::new(), 0));
        request.success.push(put(place.key.clone(), name.to_vec(), lease));
        Ok(request)
    }

    /// What etcd's answer means.
    async fn judge(&self, view: &View, place: Place, name: &[u8], response: TransactionResponse) -> Step {
        if response.succeeded {
            let raw = response.header.map_or(0, |header| header.revision);
            self.core.marks.give_back(place, raw);
            return Step::Ended(Ok(self.made(view, raw)));
        }
        let look = match Look::of(view.history, response) {
            Ok(look) => look,
            Err(error) => return Step::Ended(Err(error)),
        };
        let mark = look.ranges.first().and_then(|range| range.kvs.first());
        if let Some(mark) = mark.filter(|mark| mark.value == name) {
            let raw = mark.mod_revision;
            self.core.marks.give_back(place, raw);
            return Step::Ended(Ok(self.made(view, raw)));
        }
        if went_back(view, &look.view) {
            return match self.core.rise_after_a_restore(view.history).await {
                Ok(()) => Step::Again,
                Err(error) => Step::Ended(Err(error)),
            };
        }
        let is_as_we_left_it = mark.map_or(0, |mark| mark.mod_revision) == place.written;
        let is_numbered_alike = look.view.numbering.written() == view.numbering.written();
        self.core.learn(&look.view);
        if is_as_we_left_it {
            let written = place.written;
            self.core.marks.give_back(place, written);
            if is_numbered_alike {
                return Step::Ended(Ok(Outcome::Conflict(look.revision())));
            }
        }
        Step::Again
    }

    fn made(&self, view: &View, raw: i64) -> Outcome {
        self.core.learn(&View {
            last: raw,
            seen: raw,
            ..view.clone()
        });
        Outcome::Committed(view.numbering.revision(raw))
    }

    /// A lease that the transaction names is gone: ours for marks, or its user's.
    async fn whose_lease_is_gone(&self) -> Step {
        match self.core.keep_marks_lease().await {
            Ok(true) => Step::Ended(Err(CoordinationError::NoLease)),
            Ok(false) => Step::Again,
            Err(error) => Step::Ended(Err(error)),
        }
    }

    /// The answer was lost. Finds out what became of the transaction, however long that takes; who
    /// waits is told when the time is over.
    async fn doubt(&mut self, view: &View, place: Place, name: &[u8], why: &str) -> Step {
        debug!(why, "the answer to a transaction was lost, it is looked for");
        let mut pauses = Pauses::until(self.deadline);
        let mut closed = self.core.closed.subscribe();
        let unknown = || CoordinationError::Unknown(why.to_owned().into());
        loop {
            match self.core.end_doubt(&place, name).await {
                Ok((Fate::Made(raw), written)) => {
                    self.core.marks.give_back(place, written);
                    return Step::Ended(Ok(self.made(view, raw)));
                }
                Ok((Fate::NotMade, written)) => {
                    self.core.marks.give_back(place, written);
                    return Step::Again;
                }
                Ok((Fate::Unclear, _)) => return Step::Ended(Err(unknown())),
                Err(Miss::Refused(status)) if !may_pass(&status) => {
                    warn!(error = %refusal(&status), "what became of a transaction cannot be found out");
                    return Step::Ended(Err(unknown()));
                }
                Err(_) => {}
            }
            if self.waiting.is_some() && Instant::now() >= self.deadline {
                self.tell(Err(unknown()));
            }
            tokio::select! {
                () = pauses.rest() => {}
                _ = closed.wait_for(|closed| *closed) => return Step::Ended(Err(unknown())),
            }
        }
    }
}
