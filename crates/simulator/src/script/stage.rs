//! What tests say and ask: owners that come and go, writes and reads, disks that die, leave and come back.

use bytes::Bytes;
use protocol::BLOCK_SIZE;
use protocol::map::MapView;
use protocol::storage::ObjectDelta;
use replication::membership::{Eviction, evict};
use replication::owner::Operation;

use super::*;

/// Nudges after which a disk that can come back has come back.
const NUDGES_MAX: usize = 60;
/// How much time goes by from one nudge to the next, in milliseconds.
const NUDGE_MS: u64 = 100;

impl Script {
    /// Somebody takes the owner key, which nobody may have.
    fn take_key(&mut self) -> Front {
        let now = Time::milliseconds(self.now.0);
        let taken = self.cluster.acquire(now, self.volume);
        let (lease, generation) = taken.expect("somebody has the volume");
        self.add_front(Some(lease), generation, None)
    }

    fn add_front(&mut self, lease: Option<LeaseId>, generation: Generation, snapshot: Option<&str>) -> Front {
        let front = self.fronts.len();
        self.fronts.push(Opened {
            owner: None,
            lease,
            generation,
            snapshot: snapshot.map(str::to_owned),
            wanted: BTreeSet::new(),
            lost: false,
        });
        let view = self.view_of(front).expect("there is a volume");
        let mut out = Vec::new();
        self.fronts[front].owner = Some(Owner::open(self.now, self.now, view, &mut out));
        self.map_changed();
        self.perform(front, out);
        front
    }

    /// Somebody begins to open the volume; on the wires that are held nothing of it arrives.
    pub(super) fn begin_open(&mut self, held: &[fn(Front) -> Wire]) -> Front {
        let front = self.fronts.len();
        self.held.extend(held.iter().map(|wire| wire(front)));
        assert_eq!(self.take_key(), front);
        self.settle();
        front
    }

    /// Somebody opens the volume and takes it over.
    pub(super) fn open(&mut self) -> Front {
        let front = self.begin_open(&[]);
        self.wait(200);
        // A disk that was started anew makes it wait for an owner that it may have vouched for.
        for _ in 0..30 {
            if self.is_open(front) {
                break;
            }
            self.wait(100);
        }
        assert!(self.is_open(front), "{:?}", self.waiting(front));
        front
    }

    /// Somebody reads a snapshot.
    pub(super) fn open_snapshot(&mut self, name: &str) -> Front {
        let front = self.add_front(None, Generation(0), Some(name));
        self.wait(200);
        front
    }

    pub(super) fn is_open(&self, front: Front) -> bool {
        self.owner(front).is_some_and(Owner::is_open)
    }

    pub(super) fn is_lost(&self, front: Front) -> bool {
        self.fronts[front].lost
    }

    pub(super) fn waiting(&self, front: Front) -> Vec<String> {
        self.owner(front)
            .map(|owner| owner.waiting(self.now))
            .unwrap_or_default()
    }

    fn owner(&self, front: Front) -> Option<&Owner> {
        self.fronts[front].owner.as_ref()
    }

    /// The process dies and its key goes. What it has sent may still arrive.
    pub(super) fn kill(&mut self, front: Front) {
        self.depose(front);
        self.fronts[front].owner = None;
        let disks: Vec<DiskId> = self.disks.keys().copied().collect();
        for disk in disks {
            self.disconnect(front, disk);
        }
        self.settle();
    }

    /// The key goes, as when a lease lapses, and its owner does not hear of it.
    pub(super) fn depose(&mut self, front: Front) {
        if let Some(lease) = self.fronts[front].lease.take() {
            self.cluster.revoke(lease);
        }
    }

    fn submit_operation(&mut self, front: Front, operation: Operation) -> IoId {
        let id = IoId(self.next_io);
        self.next_io += 1;
        self.feed(front, owner::Event::Submit { id, operation });
        id
    }

    /// Fills a block with a byte, and all that comes of it happens.
    pub(super) fn write(&mut self, front: Front, block: u64, byte: u8) -> IoId {
        let id = self.write_unsettled(front, block, byte);
        self.settle();
        id
    }

    /// The same, and nothing of it happens yet.
    pub(super) fn write_unsettled(&mut self, front: Front, block: u64, byte: u8) -> IoId {
        let bytes = Bytes::from(vec![byte; BLOCK_SIZE as usize]);
        let checksums = Arc::from([crc32c::crc32c(&bytes)]);
        let offset = block * u64::from(BLOCK_SIZE);
        self.submit_operation(
            front,
            Operation::Write {
                offset,
                bytes,
                checksums,
            },
        )
    }

    /// The same, and it must be acknowledged.
    pub(super) fn write_done(&mut self, front: Front, block: u64, byte: u8) {
        let id = self.write(front, block, byte);
        assert!(
            self.acknowledged(id),
            "{:?} {:?}",
            self.done.get(&id),
            self.waiting(front)
        );
    }

    pub(super) fn zero(&mut self, front: Front, block: u64, count: u64) -> IoId {
        let id = self.zero_unsettled(front, block, count);
        self.settle();
        id
    }

    pub(super) fn zero_unsettled(&mut self, front: Front, block: u64, count: u64) -> IoId {
        let size = u64::from(BLOCK_SIZE);
        self.submit_operation(
            front,
            Operation::Zero {
                offset: block * size,
                length: count * size,
            },
        )
    }

    pub(super) fn acknowledged(&self, id: IoId) -> bool {
        self.done.get(&id) == Some(&Ok(Outcome::Done))
    }

    /// The bytes of some blocks, one for each, if they are answered.
    pub(super) fn read_many(&mut self, front: Front, block: u64, count: u64) -> Option<Vec<u8>> {
        let size = u64::from(BLOCK_SIZE);
        let id = self.submit_operation(
            front,
            Operation::Read {
                offset: block * size,
                length: count * size,
            },
        );
        self.settle();
        match self.done.get(&id)? {
            Ok(Outcome::Data(pieces)) => {
                let all: Vec<u8> = pieces.concat();
                Some(all.chunks(BLOCK_SIZE as usize).map(one_byte).collect())
            }
            other => panic!("a read ended with {other:?}"),
        }
    }

    /// The byte of a block, if it is answered.
    pub(super) fn read(&mut self, front: Front, block: u64) -> Option<u8> {
        self.read_many(front, block, 1).map(|bytes| bytes[0])
    }

    /// What a disk would have of a block after a power cut.
    pub(super) fn copy(&self, disk: DiskId, block: u64) -> u8 {
        let map = &self.cluster.map;
        let head = MapView::volume(map.as_ref(), self.volume).expect("a volume");
        let chain = MapView::chain(map.as_ref(), head.family, head.head).expect("a head");
        let request = StorageRequest::Read {
            chain,
            family: head.family,
            index: u32::try_from(block / SECOND).unwrap(),
            ranges: protocol::BlockRange::new(u32::try_from(block % SECOND).unwrap(), 1)
                .unwrap()
                .into(),
        };
        match self.disks[&disk].store.look_after_a_cut(&request) {
            Ok(StorageReply::Data { bytes, .. }) => one_byte(&bytes),
            other => panic!("{other:?}"),
        }
    }

    /// What all disks in sync have of a block, which must be the same.
    pub(super) fn copies(&self, block: u64) -> u8 {
        let all: BTreeMap<DiskId, u8> = self
            .in_sync()
            .into_iter()
            .map(|disk| (disk, self.copy(disk, block)))
            .collect();
        let one = *all.values().next().expect("somebody is in sync");
        assert!(all.values().all(|byte| *byte == one), "{all:?}");
        one
    }

    /// All that disks in sync have must be the same, to the last chunk.
    pub(super) fn assert_equal_copies(&self) {
        let disks = self.in_sync();
        let all = |disk: &DiskId| -> Vec<ObjectDelta> {
            let store = &self.disks[disk].store;
            let objects = store.objects();
            let content = objects.into_iter().map(|object| store.content(object));
            content.filter(|delta| !delta.chunks.is_empty()).collect()
        };
        for disk in &disks[1..] {
            assert_eq!(all(&disks[0]), all(disk), "{} and {disk}", disks[0]);
        }
    }

    pub(super) fn in_doubt(&self, disk: DiskId) -> usize {
        let replica = self.disks[&disk].replica.as_ref();
        replica.map_or(0, Replica::in_doubt)
    }

    pub(super) fn in_sync(&self) -> Vec<DiskId> {
        let disks = self.disks.keys().copied();
        disks
            .filter(|disk| self.state(*disk) == Some(SlotState::InSync))
            .collect()
    }

    pub(super) fn state(&self, disk: DiskId) -> Option<SlotState> {
        let group = self.cluster.map.group(PG)?;
        let slot = group.slot_of(disk)?;
        Some(slot.state)
    }

    /// A disk leaves the set, if it may; everybody is told.
    pub(super) fn take_out(&mut self, disk: DiskId) -> bool {
        let group = self.cluster.map.group(PG).expect("a group");
        let Eviction::Down(slots) = evict(&group.slots, disk, self.min_in_sync) else {
            return false;
        };
        assert!(self.cluster.change_group(PG, slots));
        self.map_changed();
        self.settle();
        true
    }

    /// The process dies and the power with it: what is not durable is gone.
    pub(super) fn crash(&mut self, id: DiskId) {
        self.lose(Wire::Medium(id));
        let disk = self.disks.get_mut(&id).expect("a disk");
        disk.replica = None;
        disk.store.cut_power(0);
        let asked = self.asked.clone().into_iter();
        for ((from, number), _) in asked.filter(|(_, to)| *to == id) {
            self.tell(from, number, Err(Refusal::Busy));
        }
        let connections = self.connections.clone();
        for (connection, (front, disk)) in connections {
            if disk == id {
                self.connections.remove(&connection);
                if self.closing.remove(&connection) {
                    continue;
                }
                self.lose(Wire::ToDisk(front, disk));
                self.lose(Wire::FromDisk(front, disk));
                self.feed(front, owner::Event::Disconnected { disk });
            }
        }
        self.settle();
    }

    pub(super) fn restart(&mut self, disk: DiskId) {
        self.crash(disk);
        self.start(disk);
    }

    /// Another, empty disk is in the place of one that is down.
    pub(super) fn replace(&mut self, id: DiskId) {
        self.crash(id);
        self.disks.get_mut(&id).expect("a disk").store = ModelStore::default();
    }

    /// A disk goes on with what was refused, and asks to come back.
    pub(super) fn nudge(&mut self, disk: DiskId) {
        self.wait(NUDGE_MS);
        self.feed_disk(disk, replica::Event::Nudge { returns: true });
        self.settle();
    }

    /// A disk takes its steps back until it has this state. If that is not the last one, it asks nothing
    /// from then on: its questions are held.
    pub(super) fn bring(&mut self, disk: DiskId, state: SlotState) {
        self.hold(Wire::Swap(disk));
        for _ in 0..NUDGES_MAX {
            if self.state(disk) == Some(state) {
                self.release(Wire::Swap(disk));
                return;
            }
            self.settle();
            if !self.deliver_from(Wire::Swap(disk)) {
                self.nudge(disk);
            } else if self.state(disk) == Some(state) && state != SlotState::InSync {
                self.hold(Wire::Question(disk));
            }
        }
        panic!("{disk} is {:?} and not {state:?}", self.state(disk));
    }

    /// The next question of a disk gets no answer; false if there is none.
    pub(super) fn refuse_question(&mut self, disk: DiskId) -> bool {
        let of = |(wire, ..): &(Wire, u64, Mail)| *wire == Wire::Question(disk);
        let Some(at) = self.mail.iter().position(of) else {
            return false;
        };
        if let Some((_, life, Mail::Question(from, _, number, _))) = self.mail.remove(at) {
            let told = Box::new(Err(Refusal::Busy));
            self.mail
                .push_back((Wire::Told(from), life, Mail::Told(from, number, told)));
        }
        true
    }

    /// A block of a disk's copy, of the volume's head, cannot be read any more.
    pub(super) fn damage(&mut self, disk: DiskId, block: u64) {
        let head = MapView::volume(self.cluster.map.as_ref(), self.volume).expect("a volume");
        let object = ObjectId {
            family: head.family,
            index: u32::try_from(block / SECOND).unwrap(),
            layer: head.head,
        };
        let block = u32::try_from(block % SECOND).unwrap();
        let disk = self.disks.get_mut(&disk).expect("a disk");
        disk.store.damage_block(object, block);
    }

    /// A disk comes back, and all who are in sync then are equal.
    pub(super) fn come_back(&mut self, disk: DiskId) {
        self.held.remove(&Wire::Question(disk));
        self.bring(disk, SlotState::InSync);
        self.assert_equal_copies();
    }

    /// A snapshot, made as `storaged` makes it: only when the owner holds still.
    pub(super) fn snapshot(&mut self, front: Front, name: &str) -> bool {
        let token = self.next_io;
        self.next_io += 1;
        self.feed(
            front,
            owner::Event::Quiesce {
                token,
                limit_ms: 100_000,
            },
        );
        self.settle();
        let quiet = self.quiesced.contains(&token);
        let generation = self.fronts[front].generation;
        let made = quiet && self.cluster.snapshot(self.volume, generation, name);
        if made {
            self.map_changed();
            self.settle();
        }
        made
    }

    pub(super) fn delete_snapshot(&mut self, name: &str) {
        assert!(self.cluster.delete_snapshot(self.volume, name));
        self.map_changed();
        self.settle();
    }

    /// What `storaged` has a disk do with a layer that nobody shows any more: merges it into its child, or drops
    /// it.
    pub(super) fn reclaim(&mut self, disk: DiskId) {
        use coordination::map::family::Reclaim;
        let map = self.cluster.map.clone();
        let (family, reclaim) = map
            .families()
            .find_map(|(family, tree)| Some((family, *tree.reclaimable().first()?)))
            .expect("something is to be reclaimed");
        for index in 0..OBJECTS {
            let request = match reclaim {
                Reclaim::Merge { parent, child } => StorageRequest::Merge {
                    family,
                    index,
                    parent,
                    child,
                    row_chunks: map.row_chunks(family),
                },
                Reclaim::Drop(layer) => StorageRequest::Drop(ObjectId { family, index, layer }),
            };
            let token = self.next_io;
            self.next_io += 1;
            self.feed_disk(disk, replica::Event::Reclaim { token, request });
            self.settle();
            assert!(self.reclaimed.contains(&(token, true)), "{reclaim:?}");
        }
    }

    /// The layer leaves the tree.
    pub(super) fn reclaimed(&mut self) {
        let map = self.cluster.map.clone();
        for (family, tree) in map.families() {
            if let Some(reclaim) = tree.reclaimable().first() {
                self.cluster.reclaimed(family, *reclaim);
            }
        }
        self.map_changed();
        self.settle();
    }
}

/// What a block is filled with.
fn one_byte(block: &[u8]) -> u8 {
    assert!(block.iter().all(|byte| *byte == block[0]), "a torn block");
    block[0]
}
