//! A block device in memory: the reference model that tests compare the real stack with, and a
//! device for trying front ends without a cluster.
//!
//! A held device answers when it is told to, in any order, as a cluster would: an operation takes
//! effect when it is answered. It knows nothing of layers and snapshots.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use protocol::BLOCK_SIZE;
use protocol::storage::MapKind;

use crate::device::{
    BlockDevice, Continuation, DeviceError, DeviceEvent, DeviceInfo, Listener, Operation, Outcome,
};
use crate::request;

/// What one 4 KiB block holds, if anything was ever written to it.
#[derive(Clone, Debug)]
enum Block {
    Data(Box<[u8]>),
    Zero,
}

/// See the module.
pub struct MemoryDevice {
    state: RefCell<State>,
    listener: RefCell<Option<Listener>>,
    held: bool,
}

struct State {
    info: DeviceInfo,
    blocks: BTreeMap<u64, Block>,
    waiting: VecDeque<(Operation, Continuation)>,
}

impl MemoryDevice {
    /// A writable device of `size` bytes, rounded up to 4096, that answers at once.
    pub fn new(size: u64) -> Self {
        Self::with_info(DeviceInfo {
            name: "memory".into(),
            serial: "memory".into(),
            size: size.next_multiple_of(u64::from(BLOCK_SIZE)),
            read_only: false,
            alignment: BLOCK_SIZE,
        })
    }

    /// A device that describes itself as `info` says and answers at once.
    pub fn with_info(info: DeviceInfo) -> Self {
        let state = State {
            info,
            blocks: BTreeMap::new(),
            waiting: VecDeque::new(),
        };
        Self {
            state: RefCell::new(state),
            listener: RefCell::new(None),
            held: false,
        }
    }

    /// A device that answers only when [`Self::release`] is called.
    pub fn held(size: u64) -> Self {
        Self {
            held: true,
            ..Self::new(size)
        }
    }

    /// How many operations wait for [`Self::release`].
    pub fn waiting(&self) -> usize {
        self.state.borrow().waiting.len()
    }

    /// Carries out and answers the waiting operation number `position`, counted from the oldest.
    ///
    /// A flush is answered only when no write that was submitted before it waits; until then
    /// nothing happens. The answer says whether something did.
    pub fn release(&self, position: usize) -> bool {
        let mut state = self.state.borrow_mut();
        let Some((operation, _)) = state.waiting.get(position) else {
            return false;
        };
        if *operation == Operation::Flush && state.waiting.range(..position).any(|(o, _)| o.is_change()) {
            return false;
        }
        let Some((operation, done)) = state.waiting.remove(position) else {
            return false;
        };
        let outcome = state.apply(operation);
        drop(state);
        done(outcome);
        true
    }

    /// Drops all operations that wait, neither carried out nor answered: whoever asked for them has died.
    pub fn forget(&self) {
        // Not borrowed while they are dropped: who hears of it may come by here.
        let waiting = std::mem::take(&mut self.state.borrow_mut().waiting);
        drop(waiting);
    }

    /// Sets another size in bytes, and tells the listener.
    pub fn resize(&self, size: u64) {
        let mut state = self.state.borrow_mut();
        state.info.size = size;
        state.blocks.split_off(&(size / u64::from(BLOCK_SIZE)));
        drop(state);
        self.tell(DeviceEvent::Resized(size));
    }

    fn tell(&self, event: DeviceEvent) {
        // Taken out while it runs, so that it may call `listen` itself.
        let listener = self.listener.borrow_mut().take();
        if let Some(listener) = listener {
            listener(event);
            self.listener.borrow_mut().get_or_insert(listener);
        }
    }
}

impl BlockDevice for MemoryDevice {
    fn info(&self) -> DeviceInfo {
        self.state.borrow().info.clone()
    }

    fn submit(&self, operation: Operation, done: Continuation) {
        if self.held {
            self.state.borrow_mut().waiting.push_back((operation, done));
        } else {
            let outcome = self.state.borrow_mut().apply(operation);
            done(outcome);
        }
    }

    fn listen(&self, listener: Listener) {
        *self.listener.borrow_mut() = Some(listener);
    }
}

impl State {
    fn apply(&mut self, operation: Operation) -> Result<Outcome, DeviceError> {
        request::check(&operation, &self.info)?;
        match operation {
            Operation::Read { offset, length } => Ok(Outcome::Data(vec![self.read(offset, length)])),
            Operation::Write { offset, data } => {
                self.write(offset, &data);
                Ok(Outcome::Done)
            }
            Operation::WriteZeroes { offset, length } | Operation::Discard { offset, length } => {
                self.zero(offset, length);
                Ok(Outcome::Done)
            }
            Operation::CompareAndWrite {
                offset,
                expected,
                data,
            } => {
                let found = self.read(offset, data.len() as u64);
                if let Some(at) = request::first_difference(&found, &expected) {
                    return Ok(Outcome::Differs { offset: offset + at });
                }
                self.write(offset, &[data]);
                Ok(Outcome::Done)
            }
            Operation::Flush => Ok(Outcome::Done),
            Operation::Map { offset, length } => Ok(Outcome::Map(self.map(offset, length))),
        }
    }

    fn read(&self, offset: u64, length: u64) -> Bytes {
        let mut out = Vec::new();
        for part in parts(offset, length) {
            match self.blocks.get(&part.block) {
                Some(Block::Data(bytes)) => out.extend_from_slice(&bytes[part.from..part.to]),
                _ => out.resize(out.len() + part.to - part.from, 0),
            }
        }
        out.into()
    }

    fn write(&mut self, offset: u64, data: &[Bytes]) {
        let mut at = offset;
        for piece in data {
            let mut rest = &piece[..];
            for part in parts(at, piece.len() as u64) {
                let (here, later) = rest.split_at(part.to - part.from);
                self.block(part.block)[part.from..part.to].copy_from_slice(here);
                rest = later;
            }
            at += piece.len() as u64;
        }
    }

    fn zero(&mut self, offset: u64, length: u64) {
        for part in parts(offset, length) {
            if part.to - part.from == BLOCK_SIZE as usize {
                self.blocks.insert(part.block, Block::Zero);
            } else {
                self.block(part.block)[part.from..part.to].fill(0);
            }
        }
    }

    /// The bytes of a block that is about to be written.
    fn block(&mut self, number: u64) -> &mut [u8] {
        let block = self.blocks.entry(number).or_insert(Block::Zero);
        if let Block::Zero = block {
            *block = Block::Data(vec![0; BLOCK_SIZE as usize].into());
        }
        match block {
            Block::Data(bytes) => bytes,
            Block::Zero => &mut [],
        }
    }

    fn map(&self, offset: u64, length: u64) -> Vec<(u64, MapKind)> {
        let mut runs: Vec<(u64, MapKind)> = Vec::new();
        for part in parts(offset, length) {
            let kind = match self.blocks.get(&part.block) {
                Some(Block::Data(_)) => MapKind::Data,
                Some(Block::Zero) => MapKind::Zero,
                None => MapKind::Hole,
            };
            let length = (part.to - part.from) as u64;
            match runs.last_mut() {
                Some((sum, last)) if *last == kind => *sum += length,
                _ => runs.push((length, kind)),
            }
        }
        runs
    }
}

/// The bytes of one block that a range covers.
struct Part {
    block: u64,
    from: usize,
    to: usize,
}

fn parts(offset: u64, length: u64) -> impl Iterator<Item = Part> {
    let size = u64::from(BLOCK_SIZE);
    let end = offset + length;
    let blocks = offset / size..end.div_ceil(size);
    blocks.map(move |block| {
        let start = block * size;
        // Both are at most 4096.
        let within = |at: u64| usize::try_from(at.clamp(start, start + size) - start).unwrap_or(0);
        Part {
            block,
            from: within(offset),
            to: within(end),
        }
    })
}

#[cfg(test)]
mod tests {
    //! The model itself: what it must never get wrong, because everything is measured by it.
    use super::*;
    use std::rc::Rc;

    fn run(device: &MemoryDevice, operation: Operation) -> Result<Outcome, DeviceError> {
        let answer = Rc::new(RefCell::new(None));
        let place = Rc::clone(&answer);
        device.submit(
            operation,
            Box::new(move |outcome| *place.borrow_mut() = Some(outcome)),
        );
        answer.take().unwrap()
    }

    #[test]
    fn what_was_written_is_read_and_the_rest_is_zero() {
        let device = MemoryDevice::new(3 * 4096);
        let data = vec![Bytes::from(vec![1; 1000]), Bytes::from(vec![2; 3096])];
        run(&device, Operation::Write { offset: 4096, data }).unwrap();
        let Outcome::Data(read) = run(
            &device,
            Operation::Read {
                offset: 0,
                length: 12288,
            },
        )
        .unwrap() else {
            panic!("a read gives data")
        };
        let read = read.concat();
        assert!(read[..4096].iter().chain(&read[8192..]).all(|byte| *byte == 0));
        assert!(read[4096..5096].iter().all(|byte| *byte == 1));
        assert!(read[5096..8192].iter().all(|byte| *byte == 2));
    }

    #[test]
    fn a_map_tells_data_zeros_and_holes_apart() {
        let device = MemoryDevice::new(4 * 4096);
        let data = vec![Bytes::from(vec![1; 8192])];
        run(&device, Operation::Write { offset: 0, data }).unwrap();
        run(
            &device,
            Operation::Discard {
                offset: 4096,
                length: 4096,
            },
        )
        .unwrap();
        let map = run(
            &device,
            Operation::Map {
                offset: 0,
                length: 16384,
            },
        )
        .unwrap();
        let runs = vec![
            (4096, MapKind::Data),
            (4096, MapKind::Zero),
            (8192, MapKind::Hole),
        ];
        assert_eq!(map, Outcome::Map(runs));
    }

    #[test]
    fn a_held_flush_waits_for_earlier_writes() {
        let device = MemoryDevice::held(4096);
        let data = vec![Bytes::from(vec![1; 4096])];
        device.submit(Operation::Write { offset: 0, data }, Box::new(|_| ()));
        device.submit(Operation::Flush, Box::new(|_| ()));
        assert!(!device.release(1));
        assert!(device.release(0));
        assert!(device.release(0));
        assert_eq!(device.waiting(), 0);
    }

    #[test]
    fn requests_beyond_the_end_or_not_aligned_change_nothing() {
        let device = MemoryDevice::new(4096);
        let wrong = Err(DeviceError::Invalid { size: 4096 });
        for (offset, length) in [
            (4096, 4096),
            (0, 8192),
            (512, 4096),
            (0, 100),
            (0, 0),
            (u64::MAX - 4095, 4096),
        ] {
            assert_eq!(run(&device, Operation::Read { offset, length }), wrong);
            assert_eq!(run(&device, Operation::Discard { offset, length }), wrong);
        }
        assert_eq!(
            run(
                &device,
                Operation::Write {
                    offset: 0,
                    data: vec![]
                }
            ),
            wrong
        );
    }

    #[test]
    fn what_is_compared_is_written_as_a_whole_or_not_at_all() {
        let device = MemoryDevice::new(3 * 4096);
        let blocks = |first: u8, second: u8| Bytes::from([vec![first; 4096], vec![second; 4096]].concat());
        let compare = |expected, data| Operation::CompareAndWrite {
            offset: 4096,
            expected,
            data,
        };
        assert_eq!(
            run(&device, compare(blocks(0, 0), blocks(1, 2))),
            Ok(Outcome::Done)
        );
        let differs = Ok(Outcome::Differs { offset: 8192 });
        assert_eq!(run(&device, compare(blocks(1, 1), blocks(3, 3))), differs);
        assert_eq!(
            run(&device, compare(blocks(1, 2), blocks(4, 4))),
            Ok(Outcome::Done)
        );
    }
}
