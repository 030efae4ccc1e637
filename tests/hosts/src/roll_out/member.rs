//! A member of etcd is lost, and another host comes in its place: once because its data is gone, and once because the whole
//! host is. What would cost the quorum is refused before.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{HOSTS, Stage};

/// How long a host may take to be gone.
const GONE_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Which member is lost first, counted from 0.
const LOST: usize = HOSTS - 1;
/// Which member is away meanwhile.
const AWAY: usize = HOSTS - 2;
/// etcd's own client on a host with a member, which it asks.
pub(super) const ETCDCTL: &str = "ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/ca.pem \
                                  --cert=/etc/etcd/member.pem --key=/etc/etcd/member.key";
/// The playbook.
const REPLACE: &str = "replace_etcd";

impl Stage {
    /// The data of a member is gone; a new host takes its place, but not before it may.
    pub(super) fn replace_member(&mut self) -> Result<()> {
        let new = self.lab.hosts.len();
        self.lab.start(1)?;
        self.give_membership(LOST, new)?;
        self.expect_refusal("answers. If it shall go")?;
        self.host(LOST)?
            .ssh("systemctl disable --now etcd && rm -rf /var/lib/etcd/storaged")?;
        self.host(AWAY)?.ssh("systemctl stop etcd")?;
        self.expect_refusal("which is too few")?;
        self.host(AWAY)?.ssh("systemctl start etcd")?;
        self.ansible.play(REPLACE, &[])?;
        self.expect_members()?;
        self.goes_on()
    }

    /// That host dies, and the former one, which has nothing of a member any more, comes back in its place.
    pub(super) fn replace_dead_member(&mut self) -> Result<()> {
        let dead = *self.members.last().context("there are no members")?;
        let host = self.host(dead)?;
        host.ssh("(sleep 1; systemctl poweroff --force --force) > /dev/null 2>&1 &")?;
        let deadline = Instant::now() + GONE_LIMIT;
        while host.ssh("true").is_ok() {
            ensure!(Instant::now() < deadline, "{} does not end", host.name);
            thread::sleep(LOOK_AGAIN);
        }
        self.give_membership(dead, LOST)?;
        self.ansible.play(REPLACE, &[])?;
        self.expect_members()?;
        self.goes_on()?;
        self.ansible.play_idly(REPLACE, &[]).map(drop)
    }

    /// Writes an inventory in which one host is a member instead of another.
    fn give_membership(&mut self, from: usize, to: usize) -> Result<()> {
        self.members.retain(|member| *member != from);
        self.members.push(to);
        let version = self.lab.packages.second.clone();
        self.write_inventory(&version)
    }

    /// The playbook refuses, and says why.
    fn expect_refusal(&self, reason: &str) -> Result<()> {
        let error = self.ansible.play(REPLACE, &[]).err();
        let said = format!("{:#}", error.context("it was not refused")?);
        ensure!(said.contains(reason), "it was refused for another reason: {said}");
        Ok(())
    }

    /// All members of the inventory, and no others, are members, with a quorum, and all who ask them know them.
    fn expect_members(&self) -> Result<()> {
        let list = self.host(0)?.ssh(&format!("{ETCDCTL} member list"))?;
        let started = list.lines().filter(|line| line.contains(", started, "));
        ensure!(
            started.count() == HOSTS && list.lines().count() == HOSTS,
            "not all members have started: {list}"
        );
        for member in &self.members {
            let host = self.host(*member)?;
            ensure!(
                list.contains(&format!("https://{}:2379", host.address)),
                "{} is no member: {list}",
                host.name
            );
            host.until(
                &format!("{ETCDCTL} endpoint health"),
                "journalctl --no-pager -n 20 -u etcd",
            )?;
        }
        let new = &self
            .host(*self.members.last().context("there are no members")?)?
            .address;
        for node in 0..HOSTS {
            self.host(node)?
                .ssh(&format!("grep -q https://{new}:2379 /etc/storaged/storaged.toml"))
                .context("a node does not know the new member")?;
        }
        self.host(0)?
            .ssh(&format!(
                "grep -q https://{new}:2379 /etc/storaged/cinder-api.toml"
            ))
            .context("the API does not know the new member")?;
        self.until_whole()
    }
}
