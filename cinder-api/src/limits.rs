//! How much of this process whoever asks may hold, and for how long: section `[limits]` of the configuration. What holds to
//! it is [`crate::serving`] and [`crate::door`].

use std::fmt;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use protocol::limits::Rate;
use serde::Deserialize;

/// The largest body: a volume with all metadata that it may have is far smaller. Cinder's `osapi_max_request_body_size`.
pub const BODY_BYTES_MAX: usize = 114_688;
/// The most that a request's line and headers may take together. Two tokens of 64 KiB, as long as any that is looked at, do
/// not fit beside each other; those of a large cloud do.
pub const HEADER_BYTES_MAX: usize = 112 * 1024;
/// What may be configured as a number of connections: each takes a file of the process.
const CONNECTIONS_MAX: usize = 100_000;
/// The longest time that may be configured, in seconds: a day.
const SECONDS_MAX: u64 = 86_400;

/// What may be configured as a number of requests a second, or at once after a rest.
const REQUESTS_MAX: u64 = 1_000_000;

/// How many requests a second a project may make unless something else is configured: a twentieth of what two processors
/// answer.
const PROJECT_REQUESTS: u64 = 500;
/// Unless something else is configured, a project that has rested may make the requests of so many seconds at once: a page of a
/// dashboard asks many things.
const BURST_SECONDS: u64 = 10;

/// The section of the file.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsFile {
    connections: Option<usize>,
    header_seconds: Option<u64>,
    body_seconds: Option<u64>,
    request_seconds: Option<u64>,
    answer_seconds: Option<u64>,
    shutdown_seconds: Option<u64>,
    project_requests_per_second: Option<u64>,
    project_requests_burst: Option<u64>,
}

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are open at once. More wait until one is closed, which a peer that is silent or slow does not put
    /// off beyond the times below. As many requests are worked at at once.
    pub connections: usize,
    /// From a connection's begin, or the last answer on it, to the end of the next request's headers.
    pub header: Duration,
    /// From the end of the headers to the end of the body.
    pub body: Duration,
    /// From then to the answer. Work that takes longer goes on, and who asked is told so.
    pub request: Duration,
    /// How long a peer may take for the next [`crate::serving::PROGRESS_BYTES`] of an answer, or what is left of it.
    pub answer: Duration,
    /// How long requests that are worked at may go on when the process is told to end.
    pub shutdown: Duration,
    /// How many requests a second each project may make of this process, and how many at once after a rest; nothing if as
    /// many as it likes. Administrators may, and other services of the cloud for whomever: what these have begun must not
    /// stand still half done.
    pub project: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            header: Duration::from_secs(30),
            body: Duration::from_secs(30),
            // The storage may take a minute for one change, and an attachment needs several.
            request: Duration::from_mins(3),
            answer: Duration::from_mins(1),
            shutdown: Duration::from_mins(1),
            project: project_rate(PROJECT_REQUESTS, None),
        }
    }
}

impl LimitsFile {
    /// The limits that it says, or a sentence about what makes no sense in it.
    pub fn check(self) -> Result<Limits, String> {
        let default = Limits::default();
        let connections = possible("connections", self.connections, 1..=CONNECTIONS_MAX)?;
        let time = |name: &str, said: Option<u64>, default: Duration| {
            Ok::<_, String>(possible(name, said, 1..=SECONDS_MAX)?.map_or(default, Duration::from_secs))
        };
        let per_second = self.project_requests_per_second;
        let per_second = possible("project_requests_per_second", per_second, 0..=REQUESTS_MAX)?;
        let burst = possible(
            "project_requests_burst",
            self.project_requests_burst,
            1..=REQUESTS_MAX,
        )?;
        Ok(Limits {
            connections: connections.unwrap_or(default.connections),
            header: time("header_seconds", self.header_seconds, default.header)?,
            body: time("body_seconds", self.body_seconds, default.body)?,
            request: time("request_seconds", self.request_seconds, default.request)?,
            answer: time("answer_seconds", self.answer_seconds, default.answer)?,
            shutdown: time("shutdown_seconds", self.shutdown_seconds, default.shutdown)?,
            project: project_rate(per_second.unwrap_or(PROJECT_REQUESTS), burst),
        })
    }
}

/// What is said of a limit, if anything is and it is possible.
fn possible<N: PartialOrd + fmt::Display>(
    name: &str,
    said: Option<N>,
    range: RangeInclusive<N>,
) -> Result<Option<N>, String> {
    match said {
        Some(number) if !range.contains(&number) => Err(format!(
            "limits.{name} is {number}, and {} to {} are possible",
            range.start(),
            range.end()
        )),
        said => Ok(said),
    }
}

/// Nothing if there is no bound.
fn project_rate(per_second: u64, burst: Option<u64>) -> Option<Rate> {
    Some(Rate {
        per_second: NonZeroU64::new(per_second)?,
        burst: NonZeroU64::new(burst.unwrap_or(per_second.saturating_mul(BURST_SECONDS))),
    })
}

#[cfg(test)]
mod tests {
    //! What is left out has its default; a limit that would let nobody in, or nobody out, is refused.
    use super::*;

    fn check(text: &str) -> Result<Limits, String> {
        toml::from_str::<LimitsFile>(text).unwrap().check()
    }

    #[test]
    fn what_is_said_counts_and_the_rest_has_its_default() {
        let limits = check("connections = 7\nheader_seconds = 2").unwrap();
        assert_eq!((limits.connections, limits.header), (7, Duration::from_secs(2)));
        assert_eq!(limits.body, Limits::default().body);
    }

    #[test]
    fn a_rate_that_is_said_has_ten_seconds_of_it_at_once_unless_that_is_said_too() {
        let rate = |text| {
            let rate = check(text).unwrap().project;
            rate.map(|rate| (rate.per_second.get(), rate.burst.unwrap().get()))
        };
        assert_eq!(rate(""), Some((500, 5000)));
        assert_eq!(rate("project_requests_per_second = 2"), Some((2, 20)));
        assert_eq!(rate("project_requests_burst = 7"), Some((500, 7)));
        assert_eq!(rate("project_requests_per_second = 0"), None);
    }

    #[test]
    fn limits_that_make_no_sense_are_refused_by_name() {
        for text in [
            "connections = 0",
            "connections = 1000000",
            "header_seconds = 0",
            "body_seconds = 0",
            "request_seconds = 0",
            "answer_seconds = 100000",
            "shutdown_seconds = 0",
            "project_requests_per_second = 10000000",
            "project_requests_burst = 0",
        ] {
            let name = text.split(' ').next().unwrap();
            assert!(check(text).unwrap_err().contains(name), "{text}");
        }
    }
}
