//! A disk in memory: deterministic, with power cuts, failing I/O, flipped bits and a recording.
//!
//! For the crash images, the simulator and the tests. A write that is not durable stays in a list
//! until its file is flushed; a power cut decides for each of the list whether it was kept, lost or
//! torn. A process that only dies loses nothing that it wrote: open the same [`Disk`] again. Durable
//! writes under way at its end may be there, unflushed: so they are on a medium that shuffles, from
//! the moment that they begin.
//!
//! One file because the power cut, the failures and the recording are about one list of events.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::medium::{Completion, File, Medium, MetaFile, Operation, Outcome};

const PAGE: usize = 4096;
/// What a disk writes as a whole or not at all, in bytes.
const SECTOR: usize = 512;
const FILES: usize = 4;

/// What a power cut does to a write that was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Kept,
    /// It is not.
    Lost,
    /// Some of its sectors are there, as the seed says.
    Torn(u64),
}

/// Something that happened to a disk, as a recording has it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// To which file.
        file: File,
        /// To where, in bytes.
        offset: u64,
        /// What.
        bytes: Bytes,
        /// Whether it was on stable storage when it completed.
        durable: bool,
    },
    /// A file was flushed.
    Flush(File),
    /// A file was cut or lengthened.
    SetLength(File, u64),
    /// A range was given back.
    Punch(File, u64, u64),
}

/// An event, and what was under way at the same time.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What happened.
    pub event: Event,
    /// The poll in which it happened. What one poll does was under way together.
    pub round: u64,
    /// Whether it was part of a job, whose events happen one after the other.
    pub in_job: bool,
}

/// When operations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The first operation that fails, counted from 1.
    pub operation: u64,
    /// Whether all after it fail as well.
    pub forever: bool,
}

/// What a page holds that was never written.
static ZEROS: [u8; PAGE] = [0; PAGE];

/// By number. A page that was written as a whole is a part of what was written, not a copy of it.
type Pages = BTreeMap<u64, Bytes>;

#[derive(Clone, Debug, Default)]
struct Content {
    length: u64,
    /// What a read gives.
    current: Pages,
    /// What surely outlives a power cut, but for what `unflushed` does to it.
    stable: Pages,
    /// Writes in order; a durable one that follows one that is not must stay in line.
    unflushed: VecDeque<(u64, Bytes, bool)>,
}

/// The content of a disk, and what is done to it. Cloning it copies no data.
#[derive(Clone, Debug)]
pub struct Image {
    files: [Content; FILES],
    free_bytes: u64,
    operations: u64,
    failure: Option<Failure>,
    recording: Option<Vec<Recorded>>,
    round: u64,
    in_job: bool,
    /// Which attachment may use it: those before a crash may not.
    attachment: u64,
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

impl Image {
    /// An empty disk.
    pub fn new() -> Self {
        Self {
            files: std::array::from_fn(|_| Content::default()),
            free_bytes: 1 << 50,
            operations: 0,
            failure: None,
            recording: None,
            round: 0,
            in_job: false,
            attachment: 0,
        }
    }

    /// Applies an event of a recording.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Write {
                file,
                offset,
                bytes,
                durable,
            } => {
                self.file_mut(*file).write(*offset, bytes.clone(), *durable);
            }
            Event::Flush(file) => self.file_mut(*file).flush(),
            Event::SetLength(file, length) => self.file_mut(*file).set_length(*length),
            Event::Punch(file, offset, length) => self.file_mut(*file).punch(*offset, *length),
        }
    }

    /// How many writes a power cut now would decide about.
    pub fn unflushed(&self) -> usize {
        self.files
            .iter()
            .flat_map(|file| &file.unflushed)
            .filter(|write| !write.2)
            .count()
    }

    /// The disk after a power cut; `fates` has one for each unflushed write, in the order of files
    /// and of writes. What it does not name is lost.
    #[must_use]
    pub fn after_power_cut(&self, fates: &[Fate]) -> Self {
        let mut fates = fates.iter().copied();
        let mut image = Self {
            recording: None,
            failure: None,
            operations: 0,
            ..self.clone()
        };
        for file in &mut image.files {
            for (offset, bytes, durable) in std::mem::take(&mut file.unflushed) {
                let fate = if durable {
                    Fate::Kept
                } else {
                    fates.next().unwrap_or(Fate::Lost)
                };
                file.decide(offset, &bytes, fate);
            }
            file.current = file.stable.clone();
        }
        image
    }

    /// Changes one bit, on stable storage and at once. `bit` counts from 0 to 7.
    pub fn flip(&mut self, file: File, offset: u64, bit: u32) {
        let content = self.file_mut(file);
        let mut byte = [0];
        content.read(offset, &mut byte);
        let flipped = Bytes::from(vec![byte[0] ^ (1 << (bit % 8))]);
        store(&mut content.current, offset, &flipped);
        store(&mut content.stable, offset, &flipped);
    }

    /// A file's length in bytes.
    pub fn length(&self, file: File) -> u64 {
        self.files[file as usize].length
    }

    /// What a file holds.
    pub fn read(&self, file: File, offset: u64, buffer: &mut [u8]) {
        self.files[file as usize].read(offset, buffer);
    }

    /// The pages of 4096 bytes that a file holds and that are not all zero, by their byte offsets.
    pub fn written_pages(&self, file: File) -> Vec<u64> {
        let pages = self.files[file as usize].current.iter();
        pages
            .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
            .map(|(at, _)| at * PAGE as u64)
            .collect()
    }

    fn file_mut(&mut self, file: File) -> &mut Content {
        &mut self.files[file as usize]
    }

    /// Counts an operation and says whether it fails.
    fn admit(&mut self, attachment: u64) -> io::Result<()> {
        if attachment != self.attachment {
            return Err(io::Error::other("the process that does this has died"));
        }
        self.operations += 1;
        match self.failure {
            Some(failure) if self.operations == failure.operation => {
                Err(io::Error::other("a planned failure"))
            }
            Some(failure) if failure.forever && self.operations > failure.operation => {
                Err(io::Error::other("a planned failure that stays"))
            }
            _ => Ok(()),
        }
    }

    fn record(&mut self, event: Event) {
        self.apply(&event);
        if let Some(recording) = &mut self.recording {
            recording.push(Recorded {
                event,
                round: self.round,
                in_job: self.in_job,
            });
        }
    }
}

impl Content {
    fn read(&self, mut offset: u64, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let (page, within) = split(offset);
            let part = buffer.len().min(PAGE - within);
            let (head, rest) = buffer.split_at_mut(part);
            match self.current.get(&page) {
                Some(bytes) => head.copy_from_slice(&bytes[within..within + part]),
                None => head.fill(0),
            }
            buffer = rest;
            offset += part as u64;
        }
    }

    fn write(&mut self, offset: u64, bytes: Bytes, durable: bool) {
        self.length = self.length.max(offset + bytes.len() as u64);
        store(&mut self.current, offset, &bytes);
        if durable && self.unflushed.is_empty() {
            store(&mut self.stable, offset, &bytes);
        } else {
            self.unflushed.push_back((offset, bytes, durable));
        }
    }

    /// A durable write that had begun is at its end: what is known of it is no longer in doubt.
    fn forget_begun(&mut self, offset: u64, bytes: &Bytes) {
        let same = |(at, begun, durable): &(u64, Bytes, bool)| {
            !durable && *at == offset && begun.as_ptr() == bytes.as_ptr() && begun.len() == bytes.len()
        };
        if let Some(place) = self.unflushed.iter().position(same) {
            self.unflushed.remove(place);
        }
    }

    fn flush(&mut self) {
        for (offset, bytes, _) in std::mem::take(&mut self.unflushed) {
            store(&mut self.stable, offset, &bytes);
        }
    }

    /// Takes effect at once: file systems journal lengths in the order of what depends on them.
    fn set_length(&mut self, length: u64) {
        if length < self.length {
            let keep = length.div_ceil(PAGE as u64);
            self.current.split_off(&keep);
            self.stable.split_off(&keep);
            self.unflushed
                .retain(|(offset, bytes, _)| offset + bytes.len() as u64 <= length);
            let (page, within) = split(length);
            if within > 0 {
                for pages in [&mut self.current, &mut self.stable] {
                    if let Some(bytes) = pages.get_mut(&page) {
                        patch(bytes, within, &ZEROS[within..]);
                    }
                }
            }
        }
        self.length = length;
    }

    /// A hole is not promised to be there after a power cut, so it is a write of zeros like any other.
    fn punch(&mut self, offset: u64, length: u64) {
        let end = (offset + length).min(self.length);
        if let Ok(length) = usize::try_from(end.saturating_sub(offset))
            && length > 0
        {
            self.write(offset, Bytes::from(vec![0; length]), false);
        }
    }

    fn decide(&mut self, offset: u64, bytes: &Bytes, fate: Fate) {
        match fate {
            Fate::Kept => store(&mut self.stable, offset, bytes),
            Fate::Lost => {}
            Fate::Torn(seed) => {
                let mut random = Random::new(seed);
                let mut at = 0;
                while at < bytes.len() {
                    // Parts end where the disk's sectors do, not where the write's do.
                    let within = usize::try_from(offset % SECTOR as u64).unwrap_or(0);
                    let end = bytes.len().min((at + within) / SECTOR * SECTOR + SECTOR - within);
                    if random.next().is_multiple_of(2) {
                        store(&mut self.stable, offset + at as u64, &bytes.slice(at..end));
                    }
                    at = end;
                }
            }
        }
    }
}

fn split(offset: u64) -> (u64, usize) {
    (
        offset / PAGE as u64,
        usize::try_from(offset % PAGE as u64).unwrap_or(0),
    )
}

fn store(pages: &mut Pages, mut offset: u64, bytes: &Bytes) {
    let mut at = 0;
    while at < bytes.len() {
        let (page, within) = split(offset);
        let part = (bytes.len() - at).min(PAGE - within);
        if part == PAGE {
            pages.insert(page, bytes.slice(at..at + part));
        } else {
            let slot = pages.entry(page).or_insert_with(|| Bytes::from_static(&ZEROS));
            patch(slot, within, &bytes[at..at + part]);
        }
        at += part;
        offset += part as u64;
    }
}

/// Changes a part of a page: in its place, if nobody else has these bytes.
fn patch(page: &mut Bytes, within: usize, bytes: &[u8]) {
    let own = std::mem::take(page).try_into_mut();
    let mut own = own.unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    own[within..within + bytes.len()].copy_from_slice(bytes);
    *page = own.freeze();
}

/// A small generator of numbers (splitmix64): the same on every machine, for ever.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)] // it never ends, so it is no iterator
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// A handle to a disk in memory, which outlives the store that runs on it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Image>>);

impl Disk {
    /// A disk with this content.
    pub fn new(image: Image) -> Self {
        Self(Arc::new(Mutex::new(image)))
    }

    /// A copy of the content as it is now.
    pub fn image(&self) -> Image {
        self.lock().clone()
    }

    /// Begins to record, or begins anew.
    pub fn record(&self) {
        self.lock().recording = Some(Vec::new());
    }

    /// How many polls did something.
    pub fn round(&self) -> u64 {
        self.lock().round
    }

    /// Ends the recording and gives it.
    pub fn take_recording(&self) -> Vec<Recorded> {
        self.lock().recording.take().unwrap_or_default()
    }

    /// Plans failures, and counts operations from now on; `None` ends them.
    pub fn plan(&self, failure: Option<Failure>) {
        let mut image = self.lock();
        image.failure = failure;
        image.operations = 0;
    }

    /// Operations since the last plan.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Sets what the file system has free, in bytes. Writes do not change it.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.lock().free_bytes = bytes;
    }

    /// Changes one bit, on stable storage and at once, as [`Image::flip`] does.
    pub fn flip(&self, file: File, offset: u64, bit: u32) {
        self.lock().flip(file, offset, bit);
    }

    /// What a file holds.
    pub fn read(&self, file: File, offset: u64, buffer: &mut [u8]) {
        self.lock().read(file, offset, buffer);
    }

    /// As [`Image::written_pages`].
    pub fn written_pages(&self, file: File) -> Vec<u64> {
        self.lock().written_pages(file)
    }

    /// Ends the process that uses the disk: what it does from now on, closing included, has no
    /// effect. What it wrote stays.
    pub fn end_process(&self) {
        self.lock().attachment += 1;
    }

    /// Cuts the power: the process ends, and each unflushed write is kept, lost or torn, as the
    /// seed says.
    pub fn cut_power(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut image = self.lock();
        let fates: Vec<Fate> = (0..image.unflushed())
            .map(|_| match random.below(3) {
                0 => Fate::Kept,
                1 => Fate::Lost,
                _ => Fate::Torn(random.next()),
            })
            .collect();
        *image = image.after_power_cut(&fates);
        image.attachment += 1;
    }

    /// A medium on this disk that does operations in the order in which they were submitted.
    pub fn medium(&self) -> Memory {
        let attached = Attached {
            disk: self.clone(),
            attachment: self.lock().attachment,
        };
        Memory {
            attached,
            submitted: VecDeque::new(),
            begun: VecDeque::new(),
            shuffle: None,
        }
    }

    /// A medium on this disk that does operations in an order that the seed says, some at each poll.
    pub fn shuffled_medium(&self, seed: u64) -> Memory {
        Memory {
            shuffle: Some(Random::new(seed)),
            ..self.medium()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process's hold on a disk: good until the process ends.
#[derive(Clone, Debug, Default)]
struct Attached {
    disk: Disk,
    attachment: u64,
}

impl Attached {
    fn write(&self, file: File, offset: u64, bytes: Bytes, durable: bool) -> io::Result<()> {
        let mut image = self.disk.lock();
        let admitted = image.admit(self.attachment);
        if durable && admitted.is_ok() {
            image.file_mut(file).forget_begun(offset, &bytes);
        }
        // One that fails may be done all the same, or in part; it is not durable.
        if admitted.is_ok() || self.attachment == image.attachment {
            image.record(Event::Write {
                file,
                offset,
                bytes,
                durable: durable && admitted.is_ok(),
            });
        }
        admitted
    }

    /// Begins a durable write: its bytes are on their way, and no flush has followed yet.
    fn begin_write(&self, file: File, offset: u64, bytes: Bytes) {
        let mut image = self.disk.lock();
        if self.attachment == image.attachment {
            image.file_mut(file).write(offset, bytes, false);
        }
    }

    fn flush(&self, file: File) -> io::Result<()> {
        let mut image = self.disk.lock();
        image.admit(self.attachment)?;
        image.record(Event::Flush(file));
        Ok(())
    }

    fn read(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut image = self.disk.lock();
        image.admit(self.attachment)?;
        image.read(file, offset, buffer);
        Ok(())
    }

    fn perform(&self, operation: Operation) -> Outcome {
        match operation {
            Operation::Read {
                file,
                runs,
                mut buffer,
            } => {
                for (number, run) in runs.iter().enumerate() {
                    if let Err(error) = self.read(file, run.offset, &mut buffer[run.at..run.at + run.length])
                    {
                        return Outcome::ReadFailed(number, error);
                    }
                }
                Outcome::Read(buffer)
            }
            Operation::Write {
                file,
                offset,
                pieces,
                durable,
            } => Outcome::Done(self.write(file, offset, joined(pieces), durable)),
            Operation::Flush(file) => Outcome::Done(self.flush(file)),
            Operation::Punch { file, offset, length } => {
                let mut image = self.disk.lock();
                Outcome::Done(
                    image
                        .admit(self.attachment)
                        .map(|()| image.record(Event::Punch(file, offset, length))),
                )
            }
            Operation::Job(job) => {
                self.disk.lock().in_job = true;
                let outcome = job();
                self.disk.lock().in_job = false;
                Outcome::Done(outcome)
            }
        }
    }
}

fn joined(pieces: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(pieces) {
        Ok([piece]) => piece,
        Err(pieces) => pieces.concat().into(),
    }
}

/// A medium on a [`Disk`]. It does things when it is polled, never by itself.
#[derive(Default)]
pub struct Memory {
    attached: Attached,
    submitted: VecDeque<(u64, Operation)>,
    begun: VecDeque<(u64, Operation)>,
    shuffle: Option<Random>,
}

impl Medium for Memory {
    fn submit(&mut self, token: u64, operation: Operation) {
        self.submitted.push_back((token, operation));
    }

    fn kick(&mut self) {
        if self.shuffle.is_some() {
            for (_, operation) in &mut self.submitted {
                if let Operation::Write {
                    file,
                    offset,
                    pieces,
                    durable: true,
                } = operation
                {
                    let bytes = joined(std::mem::take(pieces));
                    self.attached.begin_write(*file, *offset, bytes.clone());
                    *pieces = vec![bytes];
                }
            }
        }
        self.begun.append(&mut self.submitted);
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let count = match &mut self.shuffle {
            None => self.begun.len(),
            // At least one, so that whoever polls until something happens gets there.
            Some(random) => usize::try_from(random.below(self.begun.len() as u64)).unwrap_or(0) + 1,
        };
        if !self.begun.is_empty() {
            self.attached.disk.lock().round += 1;
        }
        for _ in 0..count {
            let place = match &mut self.shuffle {
                None => 0,
                Some(random) => usize::try_from(random.below(self.begun.len() as u64)).unwrap_or(0),
            };
            let Some((token, operation)) = self.begun.remove(place) else {
                break;
            };
            completions.push(Completion {
                token,
                outcome: self.attached.perform(operation),
            });
        }
    }

    fn wait(&mut self) {}

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn length(&self, file: File) -> io::Result<u64> {
        Ok(self.attached.disk.lock().length(file))
    }

    fn read_now(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.attached.read(file, offset, buffer)
    }

    fn write_now(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.attached
            .write(file, offset, Bytes::copy_from_slice(bytes), true)
    }

    fn flush_now(&self, file: File) -> io::Result<()> {
        self.attached.flush(file)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.attached.disk.lock().free_bytes)
    }

    fn meta(&self) -> Arc<dyn MetaFile> {
        Arc::new(self.attached.clone())
    }
}

impl MetaFile for Attached {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().length(File::Meta))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Attached::read(self, File::Meta, offset, buffer)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        Attached::write(self, File::Meta, offset, Bytes::copy_from_slice(bytes), false)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut image = self.disk.lock();
        image.admit(self.attachment)?;
        image.record(Event::SetLength(File::Meta, length));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Attached::flush(self, File::Meta)
    }
}
