//! Snapshots on their way between members, in chunks.
//!
//! A leader sends one chunk at a time to each member that lacks entries which the leader's log no longer has, and the
//! next when that one is confirmed. A chunk that is not confirmed is sent again; a transfer that stands still is given
//! up, and raft begins another. The receiver keeps one snapshot in the making: what belongs to another begins anew.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::codec::{Body, CHUNK_BYTES_MAX, Chunk};

/// Ticks without a confirmation before a chunk is sent again; doubled each time.
const RESEND_TICKS: u32 = 4;
/// A transfer is given up when so many repetitions of one chunk are not confirmed: after twelve seconds.
const RESENDS_MAX: u32 = 5;

/// A snapshot that is sent or has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// Last index that it covers.
    pub(super) index: u64,
    /// That entry's term.
    pub(super) log_term: u64,
    /// Encoded metadata records.
    pub(super) bytes: Bytes,
    /// Their CRC-32C.
    pub(super) crc: u32,
}

impl Whole {
    pub(super) fn new(index: u64, log_term: u64, bytes: Bytes) -> Self {
        let crc = crc32c::crc32c(&bytes);
        Self { index, log_term, bytes, crc }
    }

    fn chunk(&self, offset: usize) -> Body {
        let end = self.bytes.len().min(offset + CHUNK_BYTES_MAX);
        Body::Chunk(Chunk {
            index: self.index,
            log_term: self.log_term,
            total: self.bytes.len() as u32,
            crc: self.crc,
            offset: offset as u32,
            bytes: self.bytes.slice(offset..end),
        })
    }
}

/// A transfer to one member.
#[derive(Debug)]
struct Sending {
    whole: Whole,
    offset: usize,
    waited_ticks: u32,
    resends: u32,
}

/// A leader's transfers, by raft id of the receiver.
#[derive(Debug, Default)]
pub(super) struct Senders {
    sending: BTreeMap<u64, Sending>,
}

/// What a confirmation leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing: it is of no transfer, or an old one.
    None,
    /// The next chunk.
    Next(Body),
    /// The snapshot has arrived.
    Finished,
}

impl Senders {
    /// Begins a transfer in place of an older one to the same member; gives its first chunk.
    pub(super) fn begin(&mut self, to: u64, whole: Whole) -> Body {
        let first = whole.chunk(0);
        self.sending.insert(to, Sending { whole, offset: 0, waited_ticks: 0, resends: 0 });
        first
    }

    /// A snapshot that is being sent and has at least this index: another member may get the same.
    pub(super) fn shared(&self, index_least: u64) -> Option<Whole> {
        let each = self.sending.values().map(|sending| &sending.whole);
        each.filter(|whole| whole.index >= index_least).max_by_key(|whole| whole.index).cloned()
    }

    pub(super) fn taken(&mut self, from: u64, index: u64, total: u32, next: u32) -> Progress {
        let Some(sending) = self.sending.get_mut(&from) else { return Progress::None };
        let whole = &sending.whole;
        if whole.index != index || whole.bytes.len() as u64 != u64::from(total) {
            return Progress::None;
        }
        let next = next as usize;
        if next >= whole.bytes.len() {
            self.sending.remove(&from);
            return Progress::Finished;
        }
        // It goes back to 0 when the receiver began anew, and ahead where it had some of an earlier transfer. A
        // confirmation that came twice changes nothing.
        let is_ahead = next > sending.offset && next.is_multiple_of(CHUNK_BYTES_MAX);
        if is_ahead || (next == 0 && sending.offset > 0) {
            sending.offset = next;
            (sending.waited_ticks, sending.resends) = (0, 0);
            return Progress::Next(whole.chunk(next));
        }
        Progress::None
    }

    /// Time has passed: chunks to send again, and members whose transfers are given up.
    pub(super) fn tick(&mut self) -> (Vec<(u64, Body)>, Vec<u64>) {
        let (mut again, mut failed) = (Vec::new(), Vec::new());
        for (to, sending) in &mut self.sending {
            sending.waited_ticks += 1;
            if sending.waited_ticks < RESEND_TICKS << sending.resends {
                continue;
            }
            sending.waited_ticks = 0;
            sending.resends += 1;
            if sending.resends > RESENDS_MAX {
                failed.push(*to);
            } else {
                again.push((*to, sending.whole.chunk(sending.offset)));
            }
        }
        for to in &failed {
            self.sending.remove(to);
        }
        (again, failed)
    }

    /// The transfer to that member ends; `true` if there was one.
    pub(super) fn stop(&mut self, to: u64) -> bool {
        self.sending.remove(&to).is_some()
    }

    /// This node no longer leads.
    pub(super) fn clear(&mut self) {
        self.sending.clear();
    }
}

/// A snapshot in the making.
#[derive(Debug)]
pub(super) struct Receiver {
    from: u64,
    term: u64,
    index: u64,
    log_term: u64,
    total: usize,
    crc: u32,
    bytes: Vec<u8>,
}

impl Receiver {
    fn new(from: u64, term: u64, chunk: &Chunk) -> Self {
        let Chunk { index, log_term, total, crc, .. } = *chunk;
        // The memory grows with what arrives, not by what is promised.
        Self { from, term, index, log_term, total: total as usize, crc, bytes: Vec::new() }
    }

    fn is_of(&self, from: u64, term: u64, chunk: &Chunk) -> bool {
        let expected = (self.from, self.term, self.index, self.log_term, self.total, self.crc);
        expected == (from, term, chunk.index, chunk.log_term, chunk.total as usize, chunk.crc)
    }

    fn confirmation(&self) -> Body {
        Body::ChunkTaken { index: self.index, total: self.total as u32, next: self.bytes.len() as u32 }
    }
}

/// Takes a chunk. Gives the confirmation, or the snapshot that is whole with it; then nothing is in the making.
pub(super) fn receive(
    making: &mut Option<Receiver>,
    from: u64,
    term: u64,
    chunk: &Chunk,
) -> Result<Whole, Body> {
    let known = making.take().filter(|known| known.is_of(from, term, chunk));
    let mut known = known.unwrap_or_else(|| Receiver::new(from, term, chunk));
    if chunk.offset as usize == known.bytes.len() {
        known.bytes.extend_from_slice(&chunk.bytes);
    }
    if known.bytes.len() < known.total {
        let confirmation = known.confirmation();
        *making = Some(known);
        return Err(confirmation);
    }
    if crc32c::crc32c(&known.bytes) != known.crc {
        known.bytes.clear();
        return Err(known.confirmation());
    }
    let Receiver { index, log_term, crc, bytes, .. } = known;
    Ok(Whole { index, log_term, bytes: bytes.into(), crc })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: usize) -> Whole {
        Whole::new(9, 3, (0..bytes).map(|at| (at * 7) as u8).collect())
    }

    fn chunk(body: Body) -> Chunk {
        let Body::Chunk(chunk) = body else { panic!("{body:?} is no chunk") };
        chunk
    }

    fn taken(body: Body) -> (u64, u32, u32) {
        let Body::ChunkTaken { index, total, next } = body else { panic!("{body:?} is no confirmation") };
        (index, total, next)
    }

    #[test]
    fn a_snapshot_arrives_in_chunks_whatever_comes_twice_or_late() {
        let sent = whole(2 * CHUNK_BYTES_MAX + 5);
        let (mut senders, mut making) = (Senders::default(), None);
        let first = chunk(senders.begin(7, sent.clone()));
        let (index, total, next) = taken(receive(&mut making, 1, 3, &first).unwrap_err());
        assert_eq!(taken(receive(&mut making, 1, 3, &first).unwrap_err()), (index, total, next));
        let Progress::Next(second) = senders.taken(7, index, total, next) else { panic!() };
        assert_eq!(senders.taken(7, index, total, next), Progress::None, "a late repetition");
        let second = chunk(second);
        assert!(second.bytes.len() <= CHUNK_BYTES_MAX);
        let (index, total, next) = taken(receive(&mut making, 1, 3, &second).unwrap_err());
        let Progress::Next(third) = senders.taken(7, index, total, next) else { panic!() };
        assert_eq!(receive(&mut making, 1, 3, &chunk(third)), Ok(sent));
        assert_eq!(senders.taken(7, index, total, total), Progress::Finished);
        assert!(making.is_none() && !senders.stop(7));
    }

    #[test]
    fn a_receiver_that_lost_what_it_had_makes_the_sender_begin_anew() {
        let (mut senders, mut making) = (Senders::default(), None);
        let first = chunk(senders.begin(7, whole(2 * CHUNK_BYTES_MAX)));
        let (index, total, next) = taken(receive(&mut making, 1, 3, &first).unwrap_err());
        let Progress::Next(second) = senders.taken(7, index, total, next) else { panic!() };
        making = None;
        let (index, total, next) = taken(receive(&mut making, 1, 3, &chunk(second)).unwrap_err());
        assert_eq!(next, 0);
        let Progress::Next(again) = senders.taken(7, index, total, next) else { panic!() };
        assert_eq!(chunk(again).offset, 0);
    }

    #[test]
    fn chunks_are_sent_again_and_a_transfer_that_stands_still_is_given_up() {
        let mut senders = Senders::default();
        senders.begin(7, whole(10));
        let (mut again, mut failed, mut ticks) = (0, Vec::new(), 0);
        while failed.is_empty() {
            let (chunks, gone) = senders.tick();
            again += chunks.len();
            failed = gone;
            ticks += 1;
        }
        assert_eq!((again, failed.as_slice()), (5, &[7][..]));
        assert!(ticks < 1000);
    }

    #[test]
    fn bytes_that_are_not_what_was_sent_are_not_taken() {
        let mut making = None;
        let mut bad = chunk(Senders::default().begin(7, whole(10)));
        bad.crc ^= 1;
        assert_eq!(taken(receive(&mut making, 1, 3, &bad).unwrap_err()).2, 0);
        assert!(making.is_none());
    }
}
