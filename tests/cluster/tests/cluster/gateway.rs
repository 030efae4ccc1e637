//! `storaged-nbd` as processes, and the least of a client for them.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use test_node::{Node, Process};

const READ: u16 = 0;
const WRITE: u16 = 1;

/// A gateway whose volumes are shared.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    folder: tempfile::TempDir,
}

impl Gateway {
    pub(crate) fn start(node: &Node) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = format!("unix:{}", socket_in(folder.path()).display());
        let words = [
            "--storaged".to_owned(),
            node.session_socket().display().to_string(),
            "--listen".to_owned(),
            listen,
            "--shared".to_owned(),
        ];
        let log = folder.path().join("log");
        let mut process = Process::start("storaged-nbd", words, &log).unwrap();
        process.wait_for_socket(&socket_in(folder.path())).unwrap();
        Self { process, folder }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.folder.path())
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("nbd.sock")
}

/// A client of an export.
pub(crate) struct Client(UnixStream);

impl Client {
    pub(crate) fn connect(socket: &Path, export: &str) -> Self {
        let mut client = Self(UnixStream::connect(socket).unwrap());
        assert_eq!(client.take::<18>().unwrap()[..], b"NBDMAGICIHAVEOPT\0\x03"[..]);
        client.0.write_all(&3_u32.to_be_bytes()).unwrap();
        let length = u32::try_from(export.len()).unwrap().to_be_bytes();
        let option = [b"IHAVEOPT", &1_u32.to_be_bytes()[..], &length, export.as_bytes()].concat();
        client.0.write_all(&option).unwrap();
        client.take::<10>().unwrap();
        client
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).unwrap();
        let request = [&head(WRITE, offset, length)[..], data].concat();
        self.0.write_all(&request)?;
        self.answer()
    }

    pub(crate) fn read(&mut self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        self.0.write_all(&head(READ, offset, length))?;
        self.answer()?;
        let mut data = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut data)?;
        Ok(data)
    }

    fn answer(&mut self) -> io::Result<()> {
        let reply = self.take::<16>()?;
        assert_eq!(reply[..4], 0x6744_6698_u32.to_be_bytes());
        match u32::from_be_bytes(reply[4..8].try_into().unwrap()) {
            0 => Ok(()),
            error => Err(io::Error::other(format!(
                "the gateway answers with error {error}"
            ))),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn head(command: u16, offset: u64, length: u32) -> Vec<u8> {
    let head = [
        &0x2560_9513_u32.to_be_bytes()[..],
        &[0, 0],
        &command.to_be_bytes(),
    ]
    .concat();
    [&head[..], &[0; 8], &offset.to_be_bytes(), &length.to_be_bytes()].concat()
}
