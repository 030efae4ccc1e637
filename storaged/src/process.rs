//! Processes of this machine by their numbers, and whether a number means the same to another process.

use rustix::process::{Pid, test_kill_process};

/// Whether no process of this number is there. Zero is nobody's number.
pub fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// The world of process numbers that this process lives in: this boot of this kernel, and the namespace of
/// numbers. Empty if the system does not say; then it is like no other.
pub fn world() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    //! A process that ended is told from one that lives, by its number.
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_that_ended_is_gone_and_this_one_is_not() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(is_gone(pid));
        assert!(!is_gone(std::process::id()));
        assert!(!is_gone(0));
        assert!(!world().is_empty());
    }
}
