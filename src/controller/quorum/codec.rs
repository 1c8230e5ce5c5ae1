//! The bytes of raft messages between nodes: our own, big-endian, every field bounded, so that no bytes of a peer can
//! make the raft library stop the process.
//!
//! ```text
//! format u8 | kind u8 | from u64 | to u64 | term u64 | fields of the kind
//! append           index u64 | its term u64 | commit u64 | count u32 × (term u64 | length u32 | data)
//! appended         index u64 | commit u64 | refused u8 | hint u64 | the hint's term u64
//! heartbeat        commit u64
//! heartbeat heard  commit u64
//! (pre-)vote       index u64 | its term u64 | commit u64 | its term u64 | for a transfer u8
//! (pre-)voted      refused u8 | commit u64 | its term u64
//! take over        -
//! chunk            index u64 | its term u64 | total u32 | CRC-32C of all u32 | offset u32 | length u32 | bytes
//! chunk taken      index u64 | total u32 | offset of the next one u32
//! ask              number u64
//! told             number u64 | word u8 | own number u64 | count u32 × (raft id u64 | number u64)
//! ```

use bytes::Bytes;

use crate::controller::codec::{Malformed, Reader};
use crate::controller::raft::Entry;
use crate::controller::storage::SNAPSHOT_BYTES_MAX;

/// Bytes of a snapshot in one message.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Bytes of the longest message: one entry of the largest size that a leader makes, or several small ones.
pub const MESSAGE_BYTES_MAX: usize = 20 << 20;
/// Terms and indexes are below it; counting one up a million times a second takes two thousand years.
const NUMBER_MAX: u64 = 1 << 56;
const FORMAT: u8 = 1;

/// A message of one member to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Raft id of the sender.
    pub from: u64,
    /// Raft id of the receiver.
    pub to: u64,
    /// Term of the sender, or the one that it stands for.
    pub term: u64,
    /// The rest.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A leader's entries after `index`.
    Append {
        /// Index of the entry before the first.
        index: u64,
        /// Its term.
        log_term: u64,
        /// What the leader has committed.
        commit: u64,
        /// The entries, in order, without gaps.
        entries: Vec<Entry>,
    },
    /// The answer to `Append`, and to a snapshot that is in place.
    Appended {
        /// Last index that agrees with the leader; if refused, the one that did not.
        index: u64,
        /// What the sender knows to be committed.
        commit: u64,
        /// Where the leader may try next: index and term.
        refused: Option<(u64, u64)>,
    },
    /// The leader is there.
    Heartbeat {
        /// What the receiver may take as committed.
        commit: u64,
    },
    /// The answer to `Heartbeat`.
    HeartbeatHeard {
        /// What the sender knows to be committed.
        commit: u64,
    },
    /// Somebody wants to lead.
    Vote {
        /// Only a question: nobody is bound by the answer.
        pre: bool,
        /// Last index of its log.
        index: u64,
        /// Its term.
        log_term: u64,
        /// What it knows to be committed.
        commit: u64,
        /// That entry's term.
        commit_term: u64,
        /// The leader wants it so.
        transfer: bool,
    },
    /// The answer to `Vote`.
    Voted {
        /// As asked.
        pre: bool,
        /// No.
        refused: bool,
        /// If not granted: what the sender knows to be committed, else 0.
        commit: u64,
        /// That entry's term.
        commit_term: u64,
    },
    /// The leader gives its place to the receiver.
    TakeOver,
    /// A snapshot as of `index`. It never travels as such: its bytes go in chunks, and it is made again of them.
    Snapshot {
        /// Last index that it covers.
        index: u64,
        /// Its term.
        log_term: u64,
    },
    /// A piece of a snapshot.
    Chunk(Chunk),
    /// How much of a snapshot has arrived.
    ChunkTaken {
        /// Index of the snapshot.
        index: u64,
        /// Its bytes.
        total: u32,
        /// Bytes that have arrived; `total` when it is taken, or not needed.
        next: u32,
    },
    /// A voter with an empty disk asks whether the quorum is new.
    Ask {
        /// Names the life of the node that asks.
        number: u64,
    },
    /// The answer to `Ask`.
    Told(Told),
}

/// What a voter says to one that asks whether the quorum is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// As asked.
    pub number: u64,
    /// What it says.
    pub word: Word,
    /// Names the life of the node that answers.
    pub own: u64,
    /// Who else founds the quorum: raft ids and the numbers of their lives.
    pub founders: Vec<(u64, u64)>,
}

/// What a voter knows of its quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Its own disk is empty, too.
    New,
    /// It founds the quorum with the asker, whose life it has counted.
    Founder,
    /// Something is committed.
    Old,
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Last index that the snapshot covers.
    pub index: u64,
    /// That entry's term.
    pub log_term: u64,
    /// Bytes of the snapshot, at most [`SNAPSHOT_BYTES_MAX`].
    pub total: u32,
    /// CRC-32C of all of them.
    pub crc: u32,
    /// Bytes before these.
    pub offset: u32,
    /// The bytes, at most [`CHUNK_BYTES_MAX`].
    pub bytes: Bytes,
}

mod kinds {
    pub const APPEND: u8 = 0;
    pub const APPENDED: u8 = 1;
    pub const HEARTBEAT: u8 = 2;
    pub const HEARTBEAT_HEARD: u8 = 3;
    pub const VOTE: u8 = 4;
    pub const VOTED: u8 = 5;
    pub const PRE_VOTE: u8 = 6;
    pub const PRE_VOTED: u8 = 7;
    pub const TAKE_OVER: u8 = 8;
    pub const CHUNK: u8 = 9;
    pub const CHUNK_TAKEN: u8 = 10;
    pub const ASK: u8 = 11;
    pub const TOLD: u8 = 12;
}

fn kind_of(body: &Body) -> Option<u8> {
    Some(match body {
        Body::Append { .. } => kinds::APPEND,
        Body::Appended { .. } => kinds::APPENDED,
        Body::Heartbeat { .. } => kinds::HEARTBEAT,
        Body::HeartbeatHeard { .. } => kinds::HEARTBEAT_HEARD,
        Body::Vote { pre: false, .. } => kinds::VOTE,
        Body::Vote { pre: true, .. } => kinds::PRE_VOTE,
        Body::Voted { pre: false, .. } => kinds::VOTED,
        Body::Voted { pre: true, .. } => kinds::PRE_VOTED,
        Body::TakeOver => kinds::TAKE_OVER,
        Body::Chunk(_) => kinds::CHUNK,
        Body::ChunkTaken { .. } => kinds::CHUNK_TAKEN,
        Body::Ask { .. } => kinds::ASK,
        Body::Told(_) => kinds::TOLD,
        Body::Snapshot { .. } => return None,
    })
}

/// The bytes of a message; `None` for a snapshot, which goes in chunks.
pub fn encode(message: &Message) -> Option<Bytes> {
    let mut out = vec![FORMAT, kind_of(&message.body)?];
    put_numbers(&mut out, &[message.from, message.to, message.term]);
    match &message.body {
        Body::Append { index, log_term, commit, entries } => {
            put_numbers(&mut out, &[*index, *log_term, *commit]);
            out.extend_from_slice(&(entries.len() as u32).to_be_bytes());
            for entry in entries {
                out.extend_from_slice(&entry.term.to_be_bytes());
                out.extend_from_slice(&(entry.data.len() as u32).to_be_bytes());
                out.extend_from_slice(&entry.data);
            }
        }
        Body::Appended { index, commit, refused } => {
            put_numbers(&mut out, &[*index, *commit]);
            out.push(u8::from(refused.is_some()));
            let (hint, hint_term) = refused.unwrap_or_default();
            put_numbers(&mut out, &[hint, hint_term]);
        }
        Body::Heartbeat { commit } | Body::HeartbeatHeard { commit } => put_numbers(&mut out, &[*commit]),
        Body::Vote { index, log_term, commit, commit_term, transfer, .. } => {
            put_numbers(&mut out, &[*index, *log_term, *commit, *commit_term]);
            out.push(u8::from(*transfer));
        }
        Body::Voted { refused, commit, commit_term, .. } => {
            out.push(u8::from(*refused));
            put_numbers(&mut out, &[*commit, *commit_term]);
        }
        Body::Chunk(chunk) => {
            put_numbers(&mut out, &[chunk.index, chunk.log_term]);
            for number in [chunk.total, chunk.crc, chunk.offset, chunk.bytes.len() as u32] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&chunk.bytes);
        }
        Body::ChunkTaken { index, total, next } => {
            put_numbers(&mut out, &[*index]);
            out.extend_from_slice(&total.to_be_bytes());
            out.extend_from_slice(&next.to_be_bytes());
        }
        Body::Ask { number } => put_numbers(&mut out, &[*number]),
        Body::Told(told) => put_told(&mut out, told),
        Body::TakeOver | Body::Snapshot { .. } => {}
    }
    Some(out.into())
}

fn put_told(out: &mut Vec<u8>, told: &Told) {
    put_numbers(out, &[told.number]);
    out.push(told.word as u8);
    put_numbers(out, &[told.own]);
    out.extend_from_slice(&(told.founders.len() as u32).to_be_bytes());
    for (raft_id, number) in &told.founders {
        put_numbers(out, &[*raft_id, *number]);
    }
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Reads a message; what is not whole and within bounds is an error in words.
pub fn decode(bytes: &Bytes) -> Result<Message, &'static str> {
    read(bytes).map_err(|Malformed(why)| why)
}

fn read(bytes: &Bytes) -> Result<Message, Malformed> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed("is longer than any may be"));
    }
    let mut reader = Reader::new(bytes);
    if reader.u8()? != FORMAT {
        return Err(Malformed("is not in the format of this build"));
    }
    let kind = reader.u8()?;
    let (from, to, term) = (reader.u64()?, reader.u64()?, number(&mut reader)?);
    if from == 0 || to == 0 || term == 0 {
        return Err(Malformed("lacks sender, receiver or term"));
    }
    let body = match kind {
        kinds::APPEND => read_append(&mut reader, bytes, term)?,
        kinds::APPENDED => read_appended(&mut reader)?,
        kinds::HEARTBEAT => Body::Heartbeat { commit: number(&mut reader)? },
        kinds::HEARTBEAT_HEARD => Body::HeartbeatHeard { commit: number(&mut reader)? },
        kinds::VOTE | kinds::PRE_VOTE => Body::Vote {
            pre: kind == kinds::PRE_VOTE,
            index: number(&mut reader)?,
            log_term: number(&mut reader)?,
            commit: number(&mut reader)?,
            commit_term: number(&mut reader)?,
            transfer: reader.flag()?,
        },
        kinds::VOTED | kinds::PRE_VOTED => Body::Voted {
            pre: kind == kinds::PRE_VOTED,
            refused: reader.flag()?,
            commit: number(&mut reader)?,
            commit_term: number(&mut reader)?,
        },
        kinds::TAKE_OVER => Body::TakeOver,
        kinds::CHUNK => read_chunk(&mut reader, bytes)?,
        kinds::CHUNK_TAKEN => read_taken(&mut reader)?,
        kinds::ASK => Body::Ask { number: reader.u64()? },
        kinds::TOLD => read_told(&mut reader)?,
        _ => return Err(Malformed("is of an unknown kind")),
    };
    if reader.is_empty() {
        Ok(Message { from, to, term, body })
    } else {
        Err(Malformed("goes on after its last field"))
    }
}

fn number(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let number = reader.u64()?;
    if number < NUMBER_MAX { Ok(number) } else { Err(Malformed("has a number beyond its bounds")) }
}

fn read_append(reader: &mut Reader<'_>, bytes: &Bytes, term: u64) -> Result<Body, Malformed> {
    let (index, log_term, commit) = (number(reader)?, number(reader)?, number(reader)?);
    let mut entries = Vec::new();
    let mut term_before = log_term;
    for place in 1..=u64::from(reader.u32()?) {
        let entry_term = number(reader)?;
        if entry_term < term_before || entry_term > term || entry_term == 0 {
            return Err(Malformed("has an entry whose term is out of order"));
        }
        term_before = entry_term;
        let length = reader.u32()? as usize;
        let data = bytes.slice_ref(reader.take(length)?);
        entries.push(Entry { index: index + place, term: entry_term, data });
    }
    if log_term > term || (index == 0) != (log_term == 0) {
        return Err(Malformed("continues an entry that cannot be"));
    }
    Ok(Body::Append { index, log_term, commit, entries })
}

fn read_appended(reader: &mut Reader<'_>) -> Result<Body, Malformed> {
    let (index, commit) = (number(reader)?, number(reader)?);
    let is_refused = reader.flag()?;
    let hint = (number(reader)?, number(reader)?);
    Ok(Body::Appended { index, commit, refused: is_refused.then_some(hint) })
}

fn read_chunk(reader: &mut Reader<'_>, bytes: &Bytes) -> Result<Body, Malformed> {
    let (index, log_term) = (number(reader)?, number(reader)?);
    let (total, crc, offset, length) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
    let end = u64::from(offset) + u64::from(length);
    if index == 0 || log_term == 0 || total as usize > SNAPSHOT_BYTES_MAX || end > u64::from(total) {
        return Err(Malformed("is a piece of a snapshot that cannot be"));
    }
    if length == 0 || length as usize > CHUNK_BYTES_MAX {
        return Err(Malformed("is a piece of a snapshot of no allowed size"));
    }
    let bytes = bytes.slice_ref(reader.take(length as usize)?);
    Ok(Body::Chunk(Chunk { index, log_term, total, crc, offset, bytes }))
}

fn read_taken(reader: &mut Reader<'_>) -> Result<Body, Malformed> {
    let (index, total, next) = (number(reader)?, reader.u32()?, reader.u32()?);
    if next > total {
        return Err(Malformed("has taken more of a snapshot than there is"));
    }
    Ok(Body::ChunkTaken { index, total, next })
}

fn read_told(reader: &mut Reader<'_>) -> Result<Body, Malformed> {
    let number = reader.u64()?;
    let word = match reader.u8()? {
        0 => Word::New,
        1 => Word::Founder,
        2 => Word::Old,
        _ => return Err(Malformed("says what no voter says")),
    };
    let own = reader.u64()?;
    let mut founders = Vec::new();
    for _ in 0..reader.u32()? {
        founders.push((reader.u64()?, reader.u64()?));
    }
    Ok(Body::Told(Told { number, word, own, founders }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Message> {
        let entry = |index, term, data: &'static [u8]| Entry { index, term, data: Bytes::from_static(data) };
        let entries = vec![entry(8, 2, b""), entry(9, 3, b"abc")];
        let bytes = Bytes::from_static(b"a piece");
        let bodies = [
            Body::Append { index: 7, log_term: 2, commit: 5, entries },
            Body::Append { index: 0, log_term: 0, commit: 0, entries: Vec::new() },
            Body::Appended { index: 9, commit: 5, refused: None },
            Body::Appended { index: 9, commit: 5, refused: Some((4, 1)) },
            Body::Heartbeat { commit: 5 },
            Body::HeartbeatHeard { commit: 4 },
            Body::Vote { pre: false, index: 9, log_term: 3, commit: 5, commit_term: 2, transfer: true },
            Body::Vote { pre: true, index: 9, log_term: 3, commit: 5, commit_term: 2, transfer: false },
            Body::Voted { pre: false, refused: false, commit: 0, commit_term: 0 },
            Body::Voted { pre: true, refused: true, commit: 5, commit_term: 2 },
            Body::TakeOver,
            Body::Chunk(Chunk { index: 9, log_term: 3, total: 90, crc: 1, offset: 7, bytes }),
            Body::ChunkTaken { index: 9, total: 90, next: 14 },
            Body::Ask { number: u64::MAX },
            Body::Told(Told { number: 5, word: Word::New, own: 6, founders: Vec::new() }),
            Body::Told(Told { number: 5, word: Word::Founder, own: 6, founders: vec![(7, 8), (9, 1)] }),
            Body::Told(Told { number: 5, word: Word::Old, own: 6, founders: Vec::new() }),
        ];
        bodies.into_iter().map(|body| Message { from: 1, to: 2, term: 3, body }).collect()
    }

    #[test]
    fn messages_come_back_from_their_bytes() {
        for message in samples() {
            assert_eq!(decode(&encode(&message).unwrap()), Ok(message));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_and_what_it_takes_is_within_bounds() {
        let mut rng = fastrand::Rng::with_seed(9);
        let samples: Vec<_> = samples().iter().map(|message| encode(message).unwrap()).collect();
        for round in 0..60_000 {
            let mut bytes = samples[round % samples.len()].to_vec();
            match rng.u8(0..4) {
                0 => bytes.truncate(rng.usize(0..bytes.len())),
                1 => bytes.extend((0..rng.usize(1..9)).map(|_| rng.u8(..))),
                2 => bytes = (0..rng.usize(0..80)).map(|_| rng.u8(..)).collect(),
                _ => {}
            }
            for _ in 0..rng.usize(0..6) {
                if let Some(byte) = bytes.len().checked_sub(1).map(|last| &mut bytes[rng.usize(0..=last)]) {
                    *byte = [rng.u8(..), 0, 0xff, 0x7f, 1][rng.usize(0..5)];
                }
            }
            if let Ok(message) = decode(&Bytes::from(bytes)) {
                assert!(message.term < NUMBER_MAX && message.from != 0 && message.to != 0);
                assert_eq!(decode(&encode(&message).unwrap()), Ok(message), "one form for each message");
            }
        }
    }

    #[test]
    fn numbers_that_would_overflow_are_refused() {
        let message = Message { from: 1, to: 2, term: 3, body: Body::Heartbeat { commit: NUMBER_MAX } };
        assert!(decode(&encode(&message).unwrap()).is_err());
        let message = Message { term: 0, body: Body::TakeOver, ..message };
        assert!(decode(&encode(&message).unwrap()).is_err());
    }
}
