//! Sizes as people write them. `10G` and `10GiB` are 10 * 2^30 bytes, as Sheepdog and qemu-img have it;
//! `10GB` is 10 * 10^9; a plain number is bytes. Letter case does not matter, fractions are allowed
//! (`1.5T`), and the units are K, M, G, T, P and E.

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// What a volume's size is a multiple of, in bytes.
pub const VOLUME_SIZE_STEP: u64 = 4096;
/// The largest volume, in bytes: 1 PiB.
pub const VOLUME_SIZE_MAX: u64 = 1 << 50;
/// The most digits after the point: enough for any byte of the largest unit to be named closely, and
/// few enough that the arithmetic stays far inside 128 bits.
const FRACTION_DIGITS_MAX: usize = 9;
/// The longest text that is looked at.
const TEXT_LENGTH_MAX: usize = 40;

/// Why a size is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with a unit.
    #[error(
        "{text:?} is not a size: write bytes (1048576), or a number with a unit (512M, 10G, 1.5TiB, 1TB)"
    )]
    Unreadable {
        /// What was there.
        text: String,
    },
    /// No bytes.
    #[error("the size is zero: a volume has at least {VOLUME_SIZE_STEP} bytes")]
    Zero,
    /// Above [`VOLUME_SIZE_MAX`].
    #[error("the size {text:?} is too large: a volume has at most 1 PiB ({VOLUME_SIZE_MAX} bytes)")]
    TooLarge {
        /// What was there.
        text: String,
    },
}

/// A size in a request: a JSON number of bytes, or a text as people write it. It is kept as it came, so
/// that a wrong one can be answered with a sentence about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SizeInput {
    /// Bytes.
    Bytes(u64),
    /// A number with a unit.
    Text(String),
}

/// A size that a volume can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSize {
    /// Bytes: a multiple of [`VOLUME_SIZE_STEP`], from that to [`VOLUME_SIZE_MAX`].
    pub bytes: u64,
    /// Whether the size that was asked for was rounded up to get there.
    pub rounded: bool,
}

impl SizeInput {
    /// The size as a volume's, rounded up to whole blocks.
    pub fn volume_size(&self) -> Result<VolumeSize, SizeError> {
        let (asked, text) = match self {
            Self::Bytes(bytes) => (*bytes, bytes.to_string()),
            Self::Text(text) => (parse_size(text)?, text.clone()),
        };
        if asked == 0 {
            return Err(SizeError::Zero);
        }
        if asked > VOLUME_SIZE_MAX {
            return Err(SizeError::TooLarge { text });
        }
        let bytes = asked.next_multiple_of(VOLUME_SIZE_STEP);
        Ok(VolumeSize {
            bytes,
            rounded: bytes != asked,
        })
    }
}

impl From<u64> for SizeInput {
    fn from(bytes: u64) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&str> for SizeInput {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl PartialSchema for SizeInput {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .description(Some(
                "A number with a unit: 10G and 10GiB are binary, 10GB is decimal.",
            ))
            .max_length(Some(TEXT_LENGTH_MAX));
        let bytes = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Integer))
            .description(Some("Bytes."))
            .minimum(Some(1));
        OneOfBuilder::new().item(bytes).item(text).into()
    }
}

impl ToSchema for SizeInput {}

/// Bytes of a size as people write it. A part of a byte counts as a whole one.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let unreadable = || SizeError::Unreadable {
        text: text.chars().take(TEXT_LENGTH_MAX).collect(),
    };
    let trimmed = text.trim();
    if trimmed.len() > TEXT_LENGTH_MAX || !trimmed.is_ascii() {
        return Err(unreadable());
    }
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit = unit_bytes(unit.trim_start()).ok_or_else(unreadable)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(unreadable());
    }
    let too_large = || SizeError::TooLarge { text: text.into() };
    let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| unreadable())?);
    let whole: u128 = whole.parse().map_err(|_| too_large())?;
    let fraction: u128 = fraction.parse().map_err(|_| unreadable())?;
    let bytes = whole.checked_mul(unit).ok_or_else(too_large)?;
    let bytes = bytes
        .checked_add((fraction * unit).div_ceil(scale))
        .ok_or_else(too_large)?;
    u64::try_from(bytes).map_err(|_| too_large())
}

/// Bytes in one of a unit, or nothing if there is no such unit.
fn unit_bytes(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_uppercase();
    if unit.is_empty() || unit == "B" {
        return Some(1);
    }
    let power = "KMGTPE".find(unit.chars().next()?)? + 1;
    let base: u128 = match unit.get(1..)? {
        "" | "I" | "IB" => 1024,
        "B" => 1000,
        _ => return None,
    };
    Some(base.pow(u32::try_from(power).ok()?))
}

/// A size for people: in the largest binary unit that leaves at least 1, with one decimal if it is not whole.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (bytes.max(1).ilog2() / 10) as usize;
    let unit = 1u64 << (10 * power);
    if bytes.is_multiple_of(unit) {
        return format!("{} {}", bytes / unit, UNITS[power]);
    }
    // Tenths, rounded down: a disk must not look fuller or larger than it is by rounding.
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power])
}

#[cfg(test)]
mod tests {
    //! What people write is read as they mean it, and what cannot be meant is refused.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_binary_unless_they_end_in_b_alone() {
        for (text, bytes) in [
            ("10G", 10 << 30),
            ("10g", 10 << 30),
            ("10GiB", 10 << 30),
            ("10 GiB", 10 << 30),
            ("1TB", 1_000_000_000_000),
            ("512", 512),
            ("512B", 512),
            ("1.5K", 1536),
            ("0.0001K", 1),
            ("1P", 1 << 50),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_examples() {
        for text in [
            "", "G", "-1", "+1", "1e9", "1..5G", ".5G", "5.G", "10X", "10GBB", "10 G B", "0x10", "1,5G",
        ] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains("10G"), "{text}: {error}");
        }
        assert!(matches!(
            parse_size("99999999999999999999999999999P"),
            Err(SizeError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_volume_is_rounded_up_to_whole_blocks_and_says_so() {
        let size = |input: SizeInput| input.volume_size();
        assert_eq!(
            size(1.into()),
            Ok(VolumeSize {
                bytes: 4096,
                rounded: true
            })
        );
        assert_eq!(
            size("1TB".into()),
            Ok(VolumeSize {
                bytes: 1_000_000_000_000,
                rounded: false
            })
        );
        assert_eq!(size("0G".into()), Err(SizeError::Zero));
        assert!(size("1P".into()).is_ok());
        assert!(matches!(
            size((VOLUME_SIZE_MAX + 1).into()),
            Err(SizeError::TooLarge { .. })
        ));
        assert!(matches!(size(u64::MAX.into()), Err(SizeError::TooLarge { .. })));
    }

    #[test]
    fn a_request_takes_numbers_and_texts() {
        assert_eq!(
            serde_json::from_str::<SizeInput>("4096").unwrap(),
            SizeInput::Bytes(4096)
        );
        assert_eq!(
            serde_json::from_str::<SizeInput>("\"10G\"").unwrap(),
            "10G".into()
        );
    }

    #[test]
    fn people_read_sizes_in_binary_units_and_never_rounded_up() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 30, "1 GiB"),
            (1536, "1.5 KiB"),
            ((1 << 40) - 1, "1023.9 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,60}") {
            let _ = parse_size(&text);
            let _ = SizeInput::from(text.as_str()).volume_size();
        }

        #[test]
        fn plain_bytes_read_back_exactly(bytes: u64) {
            prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
        }

        #[test]
        fn a_formatted_size_reads_back_to_no_more_than_it_was(bytes: u64) {
            let back = parse_size(&format_size(bytes)).unwrap();
            prop_assert!(back <= bytes.saturating_add(1) && back >= bytes - bytes / 9);
        }

        #[test]
        fn an_accepted_volume_size_is_aligned_in_range_and_not_below_what_was_asked(bytes: u64) {
            if let Ok(size) = SizeInput::Bytes(bytes).volume_size() {
                prop_assert!(size.bytes >= bytes && size.bytes - bytes < VOLUME_SIZE_STEP);
                prop_assert!(size.bytes.is_multiple_of(VOLUME_SIZE_STEP) && size.bytes <= VOLUME_SIZE_MAX);
                prop_assert_eq!(size.rounded, size.bytes != bytes);
            }
        }
    }
}
