//! Keeps users from taking a volume away from under a running server (CVE-2023-2088): only a service of the cloud, or somebody
//! whom Nova tells that no server uses it, ends an attachment that a server has.

use crate::fault::Fault;
use crate::nova;
use crate::records::Attachment;
use crate::request::Context;
use crate::service::Service;

/// Refuses to end an attachment that Nova uses.
pub async fn check(service: &Service, context: &Context, attachment: &Attachment) -> Result<(), Fault> {
    let caller = &context.caller;
    let (Some(server), Some(_)) = (&attachment.instance_id, &attachment.connection) else {
        return Ok(());
    };
    if caller.is_service {
        return Ok(());
    }
    let used = (
        server.as_str(),
        attachment.volume_id.as_str(),
        attachment.id.as_str(),
    );
    if !nova::uses(&service.keystone, caller, used).await? {
        return Ok(());
    }
    Err(Fault::conflict(format!(
        "Detach volume from instance {server} using the Compute API: attachment {} is in use by it.",
        attachment.id
    )))
}
