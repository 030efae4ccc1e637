//! An iSCSI initiator for one session with one connection (RFC 7143), as small as measuring allows: it negotiates what
//! open-iscsi asks for by default, sends write data with the command as far as it may and then as it is asked to, and
//! panics at nothing: an answer that it does not know ends the benchmark.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use storaged_iscsi::wire::header::Header;

use crate::local::drive::Device;
use crate::local::pattern::IN_FLIGHT_MAX;

/// How long a target may be silent.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// What the initiator takes in one PDU, and would like to send in one.
const PDU_MAX: usize = 256 << 10;
/// What the kernel and we buffer of what comes.
const BUFFER: usize = 1 << 20;
/// Bytes of a logical block of all units here.
const BLOCK: u64 = 512;
/// How many unit attentions a new session may be told.
const ATTENTIONS_MAX: u32 = 8;
/// The tag of a task that nobody else has.
const OWN_TAG: usize = 0xffff;

const NO_TAG: u32 = u32::MAX;

/// What was agreed on.
#[derive(Clone, Copy, Debug)]
struct Agreed {
    /// Data that may go with a command.
    immediate: usize,
    /// Data of one PDU to the target.
    pdu: usize,
}

/// A request under way.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    place: usize,
    length: usize,
}

/// A session.
pub(crate) struct Initiator {
    input: BufReader<TcpStream>,
    output: TcpStream,
    /// What is to be sent.
    queued: Vec<u8>,
    memory: Vec<u8>,
    /// By tag.
    requests: Vec<Request>,
    lun: u8,
    command_number: u32,
    status_number: u32,
    agreed: Agreed,
    capacity: u64,
}

impl Initiator {
    /// Logs in without proof.
    pub(crate) fn log_in(address: SocketAddr, target: &str, host: &str, lun: u8) -> Result<Self> {
        let output = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        output.set_nodelay(true)?;
        output.set_read_timeout(Some(SILENCE_MAX))?;
        let mut initiator = Self {
            input: BufReader::with_capacity(BUFFER, output.try_clone()?),
            output,
            queued: Vec::new(),
            memory: vec![0; IN_FLIGHT_MAX],
            requests: vec![Request::default(); OWN_TAG + 1],
            lun,
            command_number: 1,
            status_number: 0,
            agreed: Agreed {
                immediate: 0,
                pdu: 8192,
            },
            capacity: 0,
        };
        initiator.negotiate(target, host)?;
        initiator.await_readiness()?;
        initiator.capacity = initiator.read_capacity()?;
        Ok(initiator)
    }

    fn negotiate(&mut self, target: &str, host: &str) -> Result<()> {
        let mut header = Header::new(0x43, 0x87, 0);
        header.0[8..14].copy_from_slice(&[0x80, 0, 0, 0, 0, 1]);
        header.set_u32(24, self.command_number);
        let keys = format!(
            "InitiatorName={host}\0TargetName={target}\0SessionType=Normal\0HeaderDigest=None\0DataDigest=None\0\
             InitialR2T=No\0ImmediateData=Yes\0MaxRecvDataSegmentLength={PDU_MAX}\0FirstBurstLength={PDU_MAX}\0\
             MaxBurstLength=16776192\0MaxOutstandingR2T=1\0"
        );
        self.queue(header, keys.as_bytes());
        self.kick()?;
        let mut answer = self.receive()?;
        ensure!(
            answer.opcode() == 0x23 && answer.u16(36) == 0,
            "the login is refused: {:#x}",
            answer.u16(36)
        );
        if answer.0[1] & 0x80 == 0 || answer.0[1] & 3 != 3 {
            bail!("the target wants to talk about more than was said");
        }
        let mut text = vec![0; answer.data_length()];
        self.take(&mut text, &mut answer)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let number = |key: &str, otherwise: usize| {
            let mut pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(name, _)| *name == key);
            found
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or(otherwise)
        };
        let pdu = number("MaxRecvDataSegmentLength", 8192).min(PDU_MAX);
        let allowed = !text.contains("ImmediateData=No");
        self.agreed = Agreed {
            immediate: if allowed {
                number("FirstBurstLength", PDU_MAX).min(pdu)
            } else {
                0
            },
            pdu,
        };
        Ok(())
    }

    /// Takes what a new session is told before anything else.
    fn await_readiness(&mut self) -> Result<()> {
        for _ in 0..ATTENTIONS_MAX {
            self.command(OWN_TAG, 0, 0, &[0; 16], 0..0);
            self.kick()?;
            let header = self.receive()?;
            self.skip(&header)?;
            ensure!(header.opcode() == 0x21, "no response but {:#x}", header.opcode());
            self.note(&header);
            if header.0[3] == 0 {
                return Ok(());
            }
        }
        bail!("the unit does not become ready")
    }

    fn read_capacity(&mut self) -> Result<u64> {
        self.requests[OWN_TAG] = Request { place: 0, length: 32 };
        let mut cdb = [0; 16];
        cdb[..2].copy_from_slice(&[0x9e, 0x10]);
        cdb[13] = 32;
        self.command(OWN_TAG, 0x40, 32, &cdb, 0..0);
        self.kick()?;
        self.wait(&mut Vec::new())?;
        let mut last = [0; 8];
        last.copy_from_slice(&self.memory[..8]);
        ensure!(self.memory[8..12] == [0, 0, 2, 0], "blocks have not 512 bytes");
        Ok((u64::from_be_bytes(last) + 1) * BLOCK)
    }

    /// Queues a command, with the data at `immediate` in memory.
    fn command(
        &mut self,
        tag: usize,
        flags: u8,
        length: usize,
        cdb: &[u8; 16],
        immediate: std::ops::Range<usize>,
    ) {
        let mut header = Header::new(0x01, 0x80 | flags, u32::try_from(tag).unwrap_or(NO_TAG));
        header.0[9] = self.lun;
        header.set_u32(20, u32::try_from(length).unwrap_or(u32::MAX));
        header.set_u32(24, self.command_number);
        header.set_u32(28, self.status_number);
        header.0[32..48].copy_from_slice(cdb);
        self.command_number = self.command_number.wrapping_add(1);
        let data = std::mem::take(&mut self.memory);
        self.queue(header, &data[immediate]);
        self.memory = data;
    }

    fn queue(&mut self, mut header: Header, data: &[u8]) {
        header.set_data_length(data.len());
        self.queued.extend_from_slice(&header.0);
        self.queued.extend_from_slice(data);
        self.queued.resize(self.queued.len().next_multiple_of(4), 0);
    }

    fn receive(&mut self) -> Result<Header> {
        let mut bytes = [0; 48];
        self.input
            .read_exact(&mut bytes)
            .context("the target is silent or gone")?;
        Ok(Header(bytes))
    }

    /// Takes a PDU's data, with its padding.
    fn take(&mut self, into: &mut [u8], header: &mut Header) -> Result<()> {
        self.input.read_exact(into)?;
        let padding = header.data_length().next_multiple_of(4) - header.data_length();
        self.input.read_exact(&mut [0; 4][..padding])?;
        Ok(())
    }

    fn skip(&mut self, header: &Header) -> Result<()> {
        let mut rest = vec![0; header.data_length().next_multiple_of(4)];
        Ok(self.input.read_exact(&mut rest)?)
    }

    fn note(&mut self, header: &Header) {
        self.status_number = header.u32(24).wrapping_add(1);
    }

    /// Acts on one PDU; the tag of a request that has ended.
    fn step(&mut self) -> Result<Option<usize>> {
        let mut header = self.receive()?;
        let tag = usize::try_from(header.task_tag())?;
        match header.opcode() {
            0x25 => {
                let request = *self.requests.get(tag).context("data for no request")?;
                let (from, length) = (usize::try_from(header.u32(40))?, header.data_length());
                ensure!(from + length <= request.length, "data beyond what was asked for");
                let at = request.place + from;
                let mut memory = std::mem::take(&mut self.memory);
                self.take(&mut memory[at..at + length], &mut header)?;
                self.memory = memory;
                if header.0[1] & 0x01 == 0 {
                    return Ok(None);
                }
                self.ended(&header, tag)
            }
            0x21 => {
                self.skip(&header)?;
                self.ended(&header, tag)
            }
            0x31 => self.send_wanted(&header, tag).map(|()| None),
            0x20 => {
                self.skip(&header)?;
                if header.u32(20) != NO_TAG {
                    let mut answer = Header::new(0x40, 0x80, NO_TAG);
                    answer.set_u32(20, header.u32(20));
                    answer.set_u32(24, self.command_number);
                    answer.set_u32(28, self.status_number);
                    self.queue(answer, &[]);
                    self.kick()?;
                }
                Ok(None)
            }
            other => bail!("the target says {other:#x}, which nobody awaits"),
        }
    }

    fn ended(&mut self, header: &Header, tag: usize) -> Result<Option<usize>> {
        self.note(header);
        ensure!(header.0[3] == 0, "a command ended with status {:#x}", header.0[3]);
        Ok(Some(tag))
    }

    /// Sends the data that the target asks for.
    fn send_wanted(&mut self, wish: &Header, tag: usize) -> Result<()> {
        let request = *self.requests.get(tag).context("a wish for no request")?;
        let (from, length) = (usize::try_from(wish.u32(40))?, usize::try_from(wish.u32(44))?);
        ensure!(
            from + length <= request.length,
            "data is wanted that there is not"
        );
        let data = std::mem::take(&mut self.memory);
        for (number, at) in (0..).zip((from..from + length).step_by(self.agreed.pdu)) {
            let end = (at + self.agreed.pdu).min(from + length);
            let last = end == from + length;
            let mut header = Header::new(0x05, if last { 0x80 } else { 0 }, wish.task_tag());
            header.0[9] = self.lun;
            header.set_u32(20, wish.u32(20));
            header.set_u32(28, self.status_number);
            header.set_u32(36, number);
            header.set_u32(40, u32::try_from(at)?);
            self.queue(header, &data[request.place + at..request.place + end]);
        }
        self.memory = data;
        self.kick()
    }
}

impl Device for Initiator {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn store(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let place = self.memory.get_mut(at..at + bytes.len());
        place.context("outside of the memory")?.copy_from_slice(bytes);
        Ok(())
    }

    fn load(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        let place = self.memory.get(at..at + bytes.len());
        bytes.copy_from_slice(place.context("outside of the memory")?);
        Ok(())
    }

    fn read(&mut self, offset: u64, at: usize, length: usize, tag: usize) -> Result<()> {
        let cdb = blocks(0x88, offset, length);
        self.requests[tag] = Request { place: at, length };
        self.command(tag, 0x40, length, &cdb, 0..0);
        Ok(())
    }

    fn write(&mut self, offset: u64, at: usize, length: usize, tag: usize) -> Result<()> {
        let cdb = blocks(0x8a, offset, length);
        self.requests[tag] = Request { place: at, length };
        self.command(
            tag,
            0x20,
            length,
            &cdb,
            at..at + length.min(self.agreed.immediate),
        );
        Ok(())
    }

    fn flush(&mut self, tag: usize) -> Result<()> {
        let mut cdb = [0; 16];
        cdb[0] = 0x35;
        self.requests[tag] = Request::default();
        self.command(tag, 0, 0, &cdb, 0..0);
        Ok(())
    }

    fn kick(&mut self) -> Result<()> {
        self.output.write_all(&self.queued)?;
        self.queued.clear();
        Ok(())
    }

    fn wait(&mut self, done: &mut Vec<usize>) -> Result<()> {
        let before = done.len();
        // What has come already is taken with what is waited for.
        while done.len() == before || self.input.buffer().len() >= 48 {
            done.extend(self.step()?);
        }
        Ok(())
    }
}

/// A command of 16 bytes about blocks.
fn blocks(opcode: u8, offset: u64, length: usize) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&(offset / BLOCK).to_be_bytes());
    let count = u32::try_from(length as u64 / BLOCK).unwrap_or(u32::MAX);
    cdb[10..14].copy_from_slice(&count.to_be_bytes());
    cdb
}
