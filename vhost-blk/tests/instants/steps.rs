//! A process that is run one instruction after the other, with a look at the memory after each.

use std::io::Write as _;
use std::process::{Child, Command};

use crate::machine::{FOLDER, Machine, Script, State};

/// What the process is to do.
const SCRIPT: &str = "VHOST_BLK_INSTANTS_SCRIPT";
/// More than any script takes; a process that goes on for longer runs in a circle.
const STEPS_MAX: u64 = 20_000_000;

/// The script that this process was started for, if it is one that is stepped through.
pub(crate) fn script_of_this_process() -> Option<Script> {
    match std::env::var(SCRIPT).ok()?.as_str() {
        "work" => Some(Script::Work),
        _ => Some(Script::Succeed),
    }
}

/// Waits until the parent has this process in its hand.
pub(crate) fn stop() {
    // SAFETY: it asks the kernel to let the parent trace this process, and touches no memory.
    let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    assert_eq!(traced, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a stop signal to this thread; no handler of ours runs.
    assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);
}

/// Runs a script on the machine, and gives each state that its memory was in.
#[expect(
    clippy::zombie_processes,
    reason = "who steps through a process sees its end before anybody else could wait for it"
)]
pub(crate) fn through(machine: &Machine, script: Script) -> Vec<State> {
    let word = if script == Script::Work { "work" } else { "succeed" };
    let child = Command::new(std::env::current_exe().unwrap())
        .env(FOLDER, &machine.folder)
        .env(SCRIPT, word)
        .spawn()
        .unwrap();
    let mut states = vec![machine.state()];
    let mut steps = 0;
    while step(&child, steps == 0) {
        let state = machine.state();
        if states.last() != Some(&state) {
            states.push(state);
        }
        steps += 1;
        assert!(steps < STEPS_MAX, "the process does not end");
    }
    print!("{steps} steps, {} states; ", states.len());
    std::io::stdout().flush().unwrap();
    states
}

/// Waits until the process stands still, and lets it do one instruction. False when it has ended.
fn step(child: &Child, first: bool) -> bool {
    let pid = i32::try_from(child.id()).unwrap();
    if first {
        assert!(libc::WIFSTOPPED(wait(pid)), "the process stops before it begins");
    }
    // SAFETY: the process is our child, traced by its own wish, and stands still.
    let stepped = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0) };
    assert_eq!(stepped, 0, "{}", std::io::Error::last_os_error());
    let status = wait(pid);
    if libc::WIFSTOPPED(status) {
        return true;
    }
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "{status:#x}"
    );
    false
}

fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status is written to a place of its own.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "{}", std::io::Error::last_os_error());
    status
}
