//! Attachments by hosts' agents, of the kinds `local` and `vhostuser`: what the API writes is what agents make, over a gateway
//! or a vhost-blk that are there. The agents are real, but for the kernel: this machine's has no NBD client (`tests/vm` has
//! hosts with one), and for systemd.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coordination::attach::{Host, WANTS};
use coordination::etcd::Options;
use coordination::{Coordination, Etcd};
use serde_json::{Value, json};
use storaged_attach::agent::{Agent, AgentError};
use storaged_attach::mapping::Mapper;
use storaged_attach::memory::MemoryKernel;
use storaged_attach::sockets::Sockets;
use storaged_nbd::address::ListenAddress;
use test_node::{Process, program};
use test_openstack::http::Method;
use tokio::sync::oneshot;

use crate::cloud::{Api, Cloud, User};

/// How long an agent may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The prefix that both sides have if nobody says another one.
const PREFIX: &str = "/openstack-attach";

/// A host with an agent, which ends with this value.
struct Compute {
    name: &'static str,
    mapper: Mapper,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), AgentError>>>,
}

impl Compute {
    /// One whose gateway listens at this socket.
    fn start(cloud: &Cloud, name: &'static str, gateway: &Path) -> Self {
        Self::start_with(cloud, name, gateway, None)
    }

    /// One that makes sockets for guests, too, maybe.
    fn start_with(cloud: &Cloud, name: &'static str, gateway: &Path, sockets: Option<Sockets>) -> Self {
        let mut mapper = Mapper::new(
            Arc::new(MemoryKernel::default()),
            ListenAddress::Unix(gateway.to_owned()),
        );
        mapper.folder = cloud.folder().join(name);
        let options = options(cloud);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let devices = mapper.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let agent = Agent {
                    host: Host::new(name).unwrap(),
                    boot: name.to_owned(),
                    mapper: devices,
                    sockets,
                    store: Arc::new(Etcd::connect(&options).await.unwrap()),
                };
                tokio::select! {
                    ended = agent.run(move || ready.send(()).unwrap()) => ended,
                    _ = stopped => Ok(()),
                }
            })
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self {
            name,
            mapper,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// What its devices are of.
    fn volumes(&self) -> Vec<String> {
        let mapped = self.mapper.list().unwrap();
        let exports = mapped.iter().map(|mapped| mapped.device.tag.export.to_string());
        exports.collect()
    }

    /// Asks for an attachment on this host.
    fn attach(&self, user: &User, api: &Api, volume: &str) -> (u16, Value) {
        attach(user, api, volume, self.name)
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(Ok(())))));
    }
}

fn options(cloud: &Cloud) -> Options {
    Options {
        prefix: PREFIX.to_owned(),
        ..Options::plain(cloud.etcd.endpoints())
    }
}

fn attach(user: &User, api: &Api, volume: &str, host: &str) -> (u16, Value) {
    let connector = json!({"host": host, "initiator": format!("iqn.2026-11.test:{host}")});
    let wanted = json!({"attachment": {"volume_uuid": volume, "connector": connector}});
    let answer = user.send(api, Method::POST, "/attachments", wanted);
    (answer.status, answer.body)
}

/// The server has the volume.
fn complete(user: &User, api: &Api, attachment: &Value) {
    let id = attachment["attachment"]["id"].as_str().unwrap();
    let complete = json!({"os-complete": {}});
    let done = user.send(api, Method::POST, &format!("/attachments/{id}/action"), complete);
    assert_eq!(done.status, 204, "{}", done.text);
}

/// Deletes a volume, and waits until it is gone.
fn delete(user: &User, api: &Api, volume: &str) {
    let deleted = user.ask(api, Method::DELETE, &format!("/volumes/{volume}"));
    assert_eq!(deleted.status, 202, "{}", deleted.text);
    user.wait_until_gone(api, volume);
}

fn detach(user: &User, api: &Api, attachment: &Value) -> u16 {
    let id = attachment["attachment"]["id"].as_str().unwrap();
    user.ask(api, Method::DELETE, &format!("/attachments/{id}"))
        .status
}

fn gateway(cloud: &Cloud, socket: &Path) -> Process {
    let words = [
        "--storaged".to_owned(),
        cloud.node.session_socket().display().to_string(),
        "--listen".to_owned(),
        format!("unix:{}", socket.display()),
        "--shared".to_owned(),
    ];
    let mut process = Process::start("storaged-nbd", words, &cloud.folder().join("nbd.log")).unwrap();
    process.wait_for_socket(socket).unwrap();
    process
}

/// A type whose volumes are block devices of hosts, and may be on several.
fn make_local_type(admin: &User, api: &Api) {
    let specs = json!({"storaged:connection": "local", "multiattach": "<is> True"});
    make_type(admin, api, "local", &specs);
}

fn make_type(admin: &User, api: &Api, name: &str, specs: &Value) {
    let kind = json!({"volume_type": {"name": name, "extra_specs": specs}});
    let made = admin.send(api, Method::POST, "/types", kind);
    assert_eq!(made.status, 200, "{}", made.text);
}

fn make_volume(user: &User, api: &Api) -> String {
    let wanted = json!({"volume": {"size": 1, "volume_type": "local"}});
    let made = user.send(api, Method::POST, "/volumes", wanted);
    assert_eq!(made.status, 202, "{}", made.text);
    let id = made.body["volume"]["id"].as_str().unwrap().to_owned();
    user.wait(api, &id, "available");
    id
}

/// A systemd of its own for the units of vhost-blk: starts one with the options that the agent has written, and ends it. Like
/// the real one it comes back when that is done.
fn sockets(cloud: &Cloud) -> Sockets {
    let folder = cloud.folder();
    let systemctl = folder.join("systemctl");
    let script = format!(
        "#!/bin/sh\nset -eu\nverb=$3\nvolume=${{4#storaged-vhost-blk@}}\nvolume=${{volume%.socket}}\ncd {folder}\n\
         if [ -e $volume.pid ]; then pid=$(cat $volume.pid); kill $pid\n\
         while grep -qs '^State:.[^Z]' /proc/$pid/status; do sleep 0.05; done; rm $volume.pid; fi\n\
         [ $verb = start ] || exit 0\n. ./options/$volume.conf\n\
         {vhost} --storaged {storaged} --volume $volume --socket ./$volume.sock $VHOST_BLK_WISH >vhost.log 2>&1 &\n\
         echo $! >$volume.pid\n\
         until [ -S $volume.sock ]; do kill -0 $!; done\n",
        folder = folder.display(),
        vhost = program("vhost-blk").unwrap().display(),
        storaged = cloud.node.session_socket().display(),
    );
    fs::write(&systemctl, script).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    Sockets {
        systemctl,
        options: folder.join("options"),
        sockets: folder.to_owned(),
    }
}

/// What is wanted of any host.
fn wishes(cloud: &Cloud) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let entries = runtime.block_on(async {
        let store = Etcd::connect(&options(cloud)).await.unwrap();
        store.range(WANTS).await.unwrap().entries
    });
    entries.into_iter().map(|entry| entry.key).collect()
}

#[test]
fn a_volume_is_a_device_of_two_hosts_at_once_and_leaves_each_by_the_kind_that_brought_it() {
    let cloud = Cloud::start(2);
    let (api, other) = (&cloud.apis[0], &cloud.apis[1]);
    let admin = cloud.user("alpha-admin", "alpha");
    let user = cloud.user("alpha-member", "alpha");
    let socket = cloud.folder().join("nbd.sock");
    let _gateway = gateway(&cloud, &socket);
    let hosts = ["compute-1", "compute-2"].map(|name| Compute::start(&cloud, name, &socket));
    make_local_type(&admin, api);
    let volume = make_volume(&user, api);
    // As in a live migration: the second host has it before the first one has left it.
    let attached = [(&hosts[0], api), (&hosts[1], other)].map(|(host, api)| {
        let (status, answer) = host.attach(&user, api, &volume);
        assert_eq!(status, 200, "{answer}");
        let info = &answer["attachment"]["connection_info"];
        assert_eq!(info["driver_volume_type"], "local", "{info}");
        let path = host.mapper.folder.join(format!("volume-{volume}"));
        assert_eq!(info["device_path"], path.to_str().unwrap());
        assert_eq!(host.volumes(), [format!("volume-{volume}")]);
        assert!(std::fs::read_link(path).is_ok());
        complete(&user, api, &answer);
        answer
    });
    // A host without an agent gets what everybody gets, and there is no gateway of that kind.
    let (status, refused) = attach(&user, api, &volume, "compute-3");
    assert_eq!(status, 503, "{refused}");
    assert!(
        refused.to_string().contains("No iSCSI gateway serves"),
        "{refused}"
    );
    // From now on the volume is of a type whose volumes are attached otherwise; where it is attached nothing has changed.
    make_type(&admin, api, "plain", &json!({"multiattach": "<is> True"}));
    let retype = json!({"os-retype": {"new_type": "plain", "migration_policy": "never"}});
    let retyped = admin.send(api, Method::POST, &format!("/volumes/{volume}/action"), retype);
    assert_eq!(retyped.status, 202, "{}", retyped.text);
    user.wait(api, &volume, "in-use");
    let (status, refused) = hosts[0].attach(&user, api, &volume);
    assert!(
        status == 503 && refused.to_string().contains("iSCSI"),
        "{refused}"
    );
    assert_eq!(detach(&user, other, &attached[0]), 200);
    assert!(hosts[0].volumes().is_empty());
    assert_eq!(hosts[1].volumes(), [format!("volume-{volume}")]);
    assert_eq!(detach(&user, api, &attached[1]), 200);
    assert!(hosts[1].volumes().is_empty() && wishes(&cloud).is_empty());
    // The gateway has given it back: nobody has it open any more.
    user.wait(api, &volume, "available");
    delete(&user, api, &volume);
}

#[test]
fn what_a_host_cannot_make_is_told_and_nothing_is_left_of_it() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    make_local_type(&cloud.user("alpha-admin", "alpha"), api);
    let volume = make_volume(&user, api);
    let host = Compute::start(&cloud, "compute-1", &cloud.folder().join("nobody.sock"));
    let (status, refused) = host.attach(&user, api, &volume);
    assert_eq!(status, 503, "{refused}");
    let told = refused.to_string();
    assert!(
        told.contains("compute-1") && told.contains("NBD gateway") && told.contains("does not answer"),
        "{told}"
    );
    assert!(wishes(&cloud).is_empty() && host.volumes().is_empty());
    // The attachment went with it, so the volume is free.
    user.wait(api, &volume, "available");
}

#[test]
fn a_wish_that_a_dead_process_left_behind_goes_with_the_volume() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    make_local_type(&cloud.user("alpha-admin", "alpha"), api);
    let volume = make_volume(&user, api);
    let socket = cloud.folder().join("nbd.sock");
    let _gateway = gateway(&cloud, &socket);
    let host = Compute::start(&cloud, "compute-1", &socket);
    // An older client's connection has no attachment that would end it.
    let connector = json!({"host": host.name, "initiator": "iqn.2026-11.test:compute-1"});
    let action = json!({"os-initialize_connection": {"connector": connector}});
    let opened = user.send(api, Method::POST, &format!("/volumes/{volume}/action"), action);
    assert_eq!(opened.status, 200, "{}", opened.text);
    assert_eq!(opened.body["connection_info"]["driver_volume_type"], "local");
    assert_eq!(wishes(&cloud).len(), 1);
    delete(&user, api, &volume);
    let deadline = Instant::now() + PATIENCE;
    while !host.volumes().is_empty() {
        assert!(Instant::now() < deadline, "the host keeps what is gone");
        std::thread::sleep(LOOK_AGAIN);
    }
    assert!(wishes(&cloud).is_empty());
}

#[test]
fn a_guest_s_socket_is_there_when_the_api_answers_and_the_volume_grows_behind_it() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    let admin = cloud.user("alpha-admin", "alpha");
    make_type(&admin, api, "local", &json!({"storaged:connection": "vhostuser"}));
    let volume = make_volume(&user, api);
    let nobody = cloud.folder().join("nobody.sock");
    let host = Compute::start_with(&cloud, "compute-1", &nobody, Some(sockets(&cloud)));
    // A host whose agent makes no sockets gets what everybody gets.
    let without = Compute::start(&cloud, "compute-2", &nobody);
    let (status, refused) = without.attach(&user, api, &volume);
    assert!(
        status == 503 && refused.to_string().contains("iSCSI"),
        "{refused}"
    );

    let (status, answer) = host.attach(&user, api, &volume);
    assert_eq!(status, 200, "{answer}");
    let info = &answer["attachment"]["connection_info"];
    assert_eq!(info["driver_volume_type"], "vhostuser", "{info}");
    let path = PathBuf::from(info["socket_path"].as_str().unwrap());
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    UnixStream::connect(&path).unwrap();
    complete(&user, api, &answer);
    let action = format!("/volumes/{volume}/action");
    let grown = user.send(api, Method::POST, &action, json!({"os-extend": {"new_size": 2}}));
    assert_eq!(grown.status, 202, "{}", grown.text);
    user.wait(api, &volume, "in-use");

    assert_eq!(detach(&user, api, &answer), 200);
    assert!(wishes(&cloud).is_empty());
    assert!(UnixStream::connect(&path).is_err());
    delete(&user, api, &volume);
}

#[test]
fn a_device_of_a_host_does_not_grow_under_its_server() {
    let cloud = Cloud::start(1);
    let api = &cloud.apis[0];
    let user = cloud.user("alpha-member", "alpha");
    make_local_type(&cloud.user("alpha-admin", "alpha"), api);
    let volume = make_volume(&user, api);
    let socket = cloud.folder().join("nbd.sock");
    let _gateway = gateway(&cloud, &socket);
    let host = Compute::start(&cloud, "compute-1", &socket);
    let (status, answer) = host.attach(&user, api, &volume);
    assert_eq!(status, 200, "{answer}");
    complete(&user, api, &answer);
    let action = format!("/volumes/{volume}/action");
    let refused = user.send(api, Method::POST, &action, json!({"os-extend": {"new_size": 2}}));
    assert!(
        refused.status == 400 && refused.text.contains("block device"),
        "{}",
        refused.text
    );
    assert_eq!(detach(&user, api, &answer), 200);
}
