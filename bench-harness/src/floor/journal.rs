//! The journal of all partitions: a ring in one file whose blocks were written before, so that a write by direct I/O
//! changes nothing but data. A connection receives into memory that the journal can write as it is; what is small is
//! copied together. One round of writes is under way at a time and is shared by everybody who waits.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use glommio::io::{DmaBuffer, DmaFile};

use super::append::{Rounds, after_the_others};
use super::writer::Order;

const PAGE_BYTES: usize = 4096;
/// The ring. What was journaled half a ring ago has to be durable in the segments.
const RING_BYTES: u64 = 256 << 20;
/// Writes with which the ring is made.
const FILL_BYTES: usize = 1 << 20;
/// What was received is copied below this, and written from where it is from here on.
const COPIED_BYTES_MAX: usize = 32 << 10;
/// Memory in which copies are put together.
const SMALL_BYTES: usize = 512 << 10;
/// The least that a connection receives into.
const INPUT_BYTES_MIN: usize = 128 << 10;
/// Bytes in the journal that say where a batch belongs.
const ENTRY_BYTES: usize = 16;

/// What the next round writes.
struct Round {
    small: DmaBuffer,
    filled: usize,
    whole: Vec<DmaBuffer>,
}

/// The journal.
pub struct Journal {
    file: DmaFile,
    position: Cell<u64>,
    round: RefCell<Round>,
    rounds: Rounds,
    /// A half of the ring was begun whose former contents must be durable in the segments.
    half_began: Cell<bool>,
}

impl Journal {
    /// Writes the whole ring once.
    pub async fn create(path: &Path) -> Result<Journal> {
        let file = DmaFile::create(path).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        file.pre_allocate(RING_BYTES, false).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut zeros = file.alloc_dma_buffer(FILL_BYTES);
        zeros.as_bytes_mut().fill(0);
        let zeros = Rc::new(zeros);
        for at in (0..RING_BYTES).step_by(FILL_BYTES) {
            file.write_rc_at(Rc::clone(&zeros), at).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        file.fdatasync().await.map_err(|error| anyhow::anyhow!("{error}"))?;
        let small = file.alloc_dma_buffer(SMALL_BYTES);
        let round = RefCell::new(Round { small, filled: 0, whole: Vec::new() });
        let (rounds, position, half_began) = (Rounds::default(), Cell::new(0), Cell::new(false));
        Ok(Journal { file, position, round, rounds, half_began })
    }

    /// Memory to receive into, of at least so many bytes.
    pub fn input(&self, bytes: usize) -> DmaBuffer {
        self.file.alloc_dma_buffer(bytes.next_multiple_of(PAGE_BYTES).max(INPUT_BYTES_MIN))
    }

    /// Takes the first `used` of `filled` bytes for the next round, with an entry for each of their batches; leaves
    /// what is behind them at the front of the input. Returns the round.
    pub fn take(
        &self,
        input: &mut DmaBuffer,
        used: usize,
        filled: usize,
        entries: &[[u8; ENTRY_BYTES]],
    ) -> u64 {
        let mut round = self.round.borrow_mut();
        let copied = if used <= COPIED_BYTES_MAX { used } else { 0 };
        round.extend(&self.file, &(entries.len() as u64).to_be_bytes());
        entries.iter().for_each(|entry| round.extend(&self.file, entry));
        if copied > 0 {
            round.extend(&self.file, input.as_bytes().get(..used).unwrap_or(&[]));
            input.as_bytes_mut().copy_within(used..filled, 0);
        } else {
            let mut fresh = self.input(input.len());
            let rest = input.as_bytes().get(used..filled).unwrap_or(&[]);
            fresh.as_bytes_mut().get_mut(..rest.len()).expect("as large").copy_from_slice(rest);
            let mut whole = std::mem::replace(input, fresh);
            whole.trim_to_size(used.next_multiple_of(PAGE_BYTES));
            round.whole.push(whole);
        }
        self.rounds.ticket(true)
    }

    /// Waits until a round is durable. `orders` gives what makes everything durable in the segments.
    pub async fn settle(self: &Rc<Self>, ticket: u64, orders: impl Fn() -> Vec<Order> + 'static) {
        if self.rounds.begin() {
            let journal = Rc::clone(self);
            glommio::spawn_local(async move {
                loop {
                    after_the_others().await;
                    let gathered = !journal.round.borrow().is_empty();
                    let Some(number) = journal.rounds.next(gathered) else { break };
                    journal.write_round().await.expect("a write of the floor's journal");
                    journal.rounds.done(number);
                    if journal.half_began.take() {
                        // No round is written meanwhile, so the ring does not overtake what it stands for.
                        let orders = orders();
                        glommio::executor()
                            .spawn_blocking(move || orders.iter().for_each(Order::carry_out))
                            .await;
                    }
                }
            })
            .detach();
        }
        self.rounds.wait(ticket).await;
    }

    async fn write_round(&self) -> Result<()> {
        let mut writes = Vec::new();
        {
            let mut round = self.round.borrow_mut();
            let small = std::mem::replace(&mut round.small, self.file.alloc_dma_buffer(SMALL_BYTES));
            writes.push(trimmed(small, round.filled));
            round.filled = 0;
            writes.append(&mut round.whole);
        }
        let mut running = Vec::with_capacity(writes.len());
        for buffer in writes {
            let bytes = buffer.len() as u64;
            let position = self.place(bytes);
            // A write is under way from here on, whether it is waited for or not.
            running.push((bytes, Box::pin(self.file.write_at(buffer, position))));
        }
        for (bytes, write) in join(running).await {
            let written = write.map_err(|error| anyhow::anyhow!("{error}")).context("the journal")?;
            ensure!(written as u64 == bytes, "a short write");
        }
        Ok(())
    }

    fn place(&self, bytes: u64) -> u64 {
        let position = self.position.get();
        let position = if position + bytes > RING_BYTES { 0 } else { position };
        let end = position + bytes;
        let half = |at: u64| at / (RING_BYTES / 2);
        if half(end) != half(position) || position == 0 {
            self.half_began.set(true);
        }
        self.position.set(end);
        position
    }
}

fn trimmed(mut buffer: DmaBuffer, filled: usize) -> DmaBuffer {
    buffer.trim_to_size(filled.next_multiple_of(PAGE_BYTES));
    buffer
}

impl Round {
    fn is_empty(&self) -> bool {
        self.filled == 0 && self.whole.is_empty()
    }

    fn extend(&mut self, file: &DmaFile, bytes: &[u8]) {
        if self.filled + bytes.len() > self.small.len() {
            let full = std::mem::replace(&mut self.small, file.alloc_dma_buffer(SMALL_BYTES));
            self.whole.push(trimmed(full, self.filled));
            self.filled = 0;
        }
        let room = self.small.as_bytes_mut().get_mut(self.filled..self.filled + bytes.len());
        room.expect("there was room").copy_from_slice(bytes);
        self.filled += bytes.len();
    }
}

/// Waits for all of them at once.
async fn join<T, F: Future<Output = T> + Unpin>(mut running: Vec<(u64, F)>) -> Vec<(u64, T)> {
    let mut ended = Vec::with_capacity(running.len());
    std::future::poll_fn(|context| {
        running.retain_mut(|(bytes, one)| match std::pin::Pin::new(one).poll(context) {
            std::task::Poll::Ready(result) => {
                ended.push((*bytes, result));
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    ended
}
