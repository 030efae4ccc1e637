//! Options of the handshake: how a client's are read. Refuses to know which exports exist.

use crate::wire::{ALLOCATION_CONTEXT, NAME_LENGTH_MAX, OPTION_MAGIC, split_u16, split_u32, split_u64};

/// Length in bytes of what comes before an option's data.
pub const OPTION_HEADER_LENGTH: usize = 16;

/// What precedes an option's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option; not checked yet.
    pub number: u32,
    /// How many bytes of data follow.
    pub length: u32,
}

impl OptionHeader {
    /// Reads a header, or nothing if these bytes are not one: then the stream is lost.
    ///
    /// ```text
    /// offset  length
    ///      0       8  OPTION_MAGIC
    ///      8       4  option
    ///     12       4  length of the data
    /// ```
    pub fn parse(bytes: &[u8; OPTION_HEADER_LENGTH]) -> Option<Self> {
        let (magic, rest) = split_u64(bytes)?;
        let (number, rest) = split_u32(rest)?;
        let (length, _) = split_u32(rest)?;
        (magic == OPTION_MAGIC).then_some(Self { number, length })
    }
}

/// The options' numbers.
pub mod number {
    /// Choose an export in the old way: no answer but the export itself, or the end.
    pub const EXPORT_NAME: u32 = 1;
    /// Leave.
    pub const ABORT: u32 = 2;
    /// List the exports.
    pub const LIST: u32 = 3;
    /// Turn to TLS.
    pub const STARTTLS: u32 = 5;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Choose an export.
    pub const GO: u32 = 7;
    /// Agree on structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// List metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Choose metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Agree on extended headers.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Kinds of information about an export.
pub mod information {
    /// Size and flags; always sent.
    pub const EXPORT: u16 = 0;
    /// The canonical name.
    pub const NAME: u16 = 1;
    /// A description for people.
    pub const DESCRIPTION: u16 = 2;
    /// What sizes requests should have.
    pub const BLOCK_SIZE: u16 = 3;
}

/// An option of the client, with its data checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOption {
    /// Choose an export in the old way.
    ExportName(String),
    /// Leave.
    Abort,
    /// List the exports.
    List,
    /// Turn to TLS.
    StartTls,
    /// Describe an export.
    Info(ExportQuery),
    /// Choose an export.
    Go(ExportQuery),
    /// Agree on structured replies.
    StructuredReply,
    /// Agree on extended headers.
    ExtendedHeaders,
    /// List metadata contexts.
    ListContexts(ContextQuery),
    /// Choose metadata contexts.
    SetContexts(ContextQuery),
    /// An option that this server does not know.
    Unknown,
}

/// What `INFO` and `GO` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportQuery {
    /// The export.
    pub name: String,
    /// Kinds of information that the client would like, known or not.
    pub wanted: Vec<u16>,
}

/// What the options about metadata contexts ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextQuery {
    /// The export.
    pub name: String,
    /// Contexts, or prefixes of them that end with a colon.
    pub queries: Vec<String>,
}

impl ContextQuery {
    /// Whether the one context that there is should be listed: no query at all means everything.
    pub fn lists_allocation(&self) -> bool {
        self.queries.is_empty()
            || self
                .queries
                .iter()
                .any(|query| query == "base:" || query == ALLOCATION_CONTEXT)
    }

    /// Whether the one context that there is should be chosen: prefixes choose nothing.
    pub fn chooses_allocation(&self) -> bool {
        self.queries.iter().any(|query| query == ALLOCATION_CONTEXT)
    }
}

/// The data of an option make no sense; a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(pub &'static str);

const NOT_TEXT: OptionError = OptionError("a name must be UTF-8 of at most 4096 bytes without a NUL");
const CUT_SHORT: OptionError = OptionError("the option's data end too early");
const TOO_LONG: OptionError = OptionError("bytes are left over after the option's data");

impl ClientOption {
    /// Reads an option's data.
    pub fn parse(option: u32, data: &[u8]) -> Result<Self, OptionError> {
        let bare = |value: Self| if data.is_empty() { Ok(value) } else { Err(TOO_LONG) };
        match option {
            number::EXPORT_NAME => Ok(Self::ExportName(text(data)?)),
            // A client may say why it leaves; it may leave all the same.
            number::ABORT => Ok(Self::Abort),
            number::LIST => bare(Self::List),
            number::STARTTLS => bare(Self::StartTls),
            number::INFO => Ok(Self::Info(ExportQuery::parse(data)?)),
            number::GO => Ok(Self::Go(ExportQuery::parse(data)?)),
            number::STRUCTURED_REPLY => bare(Self::StructuredReply),
            number::EXTENDED_HEADERS => bare(Self::ExtendedHeaders),
            number::LIST_META_CONTEXT => Ok(Self::ListContexts(ContextQuery::parse(data)?)),
            number::SET_META_CONTEXT => Ok(Self::SetContexts(ContextQuery::parse(data)?)),
            _ => Ok(Self::Unknown),
        }
    }
}

impl ExportQuery {
    fn parse(data: &[u8]) -> Result<Self, OptionError> {
        let (name, rest) = counted_text(data)?;
        let (count, mut rest) = split_u16(rest).ok_or(CUT_SHORT)?;
        let mut wanted = Vec::new();
        for _ in 0..count {
            let (kind, after) = split_u16(rest).ok_or(CUT_SHORT)?;
            wanted.push(kind);
            rest = after;
        }
        if rest.is_empty() {
            Ok(Self { name, wanted })
        } else {
            Err(TOO_LONG)
        }
    }
}

impl ContextQuery {
    fn parse(data: &[u8]) -> Result<Self, OptionError> {
        let (name, rest) = counted_text(data)?;
        let (count, mut rest) = split_u32(rest).ok_or(CUT_SHORT)?;
        let mut queries = Vec::new();
        for _ in 0..count {
            let (query, after) = counted_text(rest)?;
            queries.push(query);
            rest = after;
        }
        if rest.is_empty() {
            Ok(Self { name, queries })
        } else {
            Err(TOO_LONG)
        }
    }
}

fn counted_text(data: &[u8]) -> Result<(String, &[u8]), OptionError> {
    let (length, rest) = split_u32(data).ok_or(CUT_SHORT)?;
    let length = usize::try_from(length).map_err(|_| CUT_SHORT)?;
    let (name, rest) = rest.split_at_checked(length).ok_or(CUT_SHORT)?;
    Ok((text(name)?, rest))
}

fn text(bytes: &[u8]) -> Result<String, OptionError> {
    if bytes.len() > NAME_LENGTH_MAX || bytes.contains(&0) {
        return Err(NOT_TEXT);
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| NOT_TEXT)
}

#[cfg(test)]
mod tests {
    //! The laws of reading options: what a client may send is understood, anything else is refused
    //! with a sentence, and nothing panics.
    use super::*;
    use proptest::prelude::*;

    fn go(name: &str, wanted: &[u16]) -> Vec<u8> {
        let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
        data.extend(name.as_bytes());
        data.extend(u16::try_from(wanted.len()).unwrap().to_be_bytes());
        for kind in wanted {
            data.extend(kind.to_be_bytes());
        }
        data
    }

    #[test]
    fn go_is_read_with_its_name_and_its_wishes() {
        let parsed = ClientOption::parse(number::GO, &go("disk", &[3, 9])).unwrap();
        assert_eq!(
            parsed,
            ClientOption::Go(ExportQuery {
                name: "disk".into(),
                wanted: vec![3, 9]
            })
        );
    }

    #[test]
    fn a_name_longer_than_its_option_is_refused() {
        let mut data = go("disk", &[]);
        data[3] = 200;
        assert_eq!(ClientOption::parse(number::GO, &data), Err(CUT_SHORT));
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let mut data = go("disk", &[]);
        data.push(0);
        assert_eq!(ClientOption::parse(number::INFO, &data), Err(TOO_LONG));
        assert_eq!(ClientOption::parse(number::LIST, b"x"), Err(TOO_LONG));
    }

    #[test]
    fn a_name_that_is_not_text_is_refused() {
        assert_eq!(ClientOption::parse(number::EXPORT_NAME, b"\xff"), Err(NOT_TEXT));
        assert_eq!(ClientOption::parse(number::EXPORT_NAME, b"a\0b"), Err(NOT_TEXT));
        assert_eq!(
            ClientOption::parse(number::EXPORT_NAME, &[b'a'; 4097]),
            Err(NOT_TEXT)
        );
    }

    #[test]
    fn a_count_of_queries_beyond_the_data_does_not_reserve_memory_for_it() {
        let mut data = 1u32.to_be_bytes().to_vec();
        data.extend(b"x");
        data.extend(u32::MAX.to_be_bytes());
        assert_eq!(
            ClientOption::parse(number::SET_META_CONTEXT, &data),
            Err(CUT_SHORT)
        );
    }

    #[test]
    fn a_prefix_lists_the_context_but_does_not_choose_it() {
        let query = |text: &str| ContextQuery {
            name: String::new(),
            queries: vec![text.into()],
        };
        assert!(query("base:").lists_allocation() && !query("base:").chooses_allocation());
        assert!(query("base:allocation").chooses_allocation());
        assert!(!query("qemu:dirty-bitmap").lists_allocation());
        assert!(
            ContextQuery {
                name: String::new(),
                queries: vec![]
            }
            .lists_allocation()
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(option in 0u32..20, data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ClientOption::parse(option, &data);
        }

        #[test]
        fn what_is_cut_short_is_never_accepted(wanted in proptest::collection::vec(any::<u16>(), 0..5), cut in 1usize..8) {
            let data = go("volume", &wanted);
            prop_assert!(ClientOption::parse(number::GO, &data[..data.len() - cut]).is_err());
        }
    }
}
