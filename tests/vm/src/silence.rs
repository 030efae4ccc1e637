//! What can be found out about a guest that has not answered: whether its serial line, its QEMU or the whole machine
//! stands still. It mends nothing and knows no scenario.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::console::Console;
use crate::qmp::Qmp;

/// A report on the QEMU of this process, whose monitor and whose guest's console these are.
pub(crate) fn report(qemu: u32, monitor: &Path, console: &mut Console) -> String {
    let mut report = format!(
        "QEMU's threads, with what they wait for in the kernel:\n{}",
        threads(qemu)
    );
    let _ = match Qmp::connect(monitor).and_then(|mut monitor| monitor.execute("query-status", &json!({}))) {
        Ok(status) => writeln!(report, "QEMU's monitor answers: {status}"),
        Err(cause) => writeln!(report, "QEMU's monitor does not answer: {cause:#}"),
    };
    // A guest that has lost a part of its command takes this for the end of the line.
    let _ = match console.nudge() {
        Ok(text) => writeln!(report, "after an empty line the guest says: {text}"),
        Err(cause) => writeln!(report, "nor does the guest answer an empty line: {cause:#}"),
    };
    report
}

fn threads(process: u32) -> String {
    let mut text = String::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
        return "(there is no such process)\n".to_owned();
    };
    for task in tasks.flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let status = read("status");
        let state = status
            .lines()
            .find(|line| line.starts_with("State:"))
            .unwrap_or("");
        let _ = writeln!(
            text,
            "{} {state} {} {}",
            read("comm").trim(),
            read("wchan"),
            read("syscall").trim()
        );
    }
    text
}
