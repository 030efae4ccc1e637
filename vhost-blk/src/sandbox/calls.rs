//! The system calls that the process needs after it is set up, with what their arguments may be; and those
//! that nobody but an intruder makes.
//!
//! Found with `strace` under the crate's tests, real guests and restarts of `storaged`, and by reading
//! what glibc does for a thread, an abort and a name server. The tests of `tests/sandbox.rs` hold the list to
//! what it promises.

use std::collections::BTreeMap;

use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::SandboxError;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls with any arguments.
const ALWAYS: &[i64] = &[
    // Sockets, pipes and eventfds that are open: QEMU's, storaged's, the disks', the operator's.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg, // glibc asks for both kinds of addresses at once
    libc::SYS_shutdown,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Waiting.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    // Direct reads. The ring was made before and can do nothing but read; no other can be made.
    libc::SYS_io_uring_enter,
    // Files: a disk's data and witness, the guest's memory, what glibc reads to find a host.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_pread64,
    // Memory: the guest's, the area of shared writes, requests in flight, the heap.
    libc::SYS_memfd_create,
    libc::SYS_ftruncate, // of a memfd: nothing else is open for writing
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_getrandom,
    // Threads and signals of its own.
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What newer processors have left out.
#[cfg(target_arch = "x86_64")]
const ALWAYS_OLD: &[i64] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_time,
    libc::SYS_gettimeofday,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_OLD: &[i64] = &[];

/// Calls that no part of this program makes, nor anything that it links, and whose only use is to get
/// further.
const DEADLY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_open_by_handle_at,
];

/// Bits that make a mapping executable.
const PROT_EXEC: u64 = libc::PROT_EXEC.unsigned_abs() as u64;
/// A file that is opened with none of these is there already, and is only read.
const OPEN_FOR_MORE: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC).unsigned_abs() as u64;
/// What a new thread is, and what would put it into another world.
const CLONE_THREAD: u64 = (libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND).unsigned_abs() as u64;
const CLONE_NEW: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .unsigned_abs() as u64;

/// Families of sockets: `storaged` and disks on this machine, and on others; names of hosts.
const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
/// What may be asked of a descriptor.
const CONTROLS: [libc::Ioctl; 2] = [libc::FIONBIO, libc::FIONREAD];
/// What may be done to a descriptor: flags, copies, seals of a memfd.
const DESCRIPTOR_COMMANDS: [i32; 7] = [
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_DUPFD_CLOEXEC,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];
/// What may be done to the process: names for threads and for memory.
const PROCESS_COMMANDS: [i32; 2] = [libc::PR_SET_NAME, PR_SET_VMA];
/// `PR_SET_VMA` of linux/prctl.h, by which allocators name their memory.
const PR_SET_VMA: i32 = 0x5356_4d41;

/// Calls that end the process.
pub(super) fn deadly() -> Rules {
    DEADLY.iter().map(|call| (*call, Vec::new())).collect()
}

/// Calls that are let through.
pub(super) fn allowed() -> Result<Rules, SandboxError> {
    let mut rules: Rules = ALWAYS
        .iter()
        .chain(ALWAYS_OLD)
        .map(|call| (*call, Vec::new()))
        .collect();
    let own = u64::from(std::process::id());
    let conditional = [
        (libc::SYS_mmap, vec![rule(&[without(2, PROT_EXEC)])?]),
        (libc::SYS_mprotect, vec![rule(&[without(2, PROT_EXEC)])?]),
        (libc::SYS_openat, vec![rule(&[without(2, OPEN_FOR_MORE)])?]),
        // clone3 hides its flags behind a pointer, where no filter sees them: it fails as on kernels before
        // it, and glibc takes this one.
        (
            libc::SYS_clone,
            vec![rule(&[masked(0, CLONE_THREAD | CLONE_NEW, CLONE_THREAD)])?],
        ),
        // abort() sends a signal to its own thread.
        (libc::SYS_tgkill, vec![rule(&[(0, SeccompCmpOp::Eq, own)])?]),
        (libc::SYS_socket, one_of(0, FAMILIES.map(i64::from))?),
        (
            libc::SYS_ioctl,
            one_of(1, CONTROLS.map(libc::Ioctl::cast_signed))?,
        ),
        (libc::SYS_fcntl, one_of(1, DESCRIPTOR_COMMANDS.map(i64::from))?),
        (libc::SYS_prctl, one_of(0, PROCESS_COMMANDS.map(i64::from))?),
    ];
    rules.extend(conditional);
    Ok(rules)
}

/// An argument's number, and what it is compared with.
type Comparison = (u8, SeccompCmpOp, u64);

/// The argument has none of these bits.
fn without(argument: u8, bits: u64) -> Comparison {
    masked(argument, bits, 0)
}

/// Of these bits the argument has those of `value`.
fn masked(argument: u8, bits: u64, value: u64) -> Comparison {
    (argument, SeccompCmpOp::MaskedEq(bits), value)
}

fn rule(comparisons: &[Comparison]) -> Result<SeccompRule, SandboxError> {
    let conditions: Result<Vec<_>, _> = comparisons
        .iter()
        .map(|(argument, operator, value)| {
            // All arguments here are numbers of 32 bits; the kernel ignores what is above them.
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
        })
        .collect();
    let rule = conditions.and_then(SeccompRule::new);
    rule.map_err(|cause| SandboxError::Filter(cause.into()))
}

/// One rule for each value that the argument may have.
fn one_of<const COUNT: usize>(argument: u8, values: [i64; COUNT]) -> Result<Vec<SeccompRule>, SandboxError> {
    values
        .into_iter()
        .map(|value| rule(&[(argument, SeccompCmpOp::Eq, value.cast_unsigned())]))
        .collect()
}

#[cfg(test)]
mod tests {
    //! The two lists do not contradict each other.
    use super::*;

    #[test]
    fn no_call_is_both_needed_and_deadly() {
        let allowed = allowed().unwrap();
        assert!(deadly().keys().all(|call| !allowed.contains_key(call)));
    }

    #[test]
    fn a_call_with_a_condition_is_not_allowed_without_it() {
        let allowed = allowed().unwrap();
        for call in [
            libc::SYS_mmap,
            libc::SYS_openat,
            libc::SYS_socket,
            libc::SYS_ioctl,
            libc::SYS_clone,
        ] {
            assert!(!allowed[&call].is_empty());
        }
        for call in [
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_register,
            libc::SYS_clone3,
            libc::SYS_bind,
        ] {
            assert!(!allowed.contains_key(&call));
        }
    }
}
