//! `storagectl import` and `storagectl export`.

use std::path::PathBuf;

use admin_api::names::Reference;
use clap::{Args, ValueEnum};

/// How an image file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    /// The bytes of the disk, nothing else.
    Raw,
    /// QEMU's format: sparse on any file system.
    Qcow2,
}

impl ImageFormat {
    /// What qemu-img calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// How the data goes to and from storaged.
#[derive(Args)]
pub(crate) struct NbdArguments {
    /// A running storaged-nbd on a unix socket. If left out, one is started for this command.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) nbd: Option<PathBuf>,
    /// storaged's socket for front ends, if a storaged-nbd is to be started; beside the admin socket if left out.
    #[arg(long, value_name = "SOCKET", conflicts_with = "nbd")]
    pub(crate) session: Option<PathBuf>,
}

/// Makes a volume from an image file, a block device, or what an NBD server exports. Holes stay holes.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  storagectl import debian-12.qcow2 golden\n  storagectl import old.img database --format raw --size 200G\n  \
                  storagectl import /dev/vg0/database database\n  storagectl import nbd://10.0.0.5/database database\n\n\
                  What is imported must not change meanwhile: the disk of a running guest is moved by `storagectl adopt`."
)]
pub(crate) struct ImportArguments {
    /// The image file, a block device, or an address: `nbd://HOST:PORT/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`.
    pub(crate) image: PathBuf,
    /// The new volume's name.
    pub(crate) volume: String,
    /// The image's format; found out by its first bytes if left out. Say it for images that you do not trust.
    #[arg(long)]
    pub(crate) format: Option<ImageFormat>,
    /// The volume's size; that of the image if left out.
    #[arg(long)]
    pub(crate) size: Option<String>,
    /// The pool to put it in; needed if there are several.
    #[arg(long)]
    pub(crate) pool: Option<String>,
    #[command(flatten)]
    pub(crate) nbd: NbdArguments,
}

/// Writes a volume or a snapshot into an image file. Holes stay holes.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  storagectl export db@monday db.qcow2\n  storagectl export db db.img --format raw"
)]
pub(crate) struct ExportArguments {
    /// The volume, or volume@snapshot. A volume in use is better exported by a snapshot.
    pub(crate) source: Reference,
    /// The image file; must not be there yet.
    pub(crate) image: PathBuf,
    /// The image's format; by the file's name if left out: qcow2 for .qcow2, else raw.
    #[arg(long)]
    pub(crate) format: Option<ImageFormat>,
    #[command(flatten)]
    pub(crate) nbd: NbdArguments,
}
