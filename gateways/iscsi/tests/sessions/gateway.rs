//! A gateway in this process with one unit in memory, and who may use it.

use std::net::SocketAddr;
use std::sync::Arc;

use admin_api::iscsi::{Access, Configuration, Lun, Target};
use storaged_iscsi::portal::{Portals, Settings};
use storaged_iscsi::source::Source;
use test_initiator::{Initiator, Names};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

/// The target of all tests.
const TARGET: &str = "iqn.2026-01.example:t";
/// Bytes of its one unit.
const SIZE: u64 = 64 << 20;

/// Runs a test beside a gateway, which leaves when the test has ended.
pub(crate) fn with_gateway<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr) -> F) {
    with_doors(async |address, leave, doors| {
        test(address).await;
        leave.send_replace(true);
        doors.await.unwrap();
    });
}

/// Runs a test beside a gateway, with what makes it leave and the task that lets initiators in.
pub(crate) fn with_doors(test: impl AsyncFnOnce(SocketAddr, watch::Sender<bool>, JoinHandle<()>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let access = |initiator: &str| Access {
            initiator: initiator.to_owned(),
            chap: None,
        };
        let lun = Lun {
            number: 0,
            volume: "disk".to_owned(),
            volume_id: 1,
            read_only: false,
            block_size: 512,
        };
        let target = Target {
            name: TARGET.to_owned(),
            luns: vec![lun],
            access: vec![access("iqn.2026-01.example:a"), access("iqn.2026-01.example:b")],
            ..Target::default()
        };
        let configuration = Configuration {
            targets: vec![target],
            ..Configuration::default()
        };
        let (_configure, configured) = watch::channel(Arc::new(configuration));
        let portals = Portals::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        let settings = Settings {
            source: Source::Memory(vec![("disk".to_owned(), SIZE)]),
            configured,
            portal_group: 1,
            redirects: false,
            connections: 8,
        };
        let address = portals.addresses().unwrap()[0];
        let (leave, leaving) = watch::channel(false);
        let doors = tokio::task::spawn_local(portals.run(settings, leaving));
        test(address, leave, doors).await;
    });
}

/// Logs in as one of the two that may; `keys` are agreed on beside the names.
pub(crate) async fn log_in(
    address: SocketAddr,
    name: &str,
    connection: u16,
    tsih: u16,
    keys: &str,
) -> Initiator {
    let names = Names {
        initiator: &format!("iqn.2026-01.example:{name}"),
        target: TARGET,
        keys,
    };
    Initiator::log_in(address, names, connection, tsih).await
}
