//! Nodes answer each other, nobody else, and nobody is waited for beyond his time.
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use client::transport::Credentials;
use coordination::keys::Key;
use coordination::map::MapKeeper;
use coordination::records::{NewerFields, NodeRecord, NodeUpRecord, encode};
use coordination::{Coordination, Embedded, Transaction};
use protocol::NodeId;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::gate::Gate;
use super::*;
use crate::cluster::authority::{Authority, Shown};
use crate::cluster::port::Port;
use crate::config::Listen;

struct World {
    peers: Peers,
    map: MapWatch,
    gate: Gate,
    other: Shown,
    _folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

async fn shown(store: &Arc<dyn Coordination>, folder: &std::path::Path, node: u32) -> Shown {
    let authority = Authority::enter(store, folder, [1; 16], NodeId(node))
        .await
        .unwrap();
    authority.show(Vec::new()).unwrap().0
}

/// Node 1 asks node 2, which is reached at this address instead of its own if there is one.
async fn world(instead: Option<String>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Coordination> = Arc::new(Embedded::in_memory().unwrap());
    let (one, two) = (
        shown(&store, folder.path(), 1).await,
        shown(&store, folder.path(), 2).await,
    );
    let listen = Listen {
        advertised: "127.0.0.1".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 0,
        plaintext: false,
    };
    let port = Port::bind(&listen).await.unwrap();
    let at = instead.unwrap_or_else(|| port.address().to_owned());
    let node = NodeRecord {
        name: "two".to_owned(),
        zone: String::new(),
        serial: [0; 16],
        addresses: vec![format!("tcp:{at}")],
        created_ms: 0,
        newer: NewerFields::default(),
    };
    let up = NodeUpRecord {
        world: String::new(),
        pid: 1,
        lease_ms: 5000,
        version: String::new(),
        since_ms: 0,
        speaks: None,
    };
    let records = Transaction::new()
        .put(Key::Node(NodeId(2)).to_text(), encode(&node).unwrap())
        .put(Key::Node(NodeId(3)).to_text(), encode(&node).unwrap())
        .put(Key::NodeUp(NodeId(2)).to_text(), encode(&up).unwrap());
    store.commit(records).await.unwrap();
    let (keeper, map) = MapKeeper::start(store).await.unwrap();
    let gate = Gate::new(Some(two.node.clone()));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(keeper.run().await) });
    tasks.spawn(port.serve(None, gate.clone()));
    World {
        peers: Peers::new(map.clone(), Some(one.node.clone())),
        map,
        gate,
        other: one,
        _folder: folder,
        _tasks: tasks,
    }
}

fn answers() -> Router {
    Router::new().route("/word", get(async || axum::Json("here")))
}

#[tokio::test]
async fn a_node_is_answered_by_another_and_while_that_starts_it_is_told_so() {
    let world = world(None).await;
    let starts = world.peers.get::<String>(NodeId(2), "/word").await.unwrap_err();
    assert!(starts.to_string().contains("starting"), "{starts}");
    world.gate.open(answers());
    let answer: String = world.peers.get(NodeId(2), "/word").await.unwrap();
    assert_eq!(answer, "here");
    let wrong = world.peers.get::<u64>(NodeId(2), "/word").await.unwrap_err();
    assert!(matches!(wrong, Silence::Broken(_)), "{wrong}");
}

#[tokio::test]
async fn a_front_end_is_not_answered_though_the_authority_has_signed_its_certificate() {
    let world = world(None).await;
    world.gate.open(answers());
    let view = world.other.front_ends.borrow().clone();
    let credentials = Credentials::from_pem(&view.authority, &view.certificate, &view.key).unwrap();
    let (_renewal, watch) = watch::channel(credentials);
    let front_end = Peers::new(world.map.clone(), Some(watch));
    let refused = front_end.get::<String>(NodeId(2), "/word").await.unwrap_err();
    assert!(matches!(refused, Silence::Broken(_)), "{refused}");
}

#[tokio::test]
async fn a_node_that_is_down_is_not_asked_and_one_that_says_nothing_costs_its_time_only() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = world(Some(silent.local_addr().unwrap().to_string())).await;
    let down = world.peers.get::<String>(NodeId(3), "/word").await.unwrap_err();
    assert!(matches!(down, Silence::Down), "{down}");
    let begun = Instant::now();
    let late = world.peers.get::<String>(NodeId(2), "/word").await.unwrap_err();
    assert!(matches!(late, Silence::Late), "{late}");
    assert!(begun.elapsed() >= ASK_LIMIT);
}
