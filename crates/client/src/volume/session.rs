//! The connection to `storaged`: opens the volume, keeps its lease, takes in what is pushed.
//!
//! It may break at any time: `storaged` is restarted while volumes are open. Then the volume is
//! resumed with its generation as soon as `storaged` listens again; until the lease is due nothing
//! is felt of it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use protocol::Generation;
use protocol::codec::Message;
use protocol::session::{OpenMode, SessionPush, SessionRefusal, SessionReply, SessionRequest, VolumeView};
use replication::Moment;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

pub(crate) mod greet;

use greet::{GREETING_LIMIT, Greeted, converse, greet, out_of_turn};
pub(super) use greet::{list, look};

use super::open::Open;
use super::{Cache, OpenError, Options, again, credentials};
use crate::backoff::Backoff;
use crate::clock::now;
use crate::device::DeviceEvent;
use crate::transport::{self, Credentials, Link};

/// How long giving a volume back may take. If `storaged` is away for longer, the lease lapses.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How long `storaged` waits for one who has the volume for a moment, when it is asked for again.
const AGAIN_WAIT: Duration = Duration::from_secs(5);

/// In what way a volume is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// For whoever asks.
    Plain,
    /// For a guest that goes on: the present owner is asked to leave.
    Succeeds,
    /// For all who share the volume, as this attachment.
    Attached(u64),
}

/// A volume that `storaged` has just opened.
pub(super) struct OpenedSession {
    pub(super) session: Session,
    pub(super) view: VolumeView,
    /// When the request was sent that the lease was given for.
    pub(super) leased: Moment,
}

/// The connection to `storaged`, there or not.
pub(super) struct Session {
    options: Options,
    how: Opening,
    link: RefCell<Option<Link>>,
    /// The task must look: there is something to send.
    wake: Notify,
    /// There is a connection again.
    connected: Notify,
    /// The volume's generation is over: it is to be asked for again.
    pub(super) deposed: Notify,
    numbers: Cell<u64>,
    /// What was asked and not answered. Bounded: the owner renews and asks for views one at a time,
    /// and all else is as rare as snapshots.
    asked: RefCell<HashMap<u64, Asked>>,
    /// What to show to disks of other nodes.
    credentials: RefCell<Option<Credentials>>,
}

/// What a reply answers.
enum Asked {
    Renewal {
        sent: Moment,
    },
    View {
        sent: Moment,
    },
    /// A view that somebody waits for.
    Refresh {
        sent: Moment,
        done: oneshot::Sender<()>,
    },
    Close(oneshot::Sender<()>),
    /// That so much is moved.
    Moved(oneshot::Sender<bool>),
    /// The volume, again.
    Again {
        sent: Moment,
        done: oneshot::Sender<Answer>,
    },
    Other,
}

/// What came of asking for the volume again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is known whether it can be had.
    Settled,
    /// Nobody could tell, or somebody is just leaving.
    NotYet,
}

/// Opens a volume, and waits as long as the options say for `storaged` and for the present owner, who is
/// asked to leave if this `succeeds` it.
pub(super) async fn open(options: Options, how: Opening) -> Result<OpenedSession, OpenError> {
    let deadline = Instant::now() + options.wait;
    let mut backoff = Backoff::default();
    loop {
        let error = match try_open(&options, how, deadline).await {
            Err(error @ OpenError::Unreachable { .. }) => error,
            result => return result,
        };
        if Instant::now() >= deadline {
            return Err(error);
        }
        backoff.pause().await;
    }
}

async fn try_open(options: &Options, how: Opening, deadline: Instant) -> Result<OpenedSession, OpenError> {
    let Greeted {
        mut link,
        address,
        credentials,
    } = greet(&options.program, &options.storaged).await?;
    let unreachable = |source| OpenError::Unreachable {
        address: address.to_string(),
        source,
    };
    let asked = now();
    let wait = deadline.saturating_duration_since(Instant::now());
    link.outbox
        .push_session_request(1, &open_request(options, how, wait, None));
    let view = match converse(&mut link).await.map_err(unreachable)? {
        SessionReply::Opened(view) => *view,
        SessionReply::Refused { kind, message } => return Err(OpenError::Refused { kind, message }),
        SessionReply::Ok
        | SessionReply::Credentials(_)
        | SessionReply::Volumes { .. }
        | SessionReply::Shared(_) => {
            return Err(unreachable(out_of_turn()));
        }
    };
    let leased = if wait.is_zero() || view.generation.0 == 0 {
        asked
    } else {
        renewed(&mut link, &view).await.map_err(unreachable)?
    };
    let session = Session {
        options: options.clone(),
        how,
        link: RefCell::new(Some(link)),
        wake: Notify::new(),
        connected: Notify::new(),
        deposed: Notify::new(),
        numbers: Cell::new(2),
        asked: RefCell::default(),
        credentials: RefCell::new(credentials),
    };
    Ok(OpenedSession {
        session,
        view,
        leased,
    })
}

/// Renews the lease of a volume that was waited for, and tells when that was sent: when the lease
/// began is not known otherwise.
async fn renewed(link: &mut Link, view: &VolumeView) -> io::Result<Moment> {
    let sent = now();
    let (volume, generation) = (view.volume, view.generation);
    link.outbox
        .push_session_request(2, &SessionRequest::Renew { volume, generation });
    match converse(link).await? {
        SessionReply::Ok => Ok(sent),
        _ => Err(out_of_turn()),
    }
}

fn open_request(
    options: &Options,
    how: Opening,
    wait: Duration,
    again: Option<Generation>,
) -> SessionRequest {
    SessionRequest::Open {
        volume: options.volume.clone(),
        snapshot: options.snapshot.clone(),
        mode: if options.read_only {
            OpenMode::ReadOnly
        } else {
            OpenMode::ReadWrite
        },
        wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        succeeds: how == Opening::Succeeds,
        again,
        attachment: match how {
            Opening::Attached(number) => Some(number),
            Opening::Plain | Opening::Succeeds => None,
        },
    }
}

impl Session {
    /// What to show to disks of other nodes.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        self.credentials.borrow().clone()
    }

    /// Where what is read directly is kept.
    pub(super) fn read_cache(&self) -> Option<Cache> {
        self.options.read_cache.clone()
    }

    /// Asks for the lease to be kept.
    pub(super) fn renew(&self, view: &VolumeView) {
        let request = SessionRequest::Renew {
            volume: view.volume,
            generation: view.generation,
        };
        self.ask(&request, Asked::Renewal { sent: now() });
    }

    /// Asks for the present view.
    pub(super) fn want_view(&self, view: &VolumeView) {
        self.ask(&self.resume_request(view), Asked::View { sent: now() });
    }

    /// Asks for the present view; tells when it is taken in. The sender is dropped if it does not come.
    pub(super) fn refresh(&self, view: &VolumeView) -> oneshot::Receiver<()> {
        let (done, taken_in) = oneshot::channel();
        let asked = Asked::Refresh { sent: now(), done };
        self.ask(&self.resume_request(view), asked);
        taken_in
    }

    /// The volume's generation is over.
    pub(super) fn deposed(&self) {
        self.deposed.notify_one();
    }

    /// Asks for the volume again, if nobody has had it open since; the answer goes to the owner. Nothing comes if there
    /// is no connection, or if it breaks before.
    pub(super) fn take_again(&self, view: &VolumeView) -> oneshot::Receiver<Answer> {
        let (done, answered) = oneshot::channel();
        // It may have another name by now.
        let options = Options {
            volume: view.name.clone(),
            ..self.options.clone()
        };
        let request = open_request(&options, self.how, AGAIN_WAIT, Some(view.generation));
        self.ask(&request, Asked::Again { sent: now(), done });
        answered
    }

    /// Says how much of the volume is moved; true when that is noted. Nothing comes if there is no connection, or if it
    /// breaks before: then it may be noted or not.
    pub(super) fn moved(&self, view: &VolumeView, moved: u64) -> oneshot::Receiver<bool> {
        let (done, noted) = oneshot::channel();
        let request = SessionRequest::Moved {
            volume: view.volume,
            generation: view.generation,
            moved,
        };
        self.ask(&request, Asked::Moved(done));
        noted
    }

    /// Waits for the next connection.
    pub(super) async fn connected(&self) {
        self.connected.notified().await;
    }

    /// Sends what needs no answer.
    pub(super) fn tell(&self, request: &SessionRequest) {
        self.ask(request, Asked::Other);
    }

    /// Sends a request. While there is no connection it is dropped: the next one begins with a
    /// resumption, which renews the lease and brings the view.
    fn ask(&self, request: &SessionRequest, asked: Asked) {
        let mut link = self.link.borrow_mut();
        let Some(link) = link.as_mut() else { return };
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        link.outbox.push_session_request(number, request);
        self.asked.borrow_mut().insert(number, asked);
        self.wake.notify_one();
    }

    fn resume_request(&self, view: &VolumeView) -> SessionRequest {
        if view.generation.0 == 0 {
            // A reader of a snapshot owns nothing that could be resumed.
            return open_request(&self.options, Opening::Plain, Duration::ZERO, None);
        }
        SessionRequest::Resume {
            volume: view.volume,
            generation: view.generation,
        }
    }
}

/// Serves the connection, and opens it again when it breaks, until the volume is lost.
pub(super) async fn keep(open: Rc<Open>) {
    while !open.is_lost() {
        let reason = serve(&open).await;
        open.session.link.borrow_mut().take();
        open.session.asked.borrow_mut().clear();
        if open.is_lost() {
            return;
        }
        info!(%reason, "the connection to storaged ended, connecting again");
        let mut backoff = Backoff::default();
        while !open.is_lost() && !resume(&open).await {
            backoff.pause().await;
        }
    }
}

/// Connects again and resumes the volume. False if that must be tried again.
async fn resume(open: &Rc<Open>) -> bool {
    let session = &open.session;
    let greeted = greet(&session.options.program, &session.options.storaged).await;
    let Ok(Greeted {
        mut link,
        credentials,
        ..
    }) = greeted
    else {
        return false;
    };
    session.credentials.replace(credentials);
    let Some(request) = open.view(|view| session.resume_request(view)) else {
        return false;
    };
    let sent = now();
    link.outbox.push_session_request(1, &request);
    let Ok(Ok(reply)) = timeout(GREETING_LIMIT, converse(&mut link)).await else {
        return false;
    };
    if matches!(
        reply,
        SessionReply::Refused {
            kind: SessionRefusal::Unavailable,
            ..
        }
    ) {
        return false;
    }
    *session.link.borrow_mut() = Some(link);
    answered(open, Asked::View { sent }, reply);
    session.connected.notify_one();
    info!("connected to storaged again");
    true
}

async fn serve(open: &Rc<Open>) -> io::Error {
    let session = &open.session;
    loop {
        let (stream, interest) = match take_in(open) {
            Ok(next) => next,
            Err(error) => return error,
        };
        if let Err(error) = stream.ready_or_woken(interest, &session.wake).await {
            return error;
        }
    }
}

type WaitFor = (std::sync::Arc<transport::Stream>, tokio::io::Interest);

fn take_in(open: &Rc<Open>) -> io::Result<WaitFor> {
    let session = &open.session;
    loop {
        let (number, message) = {
            let mut link = session.link.borrow_mut();
            let Some(link) = link.as_mut() else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            match link.message()? {
                Some(next) => next,
                None if link.receive()? => continue,
                None => {
                    link.send()?;
                    return Ok((link.stream(), link.interest()));
                }
            }
        };
        match message {
            Message::SessionReply(reply) => {
                let asked = session.asked.borrow_mut().remove(&number);
                answered(open, asked.unwrap_or(Asked::Other), reply);
            }
            Message::SessionPush(push) => pushed(open, push),
            _ => return Err(out_of_turn()),
        }
    }
}

fn answered(open: &Rc<Open>, asked: Asked, reply: SessionReply) {
    match (asked, reply) {
        (Asked::Close(done), _) => {
            // Nobody waits any more if that took too long.
            let _ = done.send(());
        }
        (Asked::Moved(done), reply) => {
            if let SessionReply::Refused { message, .. } = &reply {
                warn!(reason = message, "how much is moved was not noted");
            }
            // Nobody waits any more if the volume was closed meanwhile.
            let _ = done.send(reply == SessionReply::Ok);
        }
        (Asked::Again { sent, done }, reply) => {
            let answer = again::answered(open, sent, reply);
            // Nobody waits any more if the volume was closed meanwhile.
            let _ = done.send(answer);
        }
        (
            _,
            SessionReply::Refused {
                kind: SessionRefusal::Lost | SessionRefusal::NotFound,
                message,
            },
        ) => {
            warn!(reason = message, "the volume's lease is over");
            open.revoked();
        }
        (Asked::Renewal { sent }, SessionReply::Ok) => open.lease_renewed(sent),
        (Asked::View { sent }, SessionReply::Opened(view)) => {
            open.take_view(*view);
            open.lease_renewed(sent);
        }
        (Asked::Refresh { sent, done }, SessionReply::Opened(view)) => {
            open.take_view(*view);
            open.lease_renewed(sent);
            // Nobody waits any more if that took too long.
            let _ = done.send(());
        }
        (_, SessionReply::Refused { message, .. }) => warn!(reason = message, "storaged refused"),
        _ => {}
    }
}

fn pushed(open: &Rc<Open>, push: SessionPush) {
    let volume = open.volume();
    match push {
        SessionPush::Quiesce {
            volume: named,
            token,
            limit_ms,
        } if named == volume => {
            open.quiesce(token, limit_ms);
        }
        SessionPush::Credentials(view) => {
            open.session.credentials.replace(credentials::usable(&view));
        }
        SessionPush::View(view) => open.take_view(*view),
        SessionPush::Revoked {
            volume: named,
            reason,
        } if named == volume => {
            warn!(reason, "the volume's lease is over");
            open.revoked();
        }
        SessionPush::Wanted { volume: named } if named == volume => open.tell(DeviceEvent::Wanted),
        SessionPush::Quiesce { .. }
        | SessionPush::Revoked { .. }
        | SessionPush::Wanted { .. }
        | SessionPush::Attachment(_) => {}
    }
}

/// Gives the volume back, if `storaged` answers in time.
pub(super) async fn give_back(open: &Rc<Open>) {
    let attempts = async {
        // One that was just restarted is waited for: the volume would stay taken otherwise.
        while !try_give_back(open).await {
            open.session.connected.notified().await;
        }
    };
    if timeout(CLOSE_LIMIT, attempts).await.is_err() {
        warn!("storaged does not answer: the volume is free when its lease lapses");
    }
}

/// False if there is no connection, or if it broke before the answer came.
async fn try_give_back(open: &Rc<Open>) -> bool {
    let (volume, generation) = (open.volume(), open.generation());
    let (done, answered) = oneshot::channel();
    let request = SessionRequest::Close { volume, generation };
    open.session.ask(&request, Asked::Close(done));
    answered.await.is_ok()
}
