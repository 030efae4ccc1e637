//! Unit attentions: what each path must be told before its next command is carried out (SAM-5 clause 5.14).

use std::collections::{BTreeMap, VecDeque};

use crate::reservation::Nexus;
use crate::scsi::sense::Sense;

/// Attentions that wait for one path. There are fewer kinds; the same one is kept once.
const WAITING_MAX: usize = 16;

/// The paths that are there, and what each is to be told.
#[derive(Debug, Default)]
pub struct Attentions(BTreeMap<Nexus, VecDeque<Sense>>);

impl Attentions {
    /// A path is there, with nothing to be told but that it is new.
    pub fn begin(&mut self, nexus: &Nexus) {
        self.0.insert(nexus.clone(), VecDeque::from([Sense::POWER_ON]));
    }

    /// A path is not there any more.
    pub fn forget(&mut self, nexus: &Nexus) {
        self.0.remove(nexus);
    }

    /// All paths that are there are to be told.
    pub fn tell_all(&mut self, sense: Sense) {
        for waiting in self.0.values_mut() {
            push(waiting, sense);
        }
    }

    /// All paths but one are to be told.
    pub fn tell_others(&mut self, but: &Nexus, sense: Sense) {
        for (nexus, waiting) in &mut self.0 {
            if nexus != but {
                push(waiting, sense);
            }
        }
    }

    /// A path is to be told, if it is there.
    pub fn tell(&mut self, nexus: &Nexus, sense: Sense) {
        if let Some(waiting) = self.0.get_mut(nexus) {
            push(waiting, sense);
        }
    }

    /// What a path is to be told next.
    pub fn take(&mut self, nexus: &Nexus) -> Option<Sense> {
        self.0.get_mut(nexus)?.pop_front()
    }
}

fn push(waiting: &mut VecDeque<Sense>, sense: Sense) {
    if waiting.len() < WAITING_MAX && !waiting.contains(&sense) {
        waiting.push_back(sense);
    }
}
