//! The members of an etcd: asks one, and the next if that one is away; says who we are, anew when that
//! was forgotten. What is asked is none of this file's business.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::messages::{AuthenticateRequest, AuthenticateResponse, method};
use super::options::{ConnectError, Options};
use super::words;
use crate::engine::VALUE_LENGTH_MAX;
use crate::store::{CoordinationError, Revision};

/// One attempt at one member takes no longer. Well below the lease of an owner, so that a member that
/// died without a word does not cost it; etcd itself gives up after 7 seconds.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Before a second attempt; twice as long before each further one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The largest answer that is read: a page of the largest values, and room for their frames.
const ANSWER_LENGTH_MAX: usize = super::range::PAGE * (VALUE_LENGTH_MAX + 1024) + (1 << 20);
/// How often a call says anew who we are before it gives up.
const LOGINS_MAX: usize = 2;

/// What one attempt came to, if to nothing good.
#[derive(Debug)]
pub(super) enum Miss {
    /// etcd has answered, and did nothing.
    Refused(Status),
    /// No answer: it may or may not have been done, and may even be done later.
    Lost(String),
}

/// A stream with its first answer.
pub(super) struct Opened<M> {
    pub(super) first: M,
    pub(super) answers: Streaming<M>,
    /// Whose it is.
    pub(super) member: usize,
}

/// The members.
pub(super) struct Members {
    channels: Vec<Channel>,
    current: AtomicUsize,
    login: Option<(String, String)>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    timeout: Duration,
}

/// Pauses between attempts, until a deadline.
pub(super) struct Pauses {
    deadline: Instant,
    next: Duration,
}

impl Pauses {
    pub(super) fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            next: PAUSE_MIN,
        }
    }

    /// Waits before another attempt; false if there is no time for one.
    pub(super) async fn wait(&mut self) -> bool {
        if Instant::now() + self.next >= self.deadline {
            return false;
        }
        self.rest().await;
        true
    }

    /// Waits, whatever the deadline says.
    pub(super) async fn rest(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(PAUSE_MAX);
    }
}

impl Members {
    pub(super) fn new(options: &Options) -> Result<Self, ConnectError> {
        let members = options.members()?;
        Ok(Self {
            channels: members
                .iter()
                .map(tonic::transport::Endpoint::connect_lazy)
                .collect(),
            current: AtomicUsize::new(0),
            login: options.login()?,
            token: Mutex::default(),
            timeout: options.timeout,
        })
    }

    /// When a call that begins now must have ended.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Asks until there is an answer, of any member. For what may be done twice.
    pub(super) async fn ask<M1, M2>(&self, path: &'static str, message: &M1) -> Result<M2, CoordinationError>
    where
        M1: Message + Clone + 'static,
        M2: Message + Default + 'static,
    {
        let mut pauses = Pauses::until(self.deadline());
        loop {
            match self.attempt(path, message.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(Miss::Refused(status)) if !may_pass(&status) => return Err(refusal(&status)),
                Err(miss) => {
                    if !pauses.wait().await {
                        return Err(miss.into_unavailable());
                    }
                }
            }
        }
    }

    /// Asks one member once. After an attempt that is lost, the next one goes to another member.
    pub(super) async fn attempt<M1, M2>(&self, path: &'static str, message: M1) -> Result<M2, Miss>
    where
        M1: Message + Clone + 'static,
        M2: Message + Default + 'static,
    {
        for _ in 0..LOGINS_MAX {
            self.log_in_if_needed().await?;
            match self.attempt_as_known(path, message.clone()).await {
                Err(Miss::Refused(status)) if self.is_forgotten(&status) => {}
                other => return other,
            }
        }
        self.log_in_if_needed().await?;
        self.attempt_as_known(path, message).await
    }

    /// Opens a stream on which only one thing is asked, and its first answer is awaited. With
    /// `keep_asking`, etcd must not believe that we have nothing more to say: it would end the stream.
    pub(super) async fn stream<M1, M2>(
        &self,
        path: &'static str,
        message: M1,
        keep_asking: bool,
    ) -> Result<Opened<M2>, Miss>
    where
        M1: Message + Clone + 'static,
        M2: Message + Default + 'static,
    {
        for _ in 0..LOGINS_MAX {
            self.log_in_if_needed().await?;
            match self.stream_as_known(path, message.clone(), keep_asking).await {
                Err(Miss::Refused(status)) if self.is_forgotten(&status) => {}
                other => return other,
            }
        }
        self.log_in_if_needed().await?;
        self.stream_as_known(path, message, keep_asking).await
    }

    async fn attempt_as_known<M1, M2>(&self, path: &'static str, message: M1) -> Result<M2, Miss>
    where
        M1: Message + 'static,
        M2: Message + Default + 'static,
    {
        let member = self.current.load(Ordering::Relaxed);
        let call = async {
            let mut grpc = self.member(member).await?;
            let codec = ProstCodec::<M1, M2>::default();
            grpc.unary(self.request(message), PathAndQuery::from_static(path), codec)
                .await
        };
        Ok(self.in_time(member, call).await?.into_inner())
    }

    async fn stream_as_known<M1, M2>(
        &self,
        path: &'static str,
        message: M1,
        keep_asking: bool,
    ) -> Result<Opened<M2>, Miss>
    where
        M1: Message + 'static,
        M2: Message + Default + 'static,
    {
        let member = self.current.load(Ordering::Relaxed);
        let call = async {
            let mut grpc = self.member(member).await?;
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<M1, M2>::default();
            let first = tokio_stream::once(message);
            let answer = if keep_asking {
                let asked = first.chain(tokio_stream::pending());
                grpc.streaming(self.request(asked), path, codec).await
            } else {
                grpc.streaming(self.request(first), path, codec).await
            };
            let mut answers = answer?.into_inner();
            let first = answers.message().await?;
            let first = first.ok_or_else(|| Status::unavailable("the stream ended without an answer"))?;
            Ok(Opened {
                first,
                answers,
                member,
            })
        };
        self.in_time(member, call).await
    }

    /// The next attempt goes to another member, unless somebody has turned away from this one already.
    pub(super) fn turn_away_from(&self, member: usize) {
        let next = (member + 1) % self.channels.len().max(1);
        // If it fails, another call has turned away before us.
        let _ = self
            .current
            .compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether etcd no longer knows who we are; then we say it anew before the next attempt.
    fn is_forgotten(&self, status: &Status) -> bool {
        let forgotten = self.login.is_some() && is_forgotten(status);
        if forgotten {
            *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        forgotten
    }

    async fn log_in_if_needed(&self) -> Result<(), Miss> {
        if self.token().is_some() {
            return Ok(());
        }
        let Some((name, password)) = self.login.clone() else {
            return Ok(());
        };
        let member = self.current.load(Ordering::Relaxed);
        let call = async {
            let mut grpc = self.member(member).await?;
            let codec = ProstCodec::<AuthenticateRequest, AuthenticateResponse>::default();
            let request = Request::new(AuthenticateRequest { name, password });
            let path = PathAndQuery::from_static(method::AUTHENTICATE);
            grpc.unary(request, path, codec).await
        };
        let answer = self.in_time(member, call).await?;
        let token = MetadataValue::try_from(answer.into_inner().token)
            .map_err(|_| Miss::Lost("its token is none".to_owned()))?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    fn token(&self) -> Option<MetadataValue<Ascii>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        // A member that is cut off from the others ends its streams then, instead of being silent.
        headers.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = self.token() {
            headers.insert("token", token);
        }
        request
    }

    async fn member(&self, member: usize) -> Result<Grpc<Channel>, Status> {
        let channel = self.channels.get(member).cloned();
        let channel = channel.ok_or_else(|| Status::internal("there is no such member"))?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_LENGTH_MAX);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(words(&error)))?;
        Ok(grpc)
    }

    async fn in_time<T>(
        &self,
        member: usize,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Miss> {
        let lost = match tokio::time::timeout(ATTEMPT_TIMEOUT, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) if is_answer(&status) => return Err(Miss::Refused(status)),
            Ok(Err(status)) => said(&status),
            Err(_) => format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs()),
        };
        self.turn_away_from(member);
        Err(Miss::Lost(lost))
    }
}

impl Miss {
    /// As an error of something that has no effect, or whose effect does not matter.
    pub(super) fn into_unavailable(self) -> CoordinationError {
        match self {
            Self::Refused(status) => refusal(&status),
            Self::Lost(why) => CoordinationError::Unavailable(why.into()),
        }
    }
}

/// Why there was no answer: what the transport says, with its causes.
fn said(status: &Status) -> String {
    let causes = std::error::Error::source(status).map(words).unwrap_or_default();
    format!("{}: {causes}", status.message())
        .trim_end_matches(": ")
        .to_owned()
}

/// Whether etcd itself said no, and did nothing. Everything else may have been done: the connection
/// broke, the member lost its leader, or gave up waiting for the others.
fn is_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
    )
}

/// Whether etcd no longer knows who we are: tokens last for minutes, and not over a restart.
fn is_forgotten(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        || status.message().contains("revision of auth store is old")
        || status.message().contains("user name is empty")
}

/// Whether a refusal goes away by itself.
pub(super) fn may_pass(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message().contains("too many requests")
}

pub(super) fn is_compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange
}

pub(super) fn is_lease_missing(status: &Status) -> bool {
    status.code() == Code::NotFound && status.message().contains("lease not found")
}

/// A refusal, in our words.
pub(super) fn refusal(status: &Status) -> CoordinationError {
    let said = status.message();
    let unavailable =
        |hint: &str| CoordinationError::Unavailable(format!("etcd says {said:?}: {hint}").into());
    match status.code() {
        Code::NotFound if is_lease_missing(status) => CoordinationError::NoLease,
        Code::OutOfRange => CoordinationError::Compacted(Revision::default()),
        Code::PermissionDenied => {
            unavailable("give its user the role to read and write all keys with our prefix")
        }
        Code::Unauthenticated => unavailable("check the user and the password"),
        Code::FailedPrecondition if said.contains("not enabled") => {
            unavailable("it has no users; leave out the user, or run `etcdctl auth enable`")
        }
        Code::InvalidArgument if said.contains("authentication failed") => {
            unavailable("check the user and the password")
        }
        Code::InvalidArgument if said.contains("user name is empty") => {
            unavailable("it has users; name one and its password")
        }
        Code::ResourceExhausted if said.contains("space exceeded") => unavailable(
            "its database is full; compact and defragment it, then `etcdctl alarm disarm`, and let it compact by itself",
        ),
        _ => CoordinationError::Invalid(format!("etcd says {said:?}").into()),
    }
}

/// The next answer of a stream, or why there is none.
pub(super) async fn next<M>(stream: &mut Streaming<M>) -> Result<M, Miss>
where
    Streaming<M>: Stream<Item = Result<M, Status>>,
{
    match stream.next().await {
        Some(Ok(message)) => Ok(message),
        Some(Err(status)) if is_answer(&status) => Err(Miss::Refused(status)),
        Some(Err(status)) => Err(Miss::Lost(said(&status))),
        None => Err(Miss::Lost("the stream has ended".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    //! What may have been done must never be taken for a refusal.
    use super::*;

    #[test]
    fn an_answer_that_says_nothing_about_what_was_done_is_no_refusal() {
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Cancelled,
            Code::Unknown,
            Code::Internal,
            Code::Aborted,
            Code::DataLoss,
        ] {
            assert!(!is_answer(&Status::new(code, "")), "{code:?}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let says = |code, message: &str| refusal(&Status::new(code, message)).to_string();
        assert!(says(Code::PermissionDenied, "etcdserver: permission denied").contains("role"));
        assert!(
            says(
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded"
            )
            .contains("compact")
        );
        assert!(says(Code::InvalidArgument, "etcdserver: authentication failed, ...").contains("password"));
        assert_eq!(
            refusal(&Status::not_found("etcdserver: requested lease not found")),
            CoordinationError::NoLease
        );
    }
}
