//! Leases. etcd counts in seconds, and has a shortest time of its own (about one and a half times the
//! time that it takes to choose a leader): a lease lasts as long as was asked for, or longer.

use std::time::Duration;

use rand::Rng;

use super::core::Core;
use super::members::refusal;
use super::members::{Miss, Pauses, may_pass};
use super::messages::{Done, GrantRequest, KeepRequest, KeepResponse, RevokeRequest, method};
use crate::store::CoordinationError;

/// Whole seconds, never less than asked for.
pub(super) fn seconds(time_to_live: Duration) -> u64 {
    let whole = time_to_live.as_secs() + u64::from(time_to_live.subsec_nanos() > 0);
    whole.max(1)
}

impl Core {
    /// A new lease. Its number is drawn here: an attempt whose answer was lost can be repeated.
    pub(super) async fn grant(&self, time_to_live_s: u64) -> Result<i64, CoordinationError> {
        let id = rand::rng().random_range(1..i64::MAX);
        let request = GrantRequest {
            time_to_live: i64::try_from(time_to_live_s).unwrap_or(i64::MAX),
            id,
        };
        let mut pauses = Pauses::until(self.members.deadline());
        let mut is_first = true;
        loop {
            let attempt = self.members.attempt::<_, Done>(method::GRANT, request.clone());
            match attempt.await {
                Ok(Done {}) => return Ok(id),
                // By the attempt before: nobody else draws this number.
                Err(Miss::Refused(status))
                    if !is_first && status.message().contains("lease already exists") =>
                {
                    return Ok(id);
                }
                Err(Miss::Refused(status)) if !may_pass(&status) => return Err(refusal(&status)),
                Err(miss) if !pauses.wait().await => return Err(miss.into_unavailable()),
                Err(_) => is_first = false,
            }
        }
    }

    /// Starts a lease's time anew.
    pub(super) async fn keep(&self, id: i64) -> Result<(), CoordinationError> {
        let mut pauses = Pauses::until(self.members.deadline());
        loop {
            let attempt = self
                .members
                .stream::<_, KeepResponse>(method::KEEP, KeepRequest { id }, false);
            match attempt.await {
                Ok(opened) if opened.first.time_to_live > 0 => return Ok(()),
                Ok(_) => return Err(CoordinationError::NoLease),
                Err(Miss::Refused(status)) if !may_pass(&status) => return Err(refusal(&status)),
                Err(miss) if !pauses.wait().await => return Err(miss.into_unavailable()),
                Err(_) => {}
            }
        }
    }

    /// Ends a lease. Nothing to do if there is none.
    pub(super) async fn revoke(&self, id: i64) -> Result<(), CoordinationError> {
        match self
            .members
            .ask::<_, Done>(method::REVOKE, &RevokeRequest { id })
            .await
        {
            Ok(Done {}) | Err(CoordinationError::NoLease) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    //! A lease never lasts shorter than asked for.
    use super::*;

    #[test]
    fn a_lease_lasts_whole_seconds_and_never_shorter() {
        for (asked_ms, lasts) in [(0, 1), (20, 1), (1000, 1), (1001, 2), (5000, 5)] {
            assert_eq!(seconds(Duration::from_millis(asked_ms)), lasts);
        }
    }
}
