//! One logical unit: a volume with what SCSI adds to it: attentions, reservations, mode pages, tasks.
//!
//! `blocks` reads and writes, `copy` does so from one unit to another, `copies` is what came of that, `management` answers what needs no blocks, `reservations` keeps those of the cluster,
//! `attention` and `tasks` are what they say. Lives on its target's thread. Refuses to know iSCSI.

pub mod attention;
pub mod blocks;
pub mod copies;
pub mod copy;
pub mod management;
pub mod reservations;
pub mod tasks;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use client::device::BlockDevice;
use tokio::sync::Mutex;

use crate::reservation::Nexus;
use crate::reservation::access::conflicts;
use crate::reservation::older;
use crate::scsi::command::{Command, decode};
use crate::scsi::identification::Identity;
use crate::scsi::inquiry::absent;
use crate::scsi::mode::{Medium, ModeState};
use crate::scsi::port_groups::PortGroups;
use crate::scsi::sense::{Sense, status};
use crate::source::keeper::Keeper;
use admin_api::iscsi::{Lun, Reservations};
use attention::Attentions;
use copies::Copies;
use tasks::{Task, Tasks};

/// What came of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The status (SAM-5 table 41).
    pub status: u8,
    /// Why, if the status says that it was not done.
    pub sense: Option<Sense>,
    /// Data for the initiator.
    pub data: Vec<Bytes>,
}

impl Done {
    /// It went well.
    pub fn good() -> Self {
        Self::default()
    }

    /// It went well and gives data, of which at most `allocation` bytes are wanted.
    pub fn data(mut data: Vec<u8>, allocation: usize) -> Self {
        data.truncate(allocation);
        Self {
            data: vec![data.into()],
            ..Self::default()
        }
    }

    /// It was not done.
    pub fn check(sense: Sense) -> Self {
        Self {
            status: status::CHECK_CONDITION,
            sense: Some(sense),
            data: Vec::new(),
        }
    }

    /// Only a status.
    pub fn status(status: u8) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }
}

impl From<Sense> for Done {
    fn from(sense: Sense) -> Self {
        Self::check(sense)
    }
}

/// See the module.
pub struct Unit {
    /// What it is.
    pub lun: Lun,
    pub(crate) device: Rc<dyn BlockDevice>,
    pub(crate) identity: Identity,
    pub(crate) mode: Cell<ModeState>,
    pub(crate) port_groups: RefCell<PortGroups>,
    /// Who must be told what.
    pub attentions: RefCell<Attentions>,
    /// The newest record of reservations that is known here.
    pub(crate) record: RefCell<Reservations>,
    pub(crate) keeper: Keeper,
    /// Held by whoever replaces `record`.
    pub(crate) changing: Mutex<()>,
    /// What is under way.
    pub tasks: Tasks,
    /// Whether nothing more can be done with the volume as it was opened; another unit takes this one's place when it is
    /// open again.
    pub lost: Cell<bool>,
    /// What came of copies.
    pub copies: Copies,
    size: Cell<u64>,
}

impl Unit {
    /// A unit on an open device whose offsets are multiples of the unit's block size. Its reservations are not read yet.
    pub fn new(lun: Lun, device: Rc<dyn BlockDevice>, identity: Identity, keeper: Keeper) -> Self {
        let size = Cell::new(device.info().size);
        let port_groups = RefCell::new(PortGroups::new(identity.portal_group));
        Self {
            lun,
            device,
            identity,
            mode: Cell::default(),
            port_groups,
            attentions: RefCell::default(),
            record: RefCell::default(),
            keeper,
            changing: Mutex::default(),
            tasks: Tasks::default(),
            lost: Cell::new(false),
            copies: Copies::default(),
            size,
        }
    }

    /// What its blocks are, now.
    pub fn medium(&self) -> Medium {
        let info = self.device.info();
        Medium {
            blocks: info.size / u64::from(self.lun.block_size),
            block_size: self.lun.block_size,
            read_only: info.read_only || self.lun.read_only,
        }
    }

    /// The device's size is another one, maybe: all are told if it is.
    pub fn look_at_size(&self) {
        let size = self.device.info().size;
        if self.size.replace(size) != size {
            self.attentions.borrow_mut().tell_all(Sense::CAPACITY_CHANGED);
        }
    }

    /// What is known of portals, or of the volume's owner, is something else now: all are told if one of the ways to the
    /// unit has become better or worse.
    pub fn look_at_ways(&self, follow: impl FnOnce(&mut PortGroups) -> bool) {
        if follow(&mut self.port_groups.borrow_mut()) {
            self.attentions.borrow_mut().tell_all(Sense::ACCESS_STATE_CHANGED);
        }
    }

    /// Reads a CDB and judges whether the command may be carried out. Data is asked for only after this.
    pub fn admit(&self, nexus: &Nexus, cdb: &[u8; 16]) -> Result<Command, Done> {
        // INQUIRY, REPORT LUNS and REQUEST SENSE are answered whatever there is to tell (SPC-4 clause 5.8).
        if !matches!(cdb[0], 0x03 | 0x12 | 0xa0)
            && let Some(attention) = self.attentions.borrow_mut().take(nexus)
        {
            return Err(attention.into());
        }
        let command = decode(cdb)?;
        if self.keeps_out(nexus, &command) {
            return Err(Done::status(status::RESERVATION_CONFLICT));
        }
        let needs_volume = matches!(command, Command::TestUnitReady) || blocks::is_about_blocks(&command);
        // Hosts try again, or go by another path until this one says that it is ready.
        if self.lost.get() && needs_volume {
            return Err(Sense::BECOMING_READY.into());
        }
        blocks::check(self, &command)?;
        Ok(command)
    }

    /// Whether a reservation keeps a path from a command.
    pub(crate) fn keeps_out(&self, nexus: &Nexus, command: &Command) -> bool {
        let record = self.record.borrow();
        older::conflicts(&record, nexus, command) || conflicts(&record, nexus, command)
    }

    /// Carries out a command that was admitted and needs no other unit, with the data that came for it.
    pub async fn perform(&self, task: &Task, command: Command, data: Vec<Bytes>) -> Done {
        let done = match command {
            Command::PersistentOut {
                action, scope_type, ..
            } => reservations::out(self, task, action, scope_type, &data.concat()).await,
            Command::Reserve => reservations::reserve(self, task).await,
            Command::Release => reservations::release(self, task).await,
            Command::PersistentIn { action, allocation } => {
                reservations::report(self, action, allocation).await
            }
            _ if blocks::is_about_blocks(&command) => blocks::perform(self, command, data).await,
            _ => management::perform(self, &task.nexus, &command, &data.concat()),
        };
        done.unwrap_or_else(|done| done)
    }

    /// A reset by a task management function, as far as it concerns this portal's paths: all are told.
    fn forget_settings(&self) {
        self.mode.set(ModeState::default());
        self.copies.forget_all();
        self.attentions.borrow_mut().tell_all(Sense::RESET);
    }
}

/// What is answered where there is no unit.
pub fn perform_nowhere(cdb: &[u8; 16]) -> Done {
    match decode(cdb) {
        Ok(Command::Inquiry {
            page: None,
            allocation,
        }) => Done::data(absent(), allocation),
        Ok(Command::RequestSense {
            descriptor,
            allocation,
        }) => Done::data(Sense::NO_UNIT.encode(descriptor), allocation),
        _ => Sense::NO_UNIT.into(),
    }
}
