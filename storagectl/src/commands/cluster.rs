//! `storagectl cluster`: tokens by the API; the first machine and new ones by files, for no `storaged` runs there yet.

mod configuration;
mod init;
mod join;
mod work_dir;

use admin_api::join_tokens::{JoinToken, JoinTokenList, JoinTokenState, MakeJoinToken, NewJoinToken};
use admin_api::routes::{self, fill};
use anyhow::Result;

use crate::api::Api;
use crate::arguments::ClusterCommand;
use crate::clock::format_time;
use crate::output::{Form, table};

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Init(arguments) => init::init(form, &arguments),
        ClusterCommand::Join(arguments) => join::join(form, arguments).await,
        ClusterCommand::Token { limit } => {
            let limit_ms = u64::try_from(limit.as_millis()).ok();
            let made: NewJoinToken = api.post(routes::JOIN_TOKENS, &MakeJoinToken { limit_ms }).await?;
            form.show(&made, render_new)
        }
        ClusterCommand::Tokens => {
            let list: JoinTokenList = api.get(routes::JOIN_TOKENS).await?;
            form.show(&list, render_list)
        }
        ClusterCommand::Revoke { token } => {
            api.delete::<()>(&fill(routes::JOIN_TOKEN, &[&token])).await?;
            form.say(&format!("token {token} is worthless now"))
        }
    }
}

/// The token is alone on its line, to be copied; what to do with it is said around it.
fn render_new(made: &NewJoinToken) -> String {
    format!(
        "On the machine that is to join, until {} UTC:\n\n  storagectl cluster join {}\n\nWhoever has this token gets \
         the cluster's keys, once: show it to nobody else.\nIt is not shown again; `storagectl cluster revoke {}` \
         makes it worthless.",
        format_time(made.expires_ms),
        made.token,
        made.id
    )
}

fn render_list(list: &JoinTokenList) -> String {
    let rows = list.tokens.iter().map(|token| {
        [
            token.id.clone(),
            token.node.to_string(),
            state(token.state).to_owned(),
            format_time(token.expires_ms),
            used(token),
        ]
    });
    table(
        ["token", "made on node", "state", "good until (UTC)", "used by"],
        &[],
        rows,
    )
}

fn state(state: JoinTokenState) -> &'static str {
    match state {
        JoinTokenState::Good => "good",
        JoinTokenState::Used => "used",
        JoinTokenState::Expired => "expired",
    }
}

fn used(token: &JoinToken) -> String {
    match (&token.used_by, &token.used_from, token.used_ms) {
        (Some(name), Some(from), Some(at)) => format!("{name} from {from}, {}", format_time(at)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    //! What a person sees of tokens.
    use super::*;

    #[test]
    fn a_new_token_is_part_of_a_line_that_can_be_pasted() {
        let made = NewJoinToken {
            id: "0123456789abcdef".into(),
            token: "sdjoinabc".into(),
            addresses: vec!["10.0.0.1:7470".into()],
            expires_ms: 0,
        };
        let text = render_new(&made);
        assert!(
            text.lines()
                .any(|line| line == "  storagectl cluster join sdjoinabc"),
            "{text}"
        );
        assert!(text.contains("until 1970-01-01 00:00:00 UTC"), "{text}");
    }

    #[test]
    fn a_used_token_shows_by_whom() {
        let token = JoinToken {
            id: "0123456789abcdef".into(),
            node: 1,
            expires_ms: 0,
            state: JoinTokenState::Used,
            used_ms: Some(0),
            used_by: Some("host-2".into()),
            used_from: Some("10.0.0.2".into()),
        };
        let text = render_list(&JoinTokenList { tokens: vec![token] });
        assert!(
            text.contains("used") && text.contains("host-2 from 10.0.0.2"),
            "{text}"
        );
    }
}
