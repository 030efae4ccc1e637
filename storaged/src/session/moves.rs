//! Volumes that move to another pool: how far their owners say they are.

use coordination::Outcome;
use protocol::session::SessionRefusal;
use protocol::{Generation, VolumeId};

use super::Sessions;
use super::ownership::Refused;
use crate::volumes::OperationError;
use crate::volumes::retype::{self, Progress};

/// Attempts to note progress while other records change.
const ATTEMPTS_MAX: usize = 16;

impl Sessions {
    /// Notes how much of a volume its owner has moved; with all of it the move is over.
    pub(super) async fn moved(
        &self,
        volume: VolumeId,
        generation: Generation,
        moved: u64,
    ) -> Result<(), Refused> {
        let mut map = self.map.current();
        for _ in 0..ATTEMPTS_MAX {
            let transaction =
                match retype::progress(&map, volume, generation, moved).map_err(|error| refused(&error))? {
                    Progress::Known => return Ok(()),
                    Progress::News(transaction) => transaction,
                    Progress::NotTheirs => {
                        let message = format!("{volume} was taken over");
                        return Err(Refused::new(SessionRefusal::Lost, message));
                    }
                };
            match self.store.commit(transaction).await? {
                Outcome::Committed(revision) => {
                    self.map.at_least(revision).await;
                    return Ok(());
                }
                Outcome::Conflict(revision) => map = self.map.at_least(revision).await,
            }
        }
        let message = "other records change all the time: try again";
        Err(Refused::new(SessionRefusal::Unavailable, message))
    }
}

fn refused(error: &OperationError) -> Refused {
    Refused::new(SessionRefusal::Invalid, error.to_string())
}
