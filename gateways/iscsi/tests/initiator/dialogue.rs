//! A small initiator: it says what a test tells it to say, right or wrong, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;

use storaged_iscsi::configuration::{Access, Configuration, Lun, Target};
use storaged_iscsi::portal::{Portals, Settings};
use storaged_iscsi::source::Source;
use storaged_iscsi::wire::header::Header;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::LocalSet;

/// The target of all tests.
pub(crate) const TARGET: &str = "iqn.2026-01.example:t";
/// Bytes of its one unit.
const SIZE: u64 = 64 << 20;

/// Runs a test beside a gateway.
pub(crate) fn with_gateway<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr) -> F) {
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
        let portals = Portals::bind(Settings {
            source: Source::Memory(vec![("disk".to_owned(), SIZE)]),
            configured,
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            portal_group: 1,
            connections: 8,
        })
        .await
        .unwrap();
        let address = portals.addresses().unwrap()[0];
        let (leave, leaving) = watch::channel(false);
        let serving = tokio::task::spawn_local(portals.run(leaving));
        test(address).await;
        leave.send_replace(true);
        serving.await.unwrap();
    });
}

/// A PDU.
pub(crate) struct Pdu {
    pub(crate) header: Header,
    pub(crate) data: Vec<u8>,
}

/// A connection.
pub(crate) struct Initiator {
    stream: TcpStream,
    /// The next `CmdSN`.
    pub(crate) command_number: u32,
    /// Our part of the session's name, and the target's.
    pub(crate) tsih: u16,
}

impl Initiator {
    /// Logs in without proof; `keys` are agreed on beside the names.
    pub(crate) async fn log_in(
        address: SocketAddr,
        name: &str,
        connection: u16,
        tsih: u16,
        keys: &str,
    ) -> Self {
        let mut initiator = Self {
            stream: TcpStream::connect(address).await.unwrap(),
            command_number: 1,
            tsih,
        };
        let mut header = Header::new(0x43, 0x87, 0);
        header.0[8..14].copy_from_slice(&[0x80, 0, 0, 0, 0, 1]);
        header.set_u16(14, tsih);
        header.set_u16(20, connection);
        header.set_u32(24, 1);
        let names = format!(
            "InitiatorName=iqn.2026-01.example:{name}\0TargetName={TARGET}\0SessionType=Normal\0{keys}"
        );
        initiator.send(header, names.as_bytes()).await;
        let response = initiator.receive().await.unwrap();
        assert_eq!(response.header.opcode(), 0x23);
        assert_eq!(response.header.u16(36), 0, "the login's status");
        initiator.tsih = response.header.u16(14);
        initiator
    }

    /// Sends a PDU as it is.
    pub(crate) async fn send(&mut self, mut header: Header, data: &[u8]) {
        header.set_data_length(data.len());
        let mut bytes = header.0.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Sends bytes.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a SCSI command with its next number.
    pub(crate) async fn command(&mut self, tag: u32, flags: u8, expected: u32, cdb: &[u8], immediate: &[u8]) {
        let number = self.command_number;
        self.command_number += 1;
        self.numbered(number, tag, flags, expected, cdb, immediate).await;
    }

    /// Sends a SCSI command with a number of its own.
    pub(crate) async fn numbered(
        &mut self,
        number: u32,
        tag: u32,
        flags: u8,
        expected: u32,
        cdb: &[u8],
        immediate: &[u8],
    ) {
        let mut header = Header::new(0x01, 0x80 | flags, tag);
        header.set_u32(20, expected);
        header.set_u32(24, number);
        header.0[32..32 + cdb.len()].copy_from_slice(cdb);
        self.send(header, immediate).await;
    }

    /// The next PDU; nothing if the gateway has closed.
    pub(crate) async fn receive(&mut self) -> Option<Pdu> {
        let mut bytes = [0; 48];
        self.stream.read_exact(&mut bytes).await.ok()?;
        let header = Header(bytes);
        let mut data = vec![0; header.data_length().next_multiple_of(4)];
        self.stream.read_exact(&mut data).await.ok()?;
        data.truncate(header.data_length());
        Some(Pdu { header, data })
    }

    /// Receives the response to a command: its status.
    pub(crate) async fn status(&mut self, tag: u32) -> u8 {
        let response = self.receive().await.unwrap();
        assert_eq!(
            (response.header.opcode(), response.header.task_tag()),
            (0x21, tag)
        );
        response.header.0[3]
    }

    /// Takes the unit attention that tells a new session that the unit was powered on.
    pub(crate) async fn be_told(&mut self) {
        self.command(0xffff, 0, 0, &[0; 6], &[]).await;
        assert_eq!(self.status(0xffff).await, 2);
    }
}
