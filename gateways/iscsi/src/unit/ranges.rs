//! Changes of blocks that read before they write are alone on their blocks; all other changes may overlap.
//!
//! This is the one place that makes COMPARE AND WRITE and ORWRITE one step. It does so among the paths of this process:
//! what another portal changes at the same time is not seen (docs/protocol/iscsi.md).

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use tokio::sync::Notify;

/// The changes that are under way.
#[derive(Default)]
pub struct Ranges {
    inner: Rc<Inner>,
}

#[derive(Default)]
struct Inner {
    next: Cell<u64>,
    claims: RefCell<Vec<Claim>>,
    freed: Notify,
}

struct Claim {
    ticket: u64,
    bytes: Range<u64>,
    alone: bool,
}

/// A range that is claimed until this is dropped.
pub struct Claimed {
    ticket: u64,
    inner: Rc<Inner>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.inner
            .claims
            .borrow_mut()
            .retain(|claim| claim.ticket != self.ticket);
        self.inner.freed.notify_waiters();
    }
}

impl Ranges {
    /// Claims a range of bytes, alone or beside others. Claims are served in the order in which they came, so that none
    /// waits for ever; their number is bounded by the tasks that may be under way.
    pub async fn claim(&self, bytes: Range<u64>, alone: bool) -> Claimed {
        let inner = &self.inner;
        let ticket = inner.next.get();
        inner.next.set(ticket + 1);
        let own = Claim { ticket, bytes, alone };
        inner.claims.borrow_mut().push(own);
        let claimed = Claimed {
            ticket,
            inner: Rc::clone(inner),
        };
        loop {
            let freed = inner.freed.notified();
            if inner.is_free(ticket) {
                return claimed;
            }
            freed.await;
        }
    }
}

impl Inner {
    /// Whether no claim that came before excludes this one.
    fn is_free(&self, ticket: u64) -> bool {
        let claims = self.claims.borrow();
        let Some(own) = claims.iter().find(|claim| claim.ticket == ticket) else {
            return true;
        };
        let before = claims.iter().filter(|claim| claim.ticket < ticket);
        !before.into_iter().any(|other| {
            let overlap = own.bytes.start < other.bytes.end && other.bytes.start < own.bytes.end;
            overlap && (own.alone || other.alone)
        })
    }
}

#[cfg(test)]
mod tests {
    //! Who waits for whom.
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn one_that_is_alone_waits_for_those_before_and_those_after_wait_for_it() {
        let ranges = Ranges::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut first = pin!(ranges.claim(0..8, false));
        let Poll::Ready(first) = first.as_mut().poll(&mut context) else {
            panic!("free")
        };
        let mut beside = pin!(ranges.claim(4..8, false));
        let Poll::Ready(beside) = beside.as_mut().poll(&mut context) else {
            panic!("free")
        };
        let mut alone = pin!(ranges.claim(0..8, true));
        assert!(alone.as_mut().poll(&mut context).is_pending());
        let mut elsewhere = pin!(ranges.claim(8..16, true));
        assert!(elsewhere.as_mut().poll(&mut context).is_ready());
        let mut later = pin!(ranges.claim(0..1, false));
        assert!(later.as_mut().poll(&mut context).is_pending());
        drop((first, beside));
        let Poll::Ready(alone) = alone.as_mut().poll(&mut context) else {
            panic!("free")
        };
        assert!(later.as_mut().poll(&mut context).is_pending());
        drop(alone);
        assert!(later.as_mut().poll(&mut context).is_ready());
    }
}
