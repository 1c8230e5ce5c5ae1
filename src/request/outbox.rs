//! What a connection still has to send: encoded bytes with byte spans between them, in order.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::effect::ByteSpan;

/// Unsent answers in memory before a connection is read no further and nothing more of it starts.
const UNSENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Unsent spans, and what lies between them, before the same.
const UNSENT_PIECES_MAX: usize = 200;
/// A buffer that is no larger than this stays with its connection.
const BUFFER_KEPT_BYTES: usize = 4096;

/// One piece of what leaves on a socket.
#[derive(Debug)]
pub enum Chunk {
    /// Encoded bytes.
    Bytes(Bytes),
    /// Record bytes that are sent from where they lie.
    Span(ByteSpan),
}

impl Chunk {
    /// How many bytes it is.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Span(span) => span.length(),
        }
    }
}

/// The unsent answers of one connection. Responses without spans are encoded one behind the
/// other into `tail` and leave in one system call; a span closes the tail before it.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    tail: BytesMut,
}

impl Outbox {
    /// Where the next response is encoded.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Lays spans into what was encoded last: each goes where its cut is, counted from the start
    /// of [`Outbox::buffer`]. Cuts rise.
    pub fn lay_spans(&mut self, spans: impl Iterator<Item = (usize, ByteSpan)>) {
        let mut taken = 0;
        for (cut, span) in spans {
            assert!(cut >= taken, "cuts rise");
            let before = self.tail.split_to(cut - taken);
            taken = cut;
            self.chunks.push_back(Chunk::Bytes(before.freeze()));
            self.chunks.push_back(Chunk::Span(span));
        }
    }

    /// The encoded bytes when there is no span before them: the common case, sent without
    /// touching the queue.
    pub fn plain(&mut self) -> Option<&mut BytesMut> {
        if self.chunks.is_empty() { Some(&mut self.tail) } else { None }
    }

    /// The first chunk; the caller sends it and puts back what did not fit.
    pub fn pop(&mut self) -> Option<Chunk> {
        self.chunks
            .pop_front()
            .or_else(|| (!self.tail.is_empty()).then(|| Chunk::Bytes(self.tail.split().freeze())))
    }

    /// Puts back the unsent rest of the first chunk.
    pub fn unpop(&mut self, chunk: Chunk) {
        self.chunks.push_front(chunk);
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Whether its client has to take some before more is done for it.
    pub fn is_full(&self) -> bool {
        self.chunks.len() > UNSENT_PIECES_MAX || self.memory_bytes() > UNSENT_BYTES_MAX
    }

    /// Gives back memory that large answers have taken; to be called when everything is sent.
    pub fn slim(&mut self) {
        if self.chunks.is_empty() && self.chunks.capacity() > 4 {
            self.chunks = VecDeque::new();
        }
        if self.tail.is_empty() && self.tail.capacity() > BUFFER_KEPT_BYTES {
            self.tail = BytesMut::new();
        }
    }

    /// Bytes held in memory; spans of files hold none.
    pub fn memory_bytes(&self) -> usize {
        let held = |chunk: &Chunk| match chunk {
            Chunk::Bytes(bytes) | Chunk::Span(ByteSpan::Memory(bytes)) => bytes.len(),
            Chunk::Span(ByteSpan::File { .. }) => 0,
        };
        self.tail.len() + self.chunks.iter().map(held).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_leave_in_the_order_they_were_encoded() {
        let mut outbox = Outbox::default();
        outbox.buffer().extend_from_slice(b"head");
        outbox.buffer().extend_from_slice(b"next");
        let span = ByteSpan::Memory(Bytes::from_static(b"records"));
        outbox.lay_spans([(4, span)].into_iter());
        assert_eq!(outbox.memory_bytes(), 15);
        assert!(outbox.plain().is_none());
        let mut sent = Vec::new();
        while let Some(chunk) = outbox.pop() {
            match chunk {
                Chunk::Bytes(bytes) | Chunk::Span(ByteSpan::Memory(bytes)) => sent.extend_from_slice(&bytes),
                Chunk::Span(ByteSpan::File { .. }) => unreachable!("no file was pushed"),
            }
        }
        assert_eq!(sent, b"headrecordsnext");
        assert!(outbox.is_empty());
    }

    #[test]
    fn an_outbox_is_full_by_bytes_or_by_pieces_and_small_again_when_it_is_sent() {
        let mut outbox = Outbox::default();
        outbox.buffer().resize(UNSENT_BYTES_MAX, 0);
        assert!(!outbox.is_full());
        outbox.buffer().resize(UNSENT_BYTES_MAX + 1, 0);
        assert!(outbox.is_full());
        outbox.buffer().clear();
        outbox.slim();
        assert_eq!(outbox.tail.capacity(), 0);
        let span = || ByteSpan::Memory(Bytes::new());
        outbox.lay_spans((0..UNSENT_PIECES_MAX / 2).map(|_| (0, span())));
        assert!(!outbox.is_full());
        outbox.lay_spans([(0, span())].into_iter());
        assert!(outbox.is_full());
    }
}
