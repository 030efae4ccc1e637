//! `storagectl top`: asks `storaged` for its disks and the front ends for their volumes, twice, and shows what
//! happened in between.
//!
//! Front ends are asked at their control sockets, by this program: `storaged` is not on the way of reads and
//! writes and does not count them, and nothing is counted or sent while nobody looks.

mod rates;
mod sources;

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use admin_api::disks::DiskState;
use anyhow::Result;

use crate::api::Api;
use crate::arguments::TopArguments;
use crate::clock::format_microseconds;
use crate::output::{Form, line, percent, table};

use rates::{DiskLine, Rate, View, VolumeLine};
use sources::Sample;

/// Shows what happens, every `interval`, until interrupted or once.
pub(super) async fn top(api: &Api, form: Form, arguments: &TopArguments) -> Result<()> {
    let interval = Duration::from_secs(arguments.interval);
    let mut before = (Instant::now(), Sample::take(api, &arguments.controls).await?);
    loop {
        tokio::time::sleep(interval).await;
        let now = (Instant::now(), Sample::take(api, &arguments.controls).await?);
        let view = rates::between(&before.1, &now.1, now.0 - before.0);
        if arguments.once {
            return form.show(&view, describe);
        }
        match form {
            Form::Json => form.show_one_of_many(&view, describe)?,
            Form::People if stdout().is_terminal() => redraw(&describe(&view))?,
            Form::People => line(&format!("{}\n", describe(&view)))?,
        }
        before = now;
    }
}

/// Writes over what a terminal shows, line by line, so that it does not flicker.
fn redraw(text: &str) -> Result<()> {
    let (home, end_of_line, below) = ("\x1b[H", "\x1b[K\n", "\x1b[J");
    let lines: Vec<&str> = text.lines().collect();
    let mut screen = stdout().lock();
    write!(screen, "{home}{}{end_of_line}{below}", lines.join(end_of_line))?;
    Ok(screen.flush()?)
}

fn describe(view: &View) -> String {
    let mut parts = vec![volumes(&view.volumes), disks(&view.disks)];
    if !view.notes.is_empty() {
        let notes = view.notes.iter().map(|note| format!("- {note}"));
        parts.push(notes.collect::<Vec<_>>().join("\n"));
    }
    parts.join("\n\n")
}

/// The columns before the numbers.
const NAMES: usize = 2;
/// What is shown of a volume. The spaces keep names apart that look alike.
const VOLUME_COLUMNS: [&str; 11] = [
    "volume",
    "front end",
    "under way",
    "reads/s",
    "MB/s",
    "p50",
    "p99",
    "writes/s",
    "MB/s ",
    "p50 ",
    "p99 ",
];
/// What is shown of a disk.
const DISK_COLUMNS: [&str; 13] = [
    "disk",
    "state",
    "full",
    "under way",
    "reads/s",
    "MB/s",
    "p50",
    "p99",
    "writes/s",
    "MB/s ",
    "p50 ",
    "p99 ",
    "log p99",
];

fn volumes(lines: &[VolumeLine]) -> String {
    let rows = lines.iter().map(|line| {
        let ([reads, read_rate, read_p50, read_p99], [writes, write_rate, write_p50, write_p99]) =
            (cells(&line.read), cells(&line.write));
        [
            line.volume.clone(),
            format!("{} {}", line.program, line.pid),
            line.in_flight.to_string(),
            reads,
            read_rate,
            read_p50,
            read_p99,
            writes,
            write_rate,
            write_p50,
            write_p99,
        ]
    });
    table(VOLUME_COLUMNS, &VOLUME_COLUMNS[NAMES..], rows)
}

fn disks(lines: &[DiskLine]) -> String {
    let rows = lines.iter().map(|line| {
        let ([reads, read_rate, read_p50, read_p99], [writes, write_rate, write_p50, write_p99]) =
            (cells(&line.read), cells(&line.write));
        [
            format!("disk-{}", line.disk),
            state(line),
            percent(line.used, line.used.saturating_add(line.free)),
            line.in_flight.to_string(),
            reads,
            read_rate,
            read_p50,
            read_p99,
            writes,
            write_rate,
            write_p50,
            write_p99,
            time(&line.log, line.log.p99_us),
        ]
    });
    table(DISK_COLUMNS, &DISK_COLUMNS[NAMES..], rows)
}

fn state(line: &DiskLine) -> String {
    let word = match line.state {
        DiskState::Up => "up",
        DiskState::Starting => "starting",
        DiskState::Down => "down",
        DiskState::Poisoned => "poisoned",
    };
    if line.slow.is_some() {
        format!("{word}, slow")
    } else {
        word.to_owned()
    }
}

/// How many a second, how much, the time of half of them and that of all but one in a hundred.
fn cells(rate: &Rate) -> [String; 4] {
    [
        format!("{:.0}", rate.per_s),
        format!("{:.1}", rate.bytes_per_s / 1e6),
        time(rate, rate.p50_us),
        time(rate, rate.p99_us),
    ]
}

fn time(rate: &Rate, microseconds: f64) -> String {
    if rate.per_s > 0.0 {
        format_microseconds(microseconds)
    } else {
        "-".to_owned()
    }
}

#[cfg(test)]
mod tests {
    //! What is said of volumes and disks.
    use super::*;

    #[test]
    fn a_view_is_two_tables_and_what_must_be_known_besides() {
        let busy = Rate {
            per_s: 1234.4,
            bytes_per_s: 5_056_102.4,
            mean_us: 90.0,
            p50_us: 81.0,
            p99_us: 2_500.0,
        };
        let view = View {
            interval_s: 1.0,
            node: 1,
            volumes: vec![VolumeLine {
                volume: "db".into(),
                program: "nbd".into(),
                pid: 77,
                clients: 1,
                in_flight: 3,
                read: busy,
                write: Rate::default(),
            }],
            disks: vec![DiskLine {
                disk: 2,
                state: DiskState::Up,
                slow: Some("it is".into()),
                used: 1,
                free: 3,
                in_flight: 0,
                read: Rate::default(),
                write: busy,
                log: busy,
            }],
            notes: vec!["disk-2 is slow: it is".into()],
        };
        let text = describe(&view);
        let words = |needle: &str| {
            let line = text.lines().find(|line| line.starts_with(needle)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words("db"), "db nbd 77 3 1234 5.1 81 us 2.5 ms 0 0.0 - -");
        assert_eq!(
            words("disk-2"),
            "disk-2 up, slow 25 % 0 0 0.0 - - 1234 5.1 81 us 2.5 ms 2.5 ms"
        );
        assert!(text.ends_with("\n\n- disk-2 is slow: it is"), "{text}");
    }
}
