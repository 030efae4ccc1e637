//! Who puts records back, of all nodes that say what they remember. Pure.
//!
//! Revisions tell who remembers most as long as all are of one history. A node that was stopped cannot know by itself
//! whether the store went on without it after it was restored, with revisions that mean something else; the others tell
//! it. Nor can it know whether one that is still stopped saw more: but only those that were up when it saw its last
//! change can have.

use std::collections::{BTreeMap, BTreeSet};

use coordination::Revision;
use coordination::records::RecallRecord;
use protocol::NodeId;

/// What nodes say, by their numbers.
pub(super) type Notes = BTreeMap<NodeId, RecallRecord>;

/// What a node is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Put back what it remembers.
    Mine,
    /// Leave it to one who remembers more, and wait for that; in a sentence.
    Others(String),
    /// Nothing any more: it is done, or nobody remembers anything.
    Done,
    /// Nothing: the store was used since.
    Late(&'static str),
    /// Nothing yet, in a sentence.
    Waits(String),
}

/// What a node knows when it judges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    /// Which node it is.
    pub node: NodeId,
    /// What it says itself.
    pub own: RecallRecord,
    /// What all say now.
    pub notes: &'a Notes,
    /// What others have said since this one listens, also those who do not say it any more.
    pub heard: &'a Notes,
    /// The store's last transaction.
    pub store: Revision,
    /// Who was up when the node saw its last change.
    pub remembered_up: &'a BTreeSet<NodeId>,
    /// Who is up now.
    pub up: &'a BTreeSet<NodeId>,
    /// Who is lost for good: nobody waits for these, whatever they say.
    pub without: &'a BTreeSet<NodeId>,
    /// Whether the node found others at it, and the store's numbers tell it nothing.
    pub joins: bool,
}

/// See the module.
pub(super) fn verdict(scene: &Scene<'_>) -> Verdict {
    let own = scene.own;
    if let Some(ahead) = scene.ahead() {
        return ahead;
    }
    // Those whom it joined were done just then; and nothing is nothing to put back.
    if own.revision == 0 || (scene.joins && scene.heard.is_empty()) {
        return Verdict::Done;
    }
    // One that ran when the store went back knows all that there is to know of it.
    if !own.cold {
        return Verdict::Mine;
    }
    if scene
        .others(scene.notes)
        .any(|(_, note)| !note.cold && !note.unused)
    {
        return Verdict::Late("others went on with the restored coordination store, and it was used since");
    }
    let missing = scene.silent(scene.remembered_up);
    if !missing.is_empty() {
        return Verdict::Waits(format!(
            "waits for {}, up when this node saw its last change: more may be remembered there of what the restored \
             coordination store has lost. Start storaged there; {}",
            named(&missing),
            way_out(&missing)
        ));
    }
    let strangers = scene.silent(scene.up);
    // Who runs says nothing before he sees the numbers jump.
    if scene.store > Revision(own.revision) && !strangers.is_empty() {
        return Verdict::Waits(format!(
            "waits until {}, which counts as up, says what it remembers, or its lease lapses",
            named(&strangers)
        ));
    }
    Verdict::Mine
}

impl Scene<'_> {
    /// What follows from those who remember more, or once did.
    fn ahead(&self) -> Option<Verdict> {
        let ahead = |notes| {
            let most = self
                .others(notes)
                .max_by_key(|(other, note)| (note.revision, *other));
            most.filter(|(other, note)| (note.revision, *other) > (self.own.revision, self.node))
        };
        if let Some((other, _)) = ahead(self.notes) {
            return Some(Verdict::Others(format!(
                "waits for {other}, which remembers more of what the restored coordination store has lost, and puts it back \
                 when it has heard all: see its log. {}",
                sentence(&way_out(&[other]))
            )));
        }
        let (other, note) = ahead(self.heard)?;
        // Nobody puts anything back before the numbers are raised, and who has raised them speaks until it is done.
        if self.store > Revision(note.revision) {
            return Some(Verdict::Done);
        }
        Some(Verdict::Others(format!(
            "waits for {other}, which remembers more of what the restored coordination store has lost, and was stopped \
             before it put that back. Start storaged there; {}",
            way_out(&[other])
        )))
    }

    /// All that count, but the node itself.
    fn others(&self, notes: &'_ Notes) -> impl Iterator<Item = (NodeId, RecallRecord)> {
        let notes = notes.iter().map(|(other, note)| (*other, *note));
        notes.filter(|(other, _)| *other != self.node && !self.without.contains(other))
    }

    /// Those of some that say nothing.
    fn silent(&self, nodes: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let silent = nodes.iter().filter(|other| {
            **other != self.node && !self.notes.contains_key(other) && !self.without.contains(other)
        });
        silent.copied().collect()
    }
}

fn way_out(nodes: &[NodeId]) -> String {
    let numbers: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
    format!(
        "if it is lost for good, say `recall_without = [{}]` in the section [cluster] of this node and start this one again",
        numbers.join(", ")
    )
}

/// With a capital letter.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn named(nodes: &[NodeId]) -> String {
    let names: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
