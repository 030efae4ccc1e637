//! Reservations and resets: what one portal has answered holds at the other one.

use super::{ACCESS_STATE_CHANGED, HOSTS, NOT_OPTIMISED, OPTIMISED, Portal, be_told, prepare};
use crate::guest::{run, until};

/// Unit attentions (SPC-4 annex F): the path's registration was preempted; the unit was reset.
const PREEMPTED: (u8, u8) = (0x2a, 0x05);
const RESET: (u8, u8) = (0x29, 0x03);

#[test]
fn a_reservation_holds_at_both_portals_and_whoever_is_preempted_is_told() {
    run(async {
        let (_cluster, [one, two]) = prepare().await;
        let mut a = one.log_in(HOSTS[0]).await;
        let mut b = two.log_in(HOSTS[1]).await;
        assert!(a.reserve_out(0, 0, (0, 0xa)).await.is_good(), "a registers");
        assert!(a.reserve_out(1, 1, (0xa, 0)).await.is_good(), "a reserves");
        assert!(b.reserve_out(0, 0, (0, 0xb)).await.is_good(), "b registers");
        assert!(b.reserve_out(1, 1, (0xb, 0)).await.is_conflict());
        assert!(b.write(0, &[2; 512]).await.is_conflict());
        assert!(a.write(0, &[1; 512]).await.is_good());
        assert!(b.reserve_out(4, 1, (0xb, 0xa)).await.is_good(), "b preempts a");
        assert!(b.write(0, &[3; 512]).await.is_good());
        be_told(&mut a, PREEMPTED).await;
        assert!(a.write(0, &[4; 512]).await.is_conflict());
        assert_eq!(a.read(0, 1).await, [3; 512], "it is write exclusive");
        // Both portals' processes may go: the reservation stays.
        drop((one, two));
    });
}

/// Law: what a portal has answered, the other one goes by, whoever of them owns the volume. Nobody looks twice here.
#[test]
fn when_one_portal_has_answered_the_other_one_goes_by_it() {
    run(async {
        let (_cluster, [one, two]) = prepare().await;
        let mut a = one.log_in(HOSTS[0]).await;
        let mut b = two.log_in(HOSTS[1]).await;
        // From here on no portal becomes better or worse.
        let at_one = [(1, OPTIMISED), (2, NOT_OPTIMISED)];
        for path in [&mut a, &mut b] {
            until(async || path.port_groups().await == at_one).await;
            until(async || path.ready().await.is_good()).await;
        }
        for round in 0..40 {
            let (by, other) = if round % 2 == 0 {
                (&mut a, &mut b)
            } else {
                (&mut b, &mut a)
            };
            assert_eq!(by.reset_unit().await, 0);
            assert_eq!(other.ready().await.attention(), Some(RESET));
            assert_eq!(by.ready().await.attention(), Some(RESET));
            assert!(by.reserve().await.is_good());
            assert!(other.write(0, &[1; 512]).await.is_conflict());
            assert!(by.release().await.is_good());
            assert!(other.write(0, &[1; 512]).await.is_good());
            for key in [0xa, 0xb] {
                let who = if key == 0xa { &mut *by } else { &mut *other };
                assert!(who.reserve_out(0, 0, (0, key)).await.is_good(), "registers");
            }
            assert!(by.reserve_out(1, 1, (0xa, 0)).await.is_good(), "reserves");
            let kept_out = other.write(0, &[1; 512]).await;
            assert!(kept_out.is_conflict(), "{kept_out:?} in round {round}");
            // Its write may be done before the other one preempts it, be aborted, or come too late.
            assert!(by.reserve_out(2, 1, (0xa, 0)).await.is_good(), "releases");
            let write = other.begin_write(1, &[2; 512]).await;
            assert!(by.reserve_out(4, 1, (0xa, 0xb)).await.is_good(), "preempts");
            let found = by.read(1, 1).await;
            let written = other.outcome(write).await;
            if written.is_good() || written.is_aborted() {
                assert_eq!(other.ready().await.attention(), Some(PREEMPTED));
            } else {
                assert_eq!(written.attention(), Some(PREEMPTED));
            }
            assert_eq!(by.read(1, 1).await, found, "it was written after the answer");
            assert!(by.write(1, &[3; 512]).await.is_good());
            assert!(by.reserve_out(3, 1, (0xa, 0)).await.is_good(), "clears");
        }
    });
}

/// Law: a reset is answered when a portal that does not answer has lost the volume, and then nothing of it is done.
#[test]
fn a_reset_outlasts_a_portal_that_stands_still() {
    run(async {
        let (_cluster, [one, two]) = prepare().await;
        let mut a = one.log_in(HOSTS[0]).await;
        let mut b = two.log_in(HOSTS[1]).await;
        assert!(a.write(0, &[1; 512]).await.is_good());
        one.process.freeze().unwrap();
        let write = a.begin_write(0, &[2; 512]).await;
        assert_eq!(b.reset_unit().await, 0);
        // That, and that the owner has moved.
        until(async || b.ready().await.is_good() && b.port_groups().await.contains(&(2, OPTIMISED))).await;
        assert_eq!(b.read(0, 1).await, [1; 512]);
        one.process.thaw().unwrap();
        // It fails with the volume, or was aborted if the reset is heard of first: both are on their way.
        let written = a.outcome(write).await;
        assert!(!written.is_good(), "{written:?}");
        // The unit was reset, or is there anew.
        until(async || {
            a.ready()
                .await
                .attention()
                .is_some_and(|(kind, _)| kind == RESET.0)
        })
        .await;
        assert_eq!(b.read(0, 1).await, [1; 512]);
    });
}

#[test]
fn the_older_kind_of_reservation_holds_at_both_portals_until_the_unit_is_reset() {
    run(async {
        let (cluster, [mut one, two]) = prepare().await;
        let mut a = one.log_in(HOSTS[0]).await;
        let mut b = two.log_in(HOSTS[1]).await;
        assert!(a.reserve().await.is_good());
        assert!(b.reserve().await.is_conflict());
        assert!(b.write(0, &[2; 512]).await.is_conflict());
        assert_eq!(b.reset_unit().await, 0);
        be_told(&mut a, RESET).await;
        be_told(&mut b, RESET).await;
        assert!(b.write(0, &[2; 512]).await.is_good());
        // What one of them gives up the other has at once, whatever its own portal has heard of.
        for _ in 0..5 {
            assert!(b.reserve().await.is_good());
            assert!(a.reserve().await.is_conflict());
            assert!(b.release().await.is_good());
            assert!(a.reserve().await.is_good());
            assert!(a.release().await.is_good());
        }
        let mut c = two.log_in(HOSTS[0]).await;
        assert!(c.reserve().await.is_good());
        c.log_out().await;
        assert!(a.reserve().await.is_good());
        assert!(a.release().await.is_good());
        assert!(b.reserve().await.is_good());
        assert!(a.reserve().await.is_conflict());
        // Its session ends, and the reservation with it; where a whole gateway ends, the next one frees it.
        drop(b);
        until(async || a.reserve().await.is_good()).await;
        let mut b = two.log_in(HOSTS[1]).await;
        one.process.kill().unwrap();
        be_told(&mut b, ACCESS_STATE_CHANGED).await;
        assert!(b.reserve().await.is_conflict());
        let again = Portal::start(&cluster.nodes[0]);
        let _a = again.log_in(HOSTS[0]).await;
        assert!(b.reserve().await.is_good());
    });
}
