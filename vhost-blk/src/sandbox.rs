//! What the process gives up before it listens to anybody: system calls that it has no use for, and the
//! guest's memory in core dumps. And what it asks for, if told to: that its memory stays in memory.
//!
//! Why so, and what was refused: `docs/decisions/0013-sandbox.md`.

use std::collections::BTreeMap;
use std::io;

use clap::ValueEnum;
use rustix::mm::MlockAllFlags;
use rustix::process::{Resource, getrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule};
use tracing::{info, warn};

mod calls;
pub mod probe;

/// What is done about a system call that the process has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Seccomp {
    /// It fails; one that only an intruder makes ends the process.
    Enforce,
    /// It is carried out, and the kernel's audit log tells of it.
    Log,
    /// Nothing.
    Off,
}

impl Seccomp {
    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Log => "log",
            Self::Off => "off",
        }
    }
}

/// Why the process cannot give up what it was told to, or get what it was told to.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The filter was refused.
    #[error(
        "cannot give up system calls: {0}; does this kernel have CONFIG_SECCOMP_FILTER? --seccomp off does without"
    )]
    Filter(#[from] seccompiler::Error),
    /// This processor has no filter.
    #[error("there is no list of system calls for this kind of processor ({0}): use --seccomp off")]
    Processor(&'static str),
    /// Memory cannot be locked.
    #[error(
        "cannot lock memory: {source}; the limit is {limit} and has to cover the guest's memory too: raise it \
         (LimitMEMLOCK=infinity in the unit, ulimit -l unlimited in a shell)"
    )]
    Lock {
        /// What the system said.
        source: io::Error,
        /// `RLIMIT_MEMLOCK`.
        limit: String,
    },
}

/// From now on all of the process's memory stays in memory, also what it gets later.
pub fn lock_memory() -> Result<(), SandboxError> {
    // Pages are locked when they are first used. Otherwise mapping a guest's memory would make all of it
    // be there at once, and take away what QEMU leaves to it.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    rustix::mm::mlockall(flags).map_err(|source| SandboxError::Lock {
        source: source.into(),
        limit: getrlimit(Resource::Memlock)
            .current
            .map_or_else(|| "infinite".to_owned(), |bytes| format!("{bytes} bytes")),
    })
}

/// Core dumps leave out everything that is shared with other processes: the guest's memory above all,
/// and what disks see of its writes. Anonymous memory of this process's own (bit 0), the heads of ELF
/// files (4) and private huge pages (5) stay in.
///
/// Not by `MADV_DONTDUMP`: that would have to be said of each mapping after it was made. Not by
/// `PR_SET_DUMPABLE`: disks of the same user could not open the memory of shared writes any more.
pub fn leave_shared_memory_out_of_core_dumps() {
    if let Err(cause) = std::fs::write("/proc/self/coredump_filter", "0x31") {
        warn!(%cause, "a core dump of this process would hold the guest's memory: is /proc mounted?");
    }
}

/// Gives up system calls, on all threads, and all rights that a program could give back.
pub fn give_up_calls(mode: Seccomp) -> Result<(), SandboxError> {
    let (others, intruders) = match mode {
        // As if the kernel did not have them: libraries then do without, or do it the old way.
        Seccomp::Enforce => (
            SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
            SeccompAction::KillProcess,
        ),
        Seccomp::Log => (SeccompAction::Log, SeccompAction::Log),
        Seccomp::Off => return Ok(()),
    };
    // Where both have an opinion the harsher one counts. The second filter is a list of its own, as a
    // filter has only one answer for what is not on its list.
    let deadly = filter(calls::deadly(), SeccompAction::Allow, intruders)?;
    let allowed = filter(calls::allowed()?, others, SeccompAction::Allow)?;
    seccompiler::apply_filter_all_threads(&deadly)?;
    seccompiler::apply_filter_all_threads(&allowed)?;
    info!(mode = mode.name(), "system calls were given up");
    Ok(())
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    on_list: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let processor = std::env::consts::ARCH;
    let target = processor
        .try_into()
        .map_err(|_| SandboxError::Processor(processor))?;
    let filter = SeccompFilter::new(rules, otherwise, on_list, target).map_err(seccompiler::Error::from)?;
    let program: BpfProgram = filter.try_into().map_err(seccompiler::Error::from)?;
    Ok(program)
}
