//! A disk that is much slower than its peers, in a process of its own: tests beside it would slow the peers, too.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;

use admin_api::status::Status;
use serde_json::Value;
use test_node::process::Signal;
use test_node::{Node, Process};

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../cluster/guest.rs"]
mod guest;

use guest::{LIMIT, ask, fill, open, run_for, until_told, value};

const MIB: u64 = 1 << 20;

/// Makes a disk's thread wait at each system call of its ring: its medium is slow from then on.
fn slow_down(node: &Node, disk: u32) -> Process {
    let tasks = format!("/proc/{}/task", node.storaged().id());
    let named = |task: &Path| {
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        name.trim() == format!("disk-{disk}")
    };
    let mut tasks = std::fs::read_dir(tasks)
        .unwrap()
        .flatten()
        .map(|task| task.path());
    let thread = tasks.find(|task| named(task)).unwrap();
    let thread = thread.file_name().unwrap().to_str().unwrap().to_owned();
    let delay = "--inject=io_uring_enter:delay_enter=30ms";
    let arguments = [
        "--trace=io_uring_enter",
        delay,
        "--quiet=all",
        "--output=/dev/null",
        "-p",
        &thread,
    ];
    let log = node.folder().join("strace.log");
    let strace = Path::new("/usr/bin/strace");
    assert!(strace.exists(), "strace is needed");
    Process::start_at(strace, arguments, &log).unwrap()
}

#[test]
fn a_disk_a_hundred_times_slower_than_its_peers_is_put_out_and_stays_out_until_it_is_trusted() {
    run_for(2 * LIMIT, async {
        // Windows of three seconds: the slow disk must do some operations in each. The disks are in memory: on a
        // machine whose disk takes 6 ms for a flush, because someone else writes to it, a disk that takes 60 ms is not
        // ten times slower than its peers for as long as that lasts, and the test waited in vain.
        let configuration = "direct_reads = false\n[slow_disks]\nseconds = 18\nfactor = 10\n";
        let node = Node::in_memory(3, configuration).unwrap();
        let _: Value = ask(&node, "pool create main --copies 3 --groups 4").await;
        let _: Value = ask(&node, "volume create a 4M").await;
        let device = open(&node, "a").await;
        let slow = slow_down(&node, 2);
        let told = async {
            until_told(
                &node,
                "disk-2 was taken out of 4 placement groups because it is slow: half of its log writes take",
            )
            .await;
        };
        let guest = async {
            loop {
                fill(&device, 0, 4096, 3).await;
            }
        };
        tokio::select! {
            () = told => {}
            () = guest => {}
        }
        let status: Status = ask(&node, "status").await;
        let told = status.reasons.join("\n");
        assert!(
            told.contains("disk-2 was taken out of its groups once because it is slow"),
            "{told}"
        );
        assert!(told.contains("it may come back in 10 min"), "{told}");
        // Fast again: nobody waits for it.
        fill(&device, MIB, 1 << 20, 4).await;
        slow.signal(Signal::TERM).unwrap();
        drop(slow);
        let _: Value = ask(&node, "disk trust 2").await;
        until_told(&node, "disk-2 is in sync in all its placement groups").await;
        assert_eq!(value(&device, MIB, MIB).await, 4);
        device.close().await;
    });
}
