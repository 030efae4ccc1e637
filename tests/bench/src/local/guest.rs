//! A guest without a virtual machine: one virtio-blk queue over vhost-user, driven from this process.
//!
//! Its memory is a memfd that the backend maps, its notifications are eventfds, as QEMU would hand
//! them over. It knows blocks and completions, and nothing of patterns or time.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use super::drive::Device;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use virtio_driver::{
    EventFd, QueueNotifier, VhostUser, VirtioBlkConfig, VirtioBlkFeatureFlags, VirtioBlkQueue,
    VirtioBlkReqBuf, VirtioFeatureFlags, VirtioTransport,
};
use vm_memory::{Bytes, FileOffset, MemoryRegionAddress, mmap::GuestRegionMmap, mmap::MmapRegion};

/// The guest's memory, in bytes: twice what any pattern has in flight.
const MEMORY: usize = 2 * super::pattern::IN_FLIGHT_MAX;
/// Descriptors of the queue. A request takes three, and 32 are in flight at most.
const QUEUE_SIZE: u16 = 256;
/// A backend that is silent for so long is called dead, in seconds.
const SILENCE_MAX: i64 = 120;

/// How the guest learns of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Notification {
    /// By the call eventfd, asleep meanwhile: as a guest's kernel driver does.
    Events,
    /// By looking at the used ring all the time: takes a core.
    Polling,
}

/// A connected block device.
pub(crate) struct Guest {
    // Before the transport, whose memory it lies in.
    queue: VirtioBlkQueue<'static, usize>,
    kick: Box<dyn QueueNotifier>,
    call: Arc<EventFd>,
    notification: Notification,
    memory: GuestRegionMmap,
    capacity: u64,
    _transport: VhostUser<VirtioBlkConfig, VirtioBlkReqBuf>,
}

impl Guest {
    /// Connects to the backend that listens on `socket`.
    pub(crate) fn connect(socket: &Path, notification: Notification) -> Result<Self> {
        let features = VirtioFeatureFlags::VERSION_1.bits()
            | VirtioFeatureFlags::RING_EVENT_IDX.bits()
            | VirtioBlkFeatureFlags::FLUSH.bits()
            | VirtioBlkFeatureFlags::SEG_MAX.bits();
        let path = socket.to_str().context("the socket's path is not UTF-8")?;
        let mut transport = VhostUser::<VirtioBlkConfig, VirtioBlkReqBuf>::new(path, features)
            .with_context(|| format!("connect to {path}"))?;
        let offered = transport.get_features();
        ensure!(
            offered & VirtioBlkFeatureFlags::FLUSH.bits() != 0,
            "the backend offers no FLUSH"
        );
        let capacity = u64::from(
            transport
                .get_config()
                .context("read the device's configuration")?
                .capacity,
        ) * 512;

        let file = std::fs::File::from(memfd_create("guest-memory", MemfdFlags::CLOEXEC)?);
        file.set_len(MEMORY as u64)?;
        let descriptor = file.as_raw_fd();
        let region =
            MmapRegion::from_file(FileOffset::new(file, 0), MEMORY).context("map the guest's memory")?;
        let base = region.as_ptr() as usize;
        transport
            .map_mem_region(base, MEMORY, descriptor, 0)
            .context("share the guest's memory")?;
        let memory = GuestRegionMmap::new(region, vm_memory::GuestAddress(base as u64))
            .context("the guest's memory has no valid address")?;

        let mut queues =
            VirtioBlkQueue::setup_queues(&mut transport, 1, QUEUE_SIZE).context("set up the queue")?;
        let mut queue = queues.pop().context("no queue was set up")?;
        // With EVENT_IDX the driver only moves the wake-up mark while notifications are on: a driver
        // that never says so is woken once and then never again.
        queue.set_used_notif_enabled(notification == Notification::Events);
        let kick = transport.get_submission_notifier(0);
        let call = transport.get_completion_fd(0);
        Ok(Self {
            queue,
            kick,
            call,
            notification,
            memory,
            capacity,
            _transport: transport,
        })
    }

    /// Sleeps until the device calls. The mark for its next call was set when the last completion was
    /// taken and the ring was looked at after that, so no call can be missed.
    fn sleep(&self) -> Result<()> {
        let mut descriptors = [PollFd::new(&self.call, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: SILENCE_MAX,
            tv_nsec: 0,
        };
        let ready = poll(&mut descriptors, Some(&limit)).context("wait for the device")?;
        ensure!(ready > 0, "the device has not answered for {SILENCE_MAX} s");
        self.call.read().context("take the device's call")?;
        Ok(())
    }

    fn place(&self, at: usize, length: usize) -> Result<*mut u8> {
        ensure!(
            at.checked_add(length).is_some_and(|end| end <= MEMORY),
            "outside of the guest's memory"
        );
        Ok(self.memory.as_ptr().wrapping_add(at))
    }
}

impl Device for Guest {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn store(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.memory
            .write_slice(bytes, MemoryRegionAddress(at as u64))
            .context("write guest memory")
    }

    fn load(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        self.memory
            .read_slice(bytes, MemoryRegionAddress(at as u64))
            .context("read guest memory")
    }

    fn read(&mut self, offset: u64, at: usize, length: usize, tag: usize) -> Result<()> {
        let buffer = self.place(at, length)?;
        // SAFETY: `place` checked that the range lies in the mapping, which lives as long as the
        // queue; this process looks at it only through vm-memory's volatile accesses.
        unsafe { self.queue.read_raw(offset, buffer, length, tag) }.context("queue a read")
    }

    fn write(&mut self, offset: u64, at: usize, length: usize, tag: usize) -> Result<()> {
        let buffer = self.place(at, length)?;
        // SAFETY: as for `read`.
        unsafe { self.queue.write_raw(offset, buffer, length, tag) }.context("queue a write")
    }

    fn flush(&mut self, tag: usize) -> Result<()> {
        self.queue.flush(tag).context("queue a flush")
    }

    fn kick(&mut self) -> Result<()> {
        if self.queue.avail_notif_needed() {
            self.kick.notify().context("kick the device")?;
        }
        Ok(())
    }

    fn wait(&mut self, done: &mut Vec<usize>) -> Result<()> {
        loop {
            let before = done.len();
            for completion in self.queue.completions() {
                if completion.ret != 0 {
                    bail!(
                        "the device failed a request: {}",
                        io::Error::from_raw_os_error(-completion.ret)
                    );
                }
                done.push(completion.context);
            }
            if done.len() > before {
                return Ok(());
            }
            match self.notification {
                Notification::Polling => std::hint::spin_loop(),
                Notification::Events => self.sleep()?,
            }
        }
    }
}
