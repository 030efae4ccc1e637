//! Figures as Prometheus text (exposition format 0.0.4). Pure: figures in, text out.
//!
//! Written by hand: the exporters that exist gather samples themselves, and cannot be given a histogram
//! that was counted elsewhere. docs/operations/metrics.md lists what all processes serve, and a test compares.

use std::fmt::{Display, Write as _};

use admin_api::figures::RequestFigures;

use crate::latency::exact;

/// Microseconds in a second.
const US: f64 = 1e6;

/// A figure with its name, its type, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

/// What goes up and down. The name is without the program's.
pub const fn gauge(name: &'static str, help: &'static str) -> Family {
    let kind = "gauge";
    Family { name, kind, help }
}

/// What only grows while a process runs. The name is without the program's.
pub const fn counter(name: &'static str, help: &'static str) -> Family {
    let kind = "counter";
    Family { name, kind, help }
}

/// Times in seconds. The name is without the program's.
pub const fn histogram(name: &'static str, help: &'static str) -> Family {
    let kind = "histogram";
    Family { name, kind, help }
}

const REQUESTS: Family = counter("requests_total", "Requests answered.");
const BYTES: Family = counter("request_bytes_total", "Bytes of requests that did not fail.");
const ERRORS: Family = counter("request_errors_total", "Requests answered with a failure.");
const SECONDS: Family = histogram("request_seconds", "From being taken to being answered.");

/// One of the figures of a kind of requests.
type Amount = fn(&RequestFigures) -> u64;

/// A text that grows, family by family.
#[derive(Clone, Debug)]
pub struct Text {
    program: &'static str,
    text: String,
}

impl Text {
    /// An empty one. All names begin with `program` and an underscore.
    pub fn new(program: &'static str) -> Self {
        Self {
            program,
            text: String::new(),
        }
    }

    /// A gauge or a counter: its samples with their [`labels`].
    pub fn family<V: Display>(&mut self, family: &Family, samples: impl IntoIterator<Item = (String, V)>) {
        self.begin(family);
        for (labels, value) in samples {
            self.sample(family, "", &labels, value);
        }
    }

    /// A gauge or a counter of the process itself.
    pub fn figure(&mut self, family: &Family, value: impl Display) {
        self.family(family, [(String::new(), value)]);
    }

    /// A histogram: its samples with their [`labels`].
    pub fn histogram<'a>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = (String, &'a RequestFigures)>,
    ) {
        self.begin(family);
        for (labels, figures) in samples {
            for step in &figures.latency.buckets {
                let up_to = exact(step.up_to_us) / US;
                self.sample(family, "_bucket", &format!("{labels},le=\"{up_to}\""), step.count);
            }
            let all = figures.requests;
            self.sample(family, "_bucket", &format!("{labels},le=\"+Inf\""), all);
            self.sample(family, "_sum", &labels, figures.latency.sum_us / US);
            self.sample(family, "_count", &labels, all);
        }
    }

    /// What a front end's clients asked for, by volume and kind.
    pub fn requests(&mut self, volumes: &[(&str, &[RequestFigures])]) {
        let each = || {
            volumes
                .iter()
                .flat_map(|(volume, figures)| by_kind(volume, figures))
        };
        let amounts: [(Family, Amount); 3] = [
            (REQUESTS, |figures| figures.requests),
            (BYTES, |figures| figures.bytes),
            (ERRORS, |figures| figures.errors),
        ];
        for (family, amount) in amounts {
            self.family(&family, each().map(|(labels, figures)| (labels, amount(figures))));
        }
        self.histogram(&SECONDS, each());
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.text
    }

    fn begin(&mut self, family: &Family) {
        let Family { name, kind, help } = family;
        let program = self.program;
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "# HELP {program}_{name} {help}\n# TYPE {program}_{name} {kind}"
        );
    }

    fn sample(&mut self, family: &Family, suffix: &str, labels: &str, value: impl Display) {
        let (program, name) = (self.program, family.name);
        let _ = if labels.is_empty() {
            writeln!(self.text, "{program}_{name}{suffix} {value}")
        } else {
            writeln!(self.text, "{program}_{name}{suffix}{{{labels}}} {value}")
        };
    }
}

fn by_kind<'a>(
    volume: &'a str,
    figures: &'a [RequestFigures],
) -> impl Iterator<Item = (String, &'a RequestFigures)> {
    let labelled =
        move |figures: &'a RequestFigures| (labels(&[("volume", volume), ("kind", &figures.kind)]), figures);
    figures.iter().map(labelled)
}

/// Labels as the format wants them: names, and values of any text.
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join(",")
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    //! What a scraper reads: every line is a comment or a sample, histograms are cumulative to their end.
    use admin_api::figures::{Bucket, Latency};

    use super::*;

    fn text() -> String {
        let figures = [RequestFigures {
            kind: "read".into(),
            requests: 3,
            bytes: 12288,
            errors: 0,
            latency: Latency {
                sum_us: 1_500_000.0,
                buckets: vec![Bucket {
                    up_to_us: 500,
                    count: 2,
                }],
                ..Latency::default()
            },
        }];
        let mut text = Text::new("probe");
        text.figure(&gauge("uptime_seconds", "For how long this runs."), 5);
        text.requests(&[("db\"1", &figures)]);
        text.finish()
    }

    #[test]
    fn figures_stand_under_their_names_with_escaped_labels() {
        let text = text();
        let labels = r#"volume="db\"1",kind="read""#;
        for line in [
            "probe_uptime_seconds 5".to_owned(),
            format!("probe_requests_total{{{labels}}} 3"),
            format!("probe_request_seconds_bucket{{{labels},le=\"0.0005\"}} 2"),
            format!("probe_request_seconds_bucket{{{labels},le=\"+Inf\"}} 3"),
            format!("probe_request_seconds_sum{{{labels}}} 1.5"),
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn every_sample_has_a_type_before_it() {
        let text = text();
        let mut typed = Vec::new();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                typed.extend(family.split(' ').next());
            } else if !line.starts_with('#') {
                assert!(typed.iter().any(|name| line.starts_with(name)), "{line}");
            }
        }
    }
}
