//! Microversions: `OpenStack-API-Version: volume 3.N`.

use axum::http::HeaderMap;

use crate::fault::Fault;

/// A version of the API: 3.`0` to 3.[`Version::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u8);

/// The header that says which version is wanted, and which one was used.
pub const HEADER: &str = "openstack-api-version";
/// What the header calls this service.
const SERVICE: &str = "volume";
/// What stands for the newest version.
const LATEST: &str = "latest";

impl Version {
    /// The newest: that of Cinder since 2024.1.
    pub const MAX: Self = Self(71);

    /// Whether it is 3.`minor` or later.
    pub fn is(self, minor: u8) -> bool {
        self.0 >= minor
    }

    /// The version that a request asks for; 3.0 if it does not say.
    pub fn asked(headers: &HeaderMap) -> Result<Self, Fault> {
        for header in headers.get_all(HEADER) {
            let Ok(text) = header.to_str() else {
                return Err(malformed("..."));
            };
            for wish in text.split(',') {
                let mut words = wish.split_whitespace();
                let service = words.next().unwrap_or_default();
                if service.eq_ignore_ascii_case(SERVICE) {
                    let wanted = words.next().unwrap_or_default();
                    return Self::parse(wanted);
                }
            }
        }
        Ok(Self(0))
    }

    /// A version by its number, `3.27`, or `latest`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text == LATEST {
            return Ok(Self::MAX);
        }
        let numbers = text.split_once('.');
        let parse = |(major, minor)| Some((number(major)?, number(minor)?));
        let (major, minor) = numbers.and_then(parse).ok_or_else(|| malformed(text))?;
        match u8::try_from(minor) {
            Ok(minor) if major == 3 && minor <= Self::MAX.0 => Ok(Self(minor)),
            _ => Err(Fault::not_acceptable(format!(
                "Version {text} is not supported by the API. Minimum is 3.0 and maximum is 3.{}.",
                Self::MAX.0
            ))),
        }
    }
}

/// The header's value that asks for a version.
pub fn header_of(version: Version) -> String {
    format!("{SERVICE} 3.{}", version.0)
}

fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

fn malformed(text: &str) -> Fault {
    Fault::bad_request(format!(
        "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
    ))
}

#[cfg(test)]
mod tests {
    //! Every spelling of the header that clients use, and what is none.
    use super::*;

    fn asked(text: &str) -> Result<u8, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, text.parse().unwrap());
        let asked = Version::asked(&headers);
        asked
            .map(|version| version.0)
            .map_err(|fault| fault.status.as_u16())
    }

    #[test]
    fn a_version_is_read_from_among_those_of_other_services() {
        assert_eq!(asked("volume 3.44"), Ok(44));
        assert_eq!(asked("compute 2.1, volume 3.7"), Ok(7));
        assert_eq!(asked("Volume latest"), Ok(71));
        assert_eq!(asked("compute 2.1"), Ok(0));
        assert_eq!(Version::asked(&HeaderMap::new()), Ok(Version(0)));
    }

    #[test]
    fn versions_out_of_range_and_nonsense_are_refused_differently() {
        for text in [
            "volume 3.72",
            "volume 3.99",
            "volume 2.0",
            "volume 4.0",
            "volume 3.300",
        ] {
            assert_eq!(asked(text), Err(406), "{text}");
        }
        for text in [
            "volume 3",
            "volume",
            "volume a.b",
            "volume 3.-1",
            "volume 3.01",
            "volume 3.1.2",
        ] {
            assert_eq!(asked(text), Err(400), "{text}");
        }
    }
}
