//! Devices and their names: one a volume, whoever asks how often; and links and sizes that follow the gateway's.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use storaged_attach::care::{self, Pace};
use storaged_attach::handshake::{self, HandshakeError};
use storaged_attach::kernel::{Kernel as _, Owner};
use storaged_attach::mapping::MapError;
use storaged_attach::nbd::DeadLink;
use tokio::sync::{mpsc, oneshot};

use crate::gateway::{Gateway, Machine, SIZE, wait_for};

#[test]
fn a_gateway_says_what_an_export_is_and_why_there_is_none() {
    let machine = Machine::new();
    let at = machine.mapper.gateway.clone();
    let away = handshake::describe(&at, "disk").unwrap_err();
    assert!(matches!(away, HandshakeError::Away { .. }), "{away}");
    let _gateway = machine.gateway();
    assert_eq!(handshake::describe(&at, "disk").unwrap().size, SIZE);
    let (_link, opened) = handshake::open(&at, "disk").unwrap();
    assert_eq!(opened.size, SIZE);
    let none = handshake::open(&at, "nothing").err().unwrap();
    assert!(none.to_string().contains("no export \"nothing\""), "{none}");
}

#[test]
fn who_is_no_gateway_is_told_from_one_that_is_away() {
    let machine = Machine::new();
    let listener = UnixListener::bind(machine.socket()).unwrap();
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"220 mail.example ESMTP ready, who are you?")
            .unwrap();
    });
    let error = handshake::describe(&machine.mapper.gateway, "disk").unwrap_err();
    assert!(matches!(error, HandshakeError::Stranger(_)), "{error}");
    stranger.join().unwrap();
}

#[test]
fn a_volume_is_one_device_however_often_it_is_asked_for() {
    let machine = Machine::new();
    let _gateway = machine.gateway();
    let mapper = &machine.mapper;
    let first = mapper.map("disk", Owner::Host, false).unwrap();
    assert_eq!(fs::read_link(&first.path).unwrap(), Path::new("/dev/nbd0"));
    assert_eq!(mapper.map("disk", Owner::Host, false).unwrap(), first);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| mapper.map("other", Owner::Host, true).unwrap());
        }
    });
    assert_eq!(machine.volumes(), ["storaged:host:disk", "storaged:host:other"]);
    let differs = mapper.map("other", Owner::Host, false).unwrap_err();
    assert!(
        matches!(differs, MapError::Differs { read_only: true, .. }),
        "{differs}"
    );
}

#[test]
fn what_one_owner_made_another_one_neither_takes_nor_ends_unless_by_force() {
    let machine = Machine::new();
    let _gateway = machine.gateway();
    let mapper = &machine.mapper;
    let mapped = mapper.map("disk", Owner::Cloud, false).unwrap();
    let taken = mapper.map("disk", Owner::Host, false).unwrap_err();
    assert!(taken.to_string().contains("made by OpenStack"), "{taken}");
    assert!(matches!(
        mapper.unmap("disk", Owner::Host, false),
        Err(MapError::Taken { .. })
    ));
    mapper.unmap("disk", Owner::Host, true).unwrap();
    assert!(machine.volumes().is_empty() && fs::read_link(&mapped.path).is_err());
}

#[test]
fn what_is_in_use_stays_and_keeps_its_name() {
    let machine = Machine::new();
    let _gateway = machine.gateway();
    let mapped = machine.mapper.map("disk", Owner::Host, false).unwrap();
    machine.kernel.set_used(mapped.device.index, true);
    let used = machine.mapper.unmap("disk", Owner::Host, false).unwrap_err();
    assert!(matches!(used, MapError::InUse(_)), "{used}");
    assert!(fs::read_link(&mapped.path).is_ok());
    machine.kernel.set_used(mapped.device.index, false);
    machine.mapper.unmap("disk", Owner::Host, false).unwrap();
    assert!(fs::read_link(&mapped.path).is_err());
    let gone = machine.mapper.unmap("disk", Owner::Host, false).unwrap_err();
    assert!(matches!(gone, MapError::NotMapped(_)), "{gone}");
}

#[test]
fn names_are_made_as_the_devices_are_after_a_crash() {
    let machine = Machine::new();
    let _gateway = machine.gateway();
    let mapped = machine.mapper.map("disk", Owner::Host, false).unwrap();
    fs::remove_file(&mapped.path).unwrap();
    let stale = machine.mapper.folder.join("other");
    std::os::unix::fs::symlink("/dev/nbd7", &stale).unwrap();
    machine.mapper.settle_names().unwrap();
    assert_eq!(fs::read_link(&mapped.path).unwrap(), Path::new("/dev/nbd0"));
    assert!(fs::read_link(&stale).is_err());
}

#[test]
fn a_name_that_is_none_is_refused_before_anything_is_done() {
    let machine = Machine::new();
    for wrong in ["", "../x", "a/b", ".hidden"] {
        let error = machine.mapper.map(wrong, Owner::Host, false).unwrap_err();
        assert!(matches!(error, MapError::Name(_)), "{wrong}: {error}");
    }
}

/// Devices are cared for at this pace as long as it lives.
struct Caring {
    thread: Option<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
    tell: mpsc::Sender<DeadLink>,
}

impl Caring {
    fn begin(machine: &Machine, pace: Pace) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (tell, dead_links) = mpsc::channel(8);
        let mapper = machine.mapper.clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = care::run(mapper, dead_links, pace) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            thread: Some(thread),
            stop: Some(stop),
            tell,
        }
    }
}

impl Drop for Caring {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_device_gets_another_link_and_grows_when_the_gateway_is_back() {
    let machine = Machine::new();
    let first = machine.gateway();
    // What is not told is not found out.
    let pace = Pace {
        offer: Duration::from_hours(1),
        ..Pace::default()
    };
    let caring = Caring::begin(&machine, pace);
    let mapped = machine.mapper.map("disk", Owner::Host, false).unwrap();
    drop(first);
    // Whether it is cared for yet or not, its link is found dead.
    caring
        .tell
        .blocking_send(DeadLink::Of(mapped.device.index))
        .unwrap();
    let _second = Gateway::start(&machine.socket(), 2 * SIZE);
    wait_for("another link", || (machine.kernel.relinked() == 1).then_some(()));
    wait_for("the device to grow", || {
        let mapped = machine.mapper.list().unwrap();
        (mapped[0].device.size == 2 * SIZE).then_some(())
    });
}

/// A run in CI stood still for minutes: its device's link was dead, and no other one came.
#[test]
fn a_device_whose_link_died_unheard_gets_another_one_all_the_same() {
    let machine = Machine::new();
    let first = Gateway::start(&machine.socket(), 2 * SIZE);
    let mapped = machine.mapper.map("disk", Owner::Host, false).unwrap();
    machine.kernel.resize(&mapped.device, SIZE).unwrap();
    let pace = Pace {
        look: Duration::from_millis(10),
        offer: Duration::from_millis(100),
    };
    let _caring = Caring::begin(&machine, pace);
    // Its first link was found alive by then.
    wait_for("the device to grow", || {
        let mapped = machine.mapper.list().unwrap();
        (mapped[0].device.size == 2 * SIZE).then_some(())
    });
    drop(first);
    let _second = machine.gateway();
    wait_for("another link", || (machine.kernel.relinked() == 1).then_some(()));
}
