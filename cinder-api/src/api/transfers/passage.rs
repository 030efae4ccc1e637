//! The key of an encrypted volume goes the way of the volume: from who offers it to this service, which keeps it until
//! somebody takes it or it is taken back, and from there to him. Each step is a copy first, and the end of the old key when
//! the volume's record names the new one.

use crate::fault::Fault;
use crate::keys::{self, Access, KeyError, Made, Need};
use crate::records::transfer::Transfer;
use crate::records::{Tables, Volume};
use crate::request::Context;
use crate::service::Service;

/// Whose the key becomes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Towards {
    /// This service's.
    Service,
    /// That of whoever asks.
    Caller,
}

/// A key that has been copied.
#[derive(Debug)]
pub(super) struct Passage {
    made: Made,
    former: (Access, String),
    new: Access,
}

/// The key of the volume that is offered.
pub(super) fn key_of(tables: &Tables, transfer: &Transfer) -> Option<String> {
    tables.volumes.get(&transfer.volume_id)?.encryption_key_id.clone()
}

/// Copies a key, if there is one.
pub(super) async fn begin(
    service: &Service,
    context: &Context,
    key: Option<String>,
    towards: Towards,
) -> Result<Option<Passage>, Fault> {
    let Some(key) = key else {
        return Ok(None);
    };
    let keys = service.keys()?;
    let copied = async {
        let (own, callers) = (keys.of_service(service).await?, keys.of_caller(context)?);
        let (from, to) = match towards {
            Towards::Service => (callers, own),
            Towards::Caller => (own, callers),
        };
        let id = keys.copy((&from, &to), &key).await?;
        Ok::<_, KeyError>((from, to, id))
    };
    let (from, to, id) = copied.await?;
    Ok(Some(Passage {
        made: Made {
            need: Need::Copy(key.clone()),
            id,
        },
        former: (from, key),
        new: to,
    }))
}

/// The key that a volume has from now on.
pub(super) fn fits(volume: &Volume, passage: Option<&Passage>) -> Result<Option<String>, Fault> {
    let need = volume.encryption_key_id.clone().map(Need::Copy);
    keys::fits(need.as_ref(), passage.map(|passage| &passage.made))
}

/// Ends the key that the volume does not have any more, or the copy if nothing came of it.
pub(super) async fn end(service: &Service, context: &Context, passage: Option<Passage>, is_done: bool) {
    let (Some(passage), Ok(keys)) = (passage, service.keys()) else {
        return;
    };
    let (access, key) = if is_done {
        passage.former
    } else {
        (passage.new, passage.made.id)
    };
    if let Err(error) = keys.delete(&access, &key).await {
        let request = &context.request_id;
        tracing::warn!(key, request, %error, "a key that nothing is encrypted with stays");
    }
}
