//! The floor: what one core with glommio, the page cache and TCP must cost. It parses requests, checks the CRC of every
//! batch, writes it, and answers; a fetch is a header and a `sendfile`. It has no topics to create, no durability, no
//! validation beyond the CRC and no bound on memory: a measure, not a broker. How it writes is a choice (`append`), so
//! that ways of writing can be raced where everything else costs least.

mod append;
mod block;
mod journal;
mod tail;
mod writer;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use glommio::LocalExecutorBuilder;
use glommio::io::{DmaBuffer, PollableFd};
use nix::sys::socket::MsgFlags;

pub use append::Append;
use append::{Engine, Log, Span};

use crate::wire::{BatchView, Cursor, api, put};

/// Memory that the executor registers with the kernel for direct I/O.
const DIRECT_MEMORY_BYTES: usize = 64 << 20;
/// How long a fetch at a log's end waits.
const WAIT: Duration = Duration::from_millis(500);

/// One partition: its log, and where each batch begins in it.
struct Partition {
    log: Log,
    offset_end: i64,
    batches: Vec<(i64, u64)>,
    /// Fetches at its end.
    waiting: Vec<Waker>,
}

struct Store {
    engine: Rc<Engine>,
    partitions: HashMap<i32, Partition>,
    /// Where the batches of the last requests belong, for the journal.
    entries: Vec<[u8; 16]>,
    /// Where what is being answered was received.
    received: usize,
}

/// What follows an answer's header, and of which partition it is.
struct Found {
    index: i32,
    span: Span,
    /// Bytes of the answer before it.
    header_bytes: usize,
}

/// Serves on a port of the loopback until the process is killed. With `flush` an answer waits until its bytes are
/// durable.
pub fn serve(port: u16, directory: PathBuf, append: Append, flush: bool) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("binding the floor's port")?;
    listener.set_nonblocking(true)?;
    let mut executor = LocalExecutorBuilder::default();
    if append == Append::Journal {
        executor = executor.io_memory(DIRECT_MEMORY_BYTES);
    }
    let executor = executor.make().map_err(|error| anyhow::anyhow!("{error}"))?;
    executor.run(async move {
        let engine = Rc::new(Engine::new(append, flush, directory).await?);
        let store = Rc::new(RefCell::new(Store::new(engine)));
        let waiters = Rc::clone(&store);
        glommio::spawn_local(async move {
            loop {
                glommio::timer::sleep(WAIT).await;
                let mut store = waiters.borrow_mut();
                store.partitions.values_mut().flat_map(|one| one.waiting.drain(..)).for_each(Waker::wake);
            }
        })
        .detach();
        let listener = PollableFd::new(listener)?;
        loop {
            match listener.get_ref().accept() {
                Ok((stream, _)) => {
                    let store = Rc::clone(&store);
                    glommio::spawn_local(async move {
                        // A connection that ends, ends alone; the load meter reports what it misses.
                        if let Err(error) = converse(stream, store).await {
                            eprintln!("{error:#}");
                        }
                    })
                    .detach();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => listener.readable().await?,
                Err(error) => return Err(error.into()),
            }
        }
    })
}

/// What a connection receives into.
enum Input {
    Heap(Vec<u8>),
    /// What the journal writes as it is.
    Direct(DmaBuffer),
}

impl Input {
    fn new(engine: &Engine) -> Input {
        match &engine.journal {
            Some(journal) => Input::Direct(journal.input(0)),
            None => Input::Heap(vec![0; 4 << 20]),
        }
    }

    fn room(&mut self) -> &mut [u8] {
        match self {
            Input::Heap(bytes) => bytes,
            Input::Direct(buffer) => buffer.as_bytes_mut(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Input::Heap(bytes) => bytes,
            Input::Direct(buffer) => buffer.as_bytes(),
        }
    }

    /// Makes room for a frame of so many bytes.
    fn grow(&mut self, engine: &Engine, filled: usize, length: usize) {
        if let (Input::Direct(buffer), Some(journal)) = (self, &engine.journal)
            && length > buffer.len()
        {
            // And for the beginning of the next one.
            let mut larger = journal.input(length + (64 << 10));
            let held = buffer.as_bytes().get(..filled).unwrap_or(&[]);
            larger.as_bytes_mut().get_mut(..filled).expect("larger").copy_from_slice(held);
            *buffer = larger;
        }
    }
}

async fn converse(stream: TcpStream, store: Rc<RefCell<Store>>) -> Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = PollableFd::new(stream)?;
    let engine = Rc::clone(&store.borrow().engine);
    let (mut input, mut filled, mut out) = (Input::new(&engine), 0usize, Vec::with_capacity(64 << 10));
    loop {
        let count = match socket.get_ref().read(input.room().get_mut(filled..).unwrap_or(&mut [])) {
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
            input.bytes().get(at..filled).and_then(|bytes| bytes.split_first_chunk::<4>())
        {
            let length = u32::from_be_bytes(*prefix) as usize;
            ensure!(length <= (4 << 20) - 4, "a frame above the floor's buffer");
            let Some(frame) = rest.get(..length) else {
                if at == 0 {
                    input.grow(&engine, filled, 4 + length);
                }
                break;
            };
            let found = {
                let mut store = store.borrow_mut();
                store.received = input.bytes().as_ptr() as usize;
                store.answer(frame, &mut out)?
            };
            if let Some(found) = found {
                store.borrow_mut().write_gathered(input.bytes())?;
                serve_span(&socket, &store, frame, found, &mut out).await?;
            }
            at += 4 + length;
        }
        if at > 0 {
            settle(&store, &engine, &mut input, at, filled).await?;
            filled -= at;
        }
        send(&socket, &mut out, MsgFlags::empty()).await?;
        if filled == 0 {
            socket.readable().await?;
        }
    }
}

/// Lets go of what was read, and waits where the engine wants that before answers leave.
async fn settle(
    store: &Rc<RefCell<Store>>,
    engine: &Rc<Engine>,
    input: &mut Input,
    used: usize,
    filled: usize,
) -> Result<()> {
    let state = Rc::clone(store);
    store.borrow_mut().write_gathered(input.bytes())?;
    match (input, &engine.journal) {
        (Input::Direct(buffer), Some(journal)) if !store.borrow().entries.is_empty() => {
            let ticket = {
                let mut store = store.borrow_mut();
                let ticket = journal.take(buffer, used, filled, &store.entries);
                store.entries.clear();
                ticket
            };
            let orders = move || {
                let mut store = state.borrow_mut();
                store.partitions.values_mut().flat_map(|one| one.log.flush_orders()).collect()
            };
            journal.settle(ticket, orders).await;
        }
        (input, _) => input.room().copy_within(used..filled, 0),
    }
    if engine.waits() {
        let state = Rc::clone(store);
        let orders = move |dirty: &[i32]| {
            let mut store = state.borrow_mut();
            let of = |index| store.partitions.get_mut(index).map(|one| one.log.flush_orders());
            dirty.iter().filter_map(of).flatten().collect()
        };
        engine.settle(orders).await?;
    }
    Ok(())
}

/// Sends an answer whose header lies in `out`, and what follows it; one that is empty is asked for again when there is
/// more, or after a while.
async fn serve_span(
    socket: &PollableFd<TcpStream>,
    store: &Rc<RefCell<Store>>,
    frame: &[u8],
    mut found: Found,
    out: &mut Vec<u8>,
) -> Result<()> {
    if found.span.bytes == 0 {
        out.truncate(out.len() - found.header_bytes);
        send(socket, out, MsgFlags::empty()).await?;
        let mut waited = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            if let Some(partition) = store.borrow_mut().partitions.get_mut(&found.index) {
                partition.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        let again = store.borrow_mut().answer(frame, out)?;
        found = again.context("a fetch that became another request")?;
    }
    // More follows: the header leaves with the first bytes of the file.
    let more = MsgFlags::from_bits_retain(nix::libc::MSG_MORE);
    // Nothing follows an answer without records: it would lie in the socket for 200 ms.
    send(socket, out, if found.span.bytes > 0 { more } else { MsgFlags::empty() }).await?;
    let Span { file, memory, .. } = found.span;
    if let Some((file, position, bytes)) = file {
        send_file(socket, &file, position, bytes).await?;
    }
    let mut left = memory.len();
    for (block, from, count) in memory {
        left -= 1;
        send_bytes(socket, block.bytes(from, count), if left > 0 { more } else { MsgFlags::empty() }).await?;
    }
    Ok(())
}

async fn send(socket: &PollableFd<TcpStream>, out: &mut Vec<u8>, flags: MsgFlags) -> Result<()> {
    send_bytes(socket, out, flags).await?;
    out.clear();
    Ok(())
}

async fn send_bytes(socket: &PollableFd<TcpStream>, bytes: &[u8], flags: MsgFlags) -> Result<()> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match nix::sys::socket::send(socket.get_ref().as_raw_fd(), rest, flags) {
            Ok(count) => sent += count,
            Err(nix::errno::Errno::EAGAIN) => socket.writable().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn send_file(socket: &PollableFd<TcpStream>, file: &File, position: u64, bytes: usize) -> Result<()> {
    let (mut position, mut left) = (i64::try_from(position)?, bytes);
    while left > 0 {
        let step = left.min(256 << 10);
        match nix::sys::sendfile::sendfile64(socket.get_ref(), file, Some(&mut position), step) {
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
    fn new(engine: Rc<Engine>) -> Store {
        Store { engine, partitions: HashMap::new(), entries: Vec::new(), received: 0 }
    }

    /// Appends the answer to `out`; what must follow it from a file is returned.
    fn answer(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<Option<Found>> {
        let mut request = Cursor::new(frame);
        let (key, _version, correlation) = (request.i16()?, request.i16()?, request.i32()?);
        request.text()?;
        let start = out.len();
        number(out, [0; 4]);
        number(out, correlation.to_be_bytes());
        let found = match key {
            api::PRODUCE => self.produce(request, out)?,
            api::FETCH => self.fetch(request, out)?,
            api::LIST_OFFSETS => self.list_offsets(request, out)?,
            api::API_VERSIONS => {
                number(out, [0; 6]);
                None
            }
            other => bail!("the floor does not know API {other}"),
        };
        let length = out.len() - start - 4 + found.as_ref().map_or(0, |found| found.span.bytes);
        put(out, start, &u32::try_from(length)?.to_be_bytes());
        let header_bytes = out.len() - start;
        Ok(found.map(|found| Found { header_bytes, ..found }))
    }

    fn produce(&mut self, mut request: Cursor<'_>, out: &mut Vec<u8>) -> Result<Option<Found>> {
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
            let offset = if error == 0 { self.append(index, batch)? } else { -1 };
            number(out, index.to_be_bytes());
            number(out, error.to_be_bytes());
            number(out, offset.to_be_bytes());
            number(out, (-1i64).to_be_bytes());
            number(out, 0i64.to_be_bytes());
        }
        number(out, 0i32.to_be_bytes());
        Ok(None)
    }

    fn fetch(&mut self, mut request: Cursor<'_>, out: &mut Vec<u8>) -> Result<Option<Found>> {
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
        Ok(Some(Found { index, span, header_bytes: 0 }))
    }

    fn list_offsets(&mut self, mut request: Cursor<'_>, out: &mut Vec<u8>) -> Result<Option<Found>> {
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
            let log = self.engine.open(index)?;
            let fresh = Partition { log, offset_end: 0, batches: Vec::new(), waiting: Vec::new() };
            self.partitions.insert(index, fresh);
        }
        self.partitions.get_mut(&index).context("a partition that was there is gone")
    }

    fn write_gathered(&mut self, received: &[u8]) -> Result<()> {
        for index in self.engine.take_gathered() {
            if let Some(partition) = self.partitions.get_mut(&index) {
                partition.log.write_gathered(&self.engine, received)?;
            }
        }
        Ok(())
    }

    /// Appends a batch under its offset: the eight bytes of it first, the rest straight from the frame.
    fn append(&mut self, index: i32, batch: BatchView<'_>) -> Result<i64> {
        let (engine, received) = (Rc::clone(&self.engine), self.received);
        let partition = self.partition(index)?;
        let (base, position) = (partition.offset_end, partition.log.position());
        let head = base.to_be_bytes();
        let rest = batch.bytes.get(head.len()..).unwrap_or(&[]);
        partition.log.append(&engine, index, head, rest, received)?;
        partition.batches.push((base, position));
        partition.offset_end += batch.offset_end - batch.base_offset;
        partition.waiting.drain(..).for_each(Waker::wake);
        if engine.journal.is_some() {
            let mut entry = [0; 16];
            put(&mut entry, 0, &index.to_be_bytes());
            put(&mut entry, 4, &u32::try_from(batch.bytes.len())?.to_be_bytes());
            put(&mut entry, 8, &head);
            self.entries.push(entry);
        }
        Ok(base)
    }
}

impl Partition {
    fn span(&self, offset: i64, limit: usize) -> Span {
        // The batch that holds the offset, as brokers answer; nothing at the log's end.
        let after = self.batches.partition_point(|(base, _)| *base <= offset);
        let holding = self.batches.get(after.saturating_sub(1)).filter(|_| offset < self.offset_end);
        let Some((_, position)) = holding else { return Span::default() };
        self.log.span(*position, limit.min((self.log.position() - position) as usize))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::wire::{self, Contents, Payload, Produced, Producer};

    /// What an answer's span covers.
    fn read(span: &Span) -> Vec<u8> {
        let mut read = Vec::new();
        if let Some((file, position, bytes)) = &span.file {
            read.resize(*bytes, 0);
            file.read_exact_at(&mut read, *position).unwrap();
        }
        span.memory.iter().for_each(|(block, from, count)| read.extend(block.bytes(*from, *count)));
        assert_eq!(read.len(), span.bytes);
        read
    }

    fn produced_is_fetched(append: Append, records: usize, record_bytes: usize, rounds: i64) {
        let name = format!("bench-floor-{}-{}-{rounds}", append.argument(), std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let engine = LocalExecutorBuilder::default()
            .make()
            .unwrap()
            .run(Engine::new(append, false, directory.clone()))
            .unwrap();
        let mut store = Store::new(Rc::new(engine));
        let contents = Contents::plain(records, record_bytes);
        let batch = wire::encode(contents, Producer::NONE, 0, &mut Payload::new(1));
        let (request, _) = wire::produce("t", 1, &[(2, batch)]);
        let records = records as i64;
        for round in 0..rounds {
            let mut out = Vec::new();
            store.received = request.as_ptr() as usize;
            assert!(store.answer(request.get(4..).unwrap(), &mut out).unwrap().is_none());
            store.write_gathered(&request).unwrap();
            let mut seen = Vec::new();
            wire::read_produced(Cursor::new(out.get(8..).unwrap()), |one| {
                seen.push(one);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, [Produced { partition: 2, error: 0, base_offset: round * records }]);
        }
        let (mut request, places) = wire::fetch("t", &[2], 4 << 20);
        let mut span = |offset: i64| {
            put(&mut request, *places.first().unwrap(), &offset.to_be_bytes());
            store.answer(request.get(4..).unwrap(), &mut Vec::new()).unwrap().unwrap().span
        };
        // At a batch's first offset, and within it, in every batch.
        for offset in (0..rounds).flat_map(|round| [round * records, (round + 1) * records - 1]) {
            let read = read(&span(offset));
            let (view, _) = BatchView::split(&read).unwrap();
            let base = offset / records * records;
            assert!(view.crc_holds(), "from {offset}");
            assert_eq!((view.base_offset, view.offset_end), (base, base + records), "from {offset}");
        }
        assert_eq!(span(rounds * records).bytes, 0, "the log's end");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_produced_is_fetched_from_the_batch_that_holds_an_offset() {
        for append in [Append::Plain, Append::Vectored, Append::Gathered, Append::Direct] {
            produced_is_fetched(append, 3, 50, 2);
            // Over several blocks, the first of which are in the file alone.
            produced_is_fetched(append, 10, 30_000, 30);
        }
    }
}
