//! One front end's connection: its requests, what it is told, and what follows when it breaks.
//!
//! A connection has one volume open at most: a front end with several opens several connections,
//! one for each of its volumes' threads.
//!
//! One file because what is done for a request and what is undone when the connection breaks mirror each
//! other.

mod attached;
mod moving;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use attached::Attached;

use client::transport::{Link, Stream};
use coordination::keys::Key;
use coordination::map::MapWatch;
use coordination::records::OwnerRecord;
use coordination::{ClusterMap, Revision};
use protocol::codec::Message;
use protocol::limits::VolumeLimits;
use protocol::session::{
    CredentialsView, ExportEntry, OpenMode, SessionPush, SessionRefusal, SessionReply, SessionRequest,
    VolumeView,
};
use protocol::{Generation, VolumeId};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::ownership::{self, Owned, Purpose, Refused};
use super::peer::Peer;
use super::rest::Order;
use super::visit::{CARETAKER, PROGRAM, is_visit};
use super::{Registered, Sessions};
use crate::membership::Suspicion;
use crate::moment::wall_clock_ms;

/// Orders that may wait for one front end: more than one is asked for only by mistake.
const ORDERS_MAX: usize = 4;
/// The longest that an open may wait for the present owner, whatever the front end says.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// How often the owner is told anew that somebody waits: it may have connected to this `storaged` only now.
pub(super) const WANT_AGAIN: Duration = Duration::from_secs(1);

/// What a front end has open.
struct Open {
    volume: VolumeId,
    /// As it was sent last.
    view: VolumeView,
    kind: OpenKind,
}

enum OpenKind {
    Owner(Owned),
    Snapshot(String),
}

/// An open that waits for the present owner to leave.
struct Waiting {
    number: u64,
    volume: String,
    mode: OpenMode,
    began: Instant,
    until: Instant,
    /// Whether the present owner is told that somebody waits.
    asks: bool,
    /// The generation that the front end had it with before its lease lapsed.
    again: Option<Generation>,
    /// Its attachment, if the volume is shared.
    attachment: Option<u64>,
}

/// A rest that was asked of the front end.
struct Rest {
    token: u64,
    drained: Option<oneshot::Sender<()>>,
    hold: oneshot::Receiver<Revision>,
}

struct FrontEnd {
    sessions: Arc<Sessions>,
    id: u64,
    link: Link,
    map: MapWatch,
    /// What the front end shows to disks of other nodes.
    credentials: Option<watch::Receiver<CredentialsView>>,
    program: String,
    /// As the front end says.
    pid: u32,
    /// Whether it may be told that its volume is wanted.
    yields: bool,
    /// Whether it can go on with a volume that moves to another pool.
    moves: bool,
    /// As the kernel says; zero if it does not.
    process: u32,
    ourselves: bool,
    open: Option<Open>,
    /// Its attachment to a volume that is shared. A connection has this or something open.
    attached: Option<Attached>,
    waiting: Option<Waiting>,
    rest: Option<Rest>,
    orders: mpsc::Sender<Order>,
}

/// Serves a front end until its connection ends, and gives its volume back if its process is dead.
pub(super) async fn serve(sessions: Arc<Sessions>, stream: Stream) {
    let peer = Peer::of(&stream);
    let (orders, received) = mpsc::channel(ORDERS_MAX);
    let mut front_end = FrontEnd {
        id: sessions.new_connection(),
        link: Link::new(stream),
        map: sessions.map.clone(),
        credentials: sessions.settings.credentials.clone(),
        program: String::new(),
        pid: 0,
        yields: false,
        moves: false,
        process: peer.number(),
        ourselves: peer.is_ourselves(),
        open: None,
        attached: None,
        waiting: None,
        rest: None,
        orders,
        sessions,
    };
    let reason = front_end.converse(received).await;
    debug!(program = front_end.program, pid = front_end.pid, %reason, "a session ended");
    front_end.leave(&peer).await;
}

impl FrontEnd {
    async fn converse(&mut self, mut orders: mpsc::Receiver<Order>) -> io::Error {
        let stream = self.link.stream();
        loop {
            if let Err(error) = self.take_in().await {
                return error;
            }
            let until = self.waiting.as_ref().map(|waiting| waiting.until);
            tokio::select! {
                ready = stream.ready(self.link.interest()) => {
                    if let Err(error) = ready {
                        return error;
                    }
                }
                more = self.map.changed() => {
                    if !more {
                        return io::Error::other("no more maps come");
                    }
                    self.map_changed().await;
                }
                view = renewed(&mut self.credentials) => {
                    self.link.outbox.push_session_push(&SessionPush::Credentials(view));
                }
                Some(order) = orders.recv() => self.carry_out(order).await,
                at = held(&mut self.rest) => self.end_rest(at).await,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    self.refuse_waiting().await;
                }
                () = sleep(WANT_AGAIN), if until.is_some() => self.want_again().await,
            }
        }
    }

    /// Handles all messages that are there, and sends what that brought forth.
    async fn take_in(&mut self) -> io::Result<()> {
        loop {
            while let Some((number, message)) = self.link.message()? {
                let Message::SessionRequest(request) = message else {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "not a session's request",
                    ));
                };
                match self.request(number, request).await {
                    Ok(Some(reply)) => self.link.outbox.push_session_reply(number, &reply),
                    Ok(None) => {}
                    Err(Refused { kind, message }) => {
                        let reply = SessionReply::Refused { kind, message };
                        self.link.outbox.push_session_reply(number, &reply);
                    }
                }
            }
            self.link.send()?;
            if !self.link.receive()? {
                return Ok(());
            }
        }
    }

    /// Carries out a request. No answer yet if it has to wait.
    async fn request(
        &mut self,
        number: u64,
        request: SessionRequest,
    ) -> Result<Option<SessionReply>, Refused> {
        if self.program.is_empty() && !matches!(request, SessionRequest::Hello { .. }) {
            return Err(Refused::new(SessionRefusal::Invalid, "say hello first"));
        }
        match request {
            SessionRequest::Hello {
                program,
                pid,
                yields,
                moves,
            } => {
                self.program = if program.is_empty() {
                    "unnamed".to_owned()
                } else {
                    program
                };
                self.pid = pid;
                self.yields = yields;
                self.moves = moves;
                let credentials = self.credentials.as_mut();
                let credentials = credentials.map(|shown| shown.borrow_and_update().clone());
                Ok(Some(
                    credentials.map_or(SessionReply::Ok, SessionReply::Credentials),
                ))
            }
            SessionRequest::Open {
                volume,
                snapshot: Some(snapshot),
                ..
            } => self.open_snapshot(&volume, snapshot).await.map(Some),
            SessionRequest::Open {
                volume,
                snapshot: None,
                mode,
                wait_ms,
                succeeds,
                again,
                attachment,
            } => {
                if let Some(before) = again {
                    self.leave_generation(before);
                }
                self.refuse_second()?;
                let wait = Duration::from_millis(wait_ms).min(WAIT_MAX);
                self.waiting = Some(Waiting {
                    number,
                    volume,
                    mode,
                    began: Instant::now(),
                    until: Instant::now() + wait,
                    asks: succeeds,
                    again,
                    attachment,
                });
                self.try_waiting().await
            }
            SessionRequest::Look { volume } => self.look(&volume).await.map(Some),
            SessionRequest::Resume { volume, generation } => self.resume(volume, generation).await.map(Some),
            SessionRequest::Renew { volume, generation } => {
                let owned = self.owned(volume, generation)?;
                self.sessions.store.keep_lease(owned.lease).await?;
                Ok(Some(SessionReply::Ok))
            }
            SessionRequest::Close { volume, generation } => {
                if generation.0 != 0 {
                    let owned = self.owned(volume, generation)?;
                    ownership::end(self.sessions.store.as_ref(), &self.map, volume, owned).await?;
                    self.sessions.unregister(volume, self.id);
                    // Whoever hears that it is closed must not find it open.
                    self.sessions.until_not_owned(volume, generation).await;
                    info!(%volume, program = self.program, pid = self.pid, "closed");
                }
                self.open = None;
                self.rest = None;
                Ok(Some(SessionReply::Ok))
            }
            SessionRequest::Moved {
                volume,
                generation,
                moved,
            } => {
                self.owned(volume, generation)?;
                self.sessions.moved(volume, generation, moved).await?;
                self.know_moved(moved);
                Ok(Some(SessionReply::Ok))
            }
            SessionRequest::Suspect {
                volume,
                generation,
                disk,
                reason,
                slow,
            } => {
                let suspicion = Suspicion {
                    volume,
                    generation,
                    disk,
                    reason,
                    slow,
                };
                self.complain(suspicion);
                Ok(Some(SessionReply::Ok))
            }
            SessionRequest::Quiesced { token, .. } => {
                if let Some(rest) = self.rest.as_mut().filter(|rest| rest.token == token)
                    && let Some(drained) = rest.drained.take()
                {
                    // Whoever asked may have given up; then the hold has ended too.
                    let _ = drained.send(());
                }
                Ok(Some(SessionReply::Ok))
            }
            SessionRequest::List => Ok(Some(self.list())),
            SessionRequest::Shared(request) => self.shared(request).await.map(Some),
        }
    }

    fn complain(&self, suspicion: Suspicion) {
        let Suspicion {
            volume, disk, reason, ..
        } = &suspicion;
        warn!(%volume, %disk, reason, program = self.program, "a front end suspects a disk");
        self.sessions.complain(suspicion);
    }

    /// Returns when the map has what a front end names, or shows all that was committed before this call: another node
    /// may have made it a moment ago.
    async fn catch_up(&mut self, is_known: impl Fn(&ClusterMap) -> bool) -> Result<(), Refused> {
        if !is_known(&self.map.current()) {
            let schema = Key::Schema.to_text();
            let now = self.sessions.store.range(&schema).await?.revision;
            self.map.at_least(now).await;
        }
        Ok(())
    }

    /// Tells what a volume is, whoever has it open.
    async fn look(&mut self, name: &str) -> Result<SessionReply, Refused> {
        self.catch_up(|map| map.volume_named(name).is_some()).await?;
        let volume = self.map.current().volume_named(name);
        let view = volume.and_then(|volume| self.owner_view(volume, Generation(0), false));
        let view = view
            .ok_or_else(|| Refused::new(SessionRefusal::NotFound, format!("there is no volume {name:?}")))?;
        Ok(SessionReply::Opened(Box::new(view)))
    }

    /// Whether this is our own process, which brings a volume to rest that nobody has open.
    fn is_visitor(&self) -> bool {
        self.ourselves && self.program == PROGRAM
    }

    /// Whether this is our own process, which does what can wait while nobody else has the volume open.
    fn is_caretaker(&self) -> bool {
        self.ourselves && self.program == CARETAKER
    }

    /// The front end knows that it has lost a generation, maybe sooner than this side.
    fn leave_generation(&mut self, before: Generation) {
        let ours = self.open.take_if(|open| match &open.kind {
            OpenKind::Owner(owned) => owned.generation == before,
            OpenKind::Snapshot(_) => false,
        });
        if let Some(open) = ours {
            self.sessions.unregister(open.volume, self.id);
            self.rest = None;
        }
    }

    fn refuse_second(&self) -> Result<(), Refused> {
        if self.open.is_some() || self.waiting.is_some() || self.attached.is_some() {
            let message = "this connection has a volume open already: use another connection";
            return Err(Refused::new(SessionRefusal::Invalid, message));
        }
        Ok(())
    }

    /// Tries to take the volume that is waited for. No answer if it must wait on.
    async fn try_waiting(&mut self) -> Result<Option<SessionReply>, Refused> {
        let Some(mut waiting) = self.waiting.take() else {
            return Ok(None);
        };
        self.catch_up(|map| map.volume_named(&waiting.volume).is_some())
            .await?;
        let map = self.map.current_and_seen();
        let Some(volume) = map.volume_named(&waiting.volume) else {
            let message = format!("there is no volume {:?}", waiting.volume);
            return Err(Refused::new(SessionRefusal::NotFound, message));
        };
        let owner = OwnerRecord {
            node: self.sessions.settings.node,
            program: self.program.clone(),
            pid: self.process,
            read_only: waiting.mode == OpenMode::ReadOnly,
            opened_ms: wall_clock_ms(),
            attachment: waiting.attachment,
            moves: self.moves,
        };
        self.refuse_unable(&map, volume, &waiting.volume)?;
        let lease = self.sessions.settings.lease;
        self.sessions.release_if_dead(volume).await;
        let store = self.sessions.store.as_ref();
        let purpose = match waiting.again {
            Some(before) => {
                ownership::refuse_successors(store, volume, &waiting.volume, before).await?;
                // Its lease may not have lapsed: then it is this front end that a disk refused.
                ownership::release(store, volume, before).await;
                Purpose::GoOn(before)
            }
            None if self.is_visitor() => Purpose::Visit,
            None if self.is_caretaker() => Purpose::Care,
            None => Purpose::Use,
        };
        let acquired = ownership::acquire(store, &self.map, volume, &owner, lease, purpose).await?;
        if acquired.is_none() {
            self.ask_caretaker(&mut waiting, volume);
        }
        match acquired {
            Some(owned) => {
                info!(volume = waiting.volume, program = self.program, pid = self.pid,
                    generation = %owned.generation, "opened");
                if waiting.asks {
                    self.sessions.want_no_more(volume).await;
                }
                self.opened(volume, owned, owner.read_only).map(Some)
            }
            None if Instant::now() < waiting.until => {
                if waiting.asks {
                    self.sessions.want(volume).await;
                }
                self.waiting = Some(waiting);
                Ok(None)
            }
            None => Err(self.busy(&waiting.volume)),
        }
    }

    async fn want_again(&self) {
        if let Some(volume) = self.waiting.as_ref().and_then(|waiting| self.wanted(waiting)) {
            self.sessions.want(volume).await;
        }
    }

    /// The volume that the present owner is asked for, if he is.
    fn wanted(&self, waiting: &Waiting) -> Option<VolumeId> {
        let named = waiting
            .asks
            .then(|| self.map.current().volume_named(&waiting.volume));
        named.flatten()
    }

    fn busy(&self, name: &str) -> Refused {
        let map = self.map.current();
        let owner = map.volume_named(name).and_then(|volume| map.owner(volume));
        let who = owner.map_or_else(
            || "somebody else".to_owned(),
            |owner| ownership::name_of(&owner.record),
        );
        Refused::new(
            SessionRefusal::Busy,
            format!("volume {name:?} is in use by {who}"),
        )
    }

    async fn refuse_waiting(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            if let Some(volume) = self.wanted(&waiting) {
                self.sessions.want_no_more(volume).await;
            }
            let Refused { kind, message } = self.busy(&waiting.volume);
            let reply = SessionReply::Refused { kind, message };
            self.link.outbox.push_session_reply(waiting.number, &reply);
        }
    }

    async fn resume(&mut self, volume: VolumeId, generation: Generation) -> Result<SessionReply, Refused> {
        // Also how a front end asks for the present view of what it has open here.
        if self.open.as_ref().is_none_or(|open| open.volume != volume) {
            self.refuse_second()?;
        }
        if self.sessions.is_resting(volume) {
            // An owner that goes on now could write while its head is being sealed.
            let message = format!("{volume} is at rest for a moment: try again");
            return Err(Refused::new(SessionRefusal::Unavailable, message));
        }
        let store = self.sessions.store.as_ref();
        let owned = ownership::resume(store, &self.map, volume, generation).await?;
        let map = self.map.current();
        let read_only = map.owner(volume).is_some_and(|owner| owner.record.read_only);
        self.opened(volume, owned, read_only)
    }

    /// Makes a volume that is owned by now this connection's, and answers with its view.
    fn opened(&mut self, volume: VolumeId, owned: Owned, read_only: bool) -> Result<SessionReply, Refused> {
        let Some(view) = self.owner_view(volume, owned.generation, read_only) else {
            let message = format!("{volume} was deleted");
            return Err(Refused::new(SessionRefusal::NotFound, message));
        };
        let entry = Registered {
            connection: self.id,
            generation: owned.generation,
            orders: self.orders.clone(),
        };
        self.sessions.register(volume, entry);
        // A rest of before is void: whoever resumes goes on.
        self.rest = None;
        self.open = Some(Open {
            volume,
            view: view.clone(),
            kind: OpenKind::Owner(owned),
        });
        Ok(SessionReply::Opened(Box::new(view)))
    }

    fn owner_view(&self, volume: VolumeId, generation: Generation, read_only: bool) -> Option<VolumeView> {
        let settings = &self.sessions.settings;
        let lease_ms = u64::try_from(settings.lease.as_millis()).unwrap_or(u64::MAX);
        let mut view = self
            .map
            .current()
            .volume_view(volume, settings.node, generation, lease_ms)?;
        view.read_only = read_only;
        if self.is_visitor() {
            Self::move_nothing(&mut view);
            // What storaged does itself nobody asked for.
            view.limits = VolumeLimits::default();
            view.size = self
                .sessions
                .stretched()
                .get(&volume)
                .copied()
                .unwrap_or(view.size);
        }
        Some(view)
    }

    async fn open_snapshot(&mut self, name: &str, snapshot: String) -> Result<SessionReply, Refused> {
        let node = self.sessions.settings.node;
        let view_of = |map: &ClusterMap| {
            let volume = map.volume_named(name)?;
            map.snapshot_view(volume, &snapshot, node)
        };
        self.catch_up(|map| view_of(map).is_some()).await?;
        let Some(view) = view_of(&self.map.current()) else {
            let message = format!("there is no snapshot {snapshot:?} of a volume {name:?}");
            return Err(Refused::new(SessionRefusal::NotFound, message));
        };
        if self.open.as_ref().is_none_or(|open| open.view.head != view.head) {
            self.refuse_second()?;
        }
        let kind = OpenKind::Snapshot(snapshot);
        self.open = Some(Open {
            volume: view.volume,
            view: view.clone(),
            kind,
        });
        Ok(SessionReply::Opened(Box::new(view)))
    }

    /// What this connection owns, if it is this.
    fn owned(&self, volume: VolumeId, generation: Generation) -> Result<Owned, Refused> {
        match &self.open {
            Some(Open {
                volume: here,
                kind: OpenKind::Owner(owned),
                ..
            }) if *here == volume && owned.generation == generation => Ok(*owned),
            _ => {
                let message = format!("{volume} is not open here with {generation}");
                Err(Refused::new(SessionRefusal::Lost, message))
            }
        }
    }

    fn list(&self) -> SessionReply {
        let map = self.map.current();
        let volumes = map.volume_names().filter_map(|(name, id)| {
            let (family, record) = map.volume(id)?;
            Some(ExportEntry {
                name: name.to_owned(),
                size: record.record.size,
                snapshots: family.snapshots_of(id).map(|(name, _)| name.to_owned()).collect(),
            })
        });
        SessionReply::Volumes {
            volumes: volumes.collect(),
        }
    }

    async fn map_changed(&mut self) {
        if let Some(number) = self.waiting.as_ref().map(|waiting| waiting.number) {
            let reply = match self.try_waiting().await {
                Ok(None) => return,
                Ok(Some(reply)) => reply,
                Err(Refused { kind, message }) => SessionReply::Refused { kind, message },
            };
            self.link.outbox.push_session_reply(number, &reply);
        }
        // While the front end holds still it must not be told of a map in which its head is not
        // sealed yet: it would go on writing. It is told when the rest ends.
        if self.rest.is_none() {
            self.tell_view(false);
        }
        self.tell_attachment();
    }

    /// Tells the front end how its volume is now, if that is news or `always`.
    fn tell_view(&mut self, always: bool) {
        let Some(open) = &self.open else { return };
        let map = self.map.current_and_seen();
        let (volume, view) = match &open.kind {
            OpenKind::Owner(owned) if map.generation(open.volume) != Some(owned.generation) => {
                return self.revoke("its lease has lapsed, or it was given to somebody else");
            }
            OpenKind::Owner(owned) => (
                open.volume,
                self.owner_view(open.volume, owned.generation, open.view.read_only),
            ),
            OpenKind::Snapshot(name) => (
                open.volume,
                map.snapshot_view(open.volume, name, self.sessions.settings.node),
            ),
        };
        let Some(view) = view else {
            return self.revoke("it was deleted");
        };
        if always || view != open.view {
            debug!(%volume, revision = %view.revision, "telling of a new view");
            self.link
                .outbox
                .push_session_push(&SessionPush::View(Box::new(view.clone())));
        }
        if let Some(open) = &mut self.open {
            open.view = view;
        }
    }

    fn revoke(&mut self, reason: &str) {
        if let Some(open) = self.open.take() {
            warn!(volume = %open.volume, program = self.program, pid = self.pid, reason, "revoked");
            self.sessions.unregister(open.volume, self.id);
            self.rest = None;
            let push = SessionPush::Revoked {
                volume: open.volume,
                reason: reason.to_owned(),
            };
            self.link.outbox.push_session_push(&push);
        }
    }

    async fn carry_out(&mut self, order: Order) {
        let (limit, drained, hold) = match order {
            Order::Quiesce { limit, drained, hold } => (limit, drained, hold),
            Order::Yield => {
                if let Some(open) = self.open.as_ref().filter(|_| self.yields) {
                    let push = SessionPush::Wanted { volume: open.volume };
                    self.link.outbox.push_session_push(&push);
                }
                return;
            }
        };
        // The end of the last rest may be on its way still, when the next one is asked for.
        if let Some(rest) = &mut self.rest {
            match rest.hold.try_recv() {
                Ok(revision) => self.end_rest(Some(revision)).await,
                Err(TryRecvError::Closed) => self.end_rest(None).await,
                // Dropping the order tells that this cannot be.
                Err(TryRecvError::Empty) => return,
            }
        }
        // Not open any more: dropping the order tells so.
        let Some(open) = &self.open else { return };
        let token = self.sessions.new_token();
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let push = SessionPush::Quiesce {
            volume: open.volume,
            token,
            limit_ms,
        };
        self.link.outbox.push_session_push(&push);
        self.rest = Some(Rest {
            token,
            drained: Some(drained),
            hold,
        });
    }

    async fn end_rest(&mut self, at: Option<Revision>) {
        if let Some(revision) = at {
            self.map.at_least(revision).await;
        }
        self.rest = None;
        self.tell_view(true);
    }

    /// What follows when the connection has ended: a dead process gives its volume back at once, a
    /// live one has the time of its lease to come again.
    async fn leave(mut self, peer: &Peer) {
        if let Some(volume) = self.waiting.as_ref().and_then(|waiting| self.wanted(waiting)) {
            self.sessions.want_no_more(volume).await;
        }
        if let Some(attached) = self.attached.take() {
            return self.leave_attached(&attached, peer).await;
        }
        let Some(Open {
            volume,
            kind: OpenKind::Owner(owned),
            ..
        }) = self.open.take()
        else {
            return;
        };
        // Frees the connection's buffers, and whoever waits for a rest.
        let Self {
            sessions,
            id,
            program,
            pid,
            rest,
            link,
            ..
        } = self;
        drop((rest, link));
        // A visitor of our own that let its connection go is done with it.
        let visitor = peer.is_ourselves() && is_visit(&program);
        let dead = visitor || timeout(sessions.settings.lease, peer.ended()).await.is_ok();
        if sessions.unregister(volume, id) && dead {
            info!(%volume, program, pid, "its owner is gone: the volume is free");
            ownership::end_dead(sessions.store.as_ref(), &sessions.map, volume, owned.generation).await;
        }
    }
}

/// Waits for new certificates.
async fn renewed(credentials: &mut Option<watch::Receiver<CredentialsView>>) -> CredentialsView {
    if let Some(shown) = credentials
        && shown.changed().await.is_ok()
    {
        return shown.borrow_and_update().clone();
    }
    std::future::pending().await
}

/// Waits until a rest ends: with the revision to go on at, or with nothing if it was called off.
async fn held(rest: &mut Option<Rest>) -> Option<Revision> {
    match rest {
        Some(rest) => (&mut rest.hold).await.ok(),
        None => std::future::pending().await,
    }
}
