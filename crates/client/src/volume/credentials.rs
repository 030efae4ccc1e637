//! What `storaged` gives a front end to show to disks of other nodes.

use protocol::session::CredentialsView;
use tracing::warn;

use crate::transport::Credentials;

/// Credentials, if they are of use. Disks of this node do not ask for them.
pub(crate) fn usable(view: &CredentialsView) -> Option<Credentials> {
    let credentials = Credentials::from_pem(&view.authority, &view.certificate, &view.key);
    credentials
        .inspect_err(|error| warn!(%error, "disks of other nodes cannot be reached"))
        .ok()
}
