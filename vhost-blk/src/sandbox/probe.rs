//! Does on purpose what the sandbox forbids, so that a test sees from outside that it is forbidden.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::process::Command;

use clap::ValueEnum;

/// The smallest piece of memory that can be mapped.
const PAGE_BYTES: usize = 4096;

/// Something that the process has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Make a file.
    CreateFile,
    /// Run a program.
    Execute,
    /// Bind a socket.
    Listen,
    /// Open a socket of a family that is not needed.
    Netlink,
    /// Ask something else of a descriptor than how much is there.
    Control,
    /// Unlock memory.
    Unlock,
    /// Map memory that could be executed.
    ExecutableMemory,
    /// Start a thread, which is not forbidden.
    Thread,
    /// Read a file, which is not forbidden.
    ReadFile,
    /// End by an abort, which is not forbidden.
    Abort,
}

impl Probe {
    /// Does it, and says what came of it.
    pub fn attempt(self) -> io::Result<()> {
        match self {
            Self::CreateFile => File::create(std::env::temp_dir().join("storaged-sandbox-probe")).map(drop),
            // The call itself, in this process: nothing is forked before.
            Self::Execute => Err(std::os::unix::process::CommandExt::exec(&mut Command::new(
                "true",
            ))),
            Self::Listen => UdpSocket::bind("127.0.0.1:0").map(drop),
            Self::Netlink => {
                let (family, kind) = (rustix::net::AddressFamily::NETLINK, rustix::net::SocketType::RAW);
                rustix::net::socket(family, kind, None)
                    .map(drop)
                    .map_err(Into::into)
            }
            Self::Control => rustix::termios::tcgetwinsize(io::stderr())
                .map(drop)
                .map_err(Into::into),
            Self::Unlock => rustix::mm::munlockall().map_err(Into::into),
            Self::ExecutableMemory => {
                let (protection, flags) = (
                    libc::PROT_READ | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                );
                let mapped = vm_memory::MmapRegion::<()>::build(None, PAGE_BYTES, protection, flags);
                mapped.map(drop).map_err(io::Error::other)
            }
            Self::Thread => std::thread::Builder::new().spawn(|| ()).map(drop),
            Self::ReadFile => std::fs::read("/proc/self/stat").map(drop),
            Self::Abort => std::process::abort(),
        }
    }
}
