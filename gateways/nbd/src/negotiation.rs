//! The handshake: options until the client has chosen an export, or leaves.
//!
//! Reads exactly what an option says and not a byte more, so that nothing that came in the clear
//! is taken for something that came under TLS.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::connection::Terms;
use crate::export::{Description, ExportName, names_of};
use crate::registry::{Opened, Registry};
use crate::socket::Stream;
use crate::source::SourceError;
use crate::volume::VolumeHandle;
use crate::wire::option::{
    ClientOption, ContextQuery, ExportQuery, OPTION_HEADER_LENGTH, OptionHeader, information, number,
};
use crate::wire::reply::{OptionReply, ReplyFormat, greeting, old_style_export, put_option_reply};
use crate::wire::{
    ALLOCATION_CONTEXT, ALLOCATION_CONTEXT_ID, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, OPTION_LENGTH_MAX,
};

/// How long a client may take for its next option. People type some of them by hand.
const OPTION_WAIT: Duration = Duration::from_mins(2);
/// How long the handshake of TLS may take.
const TLS_WAIT: Duration = Duration::from_secs(20);
/// The longest option that is read to be refused, in bytes; a longer one ends the connection.
const OPTION_SKIP_MAX: u32 = 1024 * 1024;
/// Answers to one option are sent whenever they are this long, in bytes: a list may be long.
const ANSWER_BATCH: usize = 64 * 1024;

/// What the handshake needs to know of the server.
#[derive(Clone)]
pub struct Rules {
    /// Where exports are.
    pub registry: Rc<Registry>,
    /// How to turn to TLS, if it is offered.
    pub tls: Option<TlsAcceptor>,
    /// Whether nothing is answered before TLS.
    pub tls_required: bool,
    /// Which export the empty name stands for.
    pub default_export: Option<String>,
}

/// A client that has chosen.
pub struct Chosen {
    /// Its connection.
    pub stream: Stream,
    /// What was agreed on.
    pub terms: Terms,
    /// The way to the volume.
    pub handle: VolumeHandle,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum NegotiationError {
    /// The socket failed, or TLS did.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came was no option.
    #[error("the client does not speak the fixed newstyle handshake")]
    NotNbd,
    /// The client sent too much.
    #[error("the client sent an option of {0} bytes")]
    Oversized(u32),
    /// The old way to choose an export has no answer but the end.
    #[error("the export that was asked for in the old way cannot be had: {0}")]
    OldStyle(String),
}

/// Speaks with a client until it chooses an export; nothing if it leaves.
pub async fn negotiate(stream: Stream, rules: Rules) -> Result<Option<Chosen>, NegotiationError> {
    let mut talk = Negotiation {
        stream,
        rules,
        zeroes: true,
        format: ReplyFormat::Simple,
        context_export: None,
        answer: BytesMut::new(),
    };
    talk.greet().await?;
    loop {
        match talk.step().await? {
            Step::Next => {}
            Step::Left => return Ok(None),
            Step::StartTls => talk = talk.start_tls().await?,
            Step::Chosen { handle, allocation } => {
                let terms = Terms {
                    format: talk.format,
                    allocation,
                };
                return Ok(Some(Chosen {
                    stream: talk.stream,
                    terms,
                    handle,
                }));
            }
        }
    }
}

struct Negotiation {
    stream: Stream,
    rules: Rules,
    /// Whether the client wants 124 zeros after an old-style choice.
    zeroes: bool,
    format: ReplyFormat,
    /// The export that `base:allocation` was chosen for.
    context_export: Option<String>,
    answer: BytesMut,
}

enum Step {
    Next,
    Left,
    StartTls,
    Chosen { handle: VolumeHandle, allocation: bool },
}

impl Negotiation {
    async fn greet(&mut self) -> Result<(), NegotiationError> {
        self.stream.write_all(&greeting()).await?;
        self.stream.flush().await?;
        let flags = within(OPTION_WAIT, self.stream.read_u32()).await?;
        let known = u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        if flags & u32::from(FLAG_FIXED_NEWSTYLE) == 0 || flags & !known != 0 {
            return Err(NegotiationError::NotNbd);
        }
        self.zeroes = flags & u32::from(FLAG_NO_ZEROES) == 0;
        Ok(())
    }

    async fn step(&mut self) -> Result<Step, NegotiationError> {
        let mut header = [0; OPTION_HEADER_LENGTH];
        within(OPTION_WAIT, self.stream.read_exact(&mut header)).await?;
        let header = OptionHeader::parse(&header).ok_or(NegotiationError::NotNbd)?;
        let Some(data) = self.read_data(header).await? else {
            self.say(header.number, OptionReply::TooBig, "the option is too long");
            return self.send().await.map(|()| Step::Next);
        };
        let before_tls = self.rules.tls_required && !self.stream.is_encrypted();
        if before_tls && !matches!(header.number, number::STARTTLS | number::ABORT) {
            if header.number == number::EXPORT_NAME {
                return Err(NegotiationError::OldStyle("TLS is required".to_owned()));
            }
            self.say(
                header.number,
                OptionReply::TlsRequired,
                "this server speaks to you after STARTTLS only",
            );
            return self.send().await.map(|()| Step::Next);
        }
        let step = match ClientOption::parse(header.number, &data) {
            Ok(option) => self.answer(header.number, option).await?,
            Err(error) if header.number == number::EXPORT_NAME => {
                return Err(NegotiationError::OldStyle(error.to_string()));
            }
            Err(error) => {
                self.say(header.number, OptionReply::Invalid, error.0);
                Step::Next
            }
        };
        self.send().await?;
        Ok(step)
    }

    /// The option's data, or nothing if they are too long to look at; then they were skipped.
    async fn read_data(&mut self, header: OptionHeader) -> Result<Option<Vec<u8>>, NegotiationError> {
        if header.length > OPTION_SKIP_MAX {
            return Err(NegotiationError::Oversized(header.length));
        }
        let mut data = Vec::new();
        let stream = (&mut self.stream).take(u64::from(header.length));
        let mut stream = std::pin::pin!(stream);
        within(OPTION_WAIT, stream.read_to_end(&mut data)).await?;
        if u32::try_from(data.len()) != Ok(header.length) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok((header.length <= OPTION_LENGTH_MAX).then_some(data))
    }

    async fn answer(&mut self, number: u32, option: ClientOption) -> Result<Step, NegotiationError> {
        match option {
            ClientOption::ExportName(name) => return self.choose_old_style(&name).await,
            ClientOption::Abort => {
                self.acknowledge(number);
                // The client may have closed already: it wants no answer.
                let _ = self.send().await;
                return Ok(Step::Left);
            }
            ClientOption::List => self.list(number).await?,
            ClientOption::StartTls => return Ok(self.agree_on_tls(number)),
            ClientOption::Info(query) => {
                let name = self.canonical(&query.name);
                let found = match Self::export(&name) {
                    Ok(export) => self.rules.registry.describe(&export).await,
                    Err(error) => Err(error),
                };
                match found {
                    Ok(description) => self.describe(number, &query, &description),
                    Err(error) => self.fail(number, &error),
                }
            }
            ClientOption::Go(query) => return Ok(self.choose(number, &query).await),
            ClientOption::StructuredReply => self.agree_on_format(number, ReplyFormat::Structured),
            ClientOption::ExtendedHeaders => self.agree_on_format(number, ReplyFormat::Extended),
            ClientOption::ListContexts(query) => self.contexts(number, &query).await,
            ClientOption::SetContexts(query) => {
                self.context_export = None;
                self.contexts(number, &query).await;
            }
            ClientOption::Unknown => self.say(
                number,
                OptionReply::Unsupported,
                "this server does not know the option",
            ),
        }
        Ok(Step::Next)
    }

    fn agree_on_tls(&mut self, number: u32) -> Step {
        if self.stream.is_encrypted() {
            self.say(number, OptionReply::Invalid, "TLS is on already");
        } else if self.rules.tls.is_none() {
            self.say(number, OptionReply::Policy, "this server has no certificate");
        } else {
            self.acknowledge(number);
            return Step::StartTls;
        }
        Step::Next
    }

    /// What was agreed on in the clear counts no more: somebody else may have said it.
    async fn start_tls(self) -> Result<Self, NegotiationError> {
        let Some(acceptor) = self.rules.tls.clone() else {
            return Ok(self);
        };
        let stream = within(TLS_WAIT, self.stream.start_tls(&acceptor)).await?;
        Ok(Self {
            stream,
            format: ReplyFormat::Simple,
            context_export: None,
            ..self
        })
    }

    fn agree_on_format(&mut self, number: u32, format: ReplyFormat) {
        if self.format == ReplyFormat::Extended && format == ReplyFormat::Structured {
            self.say(
                number,
                OptionReply::ExtendedHeaders,
                "extended headers were agreed on already",
            );
            return;
        }
        self.format = format;
        self.acknowledge(number);
    }

    async fn list(&mut self, number: u32) -> Result<(), NegotiationError> {
        let entries = match self.rules.registry.list().await {
            Ok(entries) => entries,
            Err(error) => {
                self.fail(number, &error);
                return Ok(());
            }
        };
        for name in entries.iter().flat_map(names_of) {
            let name = name.to_string();
            let mut data = BytesMut::with_capacity(4 + name.len());
            data.put_u32(u32::try_from(name.len()).unwrap_or(0));
            data.put_slice(name.as_bytes());
            put_option_reply(&mut self.answer, number, OptionReply::Server, &data);
            if self.answer.len() > ANSWER_BATCH {
                self.send().await?;
            }
        }
        self.acknowledge(number);
        Ok(())
    }

    async fn contexts(&mut self, number: u32, query: &ContextQuery) {
        if self.format == ReplyFormat::Simple {
            return self.say(number, OptionReply::Invalid, "agree on structured replies first");
        }
        let name = self.canonical(&query.name);
        let known = match Self::export(&name) {
            Ok(export) => self.rules.registry.describe(&export).await,
            Err(error) => Err(error),
        };
        if let Err(error) = known {
            return self.fail(number, &error);
        }
        let chooses = number == number::SET_META_CONTEXT;
        let matches = if chooses {
            query.chooses_allocation()
        } else {
            query.lists_allocation()
        };
        if matches {
            let mut data = BytesMut::new();
            data.put_u32(if chooses { ALLOCATION_CONTEXT_ID } else { 0 });
            data.put_slice(ALLOCATION_CONTEXT.as_bytes());
            put_option_reply(&mut self.answer, number, OptionReply::MetaContext, &data);
            if chooses {
                self.context_export = Some(name);
            }
        }
        self.acknowledge(number);
    }

    async fn choose(&mut self, number: u32, query: &ExportQuery) -> Step {
        let name = self.canonical(&query.name);
        match self.open(&name).await {
            Ok(Opened { handle, description }) => {
                self.describe(number, query, &description);
                Step::Chosen {
                    handle,
                    allocation: self.context_export.as_deref() == Some(name.as_str()),
                }
            }
            Err(error) => {
                self.fail(number, &error);
                Step::Next
            }
        }
    }

    async fn choose_old_style(&mut self, name: &str) -> Result<Step, NegotiationError> {
        let name = self.canonical(name);
        let opened = self.open(&name).await;
        let Opened { handle, description } =
            opened.map_err(|error| NegotiationError::OldStyle(error.to_string()))?;
        let flags = description.flags(self.format != ReplyFormat::Simple);
        self.answer
            .put_slice(&old_style_export(description.size, flags, self.zeroes));
        let allocation = self.context_export.as_deref() == Some(name.as_str());
        Ok(Step::Chosen { handle, allocation })
    }

    async fn open(&self, name: &str) -> Result<Opened, SourceError> {
        let export = Self::export(name)?;
        self.rules.registry.open(&export).await
    }

    fn export(name: &str) -> Result<ExportName, SourceError> {
        ExportName::parse(name).ok_or_else(|| SourceError::NotFound(name.to_owned()))
    }

    fn canonical(&self, name: &str) -> String {
        match &self.rules.default_export {
            Some(export) if name.is_empty() => export.clone(),
            _ => name.to_owned(),
        }
    }

    /// Size, flags and block sizes always; the rest for those who ask.
    fn describe(&mut self, number: u32, query: &ExportQuery, description: &Description) {
        let mut data = BytesMut::new();
        data.put_u16(information::EXPORT);
        data.put_u64(description.size);
        data.put_u16(description.flags(self.format != ReplyFormat::Simple).0);
        put_option_reply(&mut self.answer, number, OptionReply::Info, &data);
        data.clear();
        data.put_u16(information::BLOCK_SIZE);
        description
            .block_sizes()
            .iter()
            .for_each(|size| data.put_u32(*size));
        put_option_reply(&mut self.answer, number, OptionReply::Info, &data);
        let texts = [
            (information::NAME, description.name.clone()),
            (information::DESCRIPTION, description.sentence()),
        ];
        for (kind, text) in texts {
            if query.wanted.contains(&kind) {
                data.clear();
                data.put_u16(kind);
                data.put_slice(text.as_bytes());
                put_option_reply(&mut self.answer, number, OptionReply::Info, &data);
            }
        }
        self.acknowledge(number);
    }

    fn fail(&mut self, number: u32, error: &SourceError) {
        debug!(%error, "an option failed");
        let kind = match error {
            SourceError::NotFound(_) => OptionReply::UnknownExport,
            SourceError::Refused { .. } | SourceError::Unavailable(_) => OptionReply::Policy,
        };
        self.say(number, kind, &error.to_string());
    }

    fn acknowledge(&mut self, number: u32) {
        put_option_reply(&mut self.answer, number, OptionReply::Ack, &[]);
    }

    fn say(&mut self, number: u32, kind: OptionReply, message: &str) {
        put_option_reply(&mut self.answer, number, kind, message.as_bytes());
    }

    async fn send(&mut self) -> Result<(), NegotiationError> {
        let answer = self.answer.split().freeze();
        self.stream.write_all(&answer).await?;
        self.stream.flush().await?;
        Ok(())
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
