//! Asymmetric access (SPC-4 clause 5.15): by which portals a unit is reached best. All of them do everything, but one that
//! is on another node than the volume's owner has each command make one hop more.
//!
//! Refuses to know how portals and owners become known.

use std::collections::BTreeMap;

use admin_api::iscsi::Portal;

/// How well a unit is reached by a group of portals (SPC-4 table 310).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// On the owner's node.
    Optimised = 0,
    /// On another one.
    NotOptimised = 1,
}

/// The groups of a unit's portals. A group is one gateway, with one target port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortGroups {
    /// The group of this gateway.
    own: u16,
    /// The node of each gateway that is known.
    nodes: BTreeMap<u16, String>,
    /// The node of the volume's owner, if that is known.
    owner: Option<String>,
}

impl PortGroups {
    /// This gateway's group alone.
    pub fn new(own: u16) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }

    /// These are the cluster's portals now. Says whether a group that was known has another state.
    pub fn follow_portals(&mut self, portals: &[Portal]) -> bool {
        let before = self.states();
        self.nodes = portals
            .iter()
            .map(|portal| (portal.group, portal.node.clone()))
            .collect();
        self.differs(&before)
    }

    /// The volume's owner is on this node now. Says whether a group has another state.
    pub fn follow_owner(&mut self, node: Option<String>) -> bool {
        let before = self.states();
        self.owner = node;
        self.differs(&before)
    }

    fn differs(&self, before: &BTreeMap<u16, State>) -> bool {
        let now = self.states();
        before
            .iter()
            .any(|(group, state)| now.get(group).is_some_and(|now| now != state))
    }

    /// All groups. Where the owner's node has no gateway, all are as good as each other.
    fn states(&self) -> BTreeMap<u16, State> {
        let at_owner = |node: &String| self.owner.as_ref() == Some(node);
        let none = !self.nodes.values().any(at_owner);
        let state = |node: &String| {
            if none || at_owner(node) {
                State::Optimised
            } else {
                State::NotOptimised
            }
        };
        let mut states: BTreeMap<u16, State> = self
            .nodes
            .iter()
            .map(|(group, node)| (*group, state(node)))
            .collect();
        // It serves, whether it is announced or not.
        states.entry(self.own).or_insert(if none {
            State::Optimised
        } else {
            State::NotOptimised
        });
        states
    }

    /// The answer to REPORT TARGET PORT GROUPS (SPC-4 clause 6.37).
    pub fn report(&self, extended: bool) -> Vec<u8> {
        let mut descriptors = Vec::new();
        for (group, state) in self.states() {
            let [high, low] = group.to_be_bytes();
            // Both states are supported; no reason is told; one port, which has the group's number.
            descriptors.extend_from_slice(&[state as u8, 0x03, high, low, 0, 0, 0, 1, 0, 0, high, low]);
        }
        let header = if extended { &[0x10, 0, 0, 0][..] } else { &[] };
        let length = u32::try_from(header.len() + descriptors.len()).unwrap_or(u32::MAX);
        [&length.to_be_bytes()[..], header, &descriptors].concat()
    }
}

#[cfg(test)]
mod tests {
    //! Whoever is where the owner is, is the better way; nobody is worse than everybody.
    use super::*;

    fn portals(nodes: &[(u16, &str)]) -> Vec<Portal> {
        let portal = |(group, node): &(u16, &str)| Portal {
            node: (*node).to_owned(),
            address: "192.0.2.1:3260".to_owned(),
            group: *group,
        };
        nodes.iter().map(portal).collect()
    }

    #[test]
    fn the_owners_gateway_is_the_better_one_wherever_it_moves() {
        let mut groups = PortGroups::new(1);
        assert_eq!(
            groups.report(false),
            [0, 0, 0, 12, 0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]
        );
        assert!(
            !groups.follow_portals(&portals(&[(1, "a"), (2, "b")])),
            "nothing is known of an owner"
        );
        assert!(groups.follow_owner(Some("b".to_owned())));
        let report = groups.report(true);
        assert_eq!(report[..8], [0, 0, 0, 28, 0x10, 0, 0, 0]);
        assert_eq!((report[8], report[20]), (1, 0));
        assert!(groups.follow_owner(Some("a".to_owned())));
        assert_eq!((groups.report(false)[4], groups.report(false)[16]), (0, 1));
    }

    #[test]
    fn where_the_owner_has_no_gateway_all_are_as_good() {
        let mut groups = PortGroups::new(1);
        groups.follow_portals(&portals(&[(1, "a"), (2, "b")]));
        groups.follow_owner(Some("b".to_owned()));
        assert!(
            groups.follow_owner(Some("c".to_owned())),
            "the first is no worse any more"
        );
        assert!(!groups.follow_owner(None));
        groups.follow_owner(Some("b".to_owned()));
        assert!(
            groups.follow_portals(&portals(&[(1, "a")])),
            "the better one is gone"
        );
    }
}
