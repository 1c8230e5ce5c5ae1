//! What a connection still has to send: encoded bytes with byte spans between them, in order.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::effect::ByteSpan;

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

    /// How many pieces wait behind each other.
    pub fn pieces(&self) -> usize {
        self.chunks.len()
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
}
