//! What is asked of the kernel about block devices of NBD, and how ours are told from those of others. How it is asked is
//! [`crate::nbd`]'s business.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use admin_api::names::Reference;

/// What every tag of ours begins with.
const TAG_PREFIX: &str = "storaged:";

/// Who wants a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// Somebody on this host: `storaged-attach map`.
    Host,
    /// Whoever writes into the coordination store: OpenStack.
    Cloud,
}

impl Owner {
    fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Cloud => "cloud",
        }
    }
}

/// What the kernel keeps with a device of ours: `storaged:OWNER:VOLUME`, or `storaged:OWNER:VOLUME@SNAPSHOT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Who wants it.
    pub owner: Owner,
    /// What it is of.
    pub export: Reference,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TAG_PREFIX}{}:{}", self.owner.word(), self.export)
    }
}

/// A tag is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOurs;

impl FromStr for Tag {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let rest = text.strip_prefix(TAG_PREFIX).ok_or(NotOurs)?;
        let (word, export) = rest.split_once(':').ok_or(NotOurs)?;
        let owner = [Owner::Host, Owner::Cloud]
            .into_iter()
            .find(|owner| owner.word() == word)
            .ok_or(NotOurs)?;
        let export = export.parse().map_err(|_| NotOurs)?;
        Ok(Self { owner, export })
    }
}

/// A device of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number: `/dev/nbdN`.
    pub index: u32,
    /// What it is.
    pub tag: Tag,
    /// Its size in bytes, as the kernel tells it.
    pub size: u64,
    /// Whether the kernel takes no writes to it.
    pub read_only: bool,
}

impl Device {
    /// What it is called below `/dev`.
    pub fn node(&self) -> String {
        format!("nbd{}", self.index)
    }
}

/// Why the kernel does not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No such family.
    #[error("this kernel has no NBD client: load it (modprobe nbd)")]
    NoModule,
    /// Not root.
    #[error("only root may make block devices (CAP_SYS_ADMIN)")]
    NotAllowed,
    /// It does not keep tags.
    #[error("this kernel does not remember whose a device is: Linux 5.14 or newer is needed")]
    Old,
    /// Anything else that it refuses.
    #[error("the kernel refuses to {what}: {source}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It said something that this program does not understand.
    #[error("the kernel's answer makes no sense: {0}")]
    Senseless(String),
}

/// The kernel. Every call returns when it is done, and may take as long as a flush does.
pub trait Kernel: Send + Sync {
    /// All devices of ours, by number.
    fn devices(&self) -> Result<Vec<Device>, KernelError>;

    /// Makes a device of so many bytes from a socket on which an export was chosen, whose server takes these transmission
    /// flags.
    fn connect(&self, tag: &Tag, size: u64, flags: u16, link: BorrowedFd<'_>) -> Result<Device, KernelError>;

    /// Gives a device another socket, if its own is dead.
    fn relink(&self, device: &Device, link: BorrowedFd<'_>) -> Result<(), KernelError>;

    /// Changes a device's size, in bytes.
    fn resize(&self, device: &Device, size: u64) -> Result<(), KernelError>;

    /// Ends a device unless somebody uses it; says whether it has ended.
    fn release(&self, device: &Device) -> Result<bool, KernelError>;

    /// Ends a device, used or not: what is under way fails.
    fn cut(&self, device: &Device) -> Result<(), KernelError>;
}

#[cfg(test)]
mod tests {
    //! What the kernel keeps for us reads back, and nobody else's is taken for ours.
    use super::*;

    #[test]
    fn tags_read_back_and_others_are_not_ours() {
        for text in ["storaged:host:a", "storaged:cloud:volume-1", "storaged:host:a@s"] {
            assert_eq!(text.parse::<Tag>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "rbd",
            "storaged:",
            "storaged:me:a",
            "storaged:host:",
            "storaged:host:../x",
        ] {
            assert_eq!(text.parse::<Tag>(), Err(NotOurs), "{text}");
        }
    }
}
