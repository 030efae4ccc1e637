//! The program under test, and a virtio driver that is not ours, over its socket and shared memory.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};
use virtio_driver::{
    VhostUser, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags,
};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// A generous bound: nothing here takes long, and a test that hangs must end.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const DATA_BYTES: usize = 4 << 20;
pub(crate) const SIZE: u64 = 64 << 20;

pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
    pub(crate) directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// With a control socket.
    pub(crate) fn start_controlled(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let control = format!("unix:{}", directory.path().join("control.sock").display());
        let own = ["--control", &control];
        let all: Vec<&str> = own.into_iter().chain(arguments.iter().copied()).collect();
        Self::start_in(directory, &all)
    }

    /// Where the control socket is, if there is one.
    pub(crate) fn control(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn start_in(directory: tempfile::TempDir, arguments: &[&str]) -> Self {
        let socket = directory.path().join("vhost.sock");
        let child = command(&socket, arguments).spawn().unwrap();
        let server = Self {
            child,
            socket,
            directory,
        };
        await_socket(&server.socket);
        server
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        wait(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-blk"));
    command
        .args(["--memory", &SIZE.to_string(), "--socket"])
        .arg(socket)
        .args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// The program where every user can read and run it. Another process copies it: a file that this one had open
/// for writing could not be run while any thread is between a fork and its program.
pub(crate) fn program_for_everybody(directory: &Path) -> PathBuf {
    let program = directory.join("vhost-blk");
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_vhost-blk")).arg(&program);
    assert!(copy.status().unwrap().success());
    program
}

pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        std::thread::yield_now();
    }
}

/// Waits until somebody listens. The probe connects, says nothing and leaves, as a careless client may.
pub(crate) fn await_socket(socket: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(socket).is_err() {
        assert!(
            Instant::now() < deadline,
            "nobody listens on {}",
            socket.display()
        );
        std::thread::yield_now();
    }
}

/// One connection, with some shared memory for data.
pub(crate) struct Driver {
    pub(crate) queues: Vec<VirtioBlkQueue<'static, u64>>,
    pub(crate) transport: Arc<RwLock<Box<VirtioBlkTransport>>>,
    data: GuestMemoryMmap<()>,
    base: *mut u8,
}

impl Driver {
    pub(crate) fn connect(socket: &Path, queues: usize) -> Self {
        let features = VirtioFeatureFlags::VERSION_1
            | VirtioFeatureFlags::RING_EVENT_IDX
            | VirtioFeatureFlags::RING_INDIRECT_DESC;
        let transport = VhostUser::new(
            socket.to_str().unwrap(),
            features.bits() | VirtioBlkFeatureFlags::all().bits(),
        )
        .unwrap();
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
        let file =
            std::fs::File::from(rustix::fs::memfd_create("data", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(DATA_BYTES as u64).unwrap();
        let region =
            MmapRegion::from_file(FileOffset::new(file.try_clone().unwrap(), 0), DATA_BYTES).unwrap();
        let base = region.as_ptr();
        transport
            .map_mem_region(base as usize, DATA_BYTES, file.as_raw_fd(), 0)
            .unwrap();
        let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
        let data = GuestMemoryMmap::from_regions(vec![region]).unwrap();
        let transport = Arc::new(RwLock::new(transport));
        let queues = VirtioBlkQueue::setup_queues(&mut **transport.write().unwrap(), queues, 64).unwrap();
        Self {
            queues,
            transport,
            data,
            base,
        }
    }

    pub(crate) fn features(&self) -> u64 {
        self.transport.read().unwrap().get_features()
    }

    pub(crate) fn fill(&self, at: u64, bytes: &[u8]) {
        self.data.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(crate) fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.data.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    pub(crate) fn address(&self, at: u64, length: usize) -> *mut u8 {
        let at = usize::try_from(at).unwrap();
        assert!(at + length <= DATA_BYTES);
        self.base.wrapping_add(at)
    }

    pub(crate) fn queue_write(&mut self, queue: usize, offset: u64, at: u64, length: usize) {
        let address = self.address(at, length);
        // SAFETY: the range lies in the mapping, which lives as long as the driver.
        unsafe { self.queues[queue].write_raw(offset, address, length, at).unwrap() };
    }

    pub(crate) fn queue_read(&mut self, queue: usize, offset: u64, at: u64, length: usize) {
        let address = self.address(at, length);
        // SAFETY: as above.
        unsafe { self.queues[queue].read_raw(offset, address, length, at).unwrap() };
    }

    pub(crate) fn kick(&mut self, queue: usize) {
        if self.queues[queue].avail_notif_needed() {
            self.transport
                .read()
                .unwrap()
                .get_submission_notifier(queue)
                .notify()
                .unwrap();
        }
    }

    /// Waits for `count` answers of one queue: context and result of each.
    pub(crate) fn answers(&mut self, queue: usize, count: usize) -> Vec<(u64, i32)> {
        let event = self.transport.read().unwrap().get_completion_fd(queue);
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        loop {
            self.queues[queue].set_used_notif_enabled(true);
            answers.extend(
                self.queues[queue]
                    .completions()
                    .map(|done| (done.context, done.ret)),
            );
            if answers.len() >= count {
                assert_eq!(answers.len(), count);
                return answers;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} answers came",
                answers.len()
            );
            let mut fds = [PollFd::from_borrowed_fd(event.as_fd(), PollFlags::IN)];
            if rustix::event::poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 60,
                    tv_nsec: 0,
                }),
            )
            .unwrap()
                > 0
            {
                event.read().unwrap();
            }
        }
    }

    pub(crate) fn one(&mut self, queue: usize) -> i32 {
        self.kick(queue);
        self.answers(queue, 1)[0].1
    }

    pub(crate) fn write(&mut self, queue: usize, offset: u64, bytes: &[u8]) -> i32 {
        self.fill(0, bytes);
        self.queue_write(queue, offset, 0, bytes.len());
        self.one(queue)
    }

    pub(crate) fn read(&mut self, queue: usize, offset: u64, length: usize) -> (i32, Vec<u8>) {
        self.queue_read(queue, offset, 0, length);
        let status = self.one(queue);
        (status, self.bytes(0, length))
    }
}

pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|at| u8::try_from((at * 31 + seed * 17 + at / 256) % 251).unwrap())
        .collect()
}
