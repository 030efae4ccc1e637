//! Clients that die, hang up or talk nonsense, and servers that go: the others must not notice.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::nbd::MIB;
use crate::nbd::patterns::io;
use crate::stage::{Server, Stage, in_memory};
use crate::suite::{Check, Finding};
use crate::tool::{bounded, fail, succeed};

/// Clients that come to grief.
pub(super) const CLIENTS: &[Check<Stage>] = &[
    Check {
        name: "a client killed while it copies leaves the export usable",
        tools: &["nbdcopy", "qemu-io"],
        run: killed,
    },
    Check {
        name: "a client killed with writes in flight harms no other",
        tools: &["qemu-io"],
        run: killed_beside_another,
    },
    Check {
        name: "a request cut off in the middle is forgotten",
        tools: &["qemu-io"],
        run: cut_off,
    },
    Check {
        name: "a client that talks nonsense is hung up on",
        tools: &["qemu-io"],
        run: nonsense,
    },
];

/// Servers that come and go.
pub(super) const SERVERS: &[Check<Stage>] = &[
    Check {
        name: "SIGTERM ends the server well, with clients connected",
        tools: &["qemu-io"],
        run: terminated,
    },
    Check {
        name: "a server takes over the socket file of one that crashed",
        tools: &["nbdinfo"],
        run: stale_socket,
    },
    Check {
        name: "a server leaves the socket of a living one alone",
        tools: &["nbdinfo"],
        run: living_socket,
    },
];

/// A qemu-io that stays connected and does what it is told.
pub(super) struct Session {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

const PROMPT: &[u8] = b"qemu-io> ";

impl Session {
    /// Connects to an export.
    pub(super) fn open(uri: &str) -> Result<Self> {
        let mut command = bounded("qemu-io");
        command
            .args(["-f", "raw", uri])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = child.stdout.take().context("no output")?;
        let mut session = Self { child, input, output };
        session.answer()?;
        Ok(session)
    }

    /// Carries out one command; gives what it printed.
    pub(super) fn command(&mut self, command: &str) -> Result<String> {
        self.tell(command)?;
        self.answer()
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.input, "{command}")?;
        Ok(self.input.flush()?)
    }

    fn answer(&mut self) -> Result<String> {
        let mut said = Vec::new();
        let mut byte = [0];
        while !said.ends_with(PROMPT) {
            if self.output.read(&mut byte)? == 0 {
                bail!("qemu-io ended: {}", String::from_utf8_lossy(&said));
            }
            said.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Session {
    /// The shell's `timeout` passes a TERM on; a KILL would leave qemu-io behind.
    fn drop(&mut self) {
        let _ = writeln!(self.input, "quit");
        let _ = self.child.wait();
    }
}

/// How often to look whether something has arrived; each look starts a process.
const LOOKS_MAX: u32 = 2000;

fn killed(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    let mut copy = Command::new("nbdcopy")
        .args(["--", "-", &uri])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = copy.stdin.take().context("no input")?;
    input.write_all(&vec![7; 24 << 20])?;
    let arrived = (0..LOOKS_MAX)
        .any(|_| succeed("nbdinfo", ["--map", "--totals", &uri]).is_ok_and(|said| said.contains("data")));
    copy.kill()?;
    copy.wait()?;
    ensure!(arrived, "nothing of the copy arrived");
    io(&uri, &["read -P 7 0 4k", "write -P 8 0 64M", "read -P 8 0 64M"])?;
    Ok(())
}

fn killed_beside_another(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    let mut survivor = Session::open(&uri)?;
    for round in 0..5 {
        let mut command = Command::new("qemu-io");
        command
            .args(["-f", "raw", &uri])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut victim = command.spawn()?;
        let mut input = victim.stdin.take().context("no input")?;
        for at in 0..16 {
            writeln!(input, "aio_write -P {} {}M 1M", round + 1, at)?;
        }
        input.flush()?;
        survivor.command("write -P 200 48M 4M")?;
        victim.kill()?;
        victim.wait()?;
        let said = survivor.command("read -P 200 48M 4M")?;
        ensure!(!said.contains("failed"), "round {round}: {said}");
    }
    Ok(())
}

fn option(number: u32, data: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend(u32::try_from(data.len())?.to_be_bytes());
    bytes.extend(data);
    Ok(bytes)
}

fn request(command: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(command.to_be_bytes());
    bytes.extend(77u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// Greets and chooses an export in the old way, whose answer has a known length.
fn connect(stage: &Stage) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(stage.socket())?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    ensure!(
        &greeting == b"NBDMAGICIHAVEOPT\x00\x03",
        "the greeting: {greeting:?}"
    );
    stream.write_all(&3u32.to_be_bytes())?;
    stream.write_all(&option(1, b"disk")?)?;
    let mut export = [0; 10];
    stream.read_exact(&mut export)?;
    ensure!(export[..8] == (64 * MIB).to_be_bytes(), "the size: {export:?}");
    Ok(stream)
}

/// Waits until the server has hung up; whatever it says before is of no interest.
fn hung_up(mut stream: UnixStream) {
    // A reset is a hang-up too.
    let _ = stream.read_to_end(&mut Vec::new());
}

fn cut_off(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    io(&uri, &["write -P 1 0 1M"])?;
    let mut stream = connect(stage)?;
    stream.write_all(&request(1, 0, 1 << 20))?;
    stream.write_all(&vec![9; 300_000])?;
    stream.shutdown(std::net::Shutdown::Write)?;
    hung_up(stream);
    let mut stream = connect(stage)?;
    stream.write_all(&request(0, 0, 4096)[..20])?;
    drop(stream);
    io(&uri, &["read -P 1 0 1M"])?;
    Ok(())
}

fn nonsense(stage: &mut Stage) -> Finding {
    let mut stream = connect(stage)?;
    stream.write_all(&[0x55; 4096])?;
    hung_up(stream);
    let mut stream = connect(stage)?;
    stream.write_all(&request(1, 0, u32::MAX))?;
    hung_up(stream);
    for greeting in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64]] {
        let mut stream = UnixStream::connect(stage.socket())?;
        stream.write_all(greeting)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        hung_up(stream);
    }
    io(&stage.uri("disk"), &["write -P 1 0 4k", "read -P 1 0 4k"])?;
    Ok(())
}

/// A gateway of the check's own, in a folder inside the stage's.
fn another(stage: &Stage) -> Result<(std::path::PathBuf, Server)> {
    let folder = stage.folder.path().join("another");
    std::fs::create_dir(&folder)?;
    let server = Server::start(&mut in_memory(&folder, &[("disk", MIB)])?, 1)?;
    Ok((folder, server))
}

fn uri(folder: &Path) -> String {
    format!("nbd+unix:///disk?socket={}", folder.join("nbd.sock").display())
}

fn terminated(stage: &mut Stage) -> Finding {
    let (folder, server) = another(stage)?;
    let mut client = Session::open(&uri(&folder))?;
    client.command("write -P 1 0 4k")?;
    server.stop()?;
    ensure!(
        !folder.join("nbd.sock").exists(),
        "the socket's file is left behind"
    );
    Ok(())
}

fn stale_socket(stage: &mut Stage) -> Finding {
    let (folder, server) = another(stage)?;
    server.crash()?;
    ensure!(folder.join("nbd.sock").exists(), "a crash leaves the file");
    let server = Server::start(&mut in_memory(&folder, &[("disk", MIB)])?, 1)?;
    succeed("nbdinfo", [uri(&folder)])?;
    server.stop()
}

fn living_socket(stage: &mut Stage) -> Finding {
    let (folder, server) = another(stage)?;
    let command = in_memory(&folder, &[("disk", MIB)])?;
    let said = fail(command.get_program(), command.get_args())?;
    ensure!(said.contains("another process listens there"), "{said}");
    succeed("nbdinfo", [uri(&folder)])?;
    server.stop()
}
