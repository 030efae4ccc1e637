//! The real kernel: generic netlink to its NBD client, and `/sys/block`, where it tells which devices there are.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, McastGrpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::kernel::{Device, Kernel, KernelError, Tag};
use crate::netlink::{FAMILY, GROUP, Message, Setup};

/// Datagrams that answer one question at most: the answer and its end, and something to spare.
const ANSWERS_MAX: usize = 16;
/// How long a device may take to go away after its last user closed it: programs that look at every device that comes or
/// changes have it open for a moment.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);
/// Between looks at whether it has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Bytes of a sector, as `/sys/block` counts.
const SECTOR: u64 = 512;
/// Where the kernel tells of block devices.
const SYS_BLOCK: &str = "/sys/block";
/// What the kernel does not do for anybody: it is the number of no error that it has a name for.
const UNSUPPORTED: i32 = 95;

/// The kernel's NBD client.
pub struct Nbd {
    talk: Mutex<Talk>,
    family: u16,
    group: u32,
}

/// A socket, and the number of the last question.
struct Talk {
    socket: Socket,
    asked: u32,
}

/// A link has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLink {
    /// That of a device.
    Of(u32),
    /// Some were missed: it may be any.
    Any,
}

impl Nbd {
    /// Finds the kernel's NBD client.
    pub fn open() -> Result<Self, KernelError> {
        let refused = |source| KernelError::Refused {
            what: "open a netlink socket",
            source,
        };
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(refused)?;
        socket.bind_auto().map_err(refused)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(refused)?;
        let mut talk = Talk { socket, asked: 0 };
        let question = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY.to_owned())],
        });
        let answer = match talk.ask(question) {
            Ok(answer) => answer,
            Err(Failure::Code(Errno::NOENT)) => return Err(KernelError::NoModule),
            Err(failure) => return Err(failure.doing("name its NBD client")),
        };
        let (family, group) = answer
            .and_then(|answer| identify(&answer.nlas))
            .ok_or_else(|| KernelError::Senseless("the NBD client has no number".to_owned()))?;
        Ok(Self {
            talk: Mutex::new(talk),
            family,
            group,
        })
    }

    /// Hears of the links that die from now on.
    pub fn dead_links(&self) -> io::Result<DeadLinks> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.add_membership(self.group)?;
        Ok(DeadLinks(socket))
    }

    fn command(&self, message: Message, what: &'static str) -> Result<Option<Message>, KernelError> {
        let mut message = GenlMessage::from_payload(message);
        message.set_resolved_family_id(self.family);
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        talk.ask(message).map_err(|failure| failure.doing(what))
    }
}

/// Where the kernel tells of dead links.
pub struct DeadLinks(Socket);

impl DeadLinks {
    /// Tells of dead links for as long as `tell` says that somebody wants to know. Blocks.
    pub fn listen(&self, mut tell: impl FnMut(DeadLink) -> bool) -> io::Result<()> {
        loop {
            let dead = match self.0.recv_from_full() {
                Ok((bytes, _)) => match message_at::<Message>(&bytes, 0) {
                    Ok((NetlinkPayload::InnerMessage(message), _, _)) => {
                        message.payload.dead_link().map(DeadLink::Of)
                    }
                    _ => None,
                },
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    Some(DeadLink::Any)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
                Err(error) => return Err(error),
            };
            if dead.is_some_and(|dead| !tell(dead)) {
                return Ok(());
            }
        }
    }
}

/// The family's number and that of its group.
fn identify(attributes: &[GenlCtrlAttrs]) -> Option<(u16, u32)> {
    let family = attributes.iter().find_map(|attribute| match attribute {
        GenlCtrlAttrs::FamilyId(family) => Some(*family),
        _ => None,
    })?;
    let groups = attributes.iter().find_map(|attribute| match attribute {
        GenlCtrlAttrs::McastGroups(groups) => Some(groups),
        _ => None,
    })?;
    let group = groups
        .iter()
        .find(|group| group.contains(&McastGrpAttrs::Name(GROUP.to_owned())))?;
    let number = group.iter().find_map(|attribute| match attribute {
        McastGrpAttrs::Id(number) => Some(*number),
        McastGrpAttrs::Name(_) => None,
    })?;
    Some((family, number))
}

/// Why a question has no answer.
enum Failure {
    /// The kernel says so.
    Code(Errno),
    /// The socket does.
    Io(io::Error),
    /// Its answer is not understood.
    Senseless(String),
}

impl Failure {
    fn doing(self, what: &'static str) -> KernelError {
        match self {
            Self::Code(Errno::PERM | Errno::ACCESS) => KernelError::NotAllowed,
            Self::Code(code) if code.raw_os_error() == UNSUPPORTED => KernelError::NoModule,
            Self::Code(code) => KernelError::Refused {
                what,
                source: code.into(),
            },
            Self::Io(source) => KernelError::Refused { what, source },
            Self::Senseless(why) => KernelError::Senseless(why),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Senseless(error.to_string())
    }
}

/// What a netlink message carries, its number, and where the next one begins.
type Part<F> = (NetlinkPayload<GenlMessage<F>>, u32, usize);

fn message_at<F>(bytes: &[u8], at: usize) -> Result<Part<F>, DecodeError>
where
    F: ParseableParametrized<[u8], GenlHeader> + Debug,
{
    let rest = bytes.get(at..).unwrap_or_default();
    let message = NetlinkMessage::<GenlMessage<F>>::deserialize(rest)?;
    // At least a header, so that this comes to an end.
    let length = usize::try_from(message.header.length)
        .unwrap_or(usize::MAX)
        .max(16);
    let next = at.saturating_add(length.next_multiple_of(4));
    Ok((message.payload, message.header.sequence_number, next))
}

impl Talk {
    /// Asks, and waits for the answer's end: the kernel has given all of it when the question was sent.
    fn ask<F>(&mut self, question: GenlMessage<F>) -> Result<Option<F>, Failure>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Debug,
    {
        self.asked = self.asked.wrapping_add(1);
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        message.header.sequence_number = self.asked;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answer = None;
        for _ in 0..ANSWERS_MAX {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut at = 0;
            while at < bytes.len() {
                let (payload, number, next) = message_at::<F>(&bytes, at)?;
                at = next;
                if number != self.asked {
                    continue;
                }
                match payload {
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answer),
                    NetlinkPayload::Error(error) => {
                        return Err(Failure::Code(Errno::from_raw_os_error(
                            error.raw_code().saturating_abs(),
                        )));
                    }
                    NetlinkPayload::InnerMessage(message) => answer = Some(message.payload),
                    _ => {}
                }
            }
        }
        Err(Failure::Senseless("it does not come to an end".to_owned()))
    }
}

impl Kernel for Nbd {
    fn devices(&self) -> Result<Vec<Device>, KernelError> {
        let mut devices: Vec<Device> = fs::read_dir(SYS_BLOCK)
            .map_err(|source| KernelError::Refused {
                what: "list its block devices",
                source,
            })?
            .filter_map(|entry| device_at(&entry.ok()?.path()))
            .collect();
        devices.sort_by_key(|device| device.index);
        Ok(devices)
    }

    fn connect(&self, tag: &Tag, size: u64, flags: u16, link: BorrowedFd<'_>) -> Result<Device, KernelError> {
        let text = tag.to_string();
        let setup = Setup {
            size,
            flags,
            tag: &text,
        };
        let answer = self.command(Message::connect(&setup, link.as_raw_fd()), "make a block device")?;
        let index = answer
            .and_then(|answer| answer.index())
            .ok_or_else(|| KernelError::Senseless("a block device was made, and has no number".to_owned()))?;
        if let Some(device) = device_at(&folder_of(index)).filter(|device| device.tag == *tag) {
            return Ok(device);
        }
        // Nobody would find it again, so it must not stay.
        self.command(Message::disconnect(index), "end a block device")?;
        Err(KernelError::Old)
    }

    fn relink(&self, device: &Device, link: BorrowedFd<'_>) -> Result<(), KernelError> {
        let message = Message::relink(device.index, &device.tag.to_string(), link.as_raw_fd());
        self.command(message, "give a block device another link")
            .map(drop)
    }

    fn resize(&self, device: &Device, size: u64) -> Result<(), KernelError> {
        let message = Message::resize(device.index, &device.tag.to_string(), size);
        self.command(message, "resize a block device").map(drop)
    }

    fn release(&self, device: &Device) -> Result<bool, KernelError> {
        let tag = device.tag.to_string();
        let what = "end a block device";
        self.command(Message::end_when_closed(device.index, &tag, true), what)?;
        // If nobody else has it open, this is the last one that closes it.
        let node = Path::new("/dev").join(device.node());
        let opened = rustix::fs::open(&node, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        drop(opened.map_err(|error| KernelError::Refused {
            what,
            source: error.into(),
        })?);
        let deadline = Instant::now() + RELEASE_PATIENCE;
        loop {
            let is_there = device_at(&folder_of(device.index)).is_some_and(|found| found.tag == device.tag);
            if !is_there {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        // It stays, and must not end when whoever uses it closes it for a moment.
        self.command(Message::end_when_closed(device.index, &tag, false), what)?;
        Ok(false)
    }

    fn cut(&self, device: &Device) -> Result<(), KernelError> {
        self.command(Message::disconnect(device.index), "end a block device")
            .map(drop)
    }
}

fn folder_of(index: u32) -> PathBuf {
    Path::new(SYS_BLOCK).join(format!("nbd{index}"))
}

/// What the kernel tells of a device, if it is ours.
fn device_at(folder: &Path) -> Option<Device> {
    let index = folder.file_name()?.to_str()?.strip_prefix("nbd")?.parse().ok()?;
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let tag = read("backend")?.trim_end().parse().ok()?;
    let sectors: u64 = read("size")?.trim_end().parse().ok()?;
    Some(Device {
        index,
        tag,
        size: sectors.saturating_mul(SECTOR),
        read_only: read("ro")?.trim_end() == "1",
    })
}

#[cfg(test)]
mod tests {
    //! What `/sys/block` tells is read, and devices of others are not ours.
    use super::*;
    use crate::kernel::Owner;

    #[test]
    fn a_device_is_read_from_what_the_kernel_tells_and_those_of_others_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let write = |device: &str, files: &[(&str, &str)]| {
            let device = folder.path().join(device);
            fs::create_dir(&device).unwrap();
            for (name, text) in files {
                fs::write(device.join(name), text).unwrap();
            }
            device
        };
        let facts = [("size", "2048\n"), ("ro", "1\n")];
        let ours = write(
            "nbd12",
            &[&facts[..], &[("backend", "storaged:cloud:volume-1\n")]].concat(),
        );
        assert_eq!(
            device_at(&ours).unwrap(),
            Device {
                index: 12,
                tag: Tag {
                    owner: Owner::Cloud,
                    export: "volume-1".parse().unwrap(),
                },
                size: 1 << 20,
                read_only: true,
            }
        );
        let other = write("nbd1", &[&facts[..], &[("backend", "qemu\n")]].concat());
        assert_eq!(device_at(&other), None);
        assert_eq!(device_at(&write("nbd2", &facts)), None);
        assert_eq!(device_at(&write("sda", &facts)), None);
    }
}
