//! Draws a family of snapshots and clones. A line of descent stays in its column however long it is,
//! so that a thousand snapshots are a thousand lines and not a thousand columns; only a branch indents.

use std::collections::BTreeMap;
use std::fmt::Write;

use admin_api::sizes::format_size;
use admin_api::volumes::{Tree, TreeNode, TreeNodeKind};

use crate::clock::format_time;
use crate::output::with_notes;

/// The most columns of branches: deeper ones are drawn in the last.
const BRANCHES_MAX: usize = 40;

/// The tree as text, one node a line, parents above their children.
pub(crate) fn draw(tree: &Tree) -> String {
    let known: BTreeMap<u64, &TreeNode> = tree.nodes.iter().map(|node| (node.id, node)).collect();
    let mut children: BTreeMap<Option<u64>, Vec<&TreeNode>> = BTreeMap::new();
    for node in &tree.nodes {
        // A parent that is not in the answer makes a root, rather than making the node vanish.
        children
            .entry(node.parent.filter(|parent| known.contains_key(parent)))
            .or_default()
            .push(node);
    }
    let mut text = String::new();
    // What is still to be drawn, the next at the end: a node, its column, and whether it opens a branch.
    let mut next: Vec<(&TreeNode, usize, bool)> = Vec::new();
    push_children(&mut next, children.remove(&None).unwrap_or_default(), 0, None);
    while let Some((node, column, opens)) = next.pop() {
        let bars = "| ".repeat(column.saturating_sub(usize::from(opens)).min(BRANCHES_MAX));
        let branch = if opens { "|-" } else { "" };
        let _ = writeln!(text, "{bars}{branch}{}", describe(node));
        push_children(
            &mut next,
            children.remove(&Some(node.id)).unwrap_or_default(),
            column,
            node.volume.as_deref(),
        );
    }
    if tree.unknown.is_empty() {
        return text;
    }
    with_notes(text.trim_end().to_owned(), &tree.unknown)
}

/// Puts brothers on the stack so that branches come first and the line of descent goes on below them.
fn push_children<'a>(
    next: &mut Vec<(&'a TreeNode, usize, bool)>,
    mut brothers: Vec<&'a TreeNode>,
    column: usize,
    volume: Option<&str>,
) {
    let goes_on = brothers
        .iter()
        .position(|node| node.volume.as_deref() == volume)
        .or(brothers.len().checked_sub(1));
    let Some(goes_on) = goes_on else { return };
    next.push((brothers.remove(goes_on), column, false));
    next.extend(brothers.into_iter().rev().map(|node| (node, column + 1, true)));
}

fn describe(node: &TreeNode) -> String {
    let volume = node.volume.as_deref().unwrap_or("?");
    let time = format_time(node.created_ms);
    let takes = match node.bytes {
        0 => String::new(),
        bytes => format!("  {}", format_size(bytes)),
    };
    match (node.kind, &node.snapshot) {
        (TreeNodeKind::Volume, _) => format!("* {volume}{takes}"),
        (TreeNodeKind::Snapshot, Some(snapshot)) => format!("o {volume}@{snapshot}  {time}{takes}"),
        (TreeNodeKind::Snapshot, None) => format!("o {volume}@?  {time}{takes}"),
        (TreeNodeKind::Deleted, _) => format!("x deleted{takes}"),
    }
}

#[cfg(test)]
mod tests {
    //! Every node is drawn once, below its parent.
    use super::*;

    fn node(id: u64, parent: Option<u64>, volume: &str, snapshot: Option<&str>) -> TreeNode {
        let kind = if snapshot.is_some() {
            TreeNodeKind::Snapshot
        } else {
            TreeNodeKind::Volume
        };
        let snapshot = snapshot.map(Into::into);
        TreeNode {
            id,
            parent,
            kind,
            volume: Some(volume.into()),
            snapshot,
            created_ms: 0,
            bytes: 0,
        }
    }

    #[test]
    fn branches_indent_and_the_line_of_descent_does_not() {
        let nodes = vec![
            node(1, None, "golden", Some("v1")),
            node(2, Some(1), "web-1", None),
            node(3, Some(1), "golden", Some("v2")),
            node(4, Some(1), "web-2", Some("clean")),
            node(5, Some(4), "web-2", None),
            node(6, Some(3), "golden", None),
        ];
        let text = draw(&tree(nodes)).replace("  1970-01-01 00:00:00", "");
        let expected = "o golden@v1\n|-* web-1\n|-o web-2@clean\n| * web-2\no golden@v2\n* golden\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_each_layer_takes_is_told_and_what_is_left_out() {
        let mut tree = tree(vec![node(1, None, "db", None)]);
        tree.nodes[0].bytes = 64 << 10;
        tree.unknown.push("node-2 is down".into());
        let text = draw(&tree);
        assert!(
            text.starts_with("* db  64 KiB\n") && text.contains("node-2 is down"),
            "{text}"
        );
    }

    fn tree(nodes: Vec<TreeNode>) -> Tree {
        Tree {
            family: 1,
            nodes,
            unknown: Vec::new(),
        }
    }

    #[test]
    fn a_thousand_snapshots_stay_in_one_column() {
        let nodes = (1..=1000)
            .map(|id| node(id, (id > 1).then(|| id - 1), "db", Some("s")))
            .collect();
        let text = draw(&tree(nodes));
        assert_eq!(text.lines().count(), 1000);
        assert!(text.lines().all(|line| line.starts_with("o db@s")));
    }

    #[test]
    fn a_node_with_an_unknown_parent_is_drawn_all_the_same() {
        let nodes = vec![node(7, Some(99), "db", None), node(8, None, "db2", None)];
        assert_eq!(draw(&tree(nodes)).lines().count(), 2);
    }
}
