//! `storagectl node`.

use admin_api::nodes::{ChangeNode, Node, NodeList, NodeState};
use admin_api::routes::{self, fill};
use anyhow::Result;

use super::drain;
use crate::api::Api;
use crate::arguments::NodeCommand;
use crate::confirm::confirm;
use crate::output::{Form, properties, table};

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: NodeCommand) -> Result<()> {
    match command {
        NodeCommand::List => form.show(&api.get(routes::NODES).await?, render_list),
        NodeCommand::Info { node } => form.show(
            &api.get(&fill(routes::NODE, &[&node.to_string()])).await?,
            describe,
        ),
        NodeCommand::Drain { node, undo, wait } => {
            let path = fill(routes::NODE, &[&node.to_string()]);
            let change = ChangeNode { drain: Some(!undo) };
            let mut known: Node = api.patch(&path, &change).await?;
            if wait {
                known = drain::wait(api, &path, &format!("node {node}"), |node: &Node| node.groups).await?;
            }
            form.show(&known, |node| {
                drain::told(&format!("node {}", node.id), node.draining, node.groups)
            })
        }
        NodeCommand::Remove { node, yes } => {
            let path = fill(routes::NODE, &[&node.to_string()]);
            let known: Node = api.get(&path).await?;
            let question = format!(
                "This takes node {node} ({}) out of the cluster for good.",
                known.name
            );
            confirm(yes, &question, &known.name)?;
            api.delete::<()>(&path).await?;
            form.say(&format!("node {node} removed"))
        }
    }
}

fn render_list(list: &NodeList) -> String {
    let rows = list.nodes.iter().map(|node| {
        [
            node.id.to_string(),
            node.name.clone(),
            node.zone.clone(),
            shown_state(node).to_owned(),
            node.addresses.join(" "),
            numbers(&node.disks),
        ]
    });
    table(
        ["node", "name", "zone", "state", "addresses", "disks"],
        &["node"],
        rows,
    )
}

fn describe(node: &Node) -> String {
    properties(&[
        ("node", node.id.to_string()),
        ("name", node.name.clone()),
        ("zone", node.zone.clone()),
        ("state", shown_state(node).to_owned()),
        ("addresses", node.addresses.join(" ")),
        ("storaged", node.version.clone().unwrap_or_default()),
        ("disks", numbers(&node.disks)),
        ("placement groups", node.groups.to_string()),
    ])
}

/// A node that is up and being emptied says so.
fn shown_state(node: &Node) -> &'static str {
    match (node.state, node.draining) {
        (NodeState::Up, true) => "draining",
        (other, _) => state(other),
    }
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Down => "down",
    }
}

fn numbers(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    //! What a person sees of nodes.
    use super::*;

    #[test]
    fn a_node_shows_where_it_stands_and_whether_it_is_up() {
        let node = Node {
            id: 2,
            name: "b".into(),
            zone: "east".into(),
            addresses: vec!["tcp:10.0.0.2:7470".into()],
            state: NodeState::Down,
            since_ms: None,
            version: None,
            disks: vec![4, 5],
            draining: false,
            groups: 0,
            answers: false,
        };
        assert!(describe(&node).contains("down"));
        let text = render_list(&NodeList { nodes: vec![node] });
        for word in ["east", "down", "tcp:10.0.0.2:7470", "4,5"] {
            assert!(text.contains(word), "{text}");
        }
    }
}
