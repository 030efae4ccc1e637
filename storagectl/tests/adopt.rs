//! The disk of a running QEMU moves into a volume while it is written to. QEMU's own block layer is there without a machine
//! (qemu-storage-daemon): its export is the guest's device, its monitor QEMU's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use test_node::{Node, Process};

/// No whole number of a volume's blocks.
const SIZE: u64 = (64 << 20) + 512;
/// What the guest writes, one after the other and over again, in bytes.
const STRIDE: u64 = 64 << 10;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What qemu-io says of commands on the guest's device.
fn on_device(export: &Path, commands: &[String]) -> String {
    let mut tool = Command::new("qemu-io");
    tool.args(["-f", "raw"]).stdin(Stdio::null());
    for command in commands {
        tool.args(["-c", command]);
    }
    let output = tool
        .arg(format!("nbd+unix:///disk?socket={}", text(export)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!said.contains("verification failed"), "{said}");
    said
}

/// A node with a gateway, and a QEMU whose disk is a file.
struct Bench {
    node: Node,
    gateway: Process,
    qemu: Process,
}

impl Bench {
    fn start() -> Self {
        let node = Node::start(3).unwrap();
        node.storagectl(&["pool", "create", "main"]).unwrap();
        let at = |name: &str| node.folder().join(name);
        let mut gateway = Process::start(
            "storaged-nbd",
            [
                "--storaged",
                &format!("unix:{}", text(&node.session_socket())),
                "--listen",
                &format!("unix:{}", text(&at("nbd.sock"))),
            ],
            &at("storaged-nbd.log"),
        )
        .unwrap();
        gateway.wait_for_socket(&at("nbd.sock")).unwrap();
        std::fs::File::create(at("old.raw"))
            .unwrap()
            .set_len(SIZE)
            .unwrap();
        let mut qemu = Process::start_at(
            Path::new("qemu-storage-daemon"),
            [
                "--blockdev".to_owned(),
                format!("driver=file,node-name=file,filename={}", text(&at("old.raw"))),
                "--blockdev".to_owned(),
                "driver=raw,node-name=disk,file=file".to_owned(),
                "--nbd-server".to_owned(),
                format!("addr.type=unix,addr.path={}", text(&at("device.sock"))),
                "--export".to_owned(),
                "type=nbd,id=device,node-name=disk,name=disk,writable=on".to_owned(),
                "--chardev".to_owned(),
                format!("socket,id=qmp,path={},server=on,wait=off", text(&at("qmp.sock"))),
                "--monitor".to_owned(),
                "chardev=qmp".to_owned(),
            ],
            &at("qemu.log"),
        )
        .unwrap();
        qemu.wait_for_socket(&at("device.sock")).unwrap();
        Self { node, gateway, qemu }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.node.folder().join(name)
    }

    fn adopt(&self, disk: &str, nbd: &str) -> anyhow::Result<String> {
        let (qmp, nbd) = (self.at("qmp.sock"), self.at(nbd));
        let words = [
            "adopt",
            "moved",
            "--qmp",
            text(&qmp),
            "--disk",
            disk,
            "--nbd",
            text(&nbd),
        ];
        self.node.storagectl(&words)
    }
}

#[test]
fn the_disk_of_a_running_qemu_becomes_a_volume_under_its_writes() {
    let mut bench = Bench::start();
    let device = bench.at("device.sock");
    on_device(&device, &["write -q -P 1 0 64M".to_owned()]);
    let stop = AtomicBool::new(false);
    // What the guest wrote last, by place.
    let mut content = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rounds = 0_u64;
            let mut content = vec![1_u8; 1024];
            // At least one round begins when the move is over.
            loop {
                let was_told = stop.load(Ordering::Relaxed);
                let value = u8::try_from(2 + rounds % 200).unwrap();
                let places = (0..8).map(|place| (rounds * 8 + place) % 900);
                let commands = places.flat_map(|place| {
                    content[usize::try_from(place).unwrap()] = value;
                    let offset = place * STRIDE;
                    [
                        format!("write -q -P {value} {offset} {STRIDE}"),
                        format!("read -q -P {value} {offset} {STRIDE}"),
                    ]
                });
                on_device(&device, &commands.collect::<Vec<_>>());
                rounds += 1;
                if was_told {
                    assert!(rounds > 1, "the guest did not write meanwhile");
                    return content;
                }
            }
        });
        let moved = bench.adopt("disk", "nbd.sock");
        stop.store(true, Ordering::Relaxed);
        let content = writer.join().unwrap();
        let said = moved.unwrap();
        assert!(said.contains("old.raw"), "{said}");
        content
    });
    let old = std::fs::read(bench.at("old.raw")).unwrap();
    on_device(
        &device,
        &["write -q -P 0xee 0 64k".to_owned(), "flush".to_owned()],
    );
    assert_eq!(
        std::fs::read(bench.at("old.raw")).unwrap(),
        old,
        "the old disk is still written to"
    );
    // A gateway that is started anew is waited for.
    bench.gateway.kill().unwrap();
    let socket = bench.at("nbd.sock");
    std::fs::remove_file(&socket).unwrap();
    let session = format!("unix:{}", text(&bench.node.session_socket()));
    let listen = format!("unix:{}", text(&socket));
    bench.gateway = Process::start(
        "storaged-nbd",
        ["--storaged", &session, "--listen", &listen],
        &bench.at("storaged-nbd.log"),
    )
    .unwrap();
    bench.gateway.wait_for_socket(&socket).unwrap();
    on_device(&device, &["read -q -P 0xee 0 64k".to_owned()]);
    content[0] = 0xee;
    let expected = content.iter().enumerate().map(|(place, value)| {
        let offset = u64::try_from(place).unwrap() * STRIDE;
        format!("read -q -P {value} {offset} {STRIDE}")
    });
    on_device(&device, &expected.collect::<Vec<_>>());
    bench.qemu.stop().unwrap();
    // The volume alone holds what the guest wrote last.
    bench.gateway.stop().unwrap();
    let image = bench.at("volume.raw");
    bench.node.storagectl(&["export", "moved", text(&image)]).unwrap();
    let image = std::fs::read(&image).unwrap();
    let places = image.chunks(usize::try_from(STRIDE).unwrap());
    for (place, (bytes, value)) in places.zip(&content).enumerate() {
        assert!(
            bytes.iter().all(|byte| byte == value),
            "place {place} of the volume"
        );
    }
}

#[test]
fn a_move_that_comes_to_nothing_leaves_the_guest_and_no_volume() {
    let mut bench = Bench::start();
    let device = bench.at("device.sock");
    on_device(&device, &["write -q -P 7 0 1M".to_owned()]);
    let refused = bench.adopt("other", "nbd.sock").unwrap_err().to_string();
    assert!(
        refused.contains("there is no one disk") && refused.contains("old.raw"),
        "{refused}"
    );
    let refused = bench.adopt("disk", "nowhere.sock").unwrap_err().to_string();
    assert!(refused.contains("QEMU says no to blockdev-add"), "{refused}");
    assert!(refused.contains("was removed again"), "{refused}");
    let volumes = bench.node.storagectl(&["--json", "volume", "list"]).unwrap();
    assert!(!volumes.contains("moved"), "{volumes}");
    on_device(&device, &["read -q -P 7 0 1M".to_owned()]);
    // And nothing is in the way of the next one.
    bench.adopt("disk", "nbd.sock").unwrap();
    on_device(&device, &["read -q -P 7 0 1M".to_owned()]);
    bench.qemu.stop().unwrap();
    bench.gateway.stop().unwrap();
}
