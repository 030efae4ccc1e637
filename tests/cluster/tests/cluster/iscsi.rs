//! `storaged-iscsi` on two nodes: both portals know the same targets, volumes and reservations, at any time.

mod reservations;

use std::net::SocketAddr;
use std::time::Duration;

use admin_api::iscsi::PortalList;
use admin_api::nodes::{NodeList, NodeState};
use serde_json::Value;
use tempfile::TempDir;
use test_initiator::{Initiator, Names};
use test_node::process::Signal;
use test_node::{Cluster, Node, Process};
use tokio::time::{MissedTickBehavior, interval};

use crate::guest::{ask, open, run, until, value};

const TARGET: &str = "iqn.2026-11.org.example:disks";
const HOSTS: [&str; 2] = ["iqn.2026-11.org.example:a", "iqn.2026-11.org.example:b"];
/// A unit attention (SPC-4 annex F): the capacity is another one.
const CAPACITY_CHANGED: (u8, u8) = (0x2a, 0x09);
/// What was compared differs: sense key and code.
const MISCOMPARE: (u8, (u8, u8)) = (0x0e, (0x1d, 0));
/// Another portal is the better one now.
const ACCESS_STATE_CHANGED: (u8, u8) = (0x2a, 0x06);
/// How well a portal reaches a unit (SPC-4 table 310).
const OPTIMISED: u8 = 0;
const NOT_OPTIMISED: u8 = 1;
/// Why a target speaks unasked (RFC 7143 section 11.9.1).
const LOG_OUT: u8 = 1;
const SESSION_ENDS: u8 = 3;
/// A login is answered by the name of another portal (RFC 7143 section 11.13.5).
const MOVED_FOR_NOW: u16 = 0x0101;
/// Longer than initiators wait for a portal that stands still.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(6);
/// Between looks.
const LOOK_LIMIT: Duration = Duration::from_millis(50);

/// A gateway on a node.
struct Portal {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Portal {
    fn start(node: &Node) -> Self {
        let storaged = node.session_socket().display().to_string();
        Self::start_as(node, ["--storaged", &storaged])
    }

    fn start_as<'a>(node: &Node, first: impl IntoIterator<Item = &'a str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let common = [
            "--admin-socket".to_owned(),
            node.admin_socket().display().to_string(),
            "--listen".to_owned(),
            "127.0.0.1:0".to_owned(),
        ];
        let words = first.into_iter().map(str::to_owned).chain(common);
        let log = folder.path().join("log");
        let mut process = Process::start("storaged-iscsi", words, &log).unwrap();
        let address = process.wait_for("the portal's address", || {
            let said = std::fs::read_to_string(&log).ok()?;
            let mut lines = said.lines();
            let line = lines.find_map(|line| line.strip_prefix("listening on "))?;
            line.parse().ok()
        });
        Self {
            address: address.unwrap(),
            process,
            _folder: folder,
        }
    }

    /// Logs a host in; the news that the unit was powered on is taken.
    async fn log_in(&self, host: &str) -> Initiator {
        let names = Names {
            initiator: host,
            target: TARGET,
            keys: "",
        };
        let mut initiator = Initiator::log_in(self.address, names, 0, 0).await;
        initiator.be_told().await;
        initiator
    }
}

/// Two nodes, a volume of 16 MiB that is the one LUN of a target for two hosts, and a portal on each node.
async fn prepare() -> (Cluster, [Portal; 2]) {
    let cluster = Cluster::start(2, 1).unwrap();
    let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
    let _: Value = ask(one, "pool create main --copies 2 --groups 8").await;
    let _: Value = ask(two, "volume create a 16M").await;
    let _: Value = ask(one, &format!("iscsi target create {TARGET}")).await;
    let _: Value = ask(two, &format!("iscsi lun add {TARGET} a")).await;
    for host in HOSTS {
        let _: Value = ask(one, &format!("iscsi acl add {TARGET} {host}")).await;
    }
    let portals = [Portal::start(one), Portal::start(two)];
    (cluster, portals)
}

/// Waits until a path is told something.
async fn be_told(path: &mut Initiator, wanted: (u8, u8)) {
    let mut looks = interval(LOOK_LIMIT);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let attention = path.ready().await.attention();
        if attention == Some(wanted) {
            return;
        }
        assert_eq!(attention, None, "and not {wanted:?}");
    }
}

#[test]
fn what_is_written_by_one_portal_is_read_by_the_other_and_either_may_die() {
    run(async {
        let (cluster, [mut one, mut two]) = prepare().await;
        let known: PortalList = ask(&cluster.nodes[0], "iscsi portal list").await;
        let groups: Vec<u16> = known.portals.iter().map(|portal| portal.group).collect();
        assert_eq!(groups, [1, 2], "each has its node's number");
        let mut first = one.log_in(HOSTS[0]).await;
        let mut second = two.log_in(HOSTS[0]).await;
        assert!(first.write(7, &[1; 4096]).await.is_good());
        assert_eq!(second.read(7, 8).await, [1; 4096]);
        assert!(second.write(9, &[2; 1024]).await.is_good());
        assert_eq!(
            first.read(8, 4).await[..1536],
            [vec![1; 512], vec![2; 1024]].concat()
        );
        // The first portal's front end was the first, and owns the volume.
        one.process.kill().unwrap();
        be_told(&mut second, ACCESS_STATE_CHANGED).await;
        assert!(second.write(7, &[3; 512]).await.is_good());
        assert_eq!(
            second.read(7, 3).await,
            [vec![3; 512], vec![1; 512], vec![2; 512]].concat()
        );
        let again = Portal::start(&cluster.nodes[0]);
        two.process.kill().unwrap();
        let mut first = again.log_in(HOSTS[0]).await;
        assert_eq!(
            first.read(7, 3).await,
            [vec![3; 512], vec![1; 512], vec![2; 512]].concat()
        );
    });
}

#[test]
fn sectors_of_one_block_that_are_written_by_two_portals_at_once_are_all_kept() {
    run(async {
        let (_cluster, [one, two]) = prepare().await;
        let mut a = one.log_in(HOSTS[0]).await;
        let mut b = two.log_in(HOSTS[1]).await;
        for round in 1..=50 {
            let (at_a, at_b) = ([round; 512], [round; 1024]);
            let (left, right) = tokio::join!(a.write(1, &at_a), b.write(2, &at_b));
            assert!(left.is_good() && right.is_good());
            assert_eq!(b.read(1, 3).await, [round; 1536]);
        }
    });
}

#[test]
fn a_comparison_by_one_portal_sees_what_the_other_wrote() {
    run(async {
        let (_cluster, [one, two]) = prepare().await;
        let mut a = one.log_in(HOSTS[0]).await;
        let mut b = two.log_in(HOSTS[1]).await;
        // A lock that two hosts take from each other: who finds it free gets it.
        let (free, by_a, by_b) = ([0; 512], [0xa; 512], [0xb; 512]);
        for _ in 0..20 {
            let (left, right) = tokio::join!(
                a.compare_and_write(3, &free, &by_a),
                b.compare_and_write(3, &free, &by_b)
            );
            assert_ne!(left.is_good(), right.is_good(), "one of them has it");
            let (holder, present, other) = if left.is_good() {
                (&mut a, by_a, right)
            } else {
                (&mut b, by_b, left)
            };
            assert_eq!(other.sense.map(|sense| (sense.key, sense.code)), Some(MISCOMPARE));
            assert_eq!(holder.read(3, 1).await, present);
            assert!(holder.compare_and_write(3, &present, &free).await.is_good());
        }
    });
}

#[test]
fn what_changes_reaches_sessions_that_are_there() {
    run(async {
        let (cluster, [one, two]) = prepare().await;
        let node = &cluster.nodes[1];
        let mut a = one.log_in(HOSTS[0]).await;
        let mut b = two.log_in(HOSTS[1]).await;
        let _: Value = ask(node, "volume grow a 32M").await;
        be_told(&mut a, CAPACITY_CHANGED).await;
        be_told(&mut b, CAPACITY_CHANGED).await;
        let last = (32 << 20) / 512 - 1;
        assert!(a.write(last, &[9; 512]).await.is_good());
        let _: Value = ask(node, "volume rename a b").await;
        assert_eq!(b.read(last, 1).await, [9; 512]);
        let _: Value = ask(node, &format!("iscsi acl remove {TARGET} {} --yes", HOSTS[0])).await;
        assert_eq!(a.until_closed().await, Some(SESSION_ENDS));
        assert!(b.write(0, &[5; 4096]).await.is_good());
        node.storagectl(&["iscsi", "target", "delete", TARGET, "--yes"])
            .unwrap();
        assert_eq!(b.until_closed().await, Some(SESSION_ENDS));
        // Whoever wants the volume for himself has it as soon as the portals have given it back.
        let alone = open(node, "b").await;
        assert_eq!(value(&alone, 0, 512 * 8).await, 5);
    });
}

#[test]
fn a_portal_outlives_its_storaged() {
    run(async {
        let (mut cluster, [one, _two]) = prepare().await;
        let mut a = one.log_in(HOSTS[0]).await;
        assert!(a.write(0, &[1; 512]).await.is_good());
        cluster.nodes[0].kill().unwrap();
        cluster.nodes[0].start_again().unwrap();
        assert!(a.write(1, &[2; 512]).await.is_good());
        assert_eq!(a.read(0, 2).await, [[1; 512], [2; 512]].concat());
        assert!(a.reserve_out(0, 0, (0, 0xa)).await.is_good());
        let _: Value = ask(
            &cluster.nodes[1],
            &format!("iscsi acl remove {TARGET} {} --yes", HOSTS[0]),
        )
        .await;
        assert_eq!(a.until_closed().await, Some(SESSION_ENDS));
    });
}

#[test]
fn the_portal_where_the_owner_is_is_the_better_one_wherever_the_owner_goes() {
    run(async {
        let (_cluster, [mut one, two]) = prepare().await;
        let mut a = one.log_in(HOSTS[0]).await;
        let mut b = two.log_in(HOSTS[0]).await;
        let at_one = [(1, OPTIMISED), (2, NOT_OPTIMISED)];
        assert_eq!(a.port_groups().await, at_one, "the first that opened it owns it");
        assert_eq!(b.port_groups().await, at_one);
        assert!(a.write(0, &[1; 512]).await.is_good());
        one.process.kill().unwrap();
        be_told(&mut b, ACCESS_STATE_CHANGED).await;
        let groups = b.port_groups().await;
        assert!(groups.contains(&(2, OPTIMISED)), "{groups:?}");
        assert_eq!(b.read(0, 1).await, [1; 512]);
    });
}

#[test]
fn a_portal_that_ends_asks_its_hosts_to_log_out_and_waits_for_them() {
    run(async {
        let (_cluster, [mut one, two]) = prepare().await;
        let mut a = one.log_in(HOSTS[0]).await;
        let mut b = two.log_in(HOSTS[0]).await;
        one.process.signal(Signal::TERM).unwrap();
        let asked = a.receive().await.unwrap();
        assert_eq!((asked.header.opcode(), asked.header.0[36]), (0x32, LOG_OUT));
        // Until it has logged out, it is served.
        assert!(a.write(3, &[7; 512]).await.is_good());
        a.log_out().await;
        one.process.wait_until_it_ends().unwrap();
        be_told(&mut b, ACCESS_STATE_CHANGED).await;
        assert_eq!(b.read(3, 1).await, [7; 512]);
        // One that does not listen is not waited for.
        two.process.signal(Signal::TERM).unwrap();
        assert_eq!(b.until_closed().await, Some(SESSION_ENDS));
    });
}

#[test]
fn what_waited_at_a_portal_that_stood_still_is_not_done_any_more() {
    run(async {
        let (_cluster, [one, two]) = prepare().await;
        // The second portal owns the volume: nothing waits for the first.
        let mut b = two.log_in(HOSTS[0]).await;
        let mut a = one.log_in(HOSTS[0]).await;
        one.process.freeze().unwrap();
        a.begin_write(0, &[1; 512]).await;
        // The host gives the path up, does it again by the other one, and goes on.
        assert!(b.write(0, &[1; 512]).await.is_good());
        assert!(b.write(0, &[2; 512]).await.is_good());
        // For so long the portal must stand still: there is nothing to look at.
        tokio::time::sleep(STANDSTILL_LIMIT).await;
        one.process.thaw().unwrap();
        a.until_closed().await;
        assert_eq!(b.read(0, 1).await, [2; 512]);
        // The portal has lost its place among those who share the volume, and takes another.
        let mut a = one.log_in(HOSTS[0]).await;
        let mut looks = interval(LOOK_LIMIT);
        while !a.write(1, &[3; 512]).await.is_good() {
            looks.tick().await;
        }
        assert_eq!(a.read(0, 1).await, [2; 512]);
    });
}

#[test]
fn a_gateway_that_redirects_sends_hosts_to_portals_that_serve() {
    run(async {
        let (cluster, [one, two]) = prepare().await;
        let door = Portal::start_as(&cluster.nodes[0], ["--redirect"]);
        let names = |initiator| Names {
            initiator,
            target: TARGET,
            keys: "",
        };
        let sent_on = async |host| {
            let answered = Initiator::try_log_in(door.address, names(host), 0, 0).await;
            answered.map(|_| "in").unwrap_err()
        };
        let (status, text) = sent_on(HOSTS[0]).await;
        assert_eq!(status, MOVED_FOR_NOW);
        let address = text
            .strip_prefix("TargetAddress=")
            .unwrap()
            .trim_end_matches('\0');
        let address: SocketAddr = address.parse().unwrap();
        assert!([one.address, two.address].contains(&address), "{address}");
        let mut a = Initiator::log_in(address, names(HOSTS[0]), 0, 0).await;
        a.be_told().await;
        assert!(a.write(0, &[1; 512]).await.is_good());
        let (status, _) = sent_on("iqn.2026-11.org.example:stranger").await;
        assert_eq!(status, 0x0202, "it learns nothing");
        let known: PortalList = ask(&cluster.nodes[0], "iscsi portal list").await;
        assert_eq!(known.portals.len(), 2, "it is no portal that serves");
    });
}

#[test]
fn a_unit_whose_portal_was_given_up_for_dead_comes_back_under_its_sessions() {
    run(async {
        let (mut cluster, [one, two]) = prepare().await;
        let mut b = two.log_in(HOSTS[1]).await;
        let mut a = one.log_in(HOSTS[0]).await;
        assert!(a.write(0, &[1; 512]).await.is_good());
        // Nobody keeps the first portal's place among those who share the volume: it lapses, and with it the node.
        cluster.nodes[0].kill().unwrap();
        let nodes = async || ask::<NodeList>(&cluster.nodes[1], "node list").await.nodes;
        until(async || nodes().await.iter().any(|node| node.state == NodeState::Down)).await;
        cluster.nodes[0].start_again().unwrap();
        let mut looks = interval(LOOK_LIMIT);
        while !a.write(1, &[3; 512]).await.is_good() {
            looks.tick().await;
        }
        assert_eq!(a.read(0, 2).await, [[1; 512], [3; 512]].concat());
        assert_eq!(b.read(0, 2).await, [[1; 512], [3; 512]].concat());
    });
}
