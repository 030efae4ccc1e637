//! What all rings of a process share: the device, the limit of data under way, and the order in which a new
//! process begins: first what the former one has left, over all rings, then what is new.
//!
//! It knows rings only as somebody to wake.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use client::device::BlockDevice;
use telemetry::traffic::{Kind, Traffic};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::info;

/// Data bytes under way in one process, over all rings. Further requests stay in their ring.
/// 64 MiB is two of the largest requests, and more than any disk needs to be busy.
const BYTES_IN_FLIGHT_MAX: u64 = 64 << 20;
/// Between looks whether requests that must be finished brought forth others, as one does that changes a part of a block.
const HURRY_AGAIN: Duration = Duration::from_millis(10);
/// Length of the serial number that the guest is given, in bytes.
pub(crate) const SERIAL_BYTES: usize = 20;

/// What is counted: what a guest may ask for.
const KINDS: [Kind; 7] = [
    Kind::Read,
    Kind::Write,
    Kind::Flush,
    Kind::Discard,
    Kind::WriteZeroes,
    Kind::Identify,
    Kind::Refused,
];

/// The device and what its rings have in common.
pub struct Backing {
    device: Rc<dyn BlockDevice>,
    block_size: u32,
    serial: [u8; SERIAL_BYTES],
    bytes_in_flight: Cell<u64>,
    /// Requests of a former process that are not answered yet.
    again: Cell<usize>,
    /// There are none of these any more.
    nothing_left: Notify,
    /// Rings that wait for one of the two to fall, by number: a guest that kicks a waiting ring again and
    /// again adds nothing.
    waiting: RefCell<BTreeMap<u16, Rc<Notify>>>,
    complaints: Cell<u64>,
    traffic: Traffic,
}

impl Backing {
    /// Of a device whose smallest request has `block_size` bytes.
    pub fn new(device: Rc<dyn BlockDevice>, block_size: u32) -> Rc<Self> {
        let mut serial = [0; SERIAL_BYTES];
        let name = device.info().serial;
        serial
            .iter_mut()
            .zip(name.bytes())
            .for_each(|(byte, value)| *byte = value);
        Rc::new(Self {
            device,
            block_size,
            serial,
            bytes_in_flight: Cell::new(0),
            again: Cell::new(0),
            nothing_left: Notify::new(),
            waiting: RefCell::default(),
            complaints: Cell::new(0),
            traffic: Traffic::new(&KINDS),
        })
    }

    /// What is counted, and whether requests may be taken.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The device.
    pub fn device(&self) -> &dyn BlockDevice {
        &*self.device
    }

    pub(crate) fn block_size(&self) -> u32 {
        self.block_size
    }

    pub(crate) fn serial(&self) -> &[u8; SERIAL_BYTES] {
        &self.serial
    }

    /// Whether to log: a guest can cause as many complaints as it likes, so the n-th is logged
    /// when n is a power of two. Gives n.
    pub(crate) fn complaint(&self) -> Option<u64> {
        let count = self.complaints.get().saturating_add(1);
        self.complaints.set(count);
        count.is_power_of_two().then_some(count)
    }

    /// Whether no more data may be under way.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes_in_flight.get() >= BYTES_IN_FLIGHT_MAX
    }

    pub(crate) fn hold(&self, bytes: u64) {
        self.bytes_in_flight.set(self.bytes_in_flight.get() + bytes);
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.bytes_in_flight
            .set(self.bytes_in_flight.get().saturating_sub(bytes));
        if !self.is_full() {
            self.wake_all();
        }
    }

    /// So many requests more were left by a former process.
    pub(crate) fn expect_again(&self, requests: usize) {
        self.again.set(self.again.get() + requests);
    }

    /// Whether new requests must wait. A write that is done again must not be seen after something that
    /// the guest did later, on whichever ring.
    pub(crate) fn awaits_again(&self) -> bool {
        self.again.get() > 0
    }

    /// One of them is answered.
    pub(crate) fn done_again(&self) {
        self.again.set(self.again.get().saturating_sub(1));
        if !self.awaits_again() {
            info!("all that a former process has left is answered");
            self.nothing_left.notify_waiters();
            self.wake_all();
        }
    }

    /// Waits until nothing is under way, what a former process has left included.
    pub async fn rested(&self) {
        while self.awaits_again() {
            self.nothing_left.notified().await;
        }
        self.traffic.rested().await;
    }

    /// Waits for something that comes when all that was taken is answered, and lets nothing of that wait for the volume's
    /// limits meanwhile.
    pub async fn hurried(&self, awaited: impl Future<Output = ()>) {
        let mut awaited = pin!(awaited);
        loop {
            self.device.hurry();
            if timeout(HURRY_AGAIN, &mut awaited).await.is_ok() {
                return;
            }
        }
    }

    /// A ring can take nothing now, and is woken when that may have changed.
    pub(crate) fn wake_later(&self, ring: u16, wake: &Rc<Notify>) {
        self.waiting.borrow_mut().insert(ring, Rc::clone(wake));
    }

    fn wake_all(&self) {
        for wake in self.waiting.take().into_values() {
            wake.notify_one();
        }
    }
}
