//! The metadata file as the tables see it: plain pages, each verified when it is read.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use crate::format::page::{self, PAGE, STRIDE};
use crate::medium::MetaFile;

/// The most pages that are put together into one write: 4 MiB, the largest that a table asks for.
const PAGES_AT_ONCE: usize = 1024;

/// Pages with their checksums on a plain file.
#[derive(Debug)]
pub(super) struct Paged(pub(super) Arc<dyn MetaFile>);

fn refuse(number: u64, why: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("page {number} of the metadata: {why}"),
    )
}

impl Paged {
    fn read_page(&self, number: u64, page: &mut [u8]) -> io::Result<()> {
        let mut stored = vec![0; page::span(number)];
        self.0.read(page::place(number), &mut stored)?;
        page::open(number, &stored, page).map_err(|why| refuse(number, why))
    }

    fn read_bytes(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let mut page = [0; PAGE];
        while !out.is_empty() {
            let (number, within) = split(offset);
            let part = out.len().min(PAGE - within);
            let (head, rest) = out.split_at_mut(part);
            if part == PAGE {
                self.read_page(number, head)?;
            } else {
                self.read_page(number, &mut page)?;
                head.copy_from_slice(&page[within..within + part]);
            }
            out = rest;
            offset += part as u64;
        }
        Ok(())
    }

    fn write_bytes(&self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (number, within) = split(offset);
            if within != 0 || data.len() < PAGE || number == 0 {
                let (head, rest) = data.split_at(data.len().min(PAGE - within));
                let mut page = [0; PAGE];
                self.read_page(number, &mut page)?;
                page[within..within + head.len()].copy_from_slice(head);
                self.write_pages(number, &page)?;
                data = rest;
                offset += head.len() as u64;
            } else {
                let pages = (data.len() / PAGE).min(PAGES_AT_ONCE);
                let (head, rest) = data.split_at(pages * PAGE);
                self.write_pages(number, head)?;
                data = rest;
                offset += head.len() as u64;
            }
        }
        Ok(())
    }

    fn write_pages(&self, first: u64, pages: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(pages.len() / PAGE * STRIDE);
        for (number, page) in (first..).zip(pages.chunks(PAGE)) {
            page::seal(number, page, &mut sealed).map_err(|why| refuse(number, why))?;
        }
        self.0.write(page::place(first), &sealed)
    }
}

fn split(offset: u64) -> (u64, usize) {
    (
        offset / PAGE as u64,
        usize::try_from(offset % PAGE as u64).unwrap_or(0),
    )
}

impl StorageBackend for Paged {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(page::count(self.0.length()?) * PAGE as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.read_bytes(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_length(page::place(len.div_ceil(PAGE as u64)))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.flush()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.write_bytes(offset, data)
    }
}
