//! How the floor appends: the contenders of a race behind one interface. [`Engine`] opens a [`Log`] for each
//! partition; a log appends in one call and says where a range of it is to be had, in the file or in memory. Where an
//! answer has to wait for the device, [`Engine::settle`] waits, for everybody that is there at once.
//!
//! | engine | an append | acknowledged when |
//! |---|---|---|
//! | plain | `pwritev` into the page cache | it is there |
//! | vectored | the same for all that was received together, and a sync behind every 64 MiB | it is there |
//! | gathered | a copy into blocks of shared memory, which go to the page cache when full | it is copied |
//! | direct | the same, but they go to the file by direct I/O | it is copied |
//! | journal | as direct, and what was received goes to one journal of all by direct I/O | the journal has it |

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::IoSlice;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use anyhow::{Context, Result, ensure};

use super::block::{Block, Pool};
use super::journal::Journal;
use super::tail::Tail;
use super::writer::{Order, Writer};

/// Which engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Append {
    /// The page cache, and nothing behind it.
    #[default]
    Plain,
    /// The page cache, synced behind as the broker does.
    Vectored,
    /// The page cache in large blocks, with the tail kept in memory.
    Gathered,
    /// Direct I/O in large blocks, with the tail kept in memory.
    Direct,
    /// One journal of direct I/O with group commit, segments written behind.
    Journal,
}

impl Append {
    /// Its name in tables: the plain one is the yardstick itself.
    pub fn name(self) -> &'static str {
        match self {
            Append::Plain => "floor",
            Append::Vectored => "vectored",
            Append::Gathered => "gathered",
            Append::Direct => "direct",
            Append::Journal => "journal",
        }
    }

    /// As the command line says it.
    pub fn argument(self) -> &'static str {
        if self == Append::Plain { "plain" } else { self.name() }
    }
}

/// Unsynced bytes of a file after which it is synced.
const SYNC_BYTES: u64 = 64 << 20;
/// Kernel limit of one vectored write.
const IOVECS_MAX: usize = 1024;
/// Bytes that wait for the device before answers do.
const BEHIND_BYTES_MAX: u64 = 64 << 20;

/// A range of a log: first what is in the file, then what is in memory.
#[derive(Default)]
pub struct Span {
    /// File, position and bytes.
    pub file: Option<(Rc<File>, u64, usize)>,
    /// Block, where in it, and bytes.
    pub memory: Vec<(Arc<Block>, usize, usize)>,
    /// Bytes of both.
    pub bytes: usize,
}

/// One partition's bytes.
pub enum Log {
    /// In the page cache.
    Cached(Cached),
    /// In blocks of memory and behind them in the file.
    Tail(Tail),
}

/// A log in the page cache.
pub struct Cached {
    file: Rc<File>,
    /// The same file, for the thread that syncs.
    behind: Arc<File>,
    position: u64,
    written: u64,
    unsynced_bytes: u64,
    /// Batches that are not written yet: their offsets, and where the rest of each lies in what was received.
    gathered: Vec<([u8; 8], Range<usize>)>,
}

impl Log {
    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        match self {
            Log::Cached(log) => log.position,
            Log::Tail(log) => log.position(),
        }
    }

    /// Appends an offset and the rest of its batch, which is a part of what was `received`.
    pub fn append(
        &mut self,
        engine: &Engine,
        index: i32,
        head: [u8; 8],
        rest: &[u8],
        received: usize,
    ) -> Result<()> {
        engine.note(index);
        match self {
            Log::Cached(log) if engine.kind == Append::Vectored => {
                let at = rest.as_ptr() as usize - received;
                if log.gathered.is_empty() {
                    engine.gathered.borrow_mut().push(index);
                }
                log.gathered.push((head, at..at + rest.len()));
                log.position += (head.len() + rest.len()) as u64;
                Ok(())
            }
            Log::Cached(log) => {
                let position = log.position;
                log.position += (head.len() + rest.len()) as u64;
                log.write(position, &mut [IoSlice::new(&head), IoSlice::new(rest)])
            }
            Log::Tail(log) => {
                log.append(engine, &head);
                log.append(engine, rest);
                Ok(())
            }
        }
    }

    /// Writes what was gathered, before what was received goes.
    pub fn write_gathered(&mut self, engine: &Engine, received: &[u8]) -> Result<()> {
        match self {
            Log::Cached(log) => log.write_gathered(engine, received),
            Log::Tail(_) => Ok(()),
        }
    }

    /// Where these bytes are; they are within the log.
    pub fn span(&self, position: u64, bytes: usize) -> Span {
        match self {
            Log::Cached(log) => {
                Span { file: Some((Rc::clone(&log.file), position, bytes)), memory: Vec::new(), bytes }
            }
            Log::Tail(log) => log.span(position, bytes),
        }
    }

    /// What makes everything durable that was appended.
    pub fn flush_orders(&mut self) -> Vec<Order> {
        match self {
            Log::Cached(log) => {
                log.unsynced_bytes = 0;
                vec![Order::Sync(Arc::clone(&log.behind))]
            }
            Log::Tail(log) => log.flush_orders(),
        }
    }
}

impl Cached {
    /// Writes what was gathered behind each other.
    fn write_gathered(&mut self, engine: &Engine, received: &[u8]) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        for some in gathered.chunks(IOVECS_MAX / 2) {
            let bytes: usize = some.iter().map(|(head, place)| head.len() + place.len()).sum();
            let mut slices = Vec::with_capacity(2 * some.len());
            for (head, place) in some {
                slices.push(IoSlice::new(head));
                slices.push(IoSlice::new(received.get(place.clone()).unwrap_or(&[])));
            }
            self.write(self.written, &mut slices)?;
            self.written += bytes as u64;
            self.unsynced_bytes += bytes as u64;
        }
        self.gathered = gathered;
        self.gathered.clear();
        if self.unsynced_bytes >= SYNC_BYTES {
            self.unsynced_bytes = 0;
            engine.writer.order(Order::Sync(Arc::clone(&self.behind)));
        }
        Ok(())
    }

    fn write(&self, position: u64, slices: &mut [IoSlice<'_>]) -> Result<()> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let written = nix::sys::uio::pwritev(&*self.file, slices, i64::try_from(position)?)?;
        ensure!(written == bytes, "a short write");
        Ok(())
    }
}

/// What all logs share.
pub struct Engine {
    /// Which one it is.
    pub kind: Append,
    /// Whether an answer waits until its bytes are durable.
    flush: bool,
    directory: PathBuf,
    /// Blocking work.
    pub writer: Writer,
    /// Memory of tails.
    pub pool: Pool,
    /// Where requests are journaled.
    pub journal: Option<Rc<Journal>>,
    dirty: RefCell<Vec<i32>>,
    /// Logs with batches that are not written.
    gathered: RefCell<Vec<i32>>,
    rounds: Rounds,
}

impl Engine {
    /// Begins in an empty directory.
    pub async fn new(kind: Append, flush: bool, directory: PathBuf) -> Result<Engine> {
        let journal = match kind {
            Append::Journal => Some(Rc::new(Journal::create(&directory.join("journal")).await?)),
            Append::Plain | Append::Vectored | Append::Gathered | Append::Direct => None,
        };
        Ok(Engine {
            kind,
            flush: flush && journal.is_none(),
            directory,
            writer: Writer::start()?,
            pool: Pool::default(),
            journal,
            dirty: RefCell::default(),
            gathered: RefCell::default(),
            rounds: Rounds::default(),
        })
    }

    /// Opens an empty log.
    pub fn open(&self, index: i32) -> Result<Log> {
        let path = self.directory.join(format!("{index}.log"));
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true);
        let file = options.open(&path).context("creating a log")?;
        self.pool.log_was_opened();
        if matches!(self.kind, Append::Plain | Append::Vectored) {
            let behind = Arc::new(file.try_clone()?);
            return Ok(Log::Cached(Cached {
                file: Rc::new(file),
                behind,
                position: 0,
                written: 0,
                unsynced_bytes: 0,
                gathered: Vec::new(),
            }));
        }
        Ok(Log::Tail(Tail::open(file, &path, self.kind != Append::Gathered)?))
    }

    fn note(&self, index: i32) {
        if self.flush {
            let mut dirty = self.dirty.borrow_mut();
            if dirty.last() != Some(&index) {
                dirty.push(index);
            }
        }
    }

    /// Logs that have gathered something.
    pub fn take_gathered(&self) -> Vec<i32> {
        std::mem::take(&mut *self.gathered.borrow_mut())
    }

    /// Whether answers may have to wait.
    pub fn waits(&self) -> bool {
        self.flush || self.writer.behind_bytes() > BEHIND_BYTES_MAX
    }

    /// Waits until what was appended is durable, where that is asked for, and until the device has caught up.
    /// `orders` gives what makes a partition durable.
    pub async fn settle(self: &Rc<Self>, orders: impl Fn(&[i32]) -> Vec<Order> + 'static) -> Result<()> {
        while self.writer.behind_bytes() > BEHIND_BYTES_MAX {
            glommio::timer::sleep(std::time::Duration::from_micros(500)).await;
        }
        let gathered = !self.dirty.borrow().is_empty();
        if !self.flush || !gathered && !self.rounds.is_running() {
            return Ok(());
        }
        let ticket = self.rounds.ticket(gathered);
        if self.rounds.begin() {
            let engine = Rc::clone(self);
            glommio::spawn_local(async move {
                loop {
                    after_the_others().await;
                    let gathered = !engine.dirty.borrow().is_empty();
                    let Some(round) = engine.rounds.next(gathered) else { break };
                    let mut dirty = std::mem::take(&mut *engine.dirty.borrow_mut());
                    dirty.sort_unstable();
                    dirty.dedup();
                    let orders = orders(&dirty);
                    glommio::executor()
                        .spawn_blocking(move || orders.iter().for_each(Order::carry_out))
                        .await;
                    engine.rounds.done(round);
                }
            })
            .detach();
        }
        self.rounds.wait(ticket).await;
        Ok(())
    }
}

/// Lets every other task run that is ready: what they bring is gathered too.
pub async fn after_the_others() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Group commit: one round is under way, everybody who comes meanwhile shares the next.
#[derive(Default)]
pub struct Rounds {
    gathering: Cell<u64>,
    done: Cell<u64>,
    running: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Rounds {
    /// The round that the caller has to wait for: the next one when work is `gathered` for it, or the one under way. A
    /// round that has nothing to do never comes.
    pub fn ticket(&self, gathered: bool) -> u64 {
        self.gathering.get() + u64::from(gathered)
    }

    /// Whether rounds are under way.
    pub fn is_running(&self) -> bool {
        self.running.get()
    }

    /// Whether the caller has to start them.
    pub fn begin(&self) -> bool {
        !self.running.replace(true)
    }

    /// The next round, which takes what was gathered; none when there is nothing, and then they have ended.
    pub fn next(&self, gathered: bool) -> Option<u64> {
        self.running.set(gathered);
        let round = self.ticket(true);
        gathered.then(|| {
            self.gathering.set(round);
            round
        })
    }

    /// A round is over.
    pub fn done(&self, round: u64) {
        self.done.set(round);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Waits until a round is over.
    pub async fn wait(&self, ticket: u64) {
        poll_fn(|context| {
            if self.done.get() >= ticket {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::Rounds;

    #[test]
    fn who_brings_nothing_waits_for_the_round_under_way_and_not_for_one_that_never_comes() {
        let rounds = Rounds::default();
        assert!(rounds.begin());
        assert_eq!(rounds.next(true), Some(1));
        assert_eq!(rounds.ticket(false), 1);
        assert_eq!(rounds.ticket(true), 2);
        rounds.done(1);
        assert_eq!(rounds.next(false), None);
        assert!(!rounds.is_running());
        assert_eq!(rounds.ticket(false), 1);
    }
}
