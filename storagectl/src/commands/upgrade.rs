//! `storagectl upgrade`.

use admin_api::nodes::NodeState;
use admin_api::routes;
use admin_api::upgrade::{NodeProgram, UpgradeStatus};
use anyhow::Result;

use crate::api::Api;
use crate::arguments::UpgradeCommand;
use crate::exit::Stop;
use crate::output::{Form, table};

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: UpgradeCommand) -> Result<()> {
    let UpgradeCommand::Status { check } = command;
    let status: UpgradeStatus = api.get(routes::UPGRADE).await?;
    form.show(&status, describe)?;
    if check && !status.safe {
        return Err(Stop::Unwell(status.advice).into());
    }
    Ok(())
}

fn describe(status: &UpgradeStatus) -> String {
    let columns = [
        "node", "name", "state", "version", "messages", "records", "upgrade", "waits",
    ];
    let mut text = table(columns, &["node"], status.nodes.iter().map(row));
    for reason in &status.reasons {
        text.push_str("\n- ");
        text.push_str(reason);
    }
    format!("{text}\n\n{}", status.advice)
}

fn row(node: &NodeProgram) -> [String; 8] {
    let unknown = || "-".to_owned();
    [
        node.node.to_string(),
        node.name.clone(),
        match node.state {
            NodeState::Up => "up".to_owned(),
            NodeState::Down => "down".to_owned(),
        },
        node.version.clone().unwrap_or_else(unknown),
        node.messages
            .map_or_else(unknown, |range| format!("{} to {}", range.lowest, range.highest)),
        node.records
            .map_or_else(unknown, |format| format!("up to {format}")),
        if node.outdated {
            "needed".to_owned()
        } else {
            unknown()
        },
        if node.waits.is_empty() {
            unknown()
        } else {
            node.waits.join(", ")
        },
    ]
}

#[cfg(test)]
mod tests {
    //! What a person sees of an upgrade.
    use admin_api::upgrade::VersionRange;

    use super::*;

    #[test]
    fn a_table_the_obstacles_and_what_to_do_next() {
        let status = UpgradeStatus {
            newest: "0.2.0".into(),
            records: 1,
            nodes: vec![NodeProgram {
                node: 3,
                name: "host-3".into(),
                state: NodeState::Up,
                version: Some("0.1.0".into()),
                messages: Some(VersionRange {
                    lowest: 1,
                    highest: 3,
                }),
                records: None,
                outdated: true,
                waits: Vec::new(),
            }],
            complete: false,
            safe: false,
            reasons: vec!["pool main: 2 of 8 placement groups are not whole".into()],
            next: Some(3),
            advice: "restart nothing now".into(),
        };
        let text = describe(&status);
        let line = text.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            ["3", "host-3", "up", "0.1.0", "1", "to", "3", "-", "needed", "-"]
        );
        assert!(
            text.ends_with("\n- pool main: 2 of 8 placement groups are not whole\n\nrestart nothing now"),
            "{text}"
        );
    }
}
