//! A small iSCSI initiator for tests: it says what a test tells it to say, right or wrong, byte by byte.
//!
//! It panics when what a test takes for granted does not happen. Refuses to know what a target should answer.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on should stop"
)]

use std::net::SocketAddr;

use storaged_iscsi::wire::header::Header;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What is said at a login.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Who logs in.
    pub initiator: &'a str,
    /// Where.
    pub target: &'a str,
    /// Further keys, each ended by a zero byte.
    pub keys: &'a str,
}

impl Names<'_> {
    /// As a login request has them.
    fn text(&self) -> String {
        let Self {
            initiator,
            target,
            keys,
        } = self;
        format!("InitiatorName={initiator}\0TargetName={target}\0SessionType=Normal\0{keys}")
    }
}

/// A PDU.
pub struct Pdu {
    /// Its first 48 bytes.
    pub header: Header,
    /// Its data, without padding.
    pub data: Vec<u8>,
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The status (SAM-5 table 41): 0 if all is well.
    pub status: u8,
    /// Why it was not done, or what there is to tell.
    pub sense: Option<Sense>,
}

/// The part of sense data that matters here (SPC-4 clause 4.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The sense key.
    pub key: u8,
    /// The additional sense code and its qualifier.
    pub code: (u8, u8),
}

impl Outcome {
    /// Whether all is well.
    pub fn is_good(&self) -> bool {
        self.status == 0
    }

    /// Whether a reservation keeps the command from being done.
    pub fn is_conflict(&self) -> bool {
        self.status == 0x18
    }

    /// Whether another path has had the command aborted.
    pub fn is_aborted(&self) -> bool {
        self.status == 0x40
    }

    /// Which unit attention it is (SPC-4 table 56, sense key 6), if it is one.
    pub fn attention(&self) -> Option<(u8, u8)> {
        let sense = self.sense.filter(|sense| sense.key == 6);
        sense.map(|sense| sense.code)
    }
}

/// Flags of a command: it takes data, or it brings some (RFC 7143 section 11.3.1).
pub const READ: u8 = 0x40;
/// See [`READ`].
pub const WRITE: u8 = 0x20;
/// NOP-In (RFC 7143 section 11.19): what came unasked is a ping.
const PING: u8 = 0x20;

fn ten(opcode: u8, block: u32, count: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&block.to_be_bytes());
    cdb[7..9].copy_from_slice(&count.to_be_bytes());
    cdb
}

/// A connection.
pub struct Initiator {
    stream: TcpStream,
    /// The next `CmdSN`.
    pub command_number: u32,
    /// Our part of the session's name, and the target's.
    pub tsih: u16,
}

impl Initiator {
    /// Logs in without proof. A session that is there already is named by its number.
    pub async fn log_in(address: SocketAddr, names: Names<'_>, connection: u16, tsih: u16) -> Self {
        let refused = |(status, text)| panic!("the login was answered with {status:#x}, {text:?}");
        let logged_in = Self::try_log_in(address, names, connection, tsih).await;
        logged_in.unwrap_or_else(refused)
    }

    /// Tries to log in with a proof by CHAP that is made up. The status that ends it.
    pub async fn prove_wrongly(address: SocketAddr, names: Names<'_>, user: &str) -> u16 {
        let mut initiator = Self::connect(address, 0).await;
        let proof = "0".repeat(64);
        // From the first stage on to the next; to stay in the first; and on again.
        let steps = [
            (0x81, names.text() + "AuthMethod=CHAP\0"),
            (0, "CHAP_A=7\0".to_owned()),
            (0x81, format!("CHAP_N={user}\0CHAP_R=0x{proof}\0")),
        ];
        for (flags, text) in steps {
            let status = initiator.say(flags, 0, &text).await.header.u16(36);
            if status != 0 {
                return status;
            }
        }
        0
    }

    async fn connect(address: SocketAddr, tsih: u16) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            command_number: 1,
            tsih,
        }
    }

    /// Sends a login request, and takes the answer.
    async fn say(&mut self, flags: u8, connection: u16, text: &str) -> Pdu {
        let mut header = Header::new(0x43, flags, 0);
        header.0[8..14].copy_from_slice(&[0x80, 0, 0, 0, 0, 1]);
        header.set_u16(14, self.tsih);
        header.set_u16(20, connection);
        header.set_u32(24, 1);
        self.send(header, text.as_bytes()).await;
        let response = self.receive().await.unwrap();
        assert_eq!(response.header.opcode(), 0x23);
        response
    }

    /// Logs in, or gives the status that was answered, and the text with it.
    pub async fn try_log_in(
        address: SocketAddr,
        names: Names<'_>,
        connection: u16,
        tsih: u16,
    ) -> Result<Self, (u16, String)> {
        let mut initiator = Self::connect(address, tsih).await;
        let response = initiator.say(0x87, connection, &names.text()).await;
        match response.header.u16(36) {
            0 => {
                initiator.tsih = response.header.u16(14);
                Ok(initiator)
            }
            status => Err((status, String::from_utf8(response.data).unwrap())),
        }
    }

    /// Waits until the gateway closes the connection, and says nothing else before than why; gives the last reason that it
    /// gave (RFC 7143 section 11.9.1).
    pub async fn until_closed(&mut self) -> Option<u8> {
        let mut reason = None;
        while let Some(pdu) = self.receive().await {
            assert_eq!(pdu.header.opcode(), 0x32, "an asynchronous message");
            reason = Some(pdu.header.0[36]);
        }
        reason
    }

    /// The groups of target ports, each with its access state (SPC-4 clause 6.37).
    pub async fn port_groups(&mut self) -> Vec<(u16, u8)> {
        let mut cdb = [0; 12];
        (cdb[0], cdb[1], cdb[9]) = (0xa3, 0x0a, 252);
        self.command(16, READ, 252, &cdb, &[]).await;
        let answer = self.receive().await.unwrap();
        assert_eq!(answer.header.opcode(), 0x25, "data");
        let groups = answer.data[4..].chunks_exact(12);
        groups
            .map(|group| (u16::from_be_bytes([group[2], group[3]]), group[0] & 0x0f))
            .collect()
    }

    /// Sends a PDU as it is.
    pub async fn send(&mut self, mut header: Header, data: &[u8]) {
        header.set_data_length(data.len());
        let mut bytes = header.0.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Sends bytes.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a SCSI command with its next number.
    pub async fn command(&mut self, tag: u32, flags: u8, expected: u32, cdb: &[u8], immediate: &[u8]) {
        let number = self.command_number;
        self.command_number += 1;
        self.numbered(number, tag, flags, expected, cdb, immediate).await;
    }

    /// Sends a SCSI command with a number of its own.
    pub async fn numbered(
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
    pub async fn receive(&mut self) -> Option<Pdu> {
        let mut bytes = [0; 48];
        self.stream.read_exact(&mut bytes).await.ok()?;
        let header = Header(bytes);
        let mut data = vec![0; header.data_length().next_multiple_of(4)];
        self.stream.read_exact(&mut data).await.ok()?;
        data.truncate(header.data_length());
        Some(Pdu { header, data })
    }

    /// Receives the response to a command: its status.
    pub async fn status(&mut self, tag: u32) -> u8 {
        self.outcome(tag).await.status
    }

    /// Receives the response to a command, which is the next one. Pings that come before it are answered: the gateway asks
    /// those from whom it has heard nothing for a while.
    pub async fn outcome(&mut self, tag: u32) -> Outcome {
        let mut response = self.receive().await.unwrap();
        while response.header.opcode() == PING {
            self.answer_ping(&response.header).await;
            response = self.receive().await.unwrap();
        }
        assert_eq!(
            (response.header.opcode(), response.header.task_tag()),
            (0x21, tag)
        );
        // Two bytes say how long the sense data is (RFC 7143 section 11.4.7.2), which has the fixed format.
        let sense = (response.data.len() >= 16).then(|| Sense {
            key: response.data[4] & 0x0f,
            code: (response.data[14], response.data[15]),
        });
        Outcome {
            status: response.header.0[3],
            sense,
        }
    }

    /// NOP-Out with the ping's unit and tag, and no tag of its own (RFC 7143 section 11.18): nobody answers it.
    async fn answer_ping(&mut self, ping: &Header) {
        let mut header = Header::new(0x40, 0x80, u32::MAX);
        header.0[8..16].copy_from_slice(&ping.0[8..16]);
        header.0[20..24].copy_from_slice(&ping.0[20..24]);
        header.set_u32(24, self.command_number);
        self.send(header, &[]).await;
    }

    /// Reads blocks of 512 bytes.
    pub async fn read(&mut self, block: u32, count: u16) -> Vec<u8> {
        let length = u32::from(count) * 512;
        let tag = self.command_number;
        self.command(tag, READ, length, &ten(0x28, block, count), &[])
            .await;
        let mut data = Vec::new();
        while data.len() < usize::try_from(length).unwrap() {
            let pdu = self.receive().await.unwrap();
            assert_eq!(pdu.header.opcode(), 0x25, "{:?}", pdu.data);
            data.extend(pdu.data);
        }
        data
    }

    /// Writes blocks of 512 bytes, at most 8192 bytes: they go with the command.
    pub async fn write(&mut self, block: u32, data: &[u8]) -> Outcome {
        let tag = self.begin_write(block, data).await;
        self.outcome(tag).await
    }

    /// Sends a write, and gives its tag.
    pub async fn begin_write(&mut self, block: u32, data: &[u8]) -> u32 {
        let tag = self.command_number;
        let count = u16::try_from(data.len() / 512).unwrap();
        let length = u32::try_from(data.len()).unwrap();
        self.command(tag, WRITE, length, &ten(0x2a, block, count), data)
            .await;
        tag
    }

    /// COMPARE AND WRITE of one block of 512 bytes (SBC-3 clause 5.2): writes `data` where `expected` is.
    pub async fn compare_and_write(&mut self, block: u8, expected: &[u8], data: &[u8]) -> Outcome {
        let tag = self.command_number;
        let cdb = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, block, 0, 0, 0, 1, 0, 0];
        self.command(tag, WRITE, 1024, &cdb, &[expected, data].concat())
            .await;
        self.outcome(tag).await
    }

    /// TEST UNIT READY.
    pub async fn ready(&mut self) -> Outcome {
        let tag = self.command_number;
        self.command(tag, 0, 0, &[0; 6], &[]).await;
        self.outcome(tag).await
    }

    /// RESERVE (SPC-2 clause 7.21).
    pub async fn reserve(&mut self) -> Outcome {
        let tag = self.command_number;
        self.command(tag, 0, 0, &[0x16, 0, 0, 0, 0, 0], &[]).await;
        self.outcome(tag).await
    }

    /// RELEASE (SPC-2 clause 7.17).
    pub async fn release(&mut self) -> Outcome {
        let tag = self.command_number;
        self.command(tag, 0, 0, &[0x17, 0, 0, 0, 0, 0], &[]).await;
        self.outcome(tag).await
    }

    /// Ends the session, and waits until the target has (RFC 7143 section 11.14).
    pub async fn log_out(mut self) {
        let mut header = Header::new(0x46, 0x80, self.command_number);
        header.set_u32(24, self.command_number);
        self.send(header, &[]).await;
        let response = self.receive().await.unwrap();
        assert_eq!((response.header.opcode(), response.header.0[2]), (0x26, 0));
    }

    /// Resets the unit; the answer is 0 if it was done.
    pub async fn reset_unit(&mut self) -> u8 {
        self.manage_tasks(5).await
    }

    /// Asks for a task management function, as an immediate request (RFC 7143 section 11.5); its answer, which is 0 if it was
    /// done.
    pub async fn manage_tasks(&mut self, function: u8) -> u8 {
        let tag = self.command_number;
        let mut header = Header::new(0x42, 0x80 | function, tag);
        header.set_u32(20, u32::MAX);
        header.set_u32(24, self.command_number);
        self.send(header, &[]).await;
        let response = self.receive().await.unwrap();
        assert_eq!(
            (response.header.opcode(), response.header.task_tag()),
            (0x22, tag)
        );
        response.header.0[2]
    }

    /// PERSISTENT RESERVE OUT (SPC-4 clause 6.16), with the own key and the one of the service action.
    pub async fn reserve_out(&mut self, action: u8, scope_type: u8, keys: (u64, u64)) -> Outcome {
        let mut parameters = [0; 24];
        parameters[..8].copy_from_slice(&keys.0.to_be_bytes());
        parameters[8..16].copy_from_slice(&keys.1.to_be_bytes());
        let tag = self.command_number;
        let cdb = [0x5f, action, scope_type, 0, 0, 0, 0, 0, 24];
        self.command(tag, WRITE, 24, &cdb, &parameters).await;
        self.outcome(tag).await
    }

    /// Takes the unit attention that tells a new session that the unit was powered on.
    pub async fn be_told(&mut self) {
        let outcome = self.ready().await;
        assert_eq!(outcome.attention(), Some((0x29, 0)));
    }
}
