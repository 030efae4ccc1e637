//! Opens the records and waits until they may be believed, before anything stands on them; then sees to it that the node
//! remembers them. What is done with them is not known here.

use std::sync::Arc;

use coordination::map::keeper::KeeperError;
use coordination::map::{MapKeeper, MapWatch};
use coordination::{ClusterMap, Coordination};
use protocol::NodeId;
use telemetry::service;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument;

use super::StartError;
use crate::cluster::EnterError;
use crate::cluster::identity::Identity;
use crate::cluster::memory::keeper::Keeper;
use crate::cluster::recall::Recalls;
use crate::config::Config;
use crate::identities::Identities;
use crate::volumes::Volumes;

/// Records that are believed.
pub(super) struct Believed {
    pub(super) keeper: JoinHandle<KeeperError>,
    pub(super) map: MapWatch,
    pub(super) identities: Arc<Identities>,
    pub(super) beginning: Beginning,
}

/// What the node believed first.
pub(super) struct Beginning {
    recalls: Recalls,
    first: Arc<ClusterMap>,
}

/// Waits for records that may be believed, unless told to stop.
pub(super) async fn believed(
    config: &Config,
    store: &Arc<dyn Coordination>,
    stop: impl Future<Output = ()>,
) -> Result<Believed, StartError> {
    service::status("waits for records that may be believed");
    let (keeper, map) = MapKeeper::start(store.clone()).await?;
    let mut keeper = tokio::spawn(keeper.run());
    let identities = Arc::new(Identities::new(store.clone()));
    let own = Identity::read(&config.work_dir).map_err(EnterError::from)?;
    let recalls = Recalls {
        store: store.clone(),
        map: map.clone(),
        identities: identities.clone(),
        without: config.node.recall_without.clone(),
    };
    let first = tokio::select! {
        first = recalls.at_start(&config.work_dir, own.as_ref()) => first,
        () = stop => return Err(StartError::Stopped),
        ended = &mut keeper => return Err(ended.map_or(StartError::Stopped, StartError::Map)),
    };
    service::status("enters the cluster, and opens its disks");
    Ok(Believed {
        keeper,
        map,
        identities,
        beginning: Beginning { recalls, first },
    })
}

impl Beginning {
    /// From now on it is seen if the store goes back, and the node's memory is kept, if it has an identity to keep it under.
    pub(super) fn go_on(
        self,
        config: &Config,
        volumes: &Arc<Volumes>,
        node: NodeId,
        background: &mut JoinSet<()>,
    ) -> Result<Option<Keeper>, StartError> {
        let Self { recalls, first } = self;
        let (believe, believed) = watch::channel(first.clone());
        let watches = recalls.run(volumes.clone(), node, first, believe);
        background.spawn(watches.in_current_span());
        // It may have got it just now.
        let own = Identity::read(&config.work_dir).map_err(EnterError::from)?;
        let memory = own.map(|own| Keeper::new(config.work_dir.clone(), own, believed));
        if let Some(memory) = memory.clone() {
            background.spawn(memory.run().in_current_span());
        }
        Ok(memory)
    }
}
