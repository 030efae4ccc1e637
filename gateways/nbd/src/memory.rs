//! A volume in memory for trials of the gateway without a cluster.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use client::device::{BlockDevice, Continuation, DeviceError, DeviceEvent, DeviceInfo, Operation, Outcome};
use protocol::storage::MapKind;

const SECTOR: u64 = 512;

/// A volume that is gone with its process.
pub struct MemoryVolume {
    info: DeviceInfo,
    sectors: RefCell<BTreeMap<u64, Bytes>>,
}

impl MemoryVolume {
    /// An empty volume of `size` bytes.
    pub fn new(name: &str, size: u64) -> Self {
        let info = DeviceInfo {
            name: name.to_owned(),
            serial: "memory".to_owned(),
            size,
            read_only: false,
            alignment: 512,
        };
        Self {
            info,
            sectors: RefCell::new(BTreeMap::new()),
        }
    }

    fn range(&self, offset: u64, length: u64) -> Result<std::ops::Range<u64>, DeviceError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.info.size);
        match end {
            Some(end) if offset.is_multiple_of(SECTOR) && end.is_multiple_of(SECTOR) && length > 0 => {
                Ok(offset / SECTOR..end / SECTOR)
            }
            _ => Err(DeviceError::Invalid { size: self.info.size }),
        }
    }

    fn carry_out(&self, operation: Operation) -> Result<Outcome, DeviceError> {
        let mut sectors = self.sectors.borrow_mut();
        match operation {
            Operation::Read { offset, length } => {
                let range = self.range(offset, length)?;
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                for (number, sector) in sectors.range(range.clone()) {
                    let at = usize::try_from((number - range.start) * SECTOR).unwrap_or(0);
                    bytes[at..at + 512].copy_from_slice(sector);
                }
                Ok(Outcome::Data(vec![Bytes::from(bytes)]))
            }
            Operation::Write { offset, data } => {
                let whole = Bytes::from(data.concat());
                let range = self.range(offset, whole.len() as u64)?;
                for (position, number) in range.enumerate() {
                    sectors.insert(number, whole.slice(position * 512..(position + 1) * 512));
                }
                Ok(Outcome::Done)
            }
            Operation::WriteZeroes { offset, length } | Operation::Discard { offset, length } => {
                let range = self.range(offset, length)?;
                let gone: Vec<u64> = sectors.range(range).map(|(number, _)| *number).collect();
                gone.iter().for_each(|number| drop(sectors.remove(number)));
                Ok(Outcome::Done)
            }
            Operation::Flush => Ok(Outcome::Done),
            Operation::Map { offset, length } => {
                let mut runs: Vec<(u64, MapKind)> = Vec::new();
                let mut at = self.range(offset, length)?.start;
                for (number, _) in sectors.range(self.range(offset, length)?) {
                    extend(&mut runs, (number - at) * SECTOR, MapKind::Hole);
                    extend(&mut runs, SECTOR, MapKind::Data);
                    at = number + 1;
                }
                extend(&mut runs, offset + length - at * SECTOR, MapKind::Hole);
                Ok(Outcome::Map(runs))
            }
        }
    }
}

fn extend(runs: &mut Vec<(u64, MapKind)>, length: u64, kind: MapKind) {
    match runs.last_mut() {
        Some(last) if last.1 == kind => last.0 += length,
        _ if length > 0 => runs.push((length, kind)),
        _ => {}
    }
}

impl BlockDevice for MemoryVolume {
    fn info(&self) -> DeviceInfo {
        self.info.clone()
    }

    fn submit(&self, operation: Operation, done: Continuation) {
        done(self.carry_out(operation));
    }

    fn listen(&self, _listener: Box<dyn Fn(DeviceEvent)>) {}
}
