//! Wishes in a store become devices, and their ends; one that cannot be is told, and keeps no other one waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use coordination::attach::{AgentRecord, HaveRecord, Host, WantRecord, Way};
use coordination::records::{decode, encode};
use coordination::{Coordination, Embedded, Transaction};
use storaged_attach::agent::{Agent, AgentError};
use storaged_attach::kernel::Owner;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::gateway::{Machine, wait_for};

/// A store, and how a cloud writes into it.
struct Cloud {
    runtime: Runtime,
    store: Arc<Embedded>,
    host: Host,
}

impl Cloud {
    fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            store: Arc::new(Embedded::in_memory().unwrap()),
            host: Host::new("compute").unwrap(),
        }
    }

    fn want(&self, volume: &str) {
        self.want_as(volume, WantRecord::default());
    }

    fn want_as(&self, volume: &str, want: WantRecord) {
        let wish = Transaction::new().put(self.host.want(volume), encode(&want).unwrap());
        self.runtime.block_on(self.store.commit(wish)).unwrap();
    }

    fn forget(&self, volume: &str) {
        let none = Transaction::new().delete(self.host.want(volume));
        self.runtime.block_on(self.store.commit(none)).unwrap();
    }

    fn have(&self, volume: &str) -> Option<HaveRecord> {
        let entry = self.runtime.block_on(self.store.get(&self.host.have(volume)));
        entry.unwrap().map(|entry| decode(&entry).unwrap())
    }

    /// An agent of a machine, as a thread.
    fn agent(&self, machine: &Machine) -> Running {
        let agent = Agent {
            host: self.host.clone(),
            boot: "this one".to_owned(),
            mapper: machine.mapper.clone(),
            sockets: machine.sockets.clone(),
            store: self.store.clone(),
        };
        let ready = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = oneshot::channel::<()>();
        let is_ready = ready.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    ended = agent.run(move || is_ready.store(true, Ordering::SeqCst)) => ended,
                    _ = stopped => Ok(()),
                }
            })
        });
        Running {
            ready,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

/// An agent that runs. Ends when dropped.
struct Running {
    ready: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), AgentError>>>,
}

impl Running {
    fn wait_until_ready(&self) {
        wait_for("the agent to be ready", || {
            self.ready.load(Ordering::SeqCst).then_some(())
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(Ok(())))));
    }
}

#[test]
fn what_is_wanted_comes_and_goes_and_the_store_says_so() {
    let cloud = Cloud::new();
    let machine = Machine::new();
    let _gateway = machine.gateway();
    let agent = cloud.agent(&machine);
    agent.wait_until_ready();
    cloud.want("disk");
    let path = wait_for("the volume", || cloud.have("disk")?.path);
    assert_eq!(path, machine.mapper.folder.join("disk").display().to_string());
    assert_eq!(machine.volumes(), ["storaged:cloud:disk"]);
    let device = machine.mapper.list().unwrap().remove(0).device;
    machine.kernel.set_used(device.index, true);
    cloud.forget("disk");
    let trouble = wait_for("a word on what is in use", || cloud.have("disk")?.trouble);
    assert!(trouble.contains("in use"), "{trouble}");
    machine.kernel.set_used(device.index, false);
    wait_for("the end of it", || cloud.have("disk").is_none().then_some(()));
    assert!(machine.volumes().is_empty());
}

#[test]
fn a_volume_that_does_not_come_is_told_and_the_others_come() {
    let cloud = Cloud::new();
    let machine = Machine::new();
    let _gateway = machine.gateway();
    let _agent = cloud.agent(&machine);
    cloud.want("nothing");
    cloud.want("other");
    let trouble = wait_for("a reason", || cloud.have("nothing")?.trouble);
    assert!(trouble.contains("no export"), "{trouble}");
    wait_for("the other one", || cloud.have("other")?.path);
    cloud.forget("nothing");
    wait_for("the end of the reason", || {
        cloud.have("nothing").is_none().then_some(())
    });
}

#[test]
fn an_agent_that_starts_brings_what_is_wanted_and_ends_what_is_not_before_it_is_ready() {
    let cloud = Cloud::new();
    let machine = Machine::new();
    let _gateway = machine.gateway();
    machine.mapper.map("other", Owner::Cloud, false).unwrap();
    cloud.want("disk");
    let agent = cloud.agent(&machine);
    agent.wait_until_ready();
    assert_eq!(machine.volumes(), ["storaged:cloud:disk"]);
    assert!(cloud.have("disk").unwrap().path.is_some());
    drop(agent);
    // Another one finds it, and what was made by hand is nobody's wish.
    machine.mapper.map("other", Owner::Host, false).unwrap();
    let again = cloud.agent(&machine);
    again.wait_until_ready();
    let mut there = machine.volumes();
    there.sort();
    assert_eq!(there, ["storaged:cloud:disk", "storaged:host:other"]);
}

#[test]
fn an_agent_waits_for_the_word_of_a_namesake_to_lapse() {
    let cloud = Cloud::new();
    let machine = Machine::new();
    let _gateway = machine.gateway();
    let other = encode(&AgentRecord {
        boot: "another one".to_owned(),
        version: "0".to_owned(),
        vhost_user: false,
    });
    let lease = cloud
        .runtime
        .block_on(cloud.store.grant_lease(std::time::Duration::from_hours(1)))
        .unwrap();
    let word = Transaction::new().put_leased(cloud.host.agent(), other.unwrap(), lease);
    cloud.runtime.block_on(cloud.store.commit(word)).unwrap();
    cloud.want("disk");
    let agent = cloud.agent(&machine);
    // It looks again and again; meanwhile the namesake has the volume.
    assert!(machine.volumes().is_empty() && !agent.ready.load(Ordering::SeqCst));
    cloud.runtime.block_on(cloud.store.revoke_lease(lease)).unwrap();
    agent.wait_until_ready();
    assert_eq!(machine.volumes(), ["storaged:cloud:disk"]);
}

fn a_socket() -> WantRecord {
    WantRecord {
        way: Way::VhostUser,
        ..WantRecord::default()
    }
}

#[test]
fn a_guest_s_socket_is_systemd_s_business_and_goes_with_the_wish() {
    let cloud = Cloud::new();
    let machine = Machine::with_sockets();
    let agent = cloud.agent(&machine);
    agent.wait_until_ready();
    cloud.want_as("disk", a_socket());
    let path = wait_for("the socket", || cloud.have("disk")?.path);
    let sockets = machine.sockets.clone().unwrap();
    assert_eq!(path, sockets.sockets.join("disk.sock").display().to_string());
    let units = "storaged-vhost-blk@disk.socket storaged-vhost-blk@disk.service";
    let started = format!("--no-ask-password --quiet start {units}");
    assert_eq!(machine.told().join("\n"), started);
    let options = std::fs::read_to_string(sockets.options.join("disk.conf")).unwrap();
    assert_eq!(options, "VHOST_BLK_WISH=--incoming\n");
    assert!(machine.volumes().is_empty());
    // Another agent finds it, and ends it when it is not wanted.
    drop(agent);
    cloud.forget("disk");
    let again = cloud.agent(&machine);
    again.wait_until_ready();
    wait_for("the end of it", || cloud.have("disk").is_none().then_some(()));
    let stopped = format!("--no-ask-password --quiet stop {units}");
    assert_eq!(machine.told(), [started, stopped]);
    assert!(sockets.list().unwrap().is_empty());
}

#[test]
fn how_a_socket_takes_the_volume_is_said_at_its_start_and_a_device_of_it_is_ended_before() {
    let cloud = Cloud::new();
    let machine = Machine::with_sockets();
    let _gateway = machine.gateway();
    let agent = cloud.agent(&machine);
    agent.wait_until_ready();
    cloud.want("disk");
    let device = wait_for("the device", || cloud.have("disk")?.path);
    cloud.want_as("disk", a_socket());
    wait_for("the socket", || {
        cloud.have("disk")?.path.filter(|path| *path != device)
    });
    assert!(machine.volumes().is_empty());
    let only = WantRecord {
        read_only: true,
        ..a_socket()
    };
    cloud.want_as("disk", only);
    let file = machine.sockets.clone().unwrap().options.join("disk.conf");
    wait_for("other options", || {
        let options = std::fs::read_to_string(&file).ok()?;
        (options == "VHOST_BLK_WISH=--incoming --read-only\n").then_some(())
    });
    wait_for("a start after the end", || {
        (machine.told().len() == 3).then_some(())
    });
    let verbs: Vec<_> = machine
        .told()
        .iter()
        .map(|line| line.split(' ').nth(2).unwrap().to_owned())
        .collect();
    assert_eq!(verbs, ["start", "stop", "start"]);
}

#[test]
fn what_systemd_says_reaches_whoever_wanted_the_socket_and_it_is_tried_again() {
    let cloud = Cloud::new();
    let machine = Machine::with_sockets();
    machine.refuse(Some("Job for storaged-vhost-blk@disk.service failed."));
    let agent = cloud.agent(&machine);
    agent.wait_until_ready();
    cloud.want_as("disk", a_socket());
    let trouble = wait_for("a reason", || cloud.have("disk")?.trouble);
    assert!(
        trouble.contains("Job for storaged-vhost-blk@disk.service failed"),
        "{trouble}"
    );
    machine.refuse(None);
    wait_for("the socket", || cloud.have("disk")?.path);
}

#[test]
fn a_host_that_makes_no_sockets_says_how_it_would() {
    let cloud = Cloud::new();
    let machine = Machine::new();
    let agent = cloud.agent(&machine);
    agent.wait_until_ready();
    cloud.want_as("disk", a_socket());
    let trouble = wait_for("a reason", || cloud.have("disk")?.trouble);
    assert!(trouble.contains("--vhost-user"), "{trouble}");
}
