//! os-brick, which Nova and Ironic connect volumes with, on a real Linux host: a guest with open-iscsi and the packages
//! of Nova's environment. What it says of the host goes to `cinder-api`, and what that answers goes to it.

mod python;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64;
use serde_json::{Value, json};
use test_openstack::accounts::PROJECTS;
use test_openstack::http::{Answer, Method, Question};
use vm_tests::accelerator::Accelerator;
use vm_tests::guest::{Guest, Load, Options};
use vm_tests::image::Image;

use crate::cinder::cloud::{Cloud, Server};
use crate::suite::Tally;

/// The machine that runs the guest, as the guest sees it.
const OUTSIDE: &str = "10.0.2.2";
/// How long something may take that is done after the answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const GIB: u64 = 1 << 30;
/// How the guest calls os-brick.
const BRICK: &str = "PYTHONHOME=/python/home PYTHONPATH=/python/packages PATH=$PATH:/python/sg/usr/bin \
                     LD_LIBRARY_PATH=/python/lib:/python/sg/usr/lib/x86_64-linux-gnu \
                     /python/home/bin/python -W ignore /python/brick.py";

/// Connects, writes, grows and disconnects.
pub fn run(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    let name = "os-brick connects a volume over iSCSI, sees it grow, and leaves nothing behind";
    match perform(folder) {
        Ok(()) => {
            println!("{name} ... ok");
            tally.passed += 1;
        }
        Err(error) => tally.fail(name, &error),
    }
    tally
}

fn perform(folder: &Path) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let cloud = Cloud::seen_at(temporary.path(), &Server::Ours(None), Some(OUTSIDE))?;
    let token = cloud.keystone.token("alpha-member", PROJECTS[0])?;
    let user = User { cloud, token };
    let image = Image::prepare(folder)?;
    let accelerator = Accelerator::probe(&image)?;
    let python = temporary.path().join("python.img");
    python::make(&python)?;
    let options = Options {
        disks: Vec::new(),
        load: Load::Host,
        starts_from: None,
        read_only_disk: Some(python),
        accelerator,
    };
    let mut guest = Guest::boot(&image, &options)?;
    let worked = attach_and_detach(&user, &mut guest);
    if worked.is_err() {
        let log = guest.try_run("tail -n 60 /tmp/brick.log")?;
        println!("os-brick's last words:\n{}", log.text);
    }
    worked?;
    guest.power_off()
}

fn attach_and_detach(user: &User, guest: &mut Guest) -> Result<()> {
    prepare(guest)?;
    let volume = user.send(Method::POST, "/volumes", json!({"volume": {"size": 1}}), 202)?;
    let volume = text(&volume["volume"]["id"])?;
    user.wait(&volume, "available")?;
    let connector = brick(guest, "properties", &[])?;
    ensure!(
        connector["host"] == "compute-1" && text(&connector["initiator"])?.starts_with("iqn."),
        "what os-brick says of the host: {connector}"
    );
    let wanted = json!({"attachment": {"volume_uuid": volume, "connector": connector}});
    let attachment = user.send(Method::POST, "/attachments", wanted, 200)?;
    let connection = &attachment["attachment"]["connection_info"];
    let device = brick(guest, "connect", &[connection])?;
    let path = text(&device["path"])?;
    guest.run(&format!(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=8 2>/dev/null && dd if=/tmp/a of={path} bs=1M seek=100 conv=fsync 2>/dev/null \
         && echo 3 > /proc/sys/vm/drop_caches && dd if={path} bs=1M skip=100 count=8 2>/dev/null | cmp - /tmp/a"
    ))?;
    let id = text(&attachment["attachment"]["id"])?;
    user.send(
        Method::POST,
        &format!("/attachments/{id}/action"),
        json!({"os-complete": {}}),
        204,
    )?;
    let grown = json!({"os-extend": {"new_size": 2}});
    user.send(Method::POST, &format!("/volumes/{volume}/action"), grown, 202)?;
    user.wait(&volume, "in-use")?;
    let size = brick(guest, "extend", &[connection])?;
    ensure!(size == json!(2 * GIB), "os-brick sees {size} bytes");
    guest.run(&format!(
        "dd if={path} bs=1M skip=100 count=8 2>/dev/null | cmp - /tmp/a && dd if=/tmp/a of={path} bs=1M seek=2040 conv=fsync 2>/dev/null"
    ))?;
    brick(guest, "disconnect", &[connection, &device])?;
    guest.run(&format!("test ! -e {path}"))?;
    let sessions = guest.try_run("iscsiadm -m session 2>&1")?;
    ensure!(
        sessions.text.contains("No active sessions"),
        "no session is left: {}",
        sessions.text
    );
    user.ask(Method::DELETE, &format!("/attachments/{id}"))?;
    user.wait(&volume, "available")
}

/// The network, open-iscsi's daemon, udev, and Python.
fn prepare(guest: &mut Guest) -> Result<()> {
    guest.run("ip link set lo up && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0")?;
    guest.run(
        "mkdir -p /etc/iscsi /var/lib/iscsi /run/lock /var/lock /run/udev && echo InitiatorName=iqn.2026-11.org.example:compute-1 \
         > /etc/iscsi/initiatorname.iscsi && echo node.startup = manual > /etc/iscsi/iscsid.conf \
         && echo root:x:0:0::/:/bin/sh > /etc/passwd && iscsid",
    )?;
    guest.run("systemd-udevd --daemon && udevadm trigger --action=add && udevadm settle")?;
    guest
        .run("mkdir /python && mount -o ro /dev/vda /python")
        .map(drop)
}

/// Has os-brick do something; its answer.
fn brick(guest: &mut Guest, verb: &str, arguments: &[&Value]) -> Result<Value> {
    // JSON has quotes, and the guest's shell reads them: so it comes in letters.
    let words = arguments.iter().fold(String::new(), |words, argument| {
        let letters = BASE64.encode(argument.to_string().as_bytes());
        format!("{words} \"$(echo {letters} | base64 -d)\"")
    });
    let said = guest.run(&format!(
        "{BRICK} {verb}{words} 2>/tmp/brick.errors || {{ tail -n 20 /tmp/brick.errors; false; }}"
    ))?;
    let line = said.trim().lines().last().context("os-brick says nothing")?;
    serde_json::from_str(line).with_context(|| format!("os-brick says {said:?}"))
}

fn text(value: &Value) -> Result<String> {
    value
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("{value} is no text"))
}

/// Who asks the API.
struct User {
    cloud: Cloud,
    token: String,
}

impl User {
    fn question(&self, method: Method, path: &str) -> Question {
        let question = Question::new(method, format!("{}/v3{path}", self.cloud.url)).token(&self.token);
        question.header("OpenStack-API-Version", "volume 3.71")
    }

    fn ask(&self, method: Method, path: &str) -> Result<Answer> {
        self.question(method, path).expect(200)
    }

    fn send(&self, method: Method, path: &str, body: Value, status: u16) -> Result<Value> {
        Ok(self.question(method, path).body(body).expect(status)?.body)
    }

    fn wait(&self, volume: &str, status: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(Method::GET, &format!("/volumes/{volume}"))?;
            if answer.body["volume"]["status"] == status {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the volume does not become {status}: {}", answer.text);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}
