//! Direct reads: a front end reads the file of a disk by what the disk told it, and looks afterwards
//! whether that still held. Between the three anything may happen, as to a process that is not running.

use std::collections::BTreeMap;

use bytes::Bytes;
use direct::cache::Cache;
use direct::places::{Places, Plan, Shown};
use direct::witness::Witness;
use protocol::message::{Request, Response};
use protocol::{BLOCK_SIZE, DiskId};
use replication::owner;
use store::medium::{File, Medium};

use crate::backend::{Backend, RealStore};
use crate::world::{Happening, Life, World};

/// Set in the numbers of questions about places.
const QUESTION: u64 = 1 << 63;
const BLOCK: usize = BLOCK_SIZE as usize;

/// What a front end keeps of what it read: so little that there is never room for all.
const CACHE_BYTES: usize = 256 << 10;

/// What a front end knows of where blocks lie.
#[derive(Debug)]
pub(crate) struct Direct {
    disks: BTreeMap<DiskId, Places>,
    cache: Cache,
    questions: BTreeMap<u64, (DiskId, Shown)>,
    next: u64,
}

impl Default for Direct {
    fn default() -> Self {
        Self {
            disks: BTreeMap::new(),
            cache: Cache::new(CACHE_BYTES),
            questions: BTreeMap::new(),
            next: 0,
        }
    }
}

impl Direct {
    /// The connection is gone, and what was said on it.
    pub(crate) fn forget(&mut self, disk: DiskId) {
        self.disks.remove(&disk);
        self.questions.retain(|_, (asked, _)| *asked != disk);
    }
}

/// A read under way.
#[derive(Debug)]
pub(crate) struct DirectRead {
    pub(crate) life: Life,
    disk: DiskId,
    disk_life: u64,
    number: u64,
    request: Request,
    shown: Shown,
    plan: Plan,
    bytes: Option<Bytes>,
    /// They were read before, and were the right ones when this read began.
    recalled: bool,
}

impl World {
    fn real_store(&self, disk: DiskId, life: Option<u64>) -> Option<&RealStore> {
        let state = self.disks.get(&disk).filter(|state| state.is_up())?;
        match &state.store {
            Backend::Real(store) if life.is_none_or(|life| life == state.life) => Some(store),
            _ => None,
        }
    }

    /// Carries out a request that an owner sends to a disk: maybe without the disk.
    pub(crate) fn send_or_read(&mut self, life: Life, disk: DiskId, number: u64, request: Request) {
        let Some((scope, shown, ranges)) = Shown::of(&request) else {
            return self.send_request(life, disk, number, request);
        };
        let mut places = match self.front_mut(life) {
            Some(front) => front.direct.disks.remove(&disk).unwrap_or_default(),
            None => return,
        };
        let planned = match self.real_store(disk, None).and_then(RealStore::witness) {
            Some(witness) => places.plan(witness, &shown, &ranges),
            None => Err(None),
        };
        let disk_life = self.disks.get(&disk).map_or(0, |state| state.life);
        let mut recalled = None;
        if let Some(front) = self.front_mut(life) {
            if planned.is_ok() {
                recalled = places.recall(&front.direct.cache, &shown, &ranges);
            }
            front.direct.disks.insert(disk, places);
        }
        match planned {
            Ok(plan) => {
                self.meet(if recalled.is_some() {
                    "direct read from memory"
                } else {
                    "direct read begun"
                });
                self.note(format_args!(
                    "front {} reads {disk} directly, {number}",
                    life.front
                ));
                let read = DirectRead {
                    life,
                    disk,
                    disk_life,
                    number,
                    request,
                    shown,
                    plan,
                    recalled: recalled.is_some(),
                    bytes: recalled,
                };
                let delay = self.delay(2_000);
                self.schedule.after(delay, Happening::Direct(Box::new(read)));
            }
            Err(question) => {
                self.send_request(life, disk, number, request);
                let Some(range) = question else { return };
                let Some(front) = self.front_mut(life) else { return };
                front.direct.next += 1;
                let number = QUESTION | front.direct.next;
                front.direct.questions.insert(number, (disk, shown));
                self.send_request(life, disk, number, shown.question(scope, range));
            }
        }
    }

    /// Takes in an answer to a question; gives back all others.
    pub(crate) fn places_answered(
        &mut self,
        life: Life,
        number: u64,
        response: Response,
    ) -> Option<Response> {
        if number & QUESTION == 0 {
            return Some(response);
        }
        let front = self.front_mut(life)?;
        let (disk, shown) = front.direct.questions.remove(&number)?;
        let places = front.direct.disks.get_mut(&disk)?;
        match response {
            Response::Placed { admission, chunks } => places.learn(&shown, admission, chunks),
            _ => places.refused(&shown),
        }
        None
    }

    /// The kernel reads; later the front end looks at what came.
    pub(crate) fn direct_step(&mut self, mut read: Box<DirectRead>) {
        let Some(front) = self.front(read.life) else {
            return;
        };
        if front.is_stopped() {
            // Nobody reads or looks before the process runs again.
            self.schedule.after(1_000, Happening::Direct(read));
            return;
        }
        let store = self.real_store(read.disk, Some(read.disk_life));
        let Some((store, witness)) = store.and_then(|store| Some((store, store.witness()?))) else {
            return; // The machine is down; the connection ends too.
        };
        if read.bytes.is_none() {
            read.bytes = Some(store.read_file(&read.plan).into());
            let delay = self.delay(2_000);
            self.schedule.after(delay, Happening::Direct(read));
            return;
        }
        let holds = read.recalled || read.plan.holds(witness, &read.shown);
        let DirectRead {
            life,
            disk,
            number,
            request,
            bytes,
            plan,
            shown,
            recalled,
            ..
        } = *read;
        let connected = self
            .front(life)
            .is_some_and(|front| front.connections.contains_key(&disk));
        // Checksums are left aside, but on the disk whose blocks get damaged: that the bytes are the right ones is for
        // the witness alone to say.
        let damaged = self.damaged == Some(disk) && bytes.as_ref().is_some_and(|bytes| !plan.is_of(bytes));
        let bytes = bytes.filter(|_| holds && !damaged);
        match bytes {
            // The owner hears of it, and asks again.
            _ if !connected => {}
            Some(bytes) => {
                self.meet("direct read done");
                self.note(format_args!("front {} has read {disk} {number}", life.front));
                if !recalled && let Some(front) = self.front_mut(life) {
                    let Direct { disks, cache, .. } = &mut front.direct;
                    if let (Some(places), Some((_, _, ranges))) = (disks.get_mut(&disk), Shown::of(&request))
                    {
                        places.keep(cache, &shown, &ranges, &plan, &bytes);
                    }
                }
                self.feed(life, owner::Event::ReadDirectly { disk, number, bytes });
            }
            None => {
                self.meet("direct read in vain");
                self.note(format_args!(
                    "front {} has read {disk} {number} in vain",
                    life.front
                ));
                self.send_request(life, disk, number, request);
            }
        }
    }
}

impl RealStore {
    /// What the disk shows its readers of moves and admissions.
    pub(crate) fn witness(&self) -> Option<&Witness> {
        self.store()?.witness()
    }

    /// The blocks of a plan, as they are in the file at this moment.
    fn read_file(&self, plan: &Plan) -> Vec<u8> {
        let file = self.file();
        let mut bytes = vec![0; (plan.zeros.len() + plan.checksums.len()) * BLOCK];
        for run in &plan.runs {
            let part = &mut bytes[run.at * BLOCK..(run.at + run.count) * BLOCK];
            // What cannot be read stays zero, and has another checksum.
            let _ = file.read_now(File::Data, run.block * u64::from(BLOCK_SIZE), part);
        }
        bytes
    }
}
