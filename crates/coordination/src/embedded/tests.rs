//! The embedded store on storage that fails, and on storage that loses power.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;

use super::*;
use crate::keys::ROOT;
use crate::map::MapKeeper;
use crate::map::keeper::KeeperError;
use crate::store::Compare;

/// Bytes as a cache sees them, and as they were at the last flush. Flushes fail when told to.
#[derive(Clone, Debug, Default)]
struct Storage(Arc<State>);

#[derive(Debug, Default)]
struct State {
    bytes: Mutex<Vec<u8>>,
    flushed: Mutex<Vec<u8>>,
    /// Flushes that succeed before one fails, and all after it; 0 counts as any number.
    flushes_left: AtomicU64,
}

impl Storage {
    /// What is left after a power cut.
    fn after_power_cut(&self) -> Self {
        let flushed = self.0.flushed.lock().unwrap().clone();
        let storage = Self::default();
        storage.0.bytes.lock().unwrap().clone_from(&flushed);
        *storage.0.flushed.lock().unwrap() = flushed;
        storage
    }

    fn fail_after(&self, flushes: u64) {
        self.0.flushes_left.store(flushes, Ordering::SeqCst);
    }
}

fn beyond() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

impl StorageBackend for Storage {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let bytes = self.0.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found = bytes.get(start..start + out.len()).ok_or_else(beyond)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.0
            .bytes
            .lock()
            .unwrap()
            .resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        match self.0.flushes_left.load(Ordering::SeqCst) {
            0 => {}
            1 => return Err(io::Error::other("the disk is gone")),
            left => self.0.flushes_left.store(left - 1, Ordering::SeqCst),
        }
        let bytes = self.0.bytes.lock().unwrap().clone();
        *self.0.flushed.lock().unwrap() = bytes;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut bytes = self.0.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let place = bytes.get_mut(start..start + data.len()).ok_or_else(beyond)?;
        place.copy_from_slice(data);
        Ok(())
    }
}

fn open(storage: &Storage) -> Embedded {
    Embedded::start(Records::on(storage.clone(), "test").unwrap()).unwrap()
}

fn put(number: u64) -> Transaction {
    let key = format!("{ROOT}test/{number}");
    Transaction::new()
        .when(Compare::Absent(key.clone()))
        .put(key, number.to_le_bytes())
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_power_cut_at_any_time() {
    let storage = Storage::default();
    let store = open(&storage);
    for number in 1..30 {
        assert_eq!(
            store.commit(put(number)).await,
            Ok(Outcome::Committed(Revision(number)))
        );
        let again = open(&storage.after_power_cut());
        let range = again.range(ROOT).await.unwrap();
        assert_eq!(range.revision, Revision(number));
        assert_eq!(range.entries.len() as u64, number);
    }
}

#[tokio::test]
async fn a_lease_that_was_answered_is_there_after_a_power_cut() {
    let storage = Storage::default();
    let store = open(&storage);
    let lease = store.grant_lease(Duration::from_hours(1)).await.unwrap();
    let again = open(&storage.after_power_cut());
    assert_eq!(again.keep_lease(lease).await, Ok(()));
    assert!(again.grant_lease(Duration::from_hours(1)).await.unwrap() > lease);
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_changed_answered_or_retried_until_it_is_opened_again() {
    for flushes in 1..6 {
        let storage = Storage::default();
        let store = open(&storage);
        let (keeper, _map) = MapKeeper::start(Arc::new(store.clone())).await.unwrap();
        let keeper = tokio::spawn(keeper.run());
        storage.fail_after(flushes);
        let mut answered = 0;
        let failure = loop {
            match store.commit(put(answered + 1)).await {
                Ok(_) => answered += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(failure, CoordinationError::Failed(_)), "{failure}");
        // The disk is well again, but who knows what is on it?
        storage.fail_after(0);
        assert_eq!(store.commit(put(100)).await, Err(failure.clone()));
        assert_eq!(store.get("x").await, Err(failure.clone()));
        assert!(store.grant_lease(Duration::from_secs(1)).await.is_err());
        // Whoever follows the records hears of it, and does not go on with an old map for ever.
        let ended = keeper.await.unwrap();
        assert!(
            matches!(ended, KeeperError::Store(CoordinationError::Failed(_))),
            "{ended}"
        );
        drop(store);
        // What was answered is there; the one that was not may be.
        let again = open(&storage.after_power_cut());
        let entries = again.range(ROOT).await.unwrap().entries.len() as u64;
        assert!(
            entries == answered || entries == answered + 1,
            "{entries} of {answered}"
        );
        assert!(matches!(again.commit(put(100)).await, Ok(Outcome::Committed(_))));
    }
}
