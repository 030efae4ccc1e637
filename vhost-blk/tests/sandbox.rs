//! What the process gives up, seen from outside: calls that fail or end it, memory that is in no core dump, and
//! rights that it never needed.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that it did not expect"
)]

#[path = "program/driver.rs"]
mod driver;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use driver::{Driver, Server, command, pattern, wait};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

/// What a call says that is not let through.
const REFUSED: &str = "os error 38";

/// Lets the program do something that the sandbox is about.
fn probe(mode: &str, what: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vhost.sock");
    let mut command = command(&socket, &["--seccomp", mode, "--probe", what]);
    command.env("TMPDIR", directory.path());
    command.stderr(Stdio::piped()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_call_that_is_not_needed_fails_and_the_process_lives() {
    for what in [
        "create-file",
        "listen",
        "netlink",
        "control",
        "unlock",
        "executable-memory",
    ] {
        let output = probe("enforce", what);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", said(&output));
        assert!(said(&output).contains(REFUSED), "{what}: {}", said(&output));
        // The same call is a good one where nothing forbids it, so it is the filter that was seen.
        let free = probe("off", what);
        assert!(!said(&free).contains(REFUSED), "{what}: {}", said(&free));
    }
}

#[test]
fn a_call_that_only_an_intruder_makes_ends_the_process() {
    let output = probe("enforce", "execute");
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{}", said(&output));
    assert!(probe("off", "execute").status.success());
}

#[test]
fn what_the_process_may_need_later_is_let_through() {
    for what in ["thread", "read-file"] {
        let output = probe("enforce", what);
        assert!(output.status.success(), "{what}: {}", said(&output));
    }
    let output = probe("enforce", "abort");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", said(&output));
}

#[test]
fn in_log_mode_everything_is_carried_out() {
    for what in ["create-file", "execute"] {
        let output = probe("log", what);
        assert!(output.status.success(), "{what}: {}", said(&output));
    }
}

/// A line of a process's or a thread's status.
fn status(folder: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(folder.join("status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

#[test]
fn all_threads_are_filtered_and_none_can_get_new_privileges() {
    let server = Server::start_controlled(&[]);
    // A front end has been served, so the control thread is there, too.
    drop(Driver::connect(&server.socket, 1));
    let tasks = format!("/proc/{}/task", server.child.id());
    let threads: Vec<_> = std::fs::read_dir(tasks)
        .unwrap()
        .map(|task| task.unwrap().path())
        .collect();
    assert!(
        threads.len() >= 3,
        "data, control and operator thread: {threads:?}"
    );
    for thread in threads {
        assert_eq!(status(&thread, "Seccomp"), "2", "{}", thread.display());
        assert_eq!(status(&thread, "NoNewPrivs"), "1", "{}", thread.display());
    }
}

#[test]
fn a_core_dump_holds_nothing_of_the_guests_memory() {
    let marker = pattern(77, 4096);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vhost.sock");
    let mut child = command(&socket, &[])
        .current_dir(directory.path())
        .spawn()
        .unwrap();
    driver::await_socket(&socket);
    let mut driver = Driver::connect(&socket, 1);
    // In the guest's memory, not on the device.
    driver.fill(1 << 20, &marker);
    assert_eq!(driver.write(0, 0, &pattern(1, 4096)), 0);

    let pid = Pid::from_child(&child);
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let filter = std::fs::read_to_string(format!("/proc/{}/coredump_filter", child.id())).unwrap();
    let filter = u32::from_str_radix(filter.trim(), 16).unwrap();
    assert_eq!(
        filter & 0b1100_1010,
        0,
        "mappings that are shared stay out: {filter:#x}"
    );
    let pattern_file = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    // Where a program takes core dumps in, or the limit is not ours to raise, the filter must do.
    if pattern_file.trim() != "core" || prlimit(Some(pid), Resource::Core, unlimited).is_err() {
        child.kill().unwrap();
        child.wait().unwrap();
        return;
    }
    kill_process(pid, Signal::ABORT).unwrap();
    let ended = wait(&mut child);
    assert!(ended.core_dumped(), "{ended:?}");
    let core = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("core"))
        .unwrap();
    let core = std::fs::read(core).unwrap();
    // What the process itself holds is there, so the dump is a real one.
    let holds = |wanted: &[u8]| core.windows(wanted.len()).any(|window| window == wanted);
    assert!(
        holds(socket.to_str().unwrap().as_bytes()),
        "the program's own memory"
    );
    assert!(!holds(&marker[..256]), "the guest's memory is in the core dump");
}

#[test]
fn memory_is_locked_if_asked_for() {
    let server = Server::start(&["--lock-memory"]);
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 65536)), 0);
    let process = format!("/proc/{}", server.child.id());
    assert_ne!(status(Path::new(&process), "VmLck"), "0 kB");
}

/// The program's file where every user can read it, to be run as nobody if this is root.
fn unprivileged(directory: &Path, prefix: &[&str]) -> Command {
    let program = driver::program_for_everybody(directory);
    let words: Vec<&str> = if rustix::process::geteuid().is_root() {
        // Nobody's socket is in a directory of nobody's.
        std::os::unix::fs::chown(directory, Some(65534), Some(65534)).unwrap();
        let setpriv = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ];
        prefix.iter().copied().chain(setpriv).collect()
    } else {
        prefix.to_vec()
    };
    let mut words = words
        .into_iter()
        .map(std::ffi::OsStr::new)
        .chain([program.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null());
    command
}

#[test]
fn a_limit_that_is_too_low_for_locked_memory_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = unprivileged(directory.path(), &["prlimit", "--memlock=65536:65536"]);
    let socket = directory.path().join("vhost.sock");
    let output = command
        .args(["--memory", "1048576", "--lock-memory", "--socket"])
        .arg(socket)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = said(&output);
    assert!(
        said.contains("65536 bytes") && said.contains("LimitMEMLOCK"),
        "{said}"
    );
}

#[test]
fn an_unprivileged_user_serves_a_guest() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vhost.sock");
    let child = unprivileged(directory.path(), &[])
        .args(["--memory", &driver::SIZE.to_string(), "--socket"])
        .arg(&socket)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server {
        child,
        socket,
        directory,
    };
    driver::await_socket(&server.socket);
    let mut driver = Driver::connect(&server.socket, 1);
    assert_eq!(driver.write(0, 0, &pattern(1, 65536)), 0);
    assert!(driver.read(0, 0, 65536) == (0, pattern(1, 65536)));
    let process = format!("/proc/{}", server.child.id());
    assert_eq!(status(Path::new(&process), "CapEff"), "0000000000000000");
}
