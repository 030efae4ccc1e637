//! Having a volume while the guest runs here, and letting it go when the guest runs elsewhere.
//!
//! During a live migration two processes offer one volume, and only one may own it. So ownership follows the
//! guest: the first request takes the volume, and a process whose rings stand still gives it back when another
//! one asks for it. A guest whose migration was called off takes it again with its next request. Requests that
//! come while the volume is not here wait; there are no more of them than the rings hold.
//!
//! Which of two processes is right is not decided here, but by `storaged` and the disks: this is only polite.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use client::device::{
    BlockDevice, Continuation, DeviceError, DeviceEvent, DeviceInfo, Listener, Operation, WriteBuffer,
};
use client::volume::{OpenError, Options, ReadRing, Volume};
use protocol::session::SessionRefusal;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

/// How long to wait until a volume that could not be opened is asked for again. `storaged` itself waits for the
/// present owner to leave, so this is for one that is away.
const AGAIN: Duration = Duration::from_millis(200);
/// How long to wait for storaged to take the volume back.
const CLOSE: Duration = Duration::from_secs(5);

/// Where the volume is.
enum Place {
    /// Here.
    Here(Rc<Volume>),
    /// On its way here or away: requests wait.
    Moving,
    /// Elsewhere, or nowhere. The next request fetches it.
    Away,
    /// It cannot be had any more: every request fails.
    Gone,
}

/// A volume that is here while it is needed.
pub struct Tenure {
    this: Weak<Self>,
    options: Options,
    place: RefCell<Place>,
    /// As it was seen last.
    info: RefCell<DeviceInfo>,
    waiting: RefCell<VecDeque<(Operation, Continuation)>>,
    listener: RefCell<Option<Rc<Listener>>>,
    /// For the next volume: a sandboxed process can make no other.
    ring: RefCell<Option<ReadRing>>,
    /// Rings run.
    busy: Cell<bool>,
    /// Somebody has asked for the volume since they do.
    wanted: Cell<bool>,
    /// The place is another one.
    moved: Notify,
}

impl Tenure {
    /// Of a volume that is not here yet. `ring` is for reading directly.
    pub fn away(options: Options, info: DeviceInfo, ring: Option<ReadRing>) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            options,
            place: RefCell::new(Place::Away),
            info: RefCell::new(info),
            waiting: RefCell::default(),
            listener: RefCell::default(),
            ring: RefCell::new(ring),
            busy: Cell::new(false),
            wanted: Cell::new(false),
            moved: Notify::new(),
        })
    }

    /// Of a volume that is taken at once; waits for the present owner as long as the options say.
    pub async fn here(options: Options, mut ring: Option<ReadRing>) -> Result<Rc<Self>, OpenError> {
        let volume = Rc::new(Volume::open_with(options.clone(), &mut ring).await?);
        let tenure = Self::away(options, volume.info(), ring);
        tenure.arrived(&volume);
        Ok(tenure)
    }

    /// The volume, while it is here.
    pub fn volume(&self) -> Option<Rc<Volume>> {
        match &*self.place.borrow() {
            Place::Here(volume) => Some(Rc::clone(volume)),
            _ => None,
        }
    }

    /// Whether rings run. When they no longer do, everything taken from them is answered.
    pub fn set_busy(&self, busy: bool) {
        if busy && !self.busy.get() {
            // Asked for before the guest ran here: then it is not meant any more.
            self.wanted.set(false);
        }
        self.busy.set(busy);
        self.yield_if_wanted();
    }

    /// Lets the volume go for good, with everything that was submitted finished.
    pub async fn close(&self) {
        while matches!(*self.place.borrow(), Place::Moving) {
            self.moved.notified().await;
        }
        let place = self.place.replace(Place::Gone);
        if let Place::Here(volume) = place {
            give_back(&volume).await;
        }
        self.fail_waiting(&DeviceError::Closed);
    }

    fn place_at(&self, place: Place) {
        *self.place.borrow_mut() = place;
        self.moved.notify_one();
    }

    /// The volume is here: what waited goes on, in its order.
    fn arrived(&self, volume: &Rc<Volume>) {
        let this = self.this.clone();
        volume.listen(Box::new(move |event| {
            if let Some(this) = this.upgrade() {
                this.heard(event);
            }
        }));
        self.place_at(Place::Here(Rc::clone(volume)));
        let info = volume.info();
        let size = info.size;
        let before = self.info.replace(info).size;
        if before != size {
            self.tell(DeviceEvent::Resized(size));
        }
        while let Some((operation, done)) = self.next_waiting() {
            volume.submit(operation, done);
        }
    }

    fn next_waiting(&self) -> Option<(Operation, Continuation)> {
        self.waiting.borrow_mut().pop_front()
    }

    fn fail_waiting(&self, error: &DeviceError) {
        while let Some((_, done)) = self.next_waiting() {
            done(Err(error.clone()));
        }
    }

    fn heard(&self, event: DeviceEvent) {
        match event {
            DeviceEvent::Wanted => {
                self.wanted.set(true);
                self.yield_if_wanted();
            }
            DeviceEvent::Resized(size) => {
                self.info.borrow_mut().size = size;
                self.tell(event);
            }
            DeviceEvent::Lost | DeviceEvent::OwnerMoved => self.tell(event),
        }
    }

    fn tell(&self, event: DeviceEvent) {
        let listener = self.listener.borrow().clone();
        if let Some(listener) = listener {
            listener(event);
        }
    }

    fn yield_if_wanted(&self) {
        if self.busy.get() || !self.wanted.get() {
            return;
        }
        let Some(volume) = self.volume() else { return };
        let Some(this) = self.this.upgrade() else { return };
        self.wanted.set(false);
        self.place_at(Place::Moving);
        info!("the guest stands still and the volume is wanted elsewhere: giving it back");
        spawn_local(async move {
            give_back(&volume).await;
            *this.ring.borrow_mut() = volume.take_read_ring();
            this.place_at(Place::Away);
            // The guest may have gone on meanwhile.
            this.fetch_if_waited_for();
        });
    }

    fn fetch_if_waited_for(&self) {
        let away = matches!(*self.place.borrow(), Place::Away);
        if !away || self.waiting.borrow().is_empty() {
            return;
        }
        let Some(this) = self.this.upgrade() else { return };
        self.place_at(Place::Moving);
        info!("the guest goes on here: taking the volume");
        spawn_local(async move { this.fetch().await });
    }

    /// Asks for the volume until it is here, or known to be there no more. Requests wait as long as that takes.
    async fn fetch(&self) {
        loop {
            let mut ring = self.ring.take();
            let opened = Volume::succeed(self.options.clone(), &mut ring).await;
            *self.ring.borrow_mut() = ring;
            match opened {
                Ok(volume) => {
                    info!(generation = %volume.generation(), "the volume is here");
                    return self.arrived(&Rc::new(volume));
                }
                Err(OpenError::Refused {
                    kind: SessionRefusal::NotFound,
                    message,
                }) => {
                    error!(message, "the volume cannot be had any more: all requests fail");
                    self.place_at(Place::Gone);
                    return self.fail_waiting(&DeviceError::Lost);
                }
                Err(cause) => warn!(%cause, "the volume cannot be had yet: asking again"),
            }
            sleep(AGAIN).await;
        }
    }
}

/// Gives the volume back, so that the next process need not wait for the lease to lapse.
async fn give_back(volume: &Volume) {
    if timeout(CLOSE, volume.close()).await.is_err() {
        // Nothing is lost: all requests were answered. The next owner waits a little longer.
        warn!("storaged does not answer, so the volume's lease is left to lapse");
    }
}

impl BlockDevice for Tenure {
    fn info(&self) -> DeviceInfo {
        self.info.borrow().clone()
    }

    fn submit(&self, operation: Operation, done: Continuation) {
        let volume = match &*self.place.borrow() {
            Place::Here(volume) => Rc::clone(volume),
            Place::Gone => return done(Err(DeviceError::Closed)),
            Place::Moving | Place::Away => {
                self.waiting.borrow_mut().push_back((operation, done));
                // Not while the place is looked at.
                let this = self.this.clone();
                spawn_local(async move { this.upgrade().map(|this| this.fetch_if_waited_for()) });
                return;
            }
        };
        volume.submit(operation, done);
    }

    fn listen(&self, listener: Listener) {
        *self.listener.borrow_mut() = Some(Rc::new(listener));
    }

    fn hurry(&self) {
        if let Some(volume) = self.volume() {
            volume.hurry();
        }
    }

    fn buffer(&self, length: usize) -> WriteBuffer {
        match &*self.place.borrow() {
            Place::Here(volume) => volume.buffer(length),
            _ => WriteBuffer::new(length),
        }
    }
}
