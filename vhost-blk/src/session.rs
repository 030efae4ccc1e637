//! One connection of a front end: its vhost-user messages, carried out.
//!
//! Runs on the control thread. A ring is configured here while it stands still; while it runs, the data
//! thread has it. The `vhost` crate has read and checked each message's form before it comes here.
//!
//! One file because that crate wants an answer to every message from one type.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vhost_user_backend::{VringMutex, VringT};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueT;
use vm_memory::{FileOffset, GuestAddressSpace};

use crate::config_space::{ConfigSpace, QUEUE_SIZE_MAX, VHOST_F_LOG_ALL};
use crate::front_end::FrontEnd;
use crate::guest_memory::{AddressSpace, REGIONS_MAX};
use crate::inflight::{Log, Region};
use crate::ring::{Legacy, Vring};
use crate::worker::Command;

/// One queue as the front end has configured it.
struct Queue {
    vring: Vring,
    /// A copy of the kick eventfd: the data thread gets copies of it, start after start.
    kick: Option<File>,
    /// The front end wants requests to be taken.
    enabled: bool,
    /// The data thread has it.
    running: bool,
}

/// One front end's connection.
pub struct Session {
    front_end: Arc<FrontEnd>,
    commands: mpsc::Sender<Command>,
    memory: AddressSpace,
    queues: Vec<Queue>,
    /// Where requests in flight are written down.
    region: Option<Region>,
    /// The state that a migration brings, until it is checked.
    state: Option<File>,
    owned: bool,
    features: u64,
}

impl Session {
    /// A connection that has said nothing yet.
    pub fn new(front_end: Arc<FrontEnd>, commands: mpsc::Sender<Command>) -> io::Result<Self> {
        let memory = AddressSpace::new();
        let count = front_end.config().shape().queues;
        let queues = (0..count)
            .map(|_| {
                let vring =
                    VringMutex::new(memory.memory().clone(), QUEUE_SIZE_MAX).map_err(io::Error::other)?;
                Ok(Queue {
                    vring,
                    kick: None,
                    enabled: false,
                    running: false,
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            front_end,
            commands,
            memory,
            queues,
            region: None,
            state: None,
            owned: false,
            features: 0,
        })
    }

    /// The front end is gone: rings that it did not stop finish what they have taken. The guest's
    /// memory stays mapped until then, so a guest that lives on finds every answer.
    pub fn end(&mut self) {
        for index in 0..self.queues.len() {
            if let Err(cause) = self.halt(index) {
                warn!(ring = index, %cause, "cannot stop a ring");
            }
        }
        self.front_end.disconnected();
    }

    fn queue(&mut self, index: usize) -> Result<&mut Queue> {
        self.queues.get_mut(index).ok_or(Error::InvalidParam)
    }

    /// Gives all rings to the data thread for which all is there that they need.
    ///
    /// Rings of which a former process has left something come first, and nothing runs before all of these
    /// can: what it left is done again before anything new is taken, over all rings.
    fn start_what_is_ready(&mut self) -> Result<()> {
        let (mut with_legacy, mut without) = (Vec::new(), Vec::new());
        for (index, queue) in self.queues.iter().enumerate() {
            if queue.running {
                continue;
            }
            let ready = queue.enabled && queue.kick.is_some();
            match (ready, self.has_legacy(index)?) {
                (true, true) => with_legacy.push(index),
                (true, false) => without.push(index),
                (false, true) => return Ok(()),
                (false, false) => {}
            }
        }
        for index in with_legacy.into_iter().chain(without) {
            self.start(index)?;
        }
        Ok(())
    }

    fn log(&self, index: usize) -> Result<Option<Log>> {
        let Some(region) = &self.region else {
            return Ok(None);
        };
        let number = u16::try_from(index).map_err(|_| Error::InvalidParam)?;
        Ok(region.log(number))
    }

    fn has_legacy(&self, index: usize) -> Result<bool> {
        Ok(match self.log(index)? {
            Some(log) => !log.is_empty()?,
            None => false,
        })
    }

    fn start(&mut self, index: usize) -> Result<()> {
        let memory = self.memory.memory().clone();
        let commands = self.commands.clone();
        let log = self.log(index)?;
        if self.region.is_some() && log.is_none() {
            return Err(invalid(
                "the region for requests in flight has no log for this ring",
            ));
        }
        let queue = self.queue(index)?;
        let Some(kick) = &queue.kick else { return Ok(()) };
        {
            let mut state = queue.vring.get_mut();
            state.get_queue_mut().set_ready(true);
            if !state.get_queue().is_valid(&*memory.memory()) {
                state.get_queue_mut().set_ready(false);
                return Err(invalid(
                    "the front end has started a ring that is not in guest memory",
                ));
            }
        }
        let kick = kick.try_clone().map_err(Error::ReqHandlerError)?;
        // A blocking eventfd would stop the whole data thread at a kick that somebody else has read.
        rustix::io::ioctl_fionbio(&kick, true).map_err(|cause| Error::ReqHandlerError(cause.into()))?;
        let legacy = Legacy::inherit(&queue.vring, log)?;
        let left = legacy.len();
        let vring = queue.vring.clone();
        let index_u16 = u16::try_from(index).map_err(|_| Error::InvalidParam)?;
        let started = order(&commands, |done| Command::Start {
            index: index_u16,
            vring,
            memory,
            kick,
            legacy,
            done,
        })?;
        if !started {
            return Err(invalid("the data thread cannot run the ring"));
        }
        let queue = self.queue(index)?;
        queue.running = true;
        info!(
            ring = index,
            left, "running; what a former process has left comes first"
        );
        // The former process may have ended between an answer and its interrupt. One call too many is
        // harmless.
        queue.vring.signal_used_queue().map_err(Error::ReqHandlerError)
    }

    /// Takes a ring back from the data thread, when all that it has taken is published.
    fn halt(&mut self, index: usize) -> Result<()> {
        let commands = self.commands.clone();
        let queue = self.queue(index)?;
        if queue.running {
            let number = u16::try_from(index).map_err(|_| Error::InvalidParam)?;
            order(&commands, |done| Command::Stop { index: number, done })?;
            let queue = self.queue(index)?;
            queue.running = false;
            queue.vring.set_queue_ready(false);
            debug!(ring = index, "stopped");
        }
        Ok(())
    }

    /// Notes pages written from now on, or no longer. A migration that was called off comes back with the same
    /// features but without this one.
    fn keep_log(&mut self, kept: bool) -> Result<()> {
        if kept == self.memory.keeps_log() {
            return Ok(());
        }
        self.memory.keep_log(kept);
        debug!(kept, "the log of pages written");
        // The front end begins to copy when this message is answered. What the data thread wrote without
        // noting it must be there by then.
        order(&self.commands, |done| Command::Pass { done }).map(drop)
    }

    /// Refuses another place for a ring that runs.
    fn is_at(&mut self, index: u32, places: [u64; 3]) -> Result<()> {
        let state = self.queue(number(index))?.vring.get_ref();
        let queue = state.get_queue();
        if [queue.desc_table(), queue.avail_ring(), queue.used_ring()] == places {
            Ok(())
        } else {
            Err(invalid("a ring that runs is to move"))
        }
    }

    fn set_enabled(&mut self, index: usize, enabled: bool) -> Result<()> {
        let queue = self.queue(index)?;
        queue.enabled = enabled;
        queue.vring.set_enabled(enabled);
        if enabled {
            self.start_what_is_ready()
        } else {
            self.halt(index)
        }
    }
}

/// Sends a command and waits until it is carried out.
fn order(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(std::sync::mpsc::SyncSender<bool>) -> Command,
) -> Result<bool> {
    let (done, answer) = sync_channel(1);
    commands
        .blocking_send(command(done))
        .map_err(|_| invalid("the data thread has ended"))?;
    answer.recv().map_err(|_| invalid("the data thread has ended"))
}

fn invalid(reason: &'static str) -> Error {
    Error::InvalidOperation(reason)
}

fn number(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.owned, true) {
            return Err(invalid("the session has an owner already"));
        }
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.owned = false;
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        for index in 0..self.queues.len() {
            self.set_enabled(index, false)?;
        }
        self.features = 0;
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.front_end.config().features())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.front_end.config().features() != 0 {
            return Err(invalid("the front end asks for features that were not offered"));
        }
        self.features = features;
        self.keep_log(features & (1 << VHOST_F_LOG_ALL) != 0)?;
        let event_index = features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        for queue in &self.queues {
            queue.vring.set_queue_event_idx(event_index);
        }
        debug!(
            features = format_args!("{features:#x}"),
            "the guest's driver has chosen its features"
        );
        // Without the protocol features there is no message that enables a ring: they all are.
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            for index in 0..self.queues.len() {
                self.set_enabled(index, true)?;
            }
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        if postcopy.is_some() {
            return Err(invalid("postcopy is not offered"));
        }
        self.memory.replace(regions, files)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let queue = self.queue(number(index))?;
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        queue
            .vring
            .get_mut()
            .get_queue_mut()
            .try_set_size(size)
            .map_err(|_| invalid("a queue size is no power of two, or more than 1024"))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let descriptor = self.memory.translate(descriptor)?;
        let available = self.memory.translate(available)?;
        let used = self.memory.translate(used)?;
        // Whether a migration is under way is said with the features, and in each of these messages again,
        // also while the ring runs. Its own index must not be touched then.
        if self.queue(number(index))?.running {
            return self.is_at(index, [descriptor, available, used]);
        }
        let vring = &self.queue(number(index))?.vring;
        vring
            .set_queue_info(descriptor, available, used)
            .map_err(|_| invalid("a ring's address is not aligned"))?;
        // The next message restores the available index. The used index is not in any message: it
        // is what stands in the ring, where the last back end published its last answer.
        let index = vring
            .queue_used_idx()
            .map_err(|_| invalid("a used ring is outside guest memory"))?;
        vring.set_queue_next_used(index);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.queue(number(index))?.vring.set_queue_next_avail(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.halt(number(index))?;
        let queue = self.queue(number(index))?;
        let next = queue.vring.queue_next_avail();
        queue.kick = None;
        queue.vring.set_kick(None);
        queue.vring.set_call(None);
        Ok(VhostUserVringState::new(index, u32::from(next)))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        // The running ring listens to the former one.
        self.halt(usize::from(index))?;
        let queue = self.queue(usize::from(index))?;
        queue.kick = Some(file.ok_or(invalid("a ring without a kick eventfd is not supported"))?);
        self.start_what_is_ready()
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let queue = self.queue(usize::from(index))?;
        queue.vring.set_call(file);
        if queue.running {
            // Answers may have been published while there was nobody to call. One call too many is
            // harmless.
            queue.vring.signal_used_queue().map_err(Error::ReqHandlerError)?;
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.queue(usize::from(index))?.vring.set_err(file);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(ConfigSpace::protocol_features())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        if features & !ConfigSpace::protocol_features().bits() != 0 {
            return Err(invalid(
                "the front end asks for protocol features that were not offered",
            ));
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queues.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.set_enabled(number(index), enable)
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Ok(self.front_end.config().read(offset, size))
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        if self.front_end.config().write(offset, bytes) {
            return Ok(());
        }
        // Not an error of the connection: the guest wrote to a field that is read-only.
        warn!(
            offset,
            length = bytes.len(),
            "the guest tried to change the configuration space"
        );
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        if postcopy.is_some() {
            return Err(invalid("postcopy is not offered"));
        }
        self.memory.add(region, file)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        Ok(self.memory.remove(region)?)
    }

    fn get_inflight_fd(&mut self, inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Ok(Region::create(inflight.num_queues, inflight.queue_size)?)
    }

    fn set_inflight_fd(&mut self, inflight: &VhostUserInflight, file: File) -> Result<()> {
        if self.queues.iter().any(|queue| queue.running) {
            return Err(invalid(
                "the region for requests in flight is replaced while rings run",
            ));
        }
        self.region = Some(Region::map(inflight, file)?);
        Ok(())
    }

    // What follows was not offered, so no well-made front end sends it.

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        Err(invalid("this is a block device"))
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(invalid("shared objects are not offered"))
    }

    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        file: File,
    ) -> Result<Option<File>> {
        self.state = None;
        match direction {
            // Closing it says that this is all. A ring that is stopped has nothing under way, and everything
            // else that the other side needs is in the ring, the configuration and the volume.
            VhostTransferStateDirection::SAVE => drop(file),
            VhostTransferStateDirection::LOAD => self.state = Some(file),
        }
        Ok(None)
    }

    fn check_device_state(&mut self) -> Result<()> {
        let Some(file) = self.state.take() else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        // The other side has closed it, so this does not wait.
        file.take(1)
            .read_to_end(&mut bytes)
            .map_err(Error::ReqHandlerError)?;
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(invalid(
                "the device's state is one of another program: ours is empty",
            ))
        }
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(invalid("shared memory regions are not offered"))
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        Ok(self
            .memory
            .replace_log(FileOffset::new(file, log.mmap_offset), log.mmap_size)?)
    }
}
