//! What other machines reach of this node, when it starts: its own port, the door for those that join, and the
//! certificates that it shows. What is said there is not known here.

use std::sync::Arc;

use coordination::{ClusterMap, Coordination};
use protocol::NodeId;
use tokio::task::JoinSet;
use tracing::{Instrument, info, warn};

use super::StartError;
use crate::cluster::authority::{Authority, Shown};
use crate::cluster::door::Door;
use crate::cluster::handover::Handover;
use crate::cluster::port::Port;
use crate::cluster::tokens::Tokens;
use crate::config::{AdminListen, Config};
use crate::peers::gate::Gate;

/// What the node shows to others, where it shows anything.
pub(super) async fn certificates(
    config: &Config,
    store: &Arc<dyn Coordination>,
    map: &ClusterMap,
    node: NodeId,
    background: &mut JoinSet<()>,
) -> Result<Option<Shown>, StartError> {
    let is_asked = |listen: &AdminListen| matches!(listen, AdminListen::Network(_));
    if !is_reached(config) && !config.admin_listen.iter().any(is_asked) {
        return Ok(None);
    }
    let authority = Authority::enter(store, &config.work_dir, map.cluster(), node).await?;
    let (shown, renewal) = authority.show(config.admin_names.clone())?;
    background.spawn(renewal);
    Ok(Some(shown))
}

/// Whether other nodes reach this one, over a network.
pub(super) fn is_reached(config: &Config) -> bool {
    config.listen.as_ref().is_some_and(|listen| !listen.plaintext)
}

/// The node's own port, or why it has none: it does the rest of its work all the same.
pub(super) async fn open_port(config: &Config) -> Result<Port, String> {
    let Some(listen) = &config.listen else {
        return Err(
            "other machines do not reach this node: give it a `listen` in the section [cluster]".to_owned(),
        );
    };
    Port::bind(listen).await.map_err(|error| {
        let at = format!("{}:{}", listen.host, listen.port);
        warn!(%error, at, "nobody can join or ask here: the node's port cannot be listened at");
        format!("this node cannot listen at {at}, where machines join: {error}")
    })
}

/// Lets nodes and machines that join in at the node's own port, if it has one.
pub(super) fn serve_nodes(
    port: Result<Port, String>,
    door: Option<&Arc<Door>>,
    gate: &Gate,
    background: &mut JoinSet<()>,
) {
    if let Ok(port) = port {
        let serves = port.serve(door.cloned(), gate.clone());
        background.spawn(serves.in_current_span());
    }
}

/// Where machines join, or why they cannot.
pub(super) fn open_door(
    config: &Config,
    shown: Option<&Shown>,
    cluster: [u8; 16],
    tokens: Tokens,
    port: &Result<Port, String>,
) -> Result<Arc<Door>, String> {
    let Some(etcd) = &config.etcd else {
        let why = "this node keeps its records in a file of its own, which others cannot share: several nodes need an \
                   etcd, and a cluster that begins with one (`storagectl cluster init --etcd`)";
        return Err(why.to_owned());
    };
    let port = port.as_ref().map_err(String::clone)?;
    let Some(shown) = shown else {
        return Err(
            "the nodes speak in plaintext, so there is no authority to hand over: leave out `plaintext`"
                .to_owned(),
        );
    };
    let handover = Handover {
        work_dir: config.work_dir.clone(),
        cluster,
        etcd: etcd.clone(),
    };
    info!(address = port.address(), "machines with a token may join here");
    Ok(Arc::new(Door::new(
        port.address(),
        tokens,
        handover,
        shown.door.clone(),
    )))
}
