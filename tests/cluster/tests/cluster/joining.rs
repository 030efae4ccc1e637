//! Machines become nodes with one command each, and nobody becomes one who should not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use admin_api::join_tokens::{JoinTokenList, JoinTokenState, NewJoinToken};
use admin_api::nodes::{NodeList, NodeState};
use admin_api::pools::Pool;
use joining::Token;
use serde_json::Value;
use test_node::{Etcd, Node, new_folder, storagectl};

use crate::guest::{ask, fill, open, run, until, value};

const MIB: u64 = 1 << 20;

/// The first node of a cluster in a part of this etcd.
fn first(etcd: &Etcd, prefix: &str) -> Node {
    let endpoint = etcd.endpoint(0);
    Node::set_up(|work_dir, config| {
        let (work_dir, config) = (work_dir.to_str().unwrap(), config.to_str().unwrap());
        let said = storagectl(&[
            "cluster",
            "init",
            "--etcd",
            &endpoint,
            "--etcd-prefix",
            prefix,
            "--name",
            "host-1",
            "--address",
            "127.0.0.1:0",
            "--disks",
            "1",
            "--work-dir",
            work_dir,
            "--config",
            config,
        ])?;
        assert!(said.contains(config) && said.contains("cluster token"), "{said}");
        Ok(())
    })
    .unwrap()
}

/// Lets the machine with this folder join.
fn join(token: &str, name: &str, work_dir: &Path) -> anyhow::Result<String> {
    let config = work_dir.join("storaged.toml").display().to_string();
    let work_dir = work_dir.to_str().unwrap();
    storagectl(&[
        "cluster",
        "join",
        token,
        "--name",
        name,
        "--address",
        "127.0.0.1:0",
        "--disks",
        "1",
        "--work-dir",
        work_dir,
        "--config",
        &config,
    ])
}

fn joined(token: &str, name: &str) -> Node {
    Node::set_up(|work_dir, _| {
        let said = join(token, name, work_dir)?;
        assert!(said.contains("let in by 127.0.0.1:"), "{said}");
        Ok(())
    })
    .unwrap()
}

/// What a machine is told that must not be let in; nothing is left on it.
fn turned_away(token: &str) -> String {
    let folder = new_folder().unwrap();
    let refused = join(token, "stranger", folder.path()).unwrap_err().to_string();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{refused}");
    refused
}

async fn token(node: &Node) -> NewJoinToken {
    ask(node, "cluster token").await
}

#[test]
fn three_machines_become_a_cluster_with_one_command_each_and_keep_three_copies() {
    run(async {
        let etcd = Etcd::start(1).unwrap();
        let one = first(&etcd, "/cluster");
        let made = token(&one).await;
        let two = joined(&made.token, "host-2");
        // Any node makes tokens.
        let three = joined(&token(&two).await.token, "host-3");
        let nodes = ask::<NodeList>(&one, "node list").await.nodes;
        let told: Vec<_> = nodes
            .iter()
            .map(|node| (node.id, node.name.as_str(), node.state, node.disks.len()))
            .collect();
        let up = NodeState::Up;
        assert_eq!(
            told,
            [(1, "host-1", up, 1), (2, "host-2", up, 1), (3, "host-3", up, 1)]
        );

        let key = two.folder().join("authority/key.pem");
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read(key).unwrap(),
            fs::read(one.folder().join("authority/key.pem")).unwrap()
        );

        let pool: Pool = ask(&one, "pool create main --copies 3 --groups 4").await;
        assert_eq!(pool.disks.len(), 3);
        let _: Value = ask(&two, "volume create a 4M").await;
        let written = open(&three, "a").await;
        fill(&written, 0, 1 << 20, 7).await;
        written.close().await;
        let read = open(&two, "a").await;
        assert_eq!(value(&read, 0, MIB).await, 7);
        read.close().await;

        let refused = turned_away(&made.token);
        assert!(
            refused.contains("was used, by \"host-2\" from 127.0.0.1"),
            "{refused}"
        );
        let list: JoinTokenList = ask(&three, "cluster tokens").await;
        assert!(
            list.tokens
                .iter()
                .all(|token| token.state == JoinTokenState::Used)
        );
        let events = one.storagectl(&["events"]).unwrap();
        assert!(
            events.contains("handed the cluster's authority to \"host-3\""),
            "{events}"
        );
    });
}

#[test]
fn a_token_that_is_changed_wrong_expired_revoked_or_of_another_cluster_lets_nobody_in() {
    run(async {
        let etcd = Etcd::start(1).unwrap();
        let (one, other) = (first(&etcd, "/one"), first(&etcd, "/other"));
        let made = token(&one).await;

        let mut changed = made.token.clone();
        let last = changed.pop().unwrap();
        changed.push(if last == 'a' { 'e' } else { 'a' });
        let refused = turned_away(&changed);
        assert!(refused.contains("was changed on its way"), "{refused}");

        let mut forged: Token = made.token.parse().unwrap();
        forged.secret.0[0] ^= 1;
        let refused = turned_away(&forged.to_string());
        assert!(refused.contains("the secret in the token is not"), "{refused}");

        let brief: NewJoinToken = ask(&one, "cluster token --limit 1s").await;
        let expired = async || {
            let list: JoinTokenList = ask(&one, "cluster tokens").await;
            let token = list
                .tokens
                .into_iter()
                .find(|token| token.id == brief.id)
                .unwrap();
            token.state == JoinTokenState::Expired
        };
        until(expired).await;
        let refused = turned_away(&brief.token);
        assert!(refused.contains("expired"), "{refused}");

        let revoked = token(&one).await;
        one.storagectl(&["cluster", "revoke", &revoked.id]).unwrap();
        let refused = turned_away(&revoked.token);
        assert!(refused.contains("knows no token"), "{refused}");

        // Its own node would let it in, and this one has another authority: the secret is not even shown.
        let theirs = Token {
            addresses: vec![made.addresses[0].clone()],
            ..token(&other).await.token.parse().unwrap()
        };
        let refused = turned_away(&theirs.to_string());
        assert!(refused.contains("is not of the cluster"), "{refused}");

        let nobody = "sdjoin";
        assert!(turned_away(nobody).contains("was changed"), "{nobody}");
        assert_eq!(ask::<NodeList>(&one, "node list").await.nodes.len(), 1);

        // None of this has harmed the good one, which a machine that cannot use it does not use up.
        let refused = join(&made.token, "host-1", one.folder()).unwrap_err().to_string();
        assert!(refused.contains("was not used"), "{refused}");
        joined(&made.token, "host-2");
        assert_eq!(ask::<NodeList>(&one, "node list").await.nodes.len(), 2);
    });
}

#[test]
fn a_cluster_that_nobody_can_join_says_why() {
    run(async {
        let alone = Node::set_up(|work_dir, config| {
            let (work_dir, config) = (work_dir.to_str().unwrap(), config.to_str().unwrap());
            let words = [
                "cluster",
                "init",
                "--disks",
                "1",
                "--work-dir",
                work_dir,
                "--config",
                config,
            ];
            storagectl(&words)?;
            // Again, it is the same; with other words, the file is left as it is.
            assert!(storagectl(&words)?.contains("says so already"));
            let before = fs::read(config)?;
            let refused = storagectl(&[&words[..], &["--zone", "east"]].concat()).unwrap_err();
            assert!(refused.to_string().contains("something else"), "{refused}");
            assert_eq!(fs::read(config)?, before);
            Ok(())
        })
        .unwrap();
        let refused = alone.storagectl(&["cluster", "token"]).unwrap_err().to_string();
        assert!(refused.contains("file of its own"), "{refused}");
    });
}
