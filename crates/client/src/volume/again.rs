//! Asks for a volume whose generation ended while this process lived, until it is known whether it can be had again:
//! `storaged` gives it back only if nobody has had it open since.

use std::rc::Rc;

use protocol::session::{SessionRefusal, SessionReply};
use replication::Moment;
use tracing::{error, info, warn};

use super::open::Open;
use super::session::Answer;
use crate::backoff::Backoff;

/// Takes the volume again whenever its generation has ended: run it as a task.
pub(super) async fn take(open: Rc<Open>) {
    loop {
        open.session.deposed.notified().await;
        let mut backoff = Backoff::default();
        loop {
            let Some(asked) = open.view(|view| open.session.take_again(view)) else {
                return;
            };
            match asked.await {
                Ok(Answer::Settled) => break,
                Ok(Answer::NotYet) => backoff.pause().await,
                // There is no connection: another one is being made.
                Err(_) => open.session.connected().await,
            }
        }
    }
}

/// Takes in what `storaged` says to that.
pub(super) fn answered(open: &Rc<Open>, sent: Moment, reply: SessionReply) -> Answer {
    match reply {
        SessionReply::Opened(view) => {
            info!(generation = %view.generation, "the volume was taken again: what was not answered is done again");
            open.take_again(sent, *view);
            Answer::Settled
        }
        SessionReply::Refused {
            kind: SessionRefusal::Lost | SessionRefusal::NotFound,
            message,
        } => {
            error!(
                reason = message,
                "the volume is lost: all requests fail from now on"
            );
            open.given_away();
            Answer::Settled
        }
        SessionReply::Refused { message, .. } => {
            warn!(reason = message, "the volume cannot be taken again yet");
            Answer::NotYet
        }
        SessionReply::Ok
        | SessionReply::Credentials(_)
        | SessionReply::Volumes { .. }
        | SessionReply::Shared(_) => Answer::NotYet,
    }
}
