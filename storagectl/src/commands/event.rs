//! `storagectl events`.

use admin_api::events::{Event, EventPage, Severity};
use admin_api::routes;
use anyhow::Result;

use crate::api::Api;
use crate::clock::format_time;
use crate::output::{Form, line};

/// How long the server holds an answer back for the next event, in milliseconds: below any timeout on the way.
const WAIT_MS: u64 = 25_000;
/// How many events one answer may have while following.
const FOLLOW_PAGE: u32 = 500;

/// Shows the last `number` events, and goes on with those that come if `follow`.
pub(super) async fn events(api: &Api, form: Form, follow: bool, number: u32) -> Result<()> {
    // The server's smallest page has one event; somebody who wants none still needs to know where the log ends.
    let page: EventPage = api
        .get(&format!("{}?limit={}", routes::EVENTS, number.max(1)))
        .await?;
    let past = if number == 0 { &[] } else { page.events.as_slice() };
    for event in past {
        form.show_one_of_many(event, describe)?;
    }
    let mut after = page.next_after;
    if !follow {
        return Ok(());
    }
    loop {
        let path = format!(
            "{}?after={after}&limit={FOLLOW_PAGE}&wait_ms={WAIT_MS}",
            routes::EVENTS
        );
        let page: EventPage = api.get(&path).await?;
        if page.gap && form == Form::People {
            line("(some events were forgotten before they could be shown)")?;
        }
        for event in &page.events {
            form.show_one_of_many(event, describe)?;
        }
        after = page.next_after;
    }
}

fn describe(event: &Event) -> String {
    let severity = match event.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    format!(
        "{}  {severity:<7}  {}  {}",
        format_time(event.time_ms),
        event.kind,
        event.message
    )
}

#[cfg(test)]
mod tests {
    //! An event is one line.
    use super::*;

    #[test]
    fn an_event_is_a_line_with_its_time_and_kind() {
        let event = Event {
            number: 1,
            time_ms: 0,
            severity: Severity::Warning,
            kind: "disk_down".into(),
            subject: "disk-2".into(),
            message: "disk-2 does not answer.".into(),
        };
        assert_eq!(
            describe(&event),
            "1970-01-01 00:00:00  warning  disk_down  disk-2 does not answer."
        );
    }
}
