//! An open volume as a whole: its lease and its view, which one owner works by, or two while it moves to another pool.
//!
//! What came from `storaged` is handed to the owners here, and what they want of it is gathered. Which of two owners an
//! operation goes to is decided in [`super::transit`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use protocol::session::{MovingView, SessionRequest, VolumeView};
use protocol::{Generation, VolumeId};
use replication::Moment;
use replication::owner::Event;
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_local};
use tracing::{error, info};

use super::comparison::Comparisons;
use super::driver::{Driver, Side};
use super::limited::{self, Limited};
use super::session::{self, OpenedSession, Session};
use super::transit::Transit;
use super::{Cache, OpenError, ReadRing, again, owner_operation};
use crate::device::{Continuation, DeviceError, DeviceEvent, DeviceInfo, Listener, Operation};
use crate::request;

/// How far an open volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The take-over is under way.
    Opening,
    /// Operations are carried out.
    Open,
    /// All that was submitted is done, and nothing more will be.
    Closed,
    /// Somebody else has it.
    Lost,
}

/// See the module.
pub(super) struct Open {
    pub(super) session: Session,
    volume: VolumeId,
    /// Nothing new begins.
    pub(super) closing: Cell<bool>,
    halves: RefCell<Halves>,
    info: RefCell<DeviceInfo>,
    listener: RefCell<Option<Listener>>,
    phase: watch::Sender<Phase>,
    /// When the last renewal of the lease was sent that was answered.
    renewed: Cell<Moment>,
    /// The generation is over, and it is not known yet whether there is another one.
    deposed: Cell<bool>,
    /// Compare-and-writes, and what waits for them.
    pub(super) comparisons: Comparisons,
    /// The limits, and what waits for its turn by them.
    pub(super) limited: Limited,
    /// A token, and how many owners have said that all is quiet.
    quiet: Cell<(u64, usize)>,
    tasks: RefCell<Vec<AbortHandle>>,
}

#[derive(Default)]
struct Halves {
    head: Option<Rc<Driver>>,
    /// What is not moved yet, and how operations find their way meanwhile.
    source: Option<(Rc<Driver>, Rc<Transit>)>,
}

impl Open {
    /// Starts to work with a volume that was just opened. The ring is taken only if that can be done.
    pub(super) fn start(opened: OpenedSession, ring: &mut Option<ReadRing>) -> Result<Rc<Self>, OpenError> {
        let OpenedSession {
            session,
            mut view,
            leased,
        } = opened;
        let moving = view.moving.take();
        let limits = view.limits;
        let open = Rc::new(Self {
            session,
            volume: view.volume,
            closing: Cell::new(false),
            halves: RefCell::default(),
            info: RefCell::new(device_info(&view)),
            listener: RefCell::default(),
            phase: watch::Sender::new(Phase::Opening),
            renewed: Cell::new(leased),
            deposed: Cell::new(false),
            comparisons: Comparisons::default(),
            limited: Limited::default(),
            quiet: Cell::new((0, 0)),
            tasks: RefCell::default(),
        });
        let started = open.start_halves(view, moving, ring);
        if let Err(error) = started {
            open.forget();
            return Err(error);
        }
        let tasks = [
            spawn_local(session::keep(Rc::clone(&open))),
            spawn_local(again::take(Rc::clone(&open))),
            spawn_local(limited::run(Rc::clone(&open))),
        ];
        open.limit(limits);
        let handles = tasks.map(|task| task.abort_handle());
        open.tasks.borrow_mut().extend(handles);
        Ok(open)
    }

    fn start_halves(
        self: &Rc<Self>,
        view: VolumeView,
        moving: Option<MovingView>,
        ring: &mut Option<ReadRing>,
    ) -> Result<(), OpenError> {
        let leased = self.renewed.get();
        let Some(moving) = moving else {
            let (head, actions) = Driver::new(self, view, leased, ring)?;
            self.halves.borrow_mut().head = Some(Rc::clone(&head));
            head.begin(actions);
            return Ok(());
        };
        let (moved, rate) = (moving.moved, moving.rate);
        let (source, first) = Driver::new(self, *moving.source, leased, ring)?;
        let (head, second) = Driver::new(self, view, leased, &mut None)?;
        source.becomes_source();
        self.two(&head, &source, moved, rate);
        source.begin(first);
        head.begin(second);
        Ok(())
    }

    /// From now on there are two owners, and operations find their way between them.
    fn two(self: &Rc<Self>, head: &Rc<Driver>, source: &Rc<Driver>, moved: u64, rate: u64) {
        let transit = Transit::new(self, head, source, moved, rate);
        let mut halves = self.halves.borrow_mut();
        halves.head = Some(Rc::clone(head));
        halves.source = Some((Rc::clone(source), transit));
    }

    pub(super) fn halves(&self) -> Vec<Rc<Driver>> {
        let halves = self.halves.borrow();
        let source = halves.source.as_ref().map(|(source, _)| source);
        halves.head.iter().chain(source).cloned().collect()
    }

    fn head(&self) -> Option<Rc<Driver>> {
        self.halves.borrow().head.clone()
    }

    pub(super) fn source(&self) -> Option<(Rc<Driver>, Rc<Transit>)> {
        self.halves.borrow().source.clone()
    }

    /// Asks all owners.
    pub(super) fn sum<T: std::iter::Sum>(&self, of: impl Fn(&Driver) -> T) -> T {
        self.halves().iter().map(|half| of(half)).sum()
    }

    /// The head's driver, for what concerns only one.
    pub(super) fn with_head<T>(&self, look: impl FnOnce(&Rc<Driver>) -> T) -> Option<T> {
        self.head().as_ref().map(look)
    }

    /// The ring for direct reads, whichever of the owners has it.
    pub(super) fn take_ring(&self) -> Option<ReadRing> {
        self.halves().iter().find_map(|half| half.direct.take_ring())
    }

    /// The volume's view, as it goes on.
    pub(super) fn view<T>(&self, look: impl FnOnce(&VolumeView) -> T) -> Option<T> {
        self.head().map(|head| head.view(look))
    }

    pub(super) fn info(&self) -> DeviceInfo {
        self.info.borrow().clone()
    }

    /// Refuses what must not be started.
    pub(super) fn check(&self, operation: &Operation) -> Result<(), DeviceError> {
        request::check(operation, &self.info.borrow())
    }

    pub(super) fn listen(&self, listener: Listener) {
        *self.listener.borrow_mut() = Some(listener);
    }

    pub(super) fn tell(&self, event: DeviceEvent) {
        // Taken out while it runs, so that it may ask for another one itself.
        let listener = self.listener.borrow_mut().take();
        if let Some(listener) = listener {
            listener(event);
            self.listener.borrow_mut().get_or_insert(listener);
        }
    }

    /// Has an operation done by the owner whose it is. It is no compare-and-write.
    pub(super) fn lead(&self, operation: Operation, done: Continuation) {
        if let Some((_, transit)) = self.source() {
            return transit.submit(operation, done);
        }
        if let Some(head) = self.head() {
            match owner_operation(operation) {
                Ok(operation) => head.submit(operation, done),
                Err(error) => done(Err(error)),
            }
        }
    }

    /// What operations wait for, in sentences.
    pub(super) fn waiting(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.halves().iter().flat_map(|half| half.waiting()).collect();
        reasons.extend(self.source().and_then(|(_, transit)| transit.obstacle()));
        reasons.extend(self.limited.waiting());
        reasons
    }

    // What `storaged` says.

    /// How the volume is from now on.
    pub(super) fn take_view(self: &Rc<Self>, view: VolumeView) {
        self.tell_halves(view, &Event::View);
    }

    /// The volume was taken again, with another generation.
    pub(super) fn take_again(self: &Rc<Self>, leased: Moment, view: VolumeView) {
        self.deposed.set(false);
        // Nobody moves anything of a volume that somebody may come back to.
        let moved = view.moving.as_ref().is_some_and(|moving| moving.moved > 0);
        if view.volume != self.volume || (moved && self.source().is_none()) {
            return self.lost();
        }
        self.renewed.set(leased);
        self.tell_halves(view, &|view| Event::Again { leased, view });
    }

    /// Hands each owner its part of a view, in an event.
    fn tell_halves(self: &Rc<Self>, mut view: VolumeView, event: &dyn Fn(Box<VolumeView>) -> Event) {
        self.limit(view.limits);
        match (view.moving.take(), self.source()) {
            (Some(moving), None) => {
                let source = event(moving.source.clone());
                self.begin_move(view, &moving, source);
            }
            (Some(moving), Some((source, transit))) => {
                source.event(event(moving.source));
                self.give_head(event(Box::new(view)));
                transit.learn(moving.moved, moving.rate);
            }
            (None, Some((_, transit))) => {
                self.give_head(event(Box::new(view)));
                transit.learn_end();
            }
            (None, None) => self.give_head(event(Box::new(view))),
        }
    }

    /// The volume begins to move: what this front end has of it becomes the source, told so by an event.
    fn begin_move(self: &Rc<Self>, view: VolumeView, moving: &MovingView, told: Event) {
        let Some(source) = self.head() else { return };
        if self.closing.get() {
            // Whoever opens it next moves it. This one finishes what it has.
            return source.event(told);
        }
        let begun = Driver::new(self, view, self.renewed.get(), &mut None);
        match begun {
            Ok((head, actions)) if source.view(|view| view.family) == moving.source.family => {
                info!("the volume begins to move to another pool");
                source.becomes_source();
                self.two(&head, &source, moving.moved, moving.rate);
                source.event(told);
                head.begin(actions);
            }
            Ok(_) => self.lost(),
            Err(reason) => {
                error!(%reason, "the volume moves to a pool that this program cannot write to");
                self.lost();
            }
        }
    }

    /// The move is over: what is left of the source is forgotten.
    pub(super) fn end_move(&self) {
        let Some((source, _)) = self.halves.borrow_mut().source.take() else {
            return;
        };
        info!("the volume has moved");
        if let Some(head) = self.head() {
            head.take_ring_of(&source);
        }
        source.stop();
        self.check_opened();
    }

    /// The lease was renewed by a request that was sent then.
    pub(super) fn lease_renewed(&self, sent: Moment) {
        self.renewed.set(sent);
        self.give(&|| Event::Renewed { sent });
    }

    /// The lease is over.
    pub(super) fn revoked(&self) {
        self.give(&|| Event::Revoked);
    }

    /// Somebody else has the volume.
    pub(super) fn given_away(&self) {
        self.give(&|| Event::Lost);
    }

    pub(super) fn quiesce(&self, token: u64, limit_ms: u64) {
        self.quiet.set((token, 0));
        self.give(&|| Event::Quiesce { token, limit_ms });
    }

    fn give(&self, event: &dyn Fn() -> Event) {
        for half in self.halves() {
            half.event(event());
        }
    }

    fn give_head(&self, event: Event) {
        if let Some(head) = self.head() {
            head.event(event);
        }
    }

    // What the owners want.

    pub(super) fn renew(&self, side: Side) {
        // One lease for both.
        if side == Side::Head {
            self.view(|view| self.session.renew(view));
        }
    }

    pub(super) fn want_view(&self) {
        self.view(|view| self.session.want_view(view));
    }

    pub(super) fn quiesced(&self, token: u64) {
        let (asked, said) = self.quiet.get();
        let said = if asked == token { said + 1 } else { 1 };
        self.quiet.set((token, said));
        if said < self.halves().len() {
            return;
        }
        let volume = self.volume;
        self.session.tell(&SessionRequest::Quiesced { volume, token });
    }

    pub(super) fn deposed(&self, side: Side) {
        if self.deposed.replace(true) {
            return;
        }
        self.session.deposed();
        // The other half's generation is the same.
        let others = self.halves().into_iter().filter(|half| half.side() != side);
        for other in others {
            other.event(Event::Revoked);
        }
    }

    pub(super) fn lost(self: &Rc<Self>) {
        if !self.enter(Phase::Lost) {
            return;
        }
        self.given_away();
        if let Some((_, transit)) = self.source() {
            transit.fail();
        }
        // What waits for its turn fails now.
        self.lift_limits();
        self.tell(DeviceEvent::Lost);
    }

    pub(super) fn resized(&self, side: Side, size: u64) {
        if side == Side::Head {
            self.info.borrow_mut().size = size;
            self.tell(DeviceEvent::Resized(size));
        }
    }

    pub(super) fn check_opened(&self) {
        let halves = self.halves();
        if *self.phase.borrow() == Phase::Opening && halves.iter().all(|half| half.is_opened()) {
            self.enter(Phase::Open);
        }
    }

    pub(super) fn check_closed(&self) {
        if self.halves().iter().all(|half| half.is_closed()) {
            self.enter(Phase::Closed);
        }
    }

    /// False if that is so already. What is lost stays lost, also when it is closed afterwards.
    fn enter(&self, phase: Phase) -> bool {
        let changed = self.phase.send_if_modified(|present| {
            let changes = *present != Phase::Lost && *present != phase;
            if changes {
                *present = phase;
            }
            changes
        });
        if changed {
            let name = &self.info.borrow().name;
            info!(volume = %name, ?phase, "the volume's phase changed");
        }
        changed
    }

    // What the device is asked for.

    /// Where what is read directly is kept.
    pub(super) fn read_cache(&self) -> Option<Cache> {
        self.session.read_cache()
    }

    /// Which volume it is.
    pub(super) fn volume(&self) -> VolumeId {
        self.volume
    }

    pub(super) fn generation(&self) -> Generation {
        self.view(|view| view.generation).unwrap_or_default()
    }

    /// Whether the volume belongs to somebody else by now.
    pub(super) fn is_lost(&self) -> bool {
        *self.phase.borrow() == Phase::Lost
    }

    /// Asks for the present view. False if it does not come.
    pub(super) async fn refresh(&self) -> bool {
        match self.view(|view| self.session.refresh(view)) {
            Some(taken_in) => taken_in.await.is_ok(),
            None => false,
        }
    }

    pub(super) async fn opened(&self) {
        // The sender is `self`, so the channel cannot be closed.
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase != Phase::Opening).await;
    }

    pub(super) async fn close(self: &Rc<Self>) {
        self.lift_limits();
        self.closing.set(true);
        self.comparisons.ended().await;
        // Nothing of the volume may be between two owners.
        if let Some((_, transit)) = self.source() {
            transit.come_to_rest().await;
        }
        self.give(&|| Event::Close);
        let mut phase = self.phase.subscribe();
        let _ = phase
            .wait_for(|phase| matches!(phase, Phase::Closed | Phase::Lost))
            .await;
        if !self.is_lost() {
            session::give_back(self).await;
        }
        self.stop();
    }

    /// Ends all tasks, and with them all connections.
    pub(super) fn stop(&self) {
        self.limited.stop();
        self.comparisons.stop();
        for half in self.halves() {
            half.stop();
        }
        if let Some((_, transit)) = self.source() {
            transit.stop();
        }
        for task in self.tasks.borrow_mut().drain(..) {
            task.abort();
        }
    }

    /// Lets the owners go, which hold on to this.
    pub(super) fn forget(&self) {
        self.halves.take();
    }
}

pub(super) fn device_info(view: &VolumeView) -> DeviceInfo {
    DeviceInfo {
        name: view.name.clone(),
        // 20 characters, as many as a virtio serial number has.
        serial: format!("stgd{:016x}", view.volume.0),
        size: view.size,
        read_only: view.read_only,
        alignment: protocol::BLOCK_SIZE,
    }
}
