//! Wishes in a store become devices, and their ends; one that cannot be is told, and keeps no other one waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use coordination::attach::{AgentRecord, HaveRecord, Host, WantRecord};
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
        let record = encode(&WantRecord::default()).unwrap();
        let wish = Transaction::new().put(self.host.want(volume), record);
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
