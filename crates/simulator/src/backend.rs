//! What a disk of the world stores things in: the real store on a medium in memory, or the model.
//!
//! The real one shows that the machines and the store fit; the model is faster, is exact about what
//! the contract allows, and damages blocks at will.

use std::{fmt, fs};

use direct::witness::Witness;
use protocol::storage::{ObjectDelta, StorageReply, StorageRequest};
use protocol::{DiskId, FamilyId, LayerId, ObjectId, Stamp};
use replication::replica::Remembered;
use rustix::fs::MemfdFlags;
use store::medium::File;
use store::medium::memory::Disk as Medium;
use store::{Answer, Format, Options, Store};

use crate::chance::Chance;
use crate::model_store::ModelStore;

/// Rounds of I/O within which a store that is left alone must answer a pull.
const ROUNDS_MAX: usize = 10_000;
/// What one flipped bit damages, in bytes.
const PAGE: usize = 4096;
/// What the file system has free while the disk is not full: far more than a world writes.
const ROOMY: u64 = 1 << 40;

/// A disk's store.
#[derive(Debug)]
pub(crate) enum Backend {
    Model(Box<ModelStore>),
    Real(Box<RealStore>),
}

/// The real store, and the medium that outlives it.
pub(crate) struct RealStore {
    medium: Medium,
    /// The witness's file, which outlives the process. It is in memory: on a disk it would cost more than all other I/O.
    witness: fs::File,
    store: Option<Store>,
    /// Requests that are not answered.
    in_flight: u64,
    full: bool,
    /// Where bits were flipped, which, and the pages as they were then.
    flipped: Vec<(u64, u32, Vec<u8>)>,
}

impl RealStore {
    /// A new disk.
    pub(crate) fn new(disk: DiskId, chance: &mut Chance) -> Result<Self, String> {
        let medium = Medium::default();
        medium.set_free_bytes(ROOMY);
        let mut serial = [0; 16];
        serial[..8].copy_from_slice(&chance.between(1, u64::MAX).to_le_bytes());
        let format = Format {
            cluster: [7; 16],
            disk,
            serial,
            log_bytes: store::options::LOG_BYTES_MIN,
        };
        Store::create_on(&mut medium.medium(), &format).map_err(|error| error.to_string())?;
        let witness = rustix::fs::memfd_create("witness", MemfdFlags::CLOEXEC);
        let witness = witness.map_err(|error| error.to_string())?.into();
        Ok(Self {
            medium,
            witness,
            store: None,
            in_flight: 0,
            full: false,
            flipped: Vec::new(),
        })
    }

    /// Opens the store, as after a start of the process. What it does takes an order of chance.
    pub(crate) fn open(&mut self, chance: &mut Chance) -> Result<Remembered, String> {
        let medium = self.medium.shuffled_medium(chance.between(1, u64::MAX));
        let mut store = Store::open_on(Box::new(medium), &Options::default())
            .map_err(|error| format!("the store does not open: {error}"))?;
        let witness = Witness::open_on(&self.witness, [7; 16]);
        store.set_witness(witness.map_err(|error| format!("no witness: {error}"))?);
        let remembered = Remembered {
            generations: store.generations(),
            intervals: store.intervals(),
            doubts: store.doubts(),
            vouched: true,
        };
        self.store = Some(store);
        self.in_flight = 0;
        Ok(remembered)
    }

    /// The open store, if the process runs.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// The files, as somebody else sees them.
    pub(crate) fn file(&self) -> impl store::medium::Medium {
        self.medium.medium()
    }

    /// The power fails: what was not flushed is kept, lost or torn.
    pub(crate) fn crash(&mut self, chance: &mut Chance) {
        self.medium.cut_power(chance.between(1, u64::MAX));
        self.store = None;
        self.in_flight = 0;
    }

    /// Takes a request in.
    pub(crate) fn submit(&mut self, token: u64, request: StorageRequest) {
        if let Some(store) = &mut self.store {
            self.in_flight += 1;
            store.submit(token, request);
        }
    }

    /// One turn of the disk's loop: some I/O is done, some requests are answered.
    pub(crate) fn turn(&mut self, checkpoint: bool) -> Vec<Answer> {
        let mut answers = Vec::new();
        if let Some(store) = &mut self.store {
            if checkpoint && store.has_background_work() {
                store.checkpoint();
            }
            store.kick();
            store.poll(&mut answers);
        }
        self.in_flight = self.in_flight.saturating_sub(answers.len() as u64);
        answers
    }

    /// Whether something is not answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    /// Flips a bit of a block, if nothing is in the log that a recovery would judge by its blocks: damage to the
    /// newest of a log looks like a power cut, which is the crash tests' business. Tells whether it did.
    fn damage(&mut self, chance: &mut Chance) -> bool {
        let quiet = self
            .store
            .as_ref()
            .is_some_and(|store| !store.has_background_work());
        let pages = self.medium.written_pages(File::Data);
        let Some(page) = chance.pick(&pages).filter(|_| quiet) else {
            return false;
        };
        let (offset, bit) = (page + chance.between(0, PAGE as u64 - 1), 3);
        self.medium.flip(File::Data, offset, bit);
        self.flipped.push((offset, bit, self.page(offset)));
        true
    }

    /// Flips the bits back that were flipped, in pages that were not written since.
    fn mend(&mut self) {
        while let Some((offset, bit, page)) = self.flipped.pop() {
            if self.page(offset) == page {
                self.medium.flip(File::Data, offset, bit);
            }
        }
    }

    fn page(&self, offset: u64) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        self.medium
            .read(File::Data, offset - offset % PAGE as u64, &mut page);
        page
    }

    /// Has everything written where it belongs, while nobody asks for anything.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let works = self.store.as_ref().is_some_and(Store::has_background_work);
            if !works || self.is_busy() {
                return;
            }
            self.turn(true);
        }
    }

    fn content(&mut self, object: ObjectId) -> Result<ObjectDelta, String> {
        self.submit(
            0,
            StorageRequest::Pull {
                object,
                above: Stamp::ZERO,
            },
        );
        for _ in 0..ROUNDS_MAX {
            match self.turn(false).into_iter().next() {
                Some((_, Ok(StorageReply::Delta(delta)))) => return Ok(delta),
                Some((_, other)) => return Err(format!("a pull is answered with {other:?}")),
                None => {}
            }
        }
        Err("a pull is not answered".to_owned())
    }

    fn objects(&mut self, layers: &[(FamilyId, LayerId)]) -> Result<Vec<ObjectId>, String> {
        let mut objects = Vec::new();
        let Some(store) = &mut self.store else {
            return Ok(objects);
        };
        for (family, layer) in layers {
            let listed = store.objects_of_layer(*family, *layer, 0, 1000);
            let (indices, _) = listed.map_err(|error| error.to_string())?;
            let object = |index| ObjectId {
                family: *family,
                index,
                layer: *layer,
            };
            objects.extend(indices.into_iter().map(object));
        }
        Ok(objects)
    }
}

impl Backend {
    /// The power fails.
    pub(crate) fn crash(&mut self, chance: &mut Chance) {
        match self {
            Self::Model(store) => store.crash(chance),
            Self::Real(store) => store.crash(chance),
        }
    }

    /// What the process finds when it starts.
    pub(crate) fn open(&mut self, chance: &mut Chance) -> Result<Remembered, String> {
        match self {
            Self::Model(store) => Ok(Remembered {
                generations: store.generations(),
                intervals: store.intervals(),
                doubts: store.doubts(),
                vouched: true,
            }),
            Self::Real(store) => store.open(chance),
        }
    }

    /// Makes the disk refuse new data, or take it again; tells which.
    pub(crate) fn set_full(&mut self, full: bool) {
        match self {
            Self::Model(store) => store.full = full,
            Self::Real(store) => {
                store.full = full;
                store.medium.set_free_bytes(if full { 0 } else { ROOMY });
            }
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Model(store) => store.full,
            Self::Real(store) => store.full,
        }
    }

    /// Damages a block, maybe one that nobody needs any more; tells whether it did.
    pub(crate) fn damage(&mut self, chance: &mut Chance) -> bool {
        match self {
            Self::Model(store) => store.damage(chance),
            Self::Real(store) => store.damage(chance),
        }
    }

    /// Its damaged blocks are as good as new.
    pub(crate) fn mend(&mut self) {
        match self {
            Self::Model(store) => store.mend(),
            Self::Real(store) => store.mend(),
        }
    }

    /// Has everything written where it belongs, while nobody asks for anything.
    pub(crate) fn settle(&mut self) {
        if let Self::Real(store) = self {
            store.settle();
        }
    }

    /// How many blocks are damaged, as far as that is known without reading them.
    pub(crate) fn damaged_blocks(&self) -> usize {
        match self {
            Self::Model(store) => store.damaged_blocks(),
            Self::Real(_) => 0,
        }
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Self::Model(store) => store.is_durable(),
            Self::Real(store) => !store.is_busy(),
        }
    }

    /// The objects that there are in these layers.
    pub(crate) fn objects(&mut self, layers: &[(FamilyId, LayerId)]) -> Result<Vec<ObjectId>, String> {
        match self {
            Self::Model(store) => Ok(store.objects()),
            Self::Real(store) => store.objects(layers),
        }
    }

    /// What an object holds, for comparisons between disks.
    pub(crate) fn content(&mut self, object: ObjectId) -> Result<ObjectDelta, String> {
        match self {
            Self::Model(store) => Ok(store.content(object)),
            Self::Real(store) => store.content(object),
        }
    }
}

impl fmt::Debug for RealStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealStore")
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
