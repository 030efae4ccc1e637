//! The owner's lease: until when it may send (rule 1).

use super::limits::{LEASE_DANGER_TENTHS, LEASE_RENEW_TENTHS, LEASE_USED_TENTHS};
use crate::moment::Moment;
use crate::mutation::{self, Mutation};

/// When the last good renewal was sent, and when one was asked for last.
#[derive(Debug)]
pub(super) struct Lease {
    length_ms: u64,
    /// Nothing for a reader of a sealed layer, who needs no lease.
    renewed: Option<Moment>,
    asked: Moment,
}

impl Lease {
    /// A lease of `length_ms` that was asked for at `sent`.
    pub(super) fn new(length_ms: u64, sent: Moment) -> Self {
        Self {
            length_ms,
            renewed: Some(sent),
            asked: sent,
        }
    }

    /// What a reader of a sealed layer has.
    pub(super) fn not_needed() -> Self {
        Self {
            length_ms: 0,
            renewed: None,
            asked: Moment::default(),
        }
    }

    /// Whether anything may be sent now.
    pub(super) fn allows(&self, now: Moment) -> bool {
        let Some(renewed) = self.renewed else { return true };
        now.since(renewed) < self.length_ms * LEASE_USED_TENTHS / 10
            || mutation::active(Mutation::IgnoreLease)
    }

    /// A renewal that was sent then went well.
    pub(super) fn renewed(&mut self, sent: Moment) {
        self.renewed = self.renewed.map(|before| before.max(sent));
    }

    /// From when on it may be that no renewal will go well. Nothing for a reader.
    pub(super) fn in_danger(&self) -> Option<Moment> {
        self.renewed
            .map(|renewed| renewed + self.length_ms * LEASE_DANGER_TENTHS / 10)
    }

    /// When the next renewal is due.
    pub(super) fn renewal_due(&self) -> Option<Moment> {
        self.renewed
            .map(|_| self.asked + (self.length_ms * LEASE_RENEW_TENTHS / 10).max(1))
    }

    /// Whether to ask for a renewal now; notes that it was asked for.
    pub(super) fn ask(&mut self, now: Moment) -> bool {
        let due = self.renewal_due().is_some_and(|due| due <= now);
        if due {
            self.asked = now;
        }
        due
    }

    /// Another length, from a newer view.
    pub(super) fn set_length(&mut self, length_ms: u64) {
        self.length_ms = length_ms;
    }
}
