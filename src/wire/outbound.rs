//! Requests that this broker sends to other nodes, and the head of what comes back.
//!
//! Everything that brokers and controllers say to each other is flexible, so a request has header v2 and its
//! answer header v1. The private [`RAFT_MESSAGES`] keeps the same shape.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Message, Request};

use super::WireError;
use super::guard::{self, Limits};
use super::primitive::{Reader, Writer};

/// API key of raft messages between controllers: ours alone, far above Kafka's, and only on the controllers'
/// listener.
pub const RAFT_MESSAGES: i16 = 1000;
/// The version of [`RAFT_MESSAGES`].
pub const RAFT_MESSAGES_VERSION: i16 = 0;

/// API key of a node's wish to be a member of the metadata quorum: ours alone, and only on the controllers' listener.
pub const JOIN_QUORUM: i16 = 1001;
/// The version of [`JOIN_QUORUM`].
pub const JOIN_QUORUM_VERSION: i16 = 0;

/// Most messages in one frame of [`RAFT_MESSAGES`]: a list of them takes memory beside their bytes.
pub const RAFT_MESSAGES_MAX: u32 = 1 << 16;

/// What this broker calls itself in the requests that it sends.
const CLIENT_ID: &str = "tidemill-broker";

/// A request being written: header first, then whatever its caller puts behind it.
#[derive(Debug)]
pub struct OutboundRequest {
    buffer: BytesMut,
}

impl OutboundRequest {
    /// Begins a frame with its prefix and header v2; `body_bytes` is a guess at what will follow.
    pub fn begin(key: i16, version: i16, correlation_id: i32, body_bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(32 + body_bytes);
        let mut writer = Writer::new(&mut buffer, false);
        writer.i32(0);
        writer.i16(key);
        writer.i16(version);
        writer.i32(correlation_id);
        writer.string(CLIENT_ID);
        Writer::new(&mut buffer, true).tags(0);
        Self { buffer }
    }

    /// Where the body goes.
    pub fn body(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The whole frame with its prefix. What this broker asks for is far below 2 GiB by construction.
    pub fn finish(mut self) -> Bytes {
        let length = i32::try_from(self.buffer.len().saturating_sub(4)).expect("a request fits INT32");
        Writer::new(&mut self.buffer, false).patch_i32(0, length);
        self.buffer.freeze()
    }
}

/// One request of the message library as a whole frame. The error is a field set that the version lacks.
pub fn encode<R: Request>(request: &R, version: i16, correlation_id: i32) -> Result<Bytes, WireError> {
    let mut frame = OutboundRequest::begin(R::KEY, version, correlation_id, 256);
    request.encode(frame.body(), version).map_err(|_| WireError::Unencodable { key: R::KEY, version })?;
    Ok(frame.finish())
}

/// Splits an answer (without its prefix) into the correlation id and the body, which shares its memory.
pub fn answer(frame: &Bytes) -> Result<(i32, Bytes), WireError> {
    let mut reader = Reader::new(frame, true);
    let correlation_id = reader.i32()?;
    reader.skip_tags()?;
    Ok((correlation_id, frame.slice_ref(reader.rest())))
}

/// Decodes the body of an answer within the bounds of a request: a peer is believed no more than a client.
pub fn decode<T: Decodable + Message>(body: &Bytes, version: i16) -> Result<T, WireError> {
    guard::decode(body, version, Limits::default())
}

/// Raft messages from one controller to another, read in place.
///
/// `RaftMessages` v0: cluster id (compact string), node id of the sender (INT32), its raft id and the raft id that
/// is meant (INT64 each), messages (compact array of compact bytes), tagged fields. The answer is one INT16 error
/// code and tagged fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftMessages {
    /// The cluster that the sender believes to be in.
    pub cluster_id: String,
    /// Who sends.
    pub node_id: i32,
    /// The sender's raft id.
    pub from: u64,
    /// The raft id that is meant: a node with a new disk is somebody else.
    pub to: u64,
    /// The messages, oldest first.
    pub messages: Vec<Bytes>,
}

impl RaftMessages {
    /// Writes the body.
    pub fn write(&self, buffer: &mut BytesMut) {
        let mut writer = Writer::new(buffer, true);
        writer.string(&self.cluster_id);
        writer.i32(self.node_id);
        writer.i64(self.from.cast_signed());
        writer.i64(self.to.cast_signed());
        write_messages(&mut writer, &self.messages);
        writer.tags(0);
    }

    /// Reads a body; the messages share its memory. There may be [`RAFT_MESSAGES_MAX`] of them.
    pub fn parse(body: &Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, true);
        let cluster_id = reader.string()?.to_owned();
        let node_id = reader.i32()?;
        let (from, to) = (reader.i64()?.cast_unsigned(), reader.i64()?.cast_unsigned());
        let messages = read_messages(&mut reader, body)?;
        reader.skip_tags()?;
        Ok(Self { cluster_id, node_id, from, to, messages })
    }
}

/// A node wants to be fed the log of the quorum, or is a member whose address has changed.
///
/// `JoinQuorum` v0: cluster id (compact string), node id (INT32), raft id (INT64), host (compact string) and port
/// (UINT16) of its controllers' listener, tagged fields. The answer is that of [`RaftMessages`], with the members of
/// the quorum as its only message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinQuorum {
    /// The cluster that the node believes to be in.
    pub cluster_id: String,
    /// Its node id.
    pub node_id: i32,
    /// The raft id of its disk.
    pub raft_id: u64,
    /// Where other members reach it.
    pub host: String,
    /// And on which port.
    pub port: u16,
}

impl JoinQuorum {
    /// Writes the body.
    pub fn write(&self, buffer: &mut BytesMut) {
        let mut writer = Writer::new(buffer, true);
        writer.string(&self.cluster_id);
        writer.i32(self.node_id);
        writer.i64(self.raft_id.cast_signed());
        writer.string(&self.host);
        writer.i16(self.port.cast_signed());
        writer.tags(0);
    }

    /// Reads a body.
    pub fn parse(body: &Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, true);
        let cluster_id = reader.string()?.to_owned();
        let (node_id, raft_id) = (reader.i32()?, reader.i64()?.cast_unsigned());
        let host = reader.string()?.to_owned();
        let port = reader.i16()?.cast_unsigned();
        reader.skip_tags()?;
        Ok(Self { cluster_id, node_id, raft_id, host, port })
    }
}

/// The body of the answer to [`RaftMessages`]: INT16 error code, messages for whoever asked (compact array of compact
/// bytes), tagged fields. [`JoinQuorum`] is answered in the same form.
pub fn write_raft_answer(buffer: &mut BytesMut, error: i16, messages: &[Bytes]) {
    let mut writer = Writer::new(buffer, true);
    writer.i16(error);
    write_messages(&mut writer, messages);
    writer.tags(0);
}

/// The error code in the answer to [`RaftMessages`], 0 for none, and messages for this node, which share its memory.
pub fn parse_raft_answer(body: &Bytes) -> Result<(i16, Vec<Bytes>), WireError> {
    let mut reader = Reader::new(body, true);
    let error = reader.i16()?;
    let messages = read_messages(&mut reader, body)?;
    reader.skip_tags()?;
    Ok((error, messages))
}

fn write_messages(writer: &mut Writer<'_>, messages: &[Bytes]) {
    writer.length(messages.len() as u32);
    for message in messages {
        writer.length(message.len() as u32);
        writer.raw(message);
    }
}

fn read_messages(reader: &mut Reader<'_>, body: &Bytes) -> Result<Vec<Bytes>, WireError> {
    let count = reader.array_length(1)?;
    if count > RAFT_MESSAGES_MAX {
        return Err(WireError::Malformed);
    }
    let mut messages = Vec::with_capacity(count as usize);
    for _ in 0..count {
        messages.push(body.slice_ref(reader.bytes_nullable()?.ok_or(WireError::Null)?));
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use kafka_protocol::messages::{BrokerHeartbeatRequest, RequestHeader};

    use super::*;

    #[test]
    fn the_library_reads_header_and_body_of_a_request() {
        let request = BrokerHeartbeatRequest::default().with_broker_epoch(7).with_want_fence(true);
        let mut frame = encode(&request, 1, 42).unwrap();
        assert_eq!(frame.get_i32() as usize, frame.len());
        let header = RequestHeader::decode(&mut frame, 2).unwrap();
        assert_eq!((header.request_api_key, header.request_api_version), (63, 1));
        assert_eq!((header.correlation_id, header.client_id.as_deref()), (42, Some(CLIENT_ID)));
        assert_eq!(BrokerHeartbeatRequest::decode(&mut frame, 1).unwrap(), request);
        assert!(frame.is_empty());
    }

    #[test]
    fn an_answer_is_split_behind_its_tagged_fields() {
        let frame = Bytes::from_static(&[0, 0, 0, 9, 1, 5, 2, 0, 0, b'B']);
        let (correlation_id, body) = answer(&frame).unwrap();
        assert_eq!((correlation_id, &body[..]), (9, &b"B"[..]));
        assert_eq!(answer(&frame.slice(..3)), Err(WireError::Truncated));
    }

    #[test]
    fn a_wish_to_join_comes_back_and_a_cut_one_is_refused() {
        let (host, port) = ("host".to_owned(), 65_535);
        let sent = JoinQuorum { cluster_id: "cluster".to_owned(), node_id: 3, raft_id: u64::MAX, host, port };
        let mut body = BytesMut::new();
        sent.write(&mut body);
        let body = body.freeze();
        assert_eq!(JoinQuorum::parse(&body), Ok(sent));
        for end in 0..body.len() {
            assert!(JoinQuorum::parse(&body.slice(..end)).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn raft_messages_come_back_and_cut_or_lying_ones_are_refused() {
        let sent = RaftMessages {
            cluster_id: "cluster".to_owned(),
            node_id: 3,
            from: u64::MAX,
            to: 5,
            messages: vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")],
        };
        let mut body = BytesMut::new();
        sent.write(&mut body);
        let body = body.freeze();
        assert_eq!(RaftMessages::parse(&body), Ok(sent));
        for end in 0..body.len() {
            assert!(RaftMessages::parse(&body.slice(..end)).is_err(), "cut at {end}");
        }
        for at in 0..body.len() {
            let mut lying = body.to_vec();
            let end = lying.len().min(at + 5);
            lying[at..end].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f][..end - at]);
            let _ = RaftMessages::parse(&lying.into());
        }
        let mut answer = BytesMut::new();
        let mail = vec![Bytes::from_static(b"four")];
        write_raft_answer(&mut answer, 104, &mail);
        assert_eq!(parse_raft_answer(&answer.freeze()), Ok((104, mail)));
    }

    #[test]
    fn a_frame_has_so_many_raft_messages_and_no_more() {
        let of = |count: u32| {
            let messages = vec![Bytes::new(); count as usize];
            let mail = RaftMessages { cluster_id: String::new(), node_id: 3, from: 1, to: 5, messages };
            let mut body = BytesMut::new();
            mail.write(&mut body);
            RaftMessages::parse(&body.freeze()).map(|mail| mail.messages.len())
        };
        assert_eq!(of(RAFT_MESSAGES_MAX), Ok(RAFT_MESSAGES_MAX as usize));
        assert_eq!(of(RAFT_MESSAGES_MAX + 1), Err(WireError::Malformed));
    }
}
