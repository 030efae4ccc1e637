//! NBD: options and requests as a client may send them, and a whole connection fed with any bytes.

use std::cell::OnceCell;
use std::rc::Rc;

use client::memory::MemoryDevice;
use client::sectors::Sectors;
use storaged_nbd::connection::{self, Terms};
use storaged_nbd::socket::{Socket, Stream};
use storaged_nbd::wire::option::{ClientOption, OPTION_HEADER_LENGTH, OptionHeader};
use storaged_nbd::wire::reply::ReplyFormat;
use storaged_nbd::wire::request::{Bounds, HeaderLayout, Request, Task};
use telemetry::traffic::{Kind, Traffic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The size of the export in bytes: small, so that no input makes long answers.
const SIZE: u64 = 1 << 20;

/// The parsers alone: an input is a run of options, and a run of requests in both layouts.
pub(crate) fn messages(input: &[u8]) {
    options(input);
    for (layout, length) in [(HeaderLayout::Compact, 28), (HeaderLayout::Extended, 32)] {
        for header in input.chunks(length) {
            request(layout, header);
        }
    }
}

fn options(mut input: &[u8]) {
    while let Some((header, rest)) = input.split_first_chunk::<OPTION_HEADER_LENGTH>() {
        let Some(header) = OptionHeader::parse(header) else {
            return;
        };
        let length = usize::try_from(header.length).map_or(rest.len(), |length| length.min(rest.len()));
        let (data, rest) = rest.split_at(length);
        if let Ok(ClientOption::SetContexts(query) | ClientOption::ListContexts(query)) =
            ClientOption::parse(header.number, data)
        {
            let named: usize = query.queries.iter().map(String::len).sum();
            assert!(named + query.name.len() <= data.len(), "nothing is read twice");
            assert!(!query.chooses_allocation() || query.lists_allocation());
        }
        input = rest;
    }
}

fn request(layout: HeaderLayout, header: &[u8]) {
    let Some(request) = Request::parse(layout, header) else {
        return;
    };
    for (read_only, alignment) in [(false, 1), (true, 4096)] {
        let bounds = Bounds {
            size: SIZE,
            alignment,
            read_only,
            structured: true,
            allocation: true,
        };
        let range = match request.judge(layout, &bounds) {
            Ok(Task::Read { offset, length, .. } | Task::Status { offset, length, .. }) => (offset, length),
            Ok(
                Task::Write { offset, length }
                | Task::Trim { offset, length }
                | Task::Zero { offset, length, .. },
            ) => {
                assert!(!read_only, "nothing changes an export that is read only");
                (offset, length)
            }
            Ok(Task::Flush | Task::Nothing | Task::Disconnect) | Err(_) => continue,
        };
        let end = range.0.checked_add(range.1);
        assert!(
            range.1 > 0 && end.is_some_and(|end| end <= SIZE),
            "a task stays inside its export"
        );
        assert!(range.0.is_multiple_of(u64::from(alignment)), "a task is aligned");
    }
}

thread_local! {
    static RUNTIME: OnceCell<Option<Runtime>> = const { OnceCell::new() };
}

/// A connection after the handshake: the first byte says what was agreed on, the rest is what the
/// client sends before it hangs up. It must end, whatever came.
pub(crate) fn connection(input: &[u8]) {
    let Some((agreed, bytes)) = input.split_first() else {
        return;
    };
    let format = match agreed % 3 {
        0 => ReplyFormat::Simple,
        1 => ReplyFormat::Structured,
        _ => ReplyFormat::Extended,
    };
    let terms = Terms {
        format,
        allocation: format != ReplyFormat::Simple,
    };
    RUNTIME.with(|cell| {
        let make = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()
        };
        if let Some(runtime) = cell.get_or_init(make) {
            tokio::task::LocalSet::new().block_on(runtime, converse(terms, bytes));
        }
    });
}

async fn converse(terms: Terms, bytes: &[u8]) {
    let Ok((server, client)) = UnixStream::pair() else {
        return;
    };
    let device = Rc::new(Sectors::bytes(Rc::new(MemoryDevice::new(SIZE))));
    let traffic = Rc::new(Traffic::new(&Kind::ALL));
    let (_keep_serving, stop) = watch::channel(false);
    let stream = Stream::Plain(Socket::Unix(server));
    let (mut answers, mut requests) = client.into_split();
    let serve = connection::serve(stream, terms, device, traffic, [stop.clone(), stop.clone(), stop]);
    let send = async {
        // The server may hang up first, when it gets something that is no request.
        let _ = requests.write_all(bytes).await;
        drop(requests);
    };
    let receive = async {
        let mut space = vec![0; 64 * 1024];
        while answers.read(&mut space).await.is_ok_and(|count| count > 0) {}
    };
    let _ = tokio::join!(serve, send, receive);
}
