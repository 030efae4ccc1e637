//! A kernel's NBD client that only keeps links, for tests on machines whose kernel has none: what it holds is open at the
//! gateway as it would be, and no byte is read. The real one is proven in guests (`tests/vm`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::{RecvFlags, recv};
use storaged_nbd::wire::TransmissionFlags;

use crate::kernel::{Device, Kernel, KernelError, Tag};

/// Devices at most: no test has more.
const DEVICES_MAX: u32 = 1024;

/// Devices in memory.
#[derive(Debug, Default)]
pub struct MemoryKernel(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    devices: BTreeMap<u32, (Device, OwnedFd)>,
    used: BTreeSet<u32>,
    relinked: usize,
}

impl MemoryKernel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody opens a device, or closes it.
    pub fn set_used(&self, index: u32, is_used: bool) {
        let mut state = self.state();
        if is_used {
            state.used.insert(index);
        } else {
            state.used.remove(&index);
        }
    }

    /// How many dead links were replaced.
    pub fn relinked(&self) -> usize {
        self.state().relinked
    }
}

fn refused(what: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::Refused { what, source }
}

/// Whether the other end has gone.
fn is_dead(link: BorrowedFd<'_>) -> bool {
    let mut byte = [0];
    match recv(link, byte.as_mut_slice(), RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, length)) => length == 0,
        Err(error) => error != rustix::io::Errno::AGAIN,
    }
}

impl State {
    fn device(&mut self, device: &Device, what: &'static str) -> Result<&mut (Device, OwnedFd), KernelError> {
        let found = self.devices.get_mut(&device.index);
        found
            .filter(|(found, _)| found.tag == device.tag)
            .ok_or_else(|| refused(what)(io::ErrorKind::InvalidInput.into()))
    }
}

impl Kernel for MemoryKernel {
    fn devices(&self) -> Result<Vec<Device>, KernelError> {
        Ok(self
            .state()
            .devices
            .values()
            .map(|(device, _)| device.clone())
            .collect())
    }

    fn connect(&self, tag: &Tag, size: u64, flags: u16, link: BorrowedFd<'_>) -> Result<Device, KernelError> {
        let link = link
            .try_clone_to_owned()
            .map_err(refused("make a block device"))?;
        let mut state = self.state();
        let index = (0..DEVICES_MAX).find(|index| !state.devices.contains_key(index));
        let full = || refused("make a block device")(io::ErrorKind::StorageFull.into());
        let index = index.ok_or_else(full)?;
        let device = Device {
            index,
            tag: tag.clone(),
            size,
            read_only: flags & TransmissionFlags::READ_ONLY != 0,
        };
        state.devices.insert(index, (device.clone(), link));
        Ok(device)
    }

    fn relink(&self, device: &Device, link: BorrowedFd<'_>) -> Result<(), KernelError> {
        let what = "give a block device another link";
        let mut state = self.state();
        let (_, old) = state.device(device, what)?;
        if is_dead(old.as_fd()) {
            *old = link.try_clone_to_owned().map_err(refused(what))?;
            state.relinked += 1;
        }
        Ok(())
    }

    fn resize(&self, device: &Device, size: u64) -> Result<(), KernelError> {
        self.state().device(device, "resize a block device")?.0.size = size;
        Ok(())
    }

    fn release(&self, device: &Device) -> Result<bool, KernelError> {
        let mut state = self.state();
        state.device(device, "end a block device")?;
        if state.used.contains(&device.index) {
            return Ok(false);
        }
        state.devices.remove(&device.index);
        Ok(true)
    }

    fn cut(&self, device: &Device) -> Result<(), KernelError> {
        let mut state = self.state();
        state.device(device, "end a block device")?;
        state.devices.remove(&device.index);
        Ok(())
    }
}
