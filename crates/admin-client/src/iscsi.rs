//! iSCSI: which targets there are, and what gateways keep in the cluster of portals and reservations.

use std::path::Path;
use std::time::Duration;

use admin_api::iscsi::{AnnouncePortals, Configuration, PortalList, Reservations, WAIT_MS_MAX};
use admin_api::routes::{self, fill};
use reqwest::Method;
use serde::de::DeserializeOwned;

use crate::asker::{ANSWER_TIME_MAX, AskError, Asker};

/// What gateways ask one `storaged`. Cheap to clone; any number of questions may be under way.
#[derive(Clone, Debug)]
pub struct IscsiDirectory(Asker);

impl IscsiDirectory {
    /// The `storaged` whose admin socket this is. Does not connect yet.
    pub fn new(socket: &Path) -> Result<Self, AskError> {
        Asker::new(socket).map(Self)
    }

    /// All targets and portals, with secrets. At once without `after`, or if the revision is another one; otherwise when
    /// something changes, or after `wait`, at most [`WAIT_MS_MAX`].
    pub async fn configuration(&self, after: Option<u64>, wait: Duration) -> Result<Configuration, AskError> {
        self.wait_for(routes::ISCSI_CONFIGURATION, after, wait).await
    }

    /// Says where this gateway serves: again every [`admin_api::iscsi::PORTAL_RENEWAL_MS`], or it is forgotten.
    pub async fn announce(&self, portals: &AnnouncePortals) -> Result<PortalList, AskError> {
        let request = Some(portals);
        self.0
            .ask(Method::PUT, routes::ISCSI_PORTALS, request, ANSWER_TIME_MAX)
            .await
    }

    /// The reservations of a LUN's volume. Without `after` they are read from the coordination store as it is now;
    /// otherwise as [`IscsiDirectory::configuration`].
    pub async fn reservations(
        &self,
        volume: u64,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<Reservations, AskError> {
        let path = fill(routes::ISCSI_RESERVATIONS, &[&volume.to_string()]);
        self.wait_for(&path, after, wait).await
    }

    /// Keeps these reservations, if those of their revision are still kept. Returns them with their new revision.
    pub async fn set_reservations(&self, volume: u64, to: &Reservations) -> Result<Reservations, AskError> {
        let path = fill(routes::ISCSI_RESERVATIONS, &[&volume.to_string()]);
        self.0.ask(Method::PUT, &path, Some(to), ANSWER_TIME_MAX).await
    }

    async fn wait_for<A: DeserializeOwned>(
        &self,
        path: &str,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<A, AskError> {
        let wait_ms = u64::try_from(wait.as_millis())
            .unwrap_or(WAIT_MS_MAX)
            .min(WAIT_MS_MAX);
        let limit = ANSWER_TIME_MAX + Duration::from_millis(wait_ms);
        let path = match after {
            Some(after) => format!("{path}?after={after}&wait_ms={wait_ms}"),
            None => path.to_owned(),
        };
        self.0.ask(Method::GET, &path, None::<&()>, limit).await
    }
}
