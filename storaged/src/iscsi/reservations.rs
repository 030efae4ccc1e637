//! Persistent reservations: gateways decide what they are, here they are kept, so that all gateways agree.

use admin_api::iscsi::{Reservations, WaitQuery};
use coordination::keys::Key;
use coordination::records::{ReservationsRecord, encode};
use coordination::{Compare, Outcome, Revision, Transaction};
use protocol::VolumeId;

use super::{Iscsi, describe};
use crate::volumes::OperationError;

impl Iscsi {
    /// The reservations of a volume that is a LUN: at once if they are not what the asker knows already, otherwise when
    /// they change or the time is over.
    pub async fn reservations(
        &self,
        volume: VolumeId,
        query: WaitQuery,
    ) -> Result<Reservations, OperationError> {
        let revision = |map: &coordination::ClusterMap| {
            map.iscsi().lun_of(volume)?;
            Some(map.reservations(volume).map_or(0, |record| record.modified.0))
        };
        let map = self.waited(query, revision).await?;
        match map.iscsi().lun_of(volume) {
            Some(_) => Ok(describe::reservations(map.reservations(volume))),
            None => Err(no_lun(volume)),
        }
    }

    /// Keeps them, if those that they were made from are still the ones that are kept. Returns them with their new
    /// revision; the map shows them, or later ones, then.
    pub async fn set_reservations(
        &self,
        volume: VolumeId,
        mut request: Reservations,
    ) -> Result<Reservations, OperationError> {
        self.believed()?;
        request.check().map_err(OperationError::Invalid)?;
        let record: ReservationsRecord = describe::kept(&request);
        let key = Key::IscsiReservation(volume).to_text();
        let unchanged = match request.revision {
            0 => Compare::Absent(key.clone()),
            revision => Compare::Modified(key.clone(), Revision(revision)),
        };
        let transaction = Transaction::new()
            .when(unchanged)
            // A LUN that is removed at this moment takes its reservations with it.
            .when(Compare::Present(Key::IscsiLun(volume).to_text()))
            .put(key, encode(&record)?);
        match self.store.commit(transaction).await? {
            Outcome::Committed(revision) => {
                self.volumes.watch().at_least(revision).await;
                request.revision = revision.0;
                Ok(request)
            }
            Outcome::Conflict(revision) => {
                let map = self.volumes.watch().at_least(revision).await;
                if map.iscsi().lun_of(volume).is_none() {
                    return Err(no_lun(volume));
                }
                Err(OperationError::Conflict(format!(
                    "the reservations of {volume} are not those of revision {} any more: read them again",
                    request.revision
                )))
            }
        }
    }
}

fn no_lun(volume: VolumeId) -> OperationError {
    OperationError::NotFound(format!("{volume} is no LUN of an iSCSI target"))
}
