//! The floor: what one core with glommio, the page cache and TCP must cost. It parses requests, checks the CRC of every
//! batch, writes it, and answers; a fetch is a header and a `sendfile`. It has no topics to create, no durability, no
//! validation beyond the CRC and no bound on memory: a measure, not a broker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use glommio::LocalExecutor;
use glommio::io::PollableFd;
use nix::sys::socket::MsgFlags;

use crate::wire::{BatchView, Cursor, api, put};

/// One partition: a file, and where each batch begins in it.
struct Partition {
    file: Rc<File>,
    position: u64,
    offset_end: i64,
    batches: Vec<(i64, u64)>,
}

struct Store {
    directory: PathBuf,
    partitions: HashMap<i32, Partition>,
}

/// A piece of a file that follows the answer's header.
struct Span {
    file: Rc<File>,
    position: u64,
    bytes: usize,
}

/// Serves on a port of the loopback until the process is killed.
pub fn serve(port: u16, directory: PathBuf) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("binding the floor's port")?;
    listener.set_nonblocking(true)?;
    LocalExecutor::default().run(async move {
        let store = Rc::new(RefCell::new(Store { directory, partitions: HashMap::new() }));
        let listener = PollableFd::new(listener)?;
        loop {
            match listener.get_ref().accept() {
                Ok((stream, _)) => {
                    let store = Rc::clone(&store);
                    glommio::spawn_local(async move {
                        // A connection that ends, ends alone; the load meter reports what it misses.
                        let _ = converse(stream, store).await;
                    })
                    .detach();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => listener.readable().await?,
                Err(error) => return Err(error.into()),
            }
        }
    })
}

async fn converse(stream: TcpStream, store: Rc<RefCell<Store>>) -> Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = PollableFd::new(stream)?;
    let more = MsgFlags::from_bits_retain(nix::libc::MSG_MORE);
    let (mut input, mut filled, mut out) = (vec![0; 4 << 20], 0usize, Vec::with_capacity(64 << 10));
    loop {
        let count = match socket.get_ref().read(input.get_mut(filled..).unwrap_or(&mut [])) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                socket.readable().await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        filled += count;
        let mut at = 0;
        while let Some((prefix, rest)) =
            input.get(at..filled).and_then(|bytes| bytes.split_first_chunk::<4>())
        {
            let length = u32::from_be_bytes(*prefix) as usize;
            ensure!(length <= input.len() - 4, "a frame above the floor's buffer");
            let Some(frame) = rest.get(..length) else { break };
            let span = store.borrow_mut().answer(frame, &mut out)?;
            if let Some(span) = span {
                // More follows: the header leaves with the first bytes of the file.
                send(&socket, &mut out, more).await?;
                send_file(&socket, span).await?;
            }
            at += 4 + length;
        }
        if at > 0 {
            input.copy_within(at..filled, 0);
            filled -= at;
        }
        send(&socket, &mut out, MsgFlags::empty()).await?;
        if filled == 0 {
            socket.readable().await?;
        }
    }
}

async fn send(socket: &PollableFd<TcpStream>, out: &mut Vec<u8>, flags: MsgFlags) -> Result<()> {
    let mut sent = 0;
    while let Some(rest) = out.get(sent..).filter(|rest| !rest.is_empty()) {
        match nix::sys::socket::send(socket.get_ref().as_raw_fd(), rest, flags) {
            Ok(count) => sent += count,
            Err(nix::errno::Errno::EAGAIN) => socket.writable().await?,
            Err(error) => return Err(error.into()),
        }
    }
    out.clear();
    Ok(())
}

async fn send_file(socket: &PollableFd<TcpStream>, span: Span) -> Result<()> {
    let (mut position, mut left) = (i64::try_from(span.position)?, span.bytes);
    while left > 0 {
        match nix::sys::sendfile::sendfile64(
            socket.get_ref(),
            &*span.file,
            Some(&mut position),
            left.min(256 << 10),
        ) {
            Ok(0) => bail!("the file is shorter than its index"),
            Ok(count) => left -= count,
            Err(nix::errno::Errno::EAGAIN) => socket.writable().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn number<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&bytes);
}

impl Store {
    /// Appends the answer to `out`; what must follow it from a file is returned.
    fn answer(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<Option<Span>> {
        let mut request = Cursor::new(frame);
        let (key, _version, correlation) = (request.i16()?, request.i16()?, request.i32()?);
        request.text()?;
        let start = out.len();
        number(out, [0; 4]);
        number(out, correlation.to_be_bytes());
        let span = match key {
            api::PRODUCE => self.produce(request, out)?,
            api::FETCH => self.fetch(request, out)?,
            api::LIST_OFFSETS => self.list_offsets(request, out)?,
            api::API_VERSIONS => {
                number(out, [0; 6]);
                None
            }
            other => bail!("the floor does not know API {other}"),
        };
        let length = out.len() - start - 4 + span.as_ref().map_or(0, |span| span.bytes);
        put(out, start, &u32::try_from(length)?.to_be_bytes());
        Ok(span)
    }

    fn produce(&mut self, mut request: Cursor<'_>, out: &mut Vec<u8>) -> Result<Option<Span>> {
        request.text()?;
        request.take(6)?; // acks, timeout
        number(out, i32::try_from(request.count()?)?.to_be_bytes());
        let topic = request.text()?;
        number(out, i16::try_from(topic.len())?.to_be_bytes());
        out.extend_from_slice(topic);
        let partitions = request.count()?;
        number(out, i32::try_from(partitions)?.to_be_bytes());
        for _ in 0..partitions {
            let index = request.i32()?;
            let length = request.count()?;
            let (batch, _) = BatchView::split(request.take(length)?).context("a cut batch")?;
            let error: i16 = if batch.crc_holds() { 0 } else { 2 };
            let offset = if error == 0 { self.partition(index)?.append(batch)? } else { -1 };
            number(out, index.to_be_bytes());
            number(out, error.to_be_bytes());
            number(out, offset.to_be_bytes());
            number(out, (-1i64).to_be_bytes());
            number(out, 0i64.to_be_bytes());
        }
        number(out, 0i32.to_be_bytes());
        Ok(None)
    }

    fn fetch(&mut self, mut request: Cursor<'_>, out: &mut Vec<u8>) -> Result<Option<Span>> {
        request.take(4 + 4 + 4 + 4 + 1 + 4 + 4 + 4)?; // up to the one topic
        let topic = request.text()?;
        request.count()?;
        let (index, offset) = (request.i32()?, request.i64()?);
        request.i64()?;
        let limit = request.count()?;
        let partition = self.partition(index)?;
        let span = partition.span(offset, limit);
        number(out, [0; 10]); // throttle, error, session
        number(out, 1i32.to_be_bytes());
        number(out, i16::try_from(topic.len())?.to_be_bytes());
        out.extend_from_slice(topic);
        number(out, 1i32.to_be_bytes());
        number(out, index.to_be_bytes());
        number(out, 0i16.to_be_bytes());
        number(out, partition.offset_end.to_be_bytes());
        number(out, partition.offset_end.to_be_bytes());
        number(out, 0i64.to_be_bytes());
        number(out, (-1i32).to_be_bytes());
        number(out, i32::try_from(span.bytes)?.to_be_bytes());
        Ok(Some(span))
    }

    fn list_offsets(&mut self, mut request: Cursor<'_>, out: &mut Vec<u8>) -> Result<Option<Span>> {
        request.take(8)?; // replica, the count of one topic
        let topic = request.text()?;
        let count = request.count()?;
        number(out, 1i32.to_be_bytes());
        number(out, i16::try_from(topic.len())?.to_be_bytes());
        out.extend_from_slice(topic);
        number(out, i32::try_from(count)?.to_be_bytes());
        for _ in 0..count {
            let (index, _) = (request.i32()?, request.i64()?);
            number(out, index.to_be_bytes());
            number(out, 0i16.to_be_bytes());
            number(out, (-1i64).to_be_bytes());
            number(out, self.partition(index)?.offset_end.to_be_bytes());
        }
        Ok(None)
    }

    fn partition(&mut self, index: i32) -> Result<&mut Partition> {
        if !self.partitions.contains_key(&index) {
            let path = self.directory.join(format!("{index}.log"));
            let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
            let fresh = Partition { file: Rc::new(file), position: 0, offset_end: 0, batches: Vec::new() };
            self.partitions.insert(index, fresh);
        }
        self.partitions.get_mut(&index).context("a partition that was there is gone")
    }
}

impl Partition {
    /// Writes a batch under its offset: the eight bytes of it first, the rest straight from the frame.
    fn append(&mut self, batch: BatchView<'_>) -> Result<i64> {
        let base = self.offset_end;
        let head = base.to_be_bytes();
        let rest = batch.bytes.get(head.len()..).unwrap_or(&[]);
        let slices = [std::io::IoSlice::new(&head), std::io::IoSlice::new(rest)];
        let written = nix::sys::uio::pwritev(&*self.file, &slices, i64::try_from(self.position)?)?;
        ensure!(written == batch.bytes.len(), "a short write");
        self.batches.push((base, self.position));
        self.position += written as u64;
        self.offset_end += batch.offset_end - batch.base_offset;
        Ok(base)
    }

    fn span(&self, offset: i64, limit: usize) -> Span {
        // The batch that holds the offset, as brokers answer; nothing at the log's end.
        let after = self.batches.partition_point(|(base, _)| *base <= offset);
        let holding = self.batches.get(after.saturating_sub(1)).filter(|_| offset < self.offset_end);
        let position = holding.map_or(self.position, |(_, position)| *position);
        let bytes = limit.min((self.position - position) as usize);
        Span { file: Rc::clone(&self.file), position, bytes }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::wire::{self, Contents, Payload, Produced, Producer};

    #[test]
    fn what_is_produced_is_fetched_from_the_batch_that_holds_an_offset() {
        let directory = std::env::temp_dir().join(format!("bench-floor-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut store = Store { directory: directory.clone(), partitions: HashMap::new() };
        let batch = wire::encode(Contents::plain(3, 50), Producer::NONE, 0, &mut Payload::new(1));
        let (request, _) = wire::produce("t", 1, &[(2, batch)]);
        for round in 0..2 {
            let mut out = Vec::new();
            assert!(store.answer(request.get(4..).unwrap(), &mut out).unwrap().is_none());
            let mut seen = Vec::new();
            wire::read_produced(Cursor::new(out.get(8..).unwrap()), |one| {
                seen.push(one);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, [Produced { partition: 2, error: 0, base_offset: round * 3 }]);
        }
        let (mut request, places) = wire::fetch("t", &[2], 1 << 20);
        let mut span = |offset: i64| {
            put(&mut request, *places.first().unwrap(), &offset.to_be_bytes());
            store.answer(request.get(4..).unwrap(), &mut Vec::new()).unwrap().unwrap()
        };
        // At a batch's first offset, and within it.
        for offset in [3, 5] {
            let span = span(offset);
            let mut read = vec![0; span.bytes];
            span.file.read_exact_at(&mut read, span.position).unwrap();
            let (view, rest) = BatchView::split(&read).unwrap();
            assert!(rest.is_empty() && view.crc_holds());
            assert_eq!((view.base_offset, view.offset_end), (3, 6), "from {offset}");
        }
        assert_eq!(span(6).bytes, 0, "the log's end");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
