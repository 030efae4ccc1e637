//! The guest's memory as this process sees it: the mapped regions, and the way from the front end's
//! own addresses, which ring messages use, to the guest's.

use std::fs::File;
use std::io;
use std::sync::{Arc, PoisonError};

use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserSingleMemoryRegion};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    FileOffset, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap,
    GuestRegionMmap,
};

use crate::dirty_log::{DirtyLog, LogError, RegionLog};

/// One state of the guest's memory. Requests under way hold the one that they began with.
pub type GuestMap = GuestMemoryMmap<RegionLog>;
/// The guest's memory, replaced as a whole when the front end changes it.
pub type GuestMemory = GuestMemoryAtomic<GuestMap>;

/// The most regions that a front end may add one by one: what the kernel's vhost allows too.
pub const REGIONS_MAX: u64 = 509;

/// Why the front end's memory could not be mapped or found.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The region is empty, wraps, overlaps another, or the kernel refused to map it.
    #[error("cannot map the guest's memory region at {guest_address:#x}: {reason}")]
    Region {
        /// Where the region begins for the guest.
        guest_address: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// No region holds an address of the front end.
    #[error("address {0:#x} lies in none of the regions that the front end has shared")]
    Unknown(u64),
}

impl From<MemoryError> for vhost::vhost_user::Error {
    fn from(error: MemoryError) -> Self {
        Self::ReqHandlerError(io::Error::other(error))
    }
}

/// Where a region lies in the front end's own address space.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    front_end_address: u64,
    guest_address: u64,
    length: u64,
}

/// The regions that the front end has shared.
#[derive(Debug)]
pub struct AddressSpace {
    memory: GuestMemory,
    mappings: Vec<Mapping>,
    dirty: DirtyLog,
}

impl AddressSpace {
    /// No memory yet.
    pub fn new() -> Self {
        Self {
            memory: GuestMemoryAtomic::new(GuestMap::new()),
            mappings: Vec::new(),
            dirty: DirtyLog::default(),
        }
    }

    /// The memory, as rings use it. It changes with every call that changes the regions.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// These regions instead of all former ones.
    pub fn replace(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
    ) -> Result<(), MemoryError> {
        let mut mapped = Vec::with_capacity(regions.len());
        let mut mappings = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            let (region, mapping) = map(region, file, &self.dirty)?;
            mapped.push(region);
            mappings.push(mapping);
        }
        let map = GuestMap::from_regions(mapped).map_err(|error| MemoryError::Region {
            guest_address: mappings.first().map_or(0, |mapping| mapping.guest_address),
            reason: error.to_string(),
        })?;
        self.publish(map);
        self.mappings = mappings;
        Ok(())
    }

    /// One region more.
    pub fn add(&mut self, region: &VhostUserSingleMemoryRegion, file: File) -> Result<(), MemoryError> {
        let (region, mapping) = map(region, file, &self.dirty)?;
        let map = self
            .memory
            .memory()
            .insert_region(Arc::new(region))
            .map_err(|error| MemoryError::Region {
                guest_address: mapping.guest_address,
                reason: error.to_string(),
            })?;
        self.publish(map);
        self.mappings.push(mapping);
        Ok(())
    }

    /// One region less. Requests under way keep it mapped until they end.
    pub fn remove(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<(), MemoryError> {
        let (guest_address, length) = (region.guest_phys_addr, region.memory_size);
        let (map, _) = self
            .memory
            .memory()
            .remove_region(GuestAddress(guest_address), length)
            .map_err(|error| MemoryError::Region {
                guest_address,
                reason: error.to_string(),
            })?;
        self.publish(map);
        self.mappings
            .retain(|mapping| mapping.guest_address != guest_address);
        Ok(())
    }

    /// The guest's address for one of the front end's.
    pub fn translate(&self, front_end_address: u64) -> Result<u64, MemoryError> {
        self.mappings
            .iter()
            .find_map(|mapping| {
                let inside = front_end_address.checked_sub(mapping.front_end_address)?;
                (inside < mapping.length).then(|| mapping.guest_address.checked_add(inside))?
            })
            .ok_or(MemoryError::Unknown(front_end_address))
    }

    /// Takes over the log of pages written that the front end shares. It is kept when [`Self::keep_log`] says so.
    pub fn replace_log(&self, file: FileOffset, length: u64) -> Result<(), LogError> {
        let last = self.memory.memory().last_addr().0;
        self.dirty.replace(file, length, last.saturating_add(1))
    }

    /// Whether pages written are noted from now on.
    pub fn keep_log(&self, kept: bool) {
        self.dirty.keep(kept);
    }

    /// Whether pages written are noted.
    pub fn keeps_log(&self) -> bool {
        self.dirty.is_kept()
    }

    fn publish(&self, map: GuestMap) {
        // Replacing is one pointer store: a panic elsewhere cannot have left it half done.
        self.memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(map);
    }
}

impl Default for AddressSpace {
    fn default() -> Self {
        Self::new()
    }
}

fn map(
    region: &VhostUserMemoryRegion,
    file: File,
    dirty: &DirtyLog,
) -> Result<(GuestRegionMmap<RegionLog>, Mapping), MemoryError> {
    let (guest_address, length) = (region.guest_phys_addr, region.memory_size);
    let fail = |reason: &str| MemoryError::Region {
        guest_address,
        reason: reason.to_owned(),
    };
    if length == 0 || region.user_addr.checked_add(length).is_none() {
        return Err(fail("it is empty or wraps around"));
    }
    if !reaches(&file, region.mmap_offset, length) {
        return Err(fail("its file is shorter than it says"));
    }
    let bytes = usize::try_from(length).map_err(|_| fail("it is too long"))?;
    let mapped = MmapRegionBuilder::new_with_bitmap(bytes, dirty.region(guest_address))
        .with_file_offset(FileOffset::new(file, region.mmap_offset))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_NORESERVE | libc::MAP_SHARED)
        .build()
        .map_err(|error| fail(&error.to_string()))?;
    let mapped =
        GuestRegionMmap::new(mapped, GuestAddress(guest_address)).ok_or_else(|| fail("it wraps around"))?;
    Ok((
        mapped,
        Mapping {
            front_end_address: region.user_addr,
            guest_address,
            length,
        },
    ))
}

/// Whether a file has so many bytes from `offset` on. One that is no ordinary file does not tell its length.
///
/// A look past the end of a mapped file ends the process. A front end that makes its file shorter afterwards
/// can still bring that about, and thereby ends the backend of its own guest and nobody else's.
pub(crate) fn reaches(file: &File, offset: u64, length: u64) -> bool {
    let end = offset.checked_add(length);
    file.metadata()
        .is_ok_and(|found| !found.is_file() || end.is_some_and(|end| end <= found.len()))
}

#[cfg(test)]
mod tests {
    //! Addresses of the front end are found in their region, and nowhere else.
    use super::*;

    fn region(guest: u64, size: u64, user: u64) -> (VhostUserSingleMemoryRegion, File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        (VhostUserSingleMemoryRegion::new(guest, size, user, 0), file)
    }

    #[test]
    fn an_address_is_found_in_its_region_only() {
        let mut space = AddressSpace::new();
        let (low, low_file) = region(0, 0x1000, 0x7000_0000);
        let (high, high_file) = region(0x10_0000, 0x2000, 0x9000_0000);
        space.replace(&[*low, *high], vec![low_file, high_file]).unwrap();
        assert_eq!(space.translate(0x7000_0fff).unwrap(), 0xfff);
        assert_eq!(space.translate(0x9000_1000).unwrap(), 0x10_1000);
        assert!(space.translate(0x7000_1000).is_err());
        assert!(space.translate(0).is_err());
    }

    #[test]
    fn a_region_that_wraps_or_overlaps_is_refused_and_the_old_map_stays() {
        let mut space = AddressSpace::new();
        let (good, good_file) = region(0, 0x1000, 0x1000);
        space.replace(&[*good], vec![good_file]).unwrap();
        let (wrapping, file) = region(0x5000, 0x1000, u64::MAX - 10);
        assert!(space.replace(&[*wrapping], vec![file]).is_err());
        let (overlapping, file) = region(0x800, 0x1000, 0x9000);
        assert!(space.add(&overlapping, file).is_err());
        assert_eq!(space.translate(0x1800).unwrap(), 0x800);
    }

    #[test]
    fn a_region_that_is_longer_than_its_file_is_refused() {
        let mut space = AddressSpace::new();
        let (_, file) = region(0, 0x1000, 0x1000);
        let long = VhostUserSingleMemoryRegion::new(0, 0x2000, 0x1000, 0);
        assert!(space.replace(&[*long], vec![file.try_clone().unwrap()]).is_err());
        let beyond = VhostUserSingleMemoryRegion::new(0, 0x1000, 0x1000, u64::MAX - 5);
        assert!(space.add(&beyond, file).is_err());
    }

    #[test]
    fn a_removed_region_is_no_longer_found() {
        let mut space = AddressSpace::new();
        let (only, file) = region(0x1000, 0x1000, 0x1000);
        space.add(&only, file).unwrap();
        assert_eq!(space.translate(0x1800).unwrap(), 0x1800);
        space.remove(&only).unwrap();
        assert!(space.translate(0x1800).is_err());
    }
}
