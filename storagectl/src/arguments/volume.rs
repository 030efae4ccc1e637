//! `storagectl volume`.

use admin_api::names::Reference;
use clap::Subcommand;

use super::limits::LimitArguments;
use super::snapshot::parse_snapshot;

/// Virtual disks.
#[derive(Subcommand)]
pub(crate) enum VolumeCommand {
    /// Makes an empty, thin volume: it takes up what is written to it.
    #[command(
        after_help = "Examples:\n  storagectl volume create my-new-disk 1TB\n  storagectl volume create scratch 20G --pool fast"
    )]
    Create {
        /// Its name: 1 to 128 letters, digits, '.', '_' and '-'.
        name: String,
        /// Its size: 10G, 1TB or bytes. Rounded up to 4 KiB.
        size: String,
        /// The pool to put it in; needed if there are several.
        #[arg(long)]
        pool: Option<String>,
        #[command(flatten)]
        limits: Box<LimitArguments>,
    },
    /// Lists volumes.
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this pool.
        #[arg(long)]
        pool: Option<String>,
    },
    /// Shows all about one volume.
    Info {
        /// Its name.
        name: String,
    },
    /// Gives a volume another name. Whoever has it open keeps it open.
    Rename {
        /// Its name now.
        name: String,
        /// Its new name.
        new_name: String,
    },
    /// Makes a volume larger, also while a guest uses it.
    #[command(after_help = "Examples:\n  storagectl volume grow db 200G\n  storagectl volume grow db +50G")]
    Grow {
        /// Its name.
        name: String,
        /// The new size, or with a + how much larger.
        size: String,
    },
    /// Writes on a volume what people or programs want to find there again.
    #[command(
        after_help = "storaged keeps labels and does not read them. Those that are not named stay.\nExamples:\n  storagectl \
volume label db owner=anna purpose='billing, do not delete'\n  storagectl volume label db --remove purpose"
    )]
    Label {
        /// Its name.
        name: String,
        /// What to write: NAME=TEXT.
        #[arg(value_name = "NAME=TEXT")]
        set: Vec<String>,
        /// The name of a label to wipe off (may be given several times).
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
    },
    /// Says how much of a volume may be asked for in a second, also while a guest uses it.
    #[command(
        after_help = "What is said takes the place of all that was said before. Whoever has the volume open keeps to it at \
once: what comes too fast waits, and nothing fails.\nExamples:\n  storagectl volume limit db --total-iops 500 --total-bytes \
100M\n  storagectl volume limit db --write-iops 200 --write-iops-max 2000\n  storagectl volume limit db --none"
    )]
    Limit {
        /// Its name.
        name: String,
        /// Limit nothing any more.
        #[arg(long)]
        none: bool,
        #[command(flatten)]
        limits: Box<LimitArguments>,
    },
    /// Makes a volume smaller. What lies beyond its new end is lost.
    Shrink {
        /// Its name.
        name: String,
        /// The new size.
        size: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Deletes a volume. Clones of its snapshots stay as they are. Its space comes back in the background.
    Delete {
        /// Its name.
        name: String,
        /// Delete its snapshots too. Without this a volume that has some is not deleted.
        #[arg(long)]
        with_snapshots: bool,
        /// Wait until its space is back.
        #[arg(long)]
        wait: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Freezes a volume's state of this instant under a name, also while a guest writes.
    #[command(after_help = "For several volumes at one instant: storagectl snapshot create NAME VOLUME...")]
    Snapshot {
        /// The volume.
        volume: String,
        /// The snapshot's name.
        snapshot: String,
    },
    /// Makes a new volume that begins with a snapshot's data. Takes no time and no space.
    Clone {
        /// The snapshot, as volume@snapshot.
        #[arg(value_parser = parse_snapshot)]
        snapshot: Reference,
        /// The new volume's name.
        name: String,
    },
    /// Puts a volume back to one of its snapshots. What was written since is lost.
    Rollback {
        /// The snapshot, as volume@snapshot.
        #[arg(value_parser = parse_snapshot)]
        snapshot: Reference,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Moves a volume to another pool, also while a guest uses it: from copies to erasure coding, or to other disks.
    #[command(
        after_help = "Whoever has the volume open copies it, step by step, no faster than the rate, and slower while the \
guest works; of one that nobody has open storaged does. A write waits only if it goes to the very few megabytes that are being copied. It may be interrupted \
by anything at any time, and goes on by itself: what is moved is in the new pool, the rest in the old one. Each part's \
space in the old pool is given back when it is moved.\nNot for a volume with snapshots, and meanwhile it can neither get \
snapshots nor shrink. Say it again with another --rate to make it faster or slower.\nExamples:\n  storagectl volume \
retype db --pool archive\n  storagectl volume retype db --pool fast --rate 400M --detach"
    )]
    Retype {
        /// Its name.
        name: String,
        /// The pool to move it to.
        #[arg(long)]
        pool: String,
        /// The most that is copied a second: 50M, 1G. Unless told, 100 MiB.
        #[arg(long)]
        rate: Option<String>,
        /// Do not wait until it is done.
        #[arg(long)]
        detach: bool,
    },
    /// Takes a volume from whoever has it open, without asking that one: for a guest whose host is lost.
    #[command(
        after_help = "The present owner's generation ends at once, and whoever waits for the volume opens it. From then on \
all disks refuse what the former owner still sends; its guest's requests fail, for good, even if its host comes back. \
Requests that it had not had acknowledged are there or not.\nWithout this, the volume of a lost host can be opened \
elsewhere when its lease has lapsed, by itself (lease_ms: 5 s). A live owner that should let go: end its front end.\n\
Refused if nobody has the volume open.\nExample:\n  storagectl volume take-over db"
    )]
    TakeOver {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Checks the copies of a volume on the disks of storaged's node against all others, while it is in use.
    #[command(
        after_help = "Damaged blocks are stored again from good copies. Ends with status 5 if something is not well then.\nExamples:\n  storagectl volume check db --deep\n  storagectl volume check db --deep --snapshot monday"
    )]
    Check {
        /// Its name.
        name: String,
        /// Also read all its blocks from the disks; else stamps are compared only.
        #[arg(long)]
        deep: bool,
        /// What this snapshot of it shows, not what it has now.
        #[arg(long)]
        snapshot: Option<String>,
    },
    /// Draws the snapshots and clones that share data with a volume.
    Tree {
        /// The volume.
        name: String,
    },
}
