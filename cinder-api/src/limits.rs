//! How much of this process whoever asks may hold, and for how long: section `[limits]` of the configuration. What holds to
//! it is [`crate::serving`] and [`crate::door`].

use std::time::Duration;

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
        }
    }
}

impl LimitsFile {
    /// The limits that it says, or a sentence about what makes no sense in it.
    pub fn check(self) -> Result<Limits, String> {
        let default = Limits::default();
        let connections = self.connections.unwrap_or(default.connections);
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            return Err(format!(
                "limits.connections is {connections}, and 1 to {CONNECTIONS_MAX} are possible"
            ));
        }
        let time = |name: &str, said: Option<u64>, default: Duration| match said {
            None => Ok(default),
            Some(seconds) if (1..=SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs(seconds)),
            Some(seconds) => Err(format!(
                "limits.{name} is {seconds}, and 1 to {SECONDS_MAX} are possible"
            )),
        };
        Ok(Limits {
            connections,
            header: time("header_seconds", self.header_seconds, default.header)?,
            body: time("body_seconds", self.body_seconds, default.body)?,
            request: time("request_seconds", self.request_seconds, default.request)?,
            answer: time("answer_seconds", self.answer_seconds, default.answer)?,
            shutdown: time("shutdown_seconds", self.shutdown_seconds, default.shutdown)?,
        })
    }
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
    fn limits_that_make_no_sense_are_refused_by_name() {
        for text in [
            "connections = 0",
            "connections = 1000000",
            "header_seconds = 0",
            "body_seconds = 0",
            "request_seconds = 0",
            "answer_seconds = 100000",
            "shutdown_seconds = 0",
        ] {
            let name = text.split(' ').next().unwrap();
            assert!(check(text).unwrap_err().contains(name), "{text}");
        }
    }
}
