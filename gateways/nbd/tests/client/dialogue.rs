//! A client that says exactly what a test wants, byte by byte, and a server in this process.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;

use storaged_nbd::address::ListenAddress;
use storaged_nbd::server::{Server, Settings};
use storaged_nbd::source::{MemoryExport, Source};
use tokio::sync::watch;

/// A server with the exports `disk` and `other` of 1 MiB each, on a unix socket. Leaves when dropped.
pub(crate) struct Gateway {
    folder: tempfile::TempDir,
    leave: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    pub(crate) fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let export = |name: &str| MemoryExport {
            name: name.into(),
            size: 1 << 20,
        };
        let mut settings = Settings {
            source: Source::Memory(vec![export("disk"), export("other")]),
            listen: vec![ListenAddress::Unix(folder.path().join("nbd.sock"))],
            control: None,
            tls: None,
            plaintext: false,
            default_export: None,
            connections: 8,
        };
        change(&mut settings);
        let (leave, leaving) = watch::channel(false);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let server = Server::bind(settings).await.unwrap();
                ready.send(()).unwrap();
                server.run(leaving).await;
            });
        });
        is_ready.recv().unwrap();
        Self {
            folder,
            leave,
            thread: Some(thread),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd.sock")
    }

    /// Connects and greets.
    pub(crate) fn connect(&self) -> Dialogue {
        let mut dialogue = Dialogue {
            stream: UnixStream::connect(self.socket()).unwrap(),
        };
        assert_eq!(dialogue.take(18), b"NBDMAGICIHAVEOPT\x00\x03");
        dialogue.say(&3u32.to_be_bytes());
        dialogue
    }

    /// Connects to the export `disk` with simple replies.
    pub(crate) fn connect_to_disk(&self) -> Dialogue {
        let mut dialogue = self.connect();
        dialogue.say(&option(1, b"disk"));
        assert_eq!(dialogue.number::<8>(), 1 << 20);
        dialogue.take(2);
        dialogue
    }

    pub(crate) fn leave(&self) {
        self.leave.send_replace(true);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.leave();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

/// One connection.
pub(crate) struct Dialogue {
    stream: UnixStream,
}

impl Dialogue {
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn number<const N: usize>(&mut self) -> u64 {
        self.take(N)
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Whether the server has hung up without another word.
    pub(crate) fn is_over(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Sends an option; gives the answers up to the last one: kinds and data.
    pub(crate) fn ask(&mut self, number: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.say(&option(number, data));
        let mut answers = Vec::new();
        loop {
            assert_eq!(self.number::<8>(), 0x0003_e889_0455_65a9);
            assert_eq!(self.number::<4>(), u64::from(number));
            let kind = u32::try_from(self.number::<4>()).unwrap();
            let length = usize::try_from(self.number::<4>()).unwrap();
            answers.push((kind, self.take(length)));
            if kind == ACK || kind >= 1 << 31 {
                return answers;
            }
        }
    }

    /// Sends an option that has one answer; gives its kind and its text.
    pub(crate) fn ask_once(&mut self, number: u32, data: &[u8]) -> (u32, String) {
        let mut answers = self.ask(number, data);
        assert_eq!(answers.len(), 1, "{answers:?}");
        let (kind, data) = answers.remove(0);
        (kind, String::from_utf8(data).unwrap())
    }

    /// Takes a simple reply: its error and its cookie.
    pub(crate) fn simple_reply(&mut self) -> (u64, u64) {
        assert_eq!(self.number::<4>(), 0x6744_6698);
        (self.number::<4>(), self.number::<8>())
    }
}

pub(crate) const ACK: u32 = 1;

pub(crate) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [
        b"IHAVEOPT",
        &number.to_be_bytes()[..],
        &length.to_be_bytes(),
        data,
    ]
    .concat()
}

/// The data of `INFO` and `GO`.
pub(crate) fn export_query(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = text(name);
    data.extend(u16::try_from(wanted.len()).unwrap().to_be_bytes());
    data.extend(wanted.iter().flat_map(|kind| kind.to_be_bytes()));
    data
}

/// The data of the options about contexts.
pub(crate) fn context_query(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = text(name);
    data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    data.extend(queries.iter().flat_map(|query| text(query)));
    data
}

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// A compact request's header.
pub(crate) fn request(command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let head = [
        0x2560_9513_u32.to_be_bytes().as_slice(),
        &[0, 0],
        &command.to_be_bytes(),
    ]
    .concat();
    [
        head.as_slice(),
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &length.to_be_bytes(),
    ]
    .concat()
}
