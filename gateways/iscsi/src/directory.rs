//! What the cluster says about targets, followed; and where this gateway serves, said again and again.
//!
//! Refuses to know what a target is good for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admin_api::ErrorKind;
use admin_api::iscsi::{AnnouncePortals, Configuration, PORTAL_RENEWAL_MS, PortalList, WAIT_MS_MAX};
use admin_client::{AskError, IscsiDirectory};
use client::backoff::Backoff;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

/// Waits for `storaged`, and gives what there is to serve.
pub async fn first(directory: &IscsiDirectory) -> Result<Configuration, AskError> {
    until_reached(async || directory.configuration(None, Duration::ZERO).await).await
}

/// Follows what there is to serve. Ends when nobody wants to know.
pub async fn follow(directory: IscsiDirectory, configure: watch::Sender<Arc<Configuration>>) {
    let mut known = Some(configure.borrow().revision);
    let mut backoff = Backoff::default();
    while !configure.is_closed() {
        let wait = Duration::from_millis(WAIT_MS_MAX);
        match directory.configuration(known, wait).await {
            Ok(configuration) => {
                if known.is_none() {
                    info!("storaged answers again");
                }
                backoff = Backoff::default();
                known = Some(configuration.revision);
                configure.send_if_modified(|present| {
                    let differs = **present != configuration;
                    *present = Arc::new(configuration);
                    differs
                });
            }
            Err(error) => {
                if known.take().is_some() {
                    warn!(%error, "targets stay as they were known last");
                }
                backoff.pause().await;
            }
        }
    }
}

/// Where this gateway serves, as the cluster is told.
pub struct Announcement {
    directory: IscsiDirectory,
    words: AnnouncePortals,
}

impl Announcement {
    /// Waits for `storaged`, and says where this gateway serves. Without a tag for its portal group it gets its node's
    /// number.
    ///
    /// # Errors
    /// `storaged` refuses: another gateway has the tag, or an address cannot be one.
    pub async fn begin(
        directory: IscsiDirectory,
        addresses: &[SocketAddr],
        group: Option<u16>,
    ) -> Result<Self, AskError> {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let mut words = AnnouncePortals { group, addresses };
        let portals = until_reached(async || directory.announce(&words).await).await?;
        words.group = group.or_else(|| group_of(&portals, &words.addresses));
        Ok(Self { directory, words })
    }

    /// The tag of the portal group, if `storaged` knows it.
    pub fn group(&self) -> Option<u16> {
        self.words.group
    }

    /// Says so again before it is forgotten, for ever.
    pub async fn keep(&self) {
        let mut renewals = interval(Duration::from_millis(PORTAL_RENEWAL_MS));
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut well = true;
        loop {
            renewals.tick().await;
            match self.directory.announce(&self.words).await {
                Ok(_) => well = true,
                Err(error) => {
                    if well {
                        warn!(%error, "hosts that look for targets are not told of this gateway");
                    }
                    well = false;
                }
            }
        }
    }

    /// Says that this gateway serves no more. Without that it is forgotten after half a minute.
    pub async fn withdraw(&self) {
        let words = AnnouncePortals {
            addresses: Vec::new(),
            ..self.words.clone()
        };
        if let Err(error) = self.directory.announce(&words).await {
            warn!(%error, "hosts that look for targets are told of this gateway for another half a minute");
        }
    }
}

fn group_of(portals: &PortalList, addresses: &[String]) -> Option<u16> {
    let mut portals = portals.portals.iter();
    let own = portals.find(|portal| addresses.contains(&portal.address));
    own.map(|portal| portal.group)
}

/// Whether another answer is to be expected later.
fn passes(error: &AskError) -> bool {
    match error {
        AskError::Unreachable { .. } => true,
        AskError::Refused(body) => body.kind == ErrorKind::Unavailable,
        AskError::Broken { .. } => false,
    }
}

/// Asks until `storaged` is there; says once that it is not.
async fn until_reached<A>(ask: impl AsyncFn() -> Result<A, AskError>) -> Result<A, AskError> {
    let mut backoff = Backoff::default();
    let mut said = false;
    loop {
        match ask().await {
            Err(error) if passes(&error) => {
                if !said {
                    warn!(%error, "waiting");
                }
                said = true;
                backoff.pause().await;
            }
            answered => return answered,
        }
    }
}
