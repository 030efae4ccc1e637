//! What outlives a back end: the guest's memory with one ring, and the region for requests in flight. And the
//! scripts that a back end follows until it is killed.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::rc::Rc;

use client::device::BlockDevice;
use client::memory::MemoryDevice;
use vhost::vhost_user::message::VhostUserInflight;
use vhost_blk::backing::Backing;
use vhost_blk::guest_memory::{GuestMap, GuestMemory};
use vhost_blk::inflight::Region;
use vhost_blk::ring::{Legacy, Ring, Vring};
use vhost_user_backend::{VringMutex, VringT as _};
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_OUT;
use vm_memory::{Bytes as _, FileOffset, GuestAddress};

const QUEUE_SIZE: u16 = 16;
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x500;
const CONTROL: u64 = 0x600;
const DATA: u64 = 0x1000;
/// Where what is watched ends: rings, headers and statuses, not data.
const WATCHED_BYTES: usize = 0x800;
const MEMORY_BYTES: usize = 0x8000;
const BLOCK: u32 = 4096;
/// The heads of the guest's requests, in order. The fourth uses the second's descriptors again.
const HEADS: [u16; 5] = [0, 3, 6, 3, 9];
/// How many of them are there from the beginning.
const FIRST: usize = 3;

/// Names the folder with the two files, for the process that is stepped through.
pub(crate) const FOLDER: &str = "VHOST_BLK_INSTANTS";

/// What a back end does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Takes requests, has them answered out of order, and sees descriptors used again.
    Work,
    /// Takes over, and is ready when all is answered.
    Succeed,
}

/// The two pieces of memory.
pub(crate) struct Machine {
    pub(crate) folder: PathBuf,
    memory: GuestMap,
    described: VhostUserInflight,
    region: File,
    _owned: Option<tempfile::TempDir>,
}

/// What was in them at one instant.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) memory: Vec<u8>,
    pub(crate) region: Vec<u8>,
}

impl Machine {
    /// New and empty.
    pub(crate) fn new() -> Self {
        let owned = tempfile::tempdir().unwrap();
        let (described, original) = Region::create(1, QUEUE_SIZE).unwrap();
        let length = original.metadata().unwrap().len();
        for (name, length) in [("memory", MEMORY_BYTES as u64), ("region", length)] {
            File::create(owned.path().join(name))
                .unwrap()
                .set_len(length)
                .unwrap();
        }
        Self::open(owned.path().to_owned(), described, Some(owned))
    }

    /// The one that this process was started on.
    pub(crate) fn inherited() -> Self {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        let (described, _) = Region::create(1, QUEUE_SIZE).unwrap();
        Self::open(folder, described, None)
    }

    fn open(folder: PathBuf, described: VhostUserInflight, owned: Option<tempfile::TempDir>) -> Self {
        let open = |name: &str| {
            File::options()
                .read(true)
                .write(true)
                .open(folder.join(name))
                .unwrap()
        };
        let file = FileOffset::new(open("memory"), 0);
        let memory = GuestMap::from_ranges_with_files([(GuestAddress(0), MEMORY_BYTES, Some(file))]).unwrap();
        Self {
            memory,
            described,
            region: open("region"),
            folder,
            _owned: owned,
        }
    }

    /// The guest prepares all of its requests and makes the first ones available.
    pub(crate) fn set_up(&self) {
        for head in HEADS {
            let control = CONTROL + u64::from(head) * 24;
            let buffers = [(control, 16, 1), (DATA, BLOCK, 1), (control + 16, 1, 2)];
            for (index, (address, length, flags)) in (head..).zip(buffers) {
                let at = DESCRIPTORS + u64::from(index) * 16;
                self.put(at, address);
                self.put(at + 8, length);
                self.put::<u16>(at + 12, flags);
                self.put::<u16>(at + 14, index + 1);
            }
        }
        for number in 0..FIRST {
            self.make_available(number);
        }
    }

    /// The guest makes its request `number` available, as the next one.
    fn make_available(&self, number: usize) {
        let (head, sector) = (HEADS[number], number as u64 * u64::from(BLOCK / 512));
        let control = CONTROL + u64::from(head) * 24;
        self.put(control, VIRTIO_BLK_T_OUT);
        self.put(control + 8, sector);
        self.put(control + 16, 0xffu8);
        let number = u16::try_from(number).unwrap();
        self.put(AVAILABLE + 4 + u64::from(number) * 2, head);
        self.put(AVAILABLE + 2, number + 1);
    }

    /// The guest makes the rest of its requests available.
    pub(crate) fn make_all_available(&self) {
        for number in usize::from(self.available())..HEADS.len() {
            // Descriptors may be used again only after the answer.
            assert!(self.answered().len() >= FIRST);
            self.make_available(number);
        }
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    fn get<T: vm_memory::ByteValued>(&self, at: u64) -> T {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// How many requests the guest has made available.
    pub(crate) fn available(&self) -> u16 {
        self.get(AVAILABLE + 2)
    }

    /// The numbers of the requests that are answered, in the order of the answers.
    pub(crate) fn answered(&self) -> Vec<usize> {
        let mut numbers = Vec::new();
        for at in 0..self.get::<u16>(USED + 2) {
            let head: u32 = self.get(USED + 4 + u64::from(at) * 8);
            let mut requests = (0..HEADS.len()).filter(|number| u32::from(HEADS[*number]) == head);
            let number = requests.find(|number| !numbers.contains(number));
            assert!(number.is_some(), "a request is answered twice");
            numbers.push(number.unwrap());
        }
        numbers
    }

    /// The status of a request.
    pub(crate) fn status(&self, number: usize) -> u8 {
        self.get(CONTROL + u64::from(HEADS[number]) * 24 + 16)
    }

    /// A ring that takes over what is there.
    pub(crate) fn ring(&self, device: Rc<dyn BlockDevice>) -> Rc<Ring> {
        let shared = GuestMemory::new(self.memory.clone());
        let vring: Vring = VringMutex::new(shared.clone(), QUEUE_SIZE).unwrap();
        vring.set_queue_info(DESCRIPTORS, AVAILABLE, USED).unwrap();
        vring.set_queue_ready(true);
        let file = File::from(self.region.as_fd().try_clone_to_owned().unwrap());
        let log = Region::map(&self.described, file).unwrap().log(0);
        let legacy = Legacy::inherit(&vring, log).unwrap();
        Ring::new(0, vring, shared, Backing::new(device, BLOCK), legacy)
    }

    /// What is in memory now.
    pub(crate) fn state(&self) -> State {
        use std::os::unix::fs::FileExt as _;
        let mut memory = vec![0; WATCHED_BYTES];
        self.memory.read_slice(&mut memory, GuestAddress(0)).unwrap();
        let mut region = vec![0; usize::try_from(self.described.mmap_size).unwrap()];
        self.region.read_exact_at(&mut region, 0).unwrap();
        State { memory, region }
    }

    /// Puts everything back as it was at one instant.
    pub(crate) fn restore(&self, state: &State) {
        use std::os::unix::fs::FileExt as _;
        self.memory.write_slice(&state.memory, GuestAddress(0)).unwrap();
        self.region.write_all_at(&state.region, 0).unwrap();
    }
}

impl Script {
    /// Does it, in the process that is stepped through.
    pub(crate) fn perform(self, machine: &Machine) {
        let device = Rc::new(MemoryDevice::held(1 << 20));
        // The process stops here until its parent lets it go on, one instruction after the other.
        crate::steps::stop();
        let ring = machine.ring(Rc::clone(&device) as Rc<dyn BlockDevice>);
        ring.turn();
        if self == Self::Work {
            // The second request first, whose descriptors the guest then uses again while others wait.
            device.release(1);
            ring.turn();
            machine.make_available(FIRST);
            ring.turn();
            // Two answers at once.
            device.release(1);
            device.release(0);
            ring.turn();
            machine.make_available(FIRST + 1);
        }
        // One answer after the other, as often as there is one.
        for _ in 0..HEADS.len() * 2 {
            device.release(0);
            ring.turn();
        }
    }
}
