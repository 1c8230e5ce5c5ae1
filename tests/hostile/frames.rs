//! Frames that lie: a valid request, changed in one way.

use bytes::Bytes;
use fastrand::Rng;
use kafka_protocol::messages::{CreatePartitionsRequest, CreateTopicsRequest};
use tidemill::wire::api::{Api, Listener, TABLE};
use tidemill::wire::fetch::FetchRequest;
use tidemill::wire::guard::{self, Limits};
use tidemill::wire::header;
use tidemill::wire::produce::ProduceRequest;

use crate::body::{API_VERSIONS, Bodies, CREATE_PARTITIONS, CREATE_TOPICS, FETCH, PRODUCE, World};

/// A fetch that waits longer than this would be waited for: that is no attack.
const WAIT_MS_MAX: i32 = 100;
/// A request that creates more than this is costly and honest.
const PARTITIONS_MAX: i32 = 8;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing.
    Valid,
    /// The record batches of a Produce request.
    Batch,
    /// The body ends too early, in a frame of the right length.
    Cut,
    /// There are bytes behind the body.
    Longer,
    /// Bits of the body are turned.
    Flip,
    /// A number, length or count of the body is another.
    Number,
    /// An unsigned varint too long or too large is in the body.
    Varint,
    /// Tagged fields that lie about their count or size, or that nobody knows.
    Tags,
    /// A string of the body is not UTF-8.
    Text,
    /// The body is noise.
    Noise,
    /// A list is announced that the frame cannot hold.
    List,
    /// The API is unknown.
    UnknownApi,
    /// The API does not have this version.
    UnknownVersion,
    /// The header is of another version than the request.
    HeaderVersion,
    /// Bits of the header are turned.
    HeaderFlip,
    /// The client id lies about its length or is not UTF-8.
    ClientId,
    /// The frame's length is negative.
    LengthNegative,
    /// The frame's length is too short for a header.
    LengthShort,
    /// The frame's length is above every limit.
    LengthHuge,
    /// Less is sent than the length says.
    LengthMore,
    /// More is sent than the length says.
    LengthLess,
    /// The client goes away in the middle of the frame.
    Gone,
}

impl Kind {
    const BODY: [Kind; 9] = [
        Kind::Cut,
        Kind::Longer,
        Kind::Flip,
        Kind::Number,
        Kind::Varint,
        Kind::Tags,
        Kind::Text,
        Kind::Noise,
        Kind::List,
    ];
    const HEADER: [Kind; 5] =
        [Kind::UnknownApi, Kind::UnknownVersion, Kind::HeaderVersion, Kind::HeaderFlip, Kind::ClientId];
    const LENGTH: [Kind; 6] = [
        Kind::LengthNegative,
        Kind::LengthShort,
        Kind::LengthHuge,
        Kind::LengthMore,
        Kind::LengthLess,
        Kind::Gone,
    ];

    /// Whether everything before the body is as it should be.
    pub fn is_valid_up_to_body(self) -> bool {
        self <= Kind::List
    }

    /// Whether it must be answered, be it with errors.
    pub fn must_be_answered(self) -> bool {
        matches!(self, Kind::Valid | Kind::Batch | Kind::Longer)
    }

    /// Whether it must end its connection.
    pub fn must_be_closed(self) -> bool {
        matches!(
            self,
            Kind::UnknownApi
                | Kind::UnknownVersion
                | Kind::LengthNegative
                | Kind::LengthShort
                | Kind::LengthHuge
                | Kind::LengthMore
        )
    }

    /// Whether nothing can follow it on its connection.
    pub fn breaks_framing(self) -> bool {
        matches!(self, Kind::LengthMore | Kind::LengthLess | Kind::Gone)
    }
}

/// What is sent as one request.
#[derive(Clone, Debug)]
pub struct Frame {
    /// All of it, with its length.
    pub bytes: Vec<u8>,
    /// The API and version that it was made for.
    pub row: (i16, i16),
    pub kind: Kind,
}

impl Frame {
    fn number_at<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    /// API, version and correlation id as they were sent.
    pub fn sent(&self) -> (i16, i16, i32) {
        let (key, version) = (self.number_at(4), self.number_at(6));
        (i16::from_be_bytes(key), i16::from_be_bytes(version), i32::from_be_bytes(self.number_at(8)))
    }

    /// Whether it is a Produce that asks for no answer.
    pub fn is_silent(&self) -> bool {
        let Ok((header, body)) = header::parse(&Bytes::copy_from_slice(&self.bytes[4..])) else {
            return false;
        };
        header.api.key as i16 == PRODUCE
            && ProduceRequest::parse(body, header.version).is_ok_and(|request| request.acks == 0)
    }

    /// Whether the broker may close the connection for it.
    pub fn may_be_closed(&self) -> bool {
        // Closing is how a Produce without an answer is told that it failed.
        !self.kind.must_be_answered() || self.is_silent()
    }
}

/// Makes frames from a seed.
pub struct Generator<'a> {
    bodies: Bodies<'a>,
    door: Listener,
}

impl<'a> Generator<'a> {
    /// Frames for a listener of clients, or for one of controllers.
    pub fn new(world: &'a World, seed: u64, door: Listener) -> Self {
        Self { bodies: Bodies { world, rng: Rng::with_seed(seed), session_id: 0 }, door }
    }

    pub fn rng(&mut self) -> &mut Rng {
        &mut self.bodies.rng
    }

    /// The connection was given a fetch session.
    pub fn note_session(&mut self, session_id: i32) {
        self.bodies.session_id = session_id;
    }

    /// A frame; only the last one of a write may make what follows meaningless.
    pub fn frame(&mut self, correlation_id: i32, last: bool) -> Frame {
        loop {
            let (api, version) = self.row();
            let kind = self.kind(api, last);
            let frame = self.make(api, version, kind, correlation_id);
            if !is_costly_and_honest(&frame) {
                return frame;
            }
        }
    }

    fn row(&mut self) -> (&'static Api, i16) {
        let door = self.door;
        let rng = self.rng();
        let versions = |api: &Api| (api.version_last - api.version_first + 1) as usize;
        let served = || TABLE.iter().filter(|api| api.listeners.admit(door));
        let api = match rng.u8(..10) {
            0..=1 if door == Listener::Client => &TABLE[0],
            2 if door == Listener::Client => &TABLE[1],
            _ => {
                // Each version of each API as often as any other.
                let all: usize = served().map(versions).sum();
                let mut at = rng.usize(..all);
                let mut rows = served();
                loop {
                    let api = rows.next().expect("the number is one of a version");
                    match at.checked_sub(versions(api)) {
                        Some(rest) => at = rest,
                        None => break api,
                    }
                }
            }
        };
        (api, rng.i16(api.version_first..=api.version_last))
    }

    fn kind(&mut self, api: &Api, last: bool) -> Kind {
        let rng = self.rng();
        let kind = match (last, rng.u8(..10)) {
            (false, 0..=6) => Kind::Valid,
            (false, 7..=8) => Kind::Batch,
            (true, 5..=7) => Kind::HEADER[rng.usize(..Kind::HEADER.len())],
            (true, 8..) => Kind::LENGTH[rng.usize(..Kind::LENGTH.len())],
            _ => Kind::BODY[rng.usize(..Kind::BODY.len())],
        };
        if kind == Kind::Batch && api.key as i16 != PRODUCE { Kind::Valid } else { kind }
    }

    fn body(&mut self, key: i16, version: i16, kind: Kind) -> Vec<u8> {
        if kind != Kind::Batch {
            return self.bodies.valid(key, version).into();
        }
        let world = self.bodies.world;
        let wanted = self.rng().usize(1..3);
        let records: Vec<_> = (0..wanted).map(|_| world.arsenal.hostile(self.rng())).collect();
        self.bodies.produce(version, &records).into()
    }

    fn make(&mut self, api: &Api, version: i16, kind: Kind, correlation_id: i32) -> Frame {
        let key = api.key as i16;
        let mut body = self.body(key, version, kind);
        let flexible = api.is_flexible(version);
        self.change_body(kind, flexible, &mut body);
        let flexible_header = flexible != (kind == Kind::HeaderVersion);
        let (key_sent, version_sent) = match kind {
            Kind::UnknownApi => (self.unknown_api(), version),
            Kind::UnknownVersion => unknown_version(self.rng(), api),
            _ => (key, version),
        };
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&key_sent.to_be_bytes());
        bytes.extend_from_slice(&version_sent.to_be_bytes());
        bytes.extend_from_slice(&correlation_id.to_be_bytes());
        self.client_id(kind, &mut bytes);
        if flexible_header {
            bytes.push(0);
        }
        if kind == Kind::HeaderFlip {
            let at = self.rng().usize(4..bytes.len());
            bytes[at] ^= 1 << self.rng().u8(..8);
        }
        bytes.extend_from_slice(&body);
        self.set_length(kind, &mut bytes);
        Frame { bytes, row: (key, version), kind }
    }

    fn unknown_api(&mut self) -> i16 {
        loop {
            let key = [-1, i16::MAX, i16::MIN, 0, 3, 4, 5, 6, 7, 8, 21, 56, 62, 99, 1000];
            let key = key[self.rng().usize(..key.len())];
            // What another listener serves is unknown here.
            if tidemill::wire::api::find(key).is_none_or(|api| !api.listeners.admit(self.door)) {
                return key;
            }
        }
    }

    fn client_id(&mut self, kind: Kind, bytes: &mut Vec<u8>) {
        let rng = self.rng();
        let (length, id): (i16, &[u8]) = match (kind, rng.u8(..4)) {
            (Kind::ClientId, 0) => (2, &[0xff, 0xfe]),
            (Kind::ClientId, 1) => (i16::MAX, b"id"),
            (Kind::ClientId, 2) => (i16::MIN, b"id"),
            (Kind::ClientId, _) => (-2, b""),
            (_, 0) => (-1, b""),
            (_, 1) => (0, b""),
            _ => (7, b"hostile"),
        };
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(id);
    }

    /// The length in front; a frame of which less is sent than it says is cut here.
    fn set_length(&mut self, kind: Kind, bytes: &mut Vec<u8>) {
        let rng = self.rng();
        let honest = i32::try_from(bytes.len() - 4).expect("frames are small");
        let length = match kind {
            Kind::LengthNegative => [-1, i32::MIN, -2, -honest][rng.usize(..4)],
            Kind::LengthShort => rng.i32(0..10),
            Kind::LengthHuge => [i32::MAX, i32::MAX - 4, 0x7f00_0000, 100 * 1024 * 1024 + 1][rng.usize(..4)],
            Kind::LengthMore => honest + [1, 4, 100, 60_000][rng.usize(..4)],
            Kind::LengthLess => (honest - rng.i32(1..20)).max(10),
            _ => honest,
        };
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        if kind == Kind::Gone {
            bytes.truncate(rng.usize(1..bytes.len()));
        }
    }

    fn change_body(&mut self, kind: Kind, flexible: bool, body: &mut Vec<u8>) {
        let rng = self.rng();
        match kind {
            Kind::Cut => body.truncate(rng.usize(..body.len().max(1))),
            Kind::Longer => {
                let length = body.len() + rng.usize(1..40);
                body.resize_with(length, || rng.u8(..));
            }
            Kind::Noise => {
                let length = rng.usize(..80);
                *body = std::iter::repeat_with(|| [rng.u8(..), 0, 1, 0xff][rng.usize(..4)])
                    .take(length)
                    .collect();
            }
            Kind::Tags => {
                if flexible {
                    body.pop();
                }
                body.extend_from_slice(tags(rng));
            }
            _ if body.is_empty() => {}
            Kind::Flip => {
                for _ in 0..rng.usize(1..4) {
                    let at = rng.usize(..body.len());
                    body[at] ^= 1 << rng.u8(..8);
                }
            }
            Kind::Number => {
                let number = number(rng.u8(..));
                overwrite(rng, body, &number);
            }
            Kind::Varint => {
                let varint = OVERLONG[rng.usize(..OVERLONG.len())];
                overwrite(rng, body, &varint);
            }
            Kind::Text => overwrite(rng, body, &[0xff, 0xc0, 0xed, 0xa0, 0x80]),
            Kind::List => {
                // Behind a list's length there are as many bytes as a list of that kind could be made of.
                let at = rng.usize(..body.len());
                body.truncate(at);
                body.extend_from_slice(&[0, 1, 0, 0]);
                body.resize(body.len() + rng.usize(..4_000), [0, 1, 2, 0xff][rng.usize(..4)]);
            }
            _ => {}
        }
    }
}

/// Unsigned varints of more than 32 bits or more than five bytes.
const OVERLONG: [[u8; 6]; 4] = [
    [0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    [0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
    [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00],
    [0xff, 0xff, 0xff, 0xff, 0x7f, 0x00],
];

fn overwrite(rng: &mut Rng, body: &mut [u8], with: &[u8]) {
    let at = rng.usize(..body.len());
    let end = body.len().min(at + with.len());
    let room = end - at;
    body[at..end].copy_from_slice(&with[..room]);
}

fn number(choice: u8) -> Vec<u8> {
    match choice % 10 {
        0 => (-1_i32).to_be_bytes().to_vec(),
        1 => i32::MIN.to_be_bytes().to_vec(),
        2 => i32::MAX.to_be_bytes().to_vec(),
        3 => vec![0xff, 0xff],
        4 => vec![0x7f, 0xff],
        5 => vec![0x80, 0x00],
        6 => i64::MAX.to_be_bytes().to_vec(),
        7 => i64::MIN.to_be_bytes().to_vec(),
        8 => 0x00ff_ffff_i32.to_be_bytes().to_vec(),
        _ => vec![choice],
    }
}

/// The tagged fields at the end of a body.
fn tags(rng: &mut Rng) -> &'static [u8] {
    const LIES: [&[u8]; 8] = [
        // One that nobody knows, and that is allowed.
        &[1, 99, 2, 0, 0],
        // More than there are; more than anyone has.
        &[5, 99, 1, 0],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        // A size beyond the frame, beyond 32 bits, and a tag beyond 32 bits.
        &[1, 99, 0xff, 0x7f, 0],
        &[1, 99, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[1, 0xff, 0xff, 0xff, 0xff, 0x7f, 0],
        // The same twice, and falling.
        &[2, 0, 1, 7, 0, 1, 7],
        &[2, 9, 1, 7, 3, 1, 7],
    ];
    LIES[rng.usize(..LIES.len())]
}

fn unknown_version(rng: &mut Rng, api: &Api) -> (i16, i16) {
    // ApiVersions answers any version: what is asked in its place is a Metadata.
    let api =
        if api.key as i16 == API_VERSIONS { tidemill::wire::api::find(3).expect("Metadata") } else { api };
    let version = [api.version_last + 1, -1, i16::MAX, i16::MIN, 99][rng.usize(..5)];
    (api.key as i16, version)
}

/// Whether a broker that serves it does what it should and takes its time.
fn is_costly_and_honest(frame: &Frame) -> bool {
    let Ok((header, body)) = header::parse(&Bytes::copy_from_slice(frame.bytes.get(4..).unwrap_or_default()))
    else {
        return false;
    };
    let version = header.version;
    match header.api.key as i16 {
        FETCH => FetchRequest::parse(body, version).is_ok_and(|fetch| fetch.max_wait_ms > WAIT_MS_MAX),
        CREATE_TOPICS => {
            guard::decode::<CreateTopicsRequest>(&body, version, Limits::default()).is_ok_and(|create| {
                create
                    .topics
                    .iter()
                    .any(|topic| topic.num_partitions > PARTITIONS_MAX && topic.num_partitions <= 10_000)
            })
        }
        CREATE_PARTITIONS => guard::decode::<CreatePartitionsRequest>(&body, version, Limits::default())
            .is_ok_and(|create| !create.validate_only),
        _ => false,
    }
}
