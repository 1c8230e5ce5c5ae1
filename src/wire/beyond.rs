//! Versions beyond the message library: what Kafka 4.3 speaks and kafka-protocol 0.18 does not have yet.
//!
//! Each is the library's last version with differences, and the differences stand in [`ROWS`]. A request is rewritten
//! into the library's version before it is decoded, a response out of it after it is encoded, so that handlers have
//! one set of types. A topic's id, where the library's version has the name, is a name of 32 hexadecimal digits
//! ([`topic_id`]). When the library learns a version its row goes.
//!
//! All of these versions are flexible. Lengths are checked against the bytes before they are believed, and the
//! rewritten form is at most twice as long.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, Message, Request};
use uuid::Uuid;

use super::api::ApiKey;
use super::primitive::{Reader, Writer};
use super::{StrBytes, WireError};

/// A version that the library lacks, in one direction at least.
struct Row {
    key: ApiKey,
    version: i16,
    request: Form,
    response: Form,
}

/// How a message is written.
#[derive(Clone, Copy)]
enum Form {
    /// The library has it.
    Own,
    /// Like the library's version of this number.
    Same(i16),
    /// The fields, with what differs from the library's version of this number.
    Fields(i16, &'static [Field]),
}

/// One field or several.
enum Field {
    /// So many bytes.
    Bytes(usize),
    /// A string or bytes, may be null.
    Text,
    /// A list of structs, may be null.
    List(&'static [Field]),
    /// What ends a struct.
    Tags,
    /// The id of a topic, where the library's version has its name.
    TopicId,
    /// What the library's version lacks; always these bytes here.
    Added(&'static [u8]),
}

use Field::{Added, Bytes as Fixed, List, Tags, Text, TopicId};
use Form::{Fields, Own, Same};

/// Group, generation, member, instance; topics by id with partition, offset, leader epoch, metadata.
const OFFSET_COMMIT: &[Field] =
    &[Text, Fixed(4), Text, Text, List(&[TopicId, List(&[Fixed(4 + 8 + 4), Text, Tags]), Tags]), Tags];

/// Groups with member and epoch, topics by id with partitions; require stable. A list of numbers is one of structs
/// without tags.
const OFFSET_FETCH: &[Field] =
    &[List(&[Text, Text, Fixed(4), List(&[TopicId, List(&[Fixed(4)]), Tags]), Tags]), Fixed(1), Tags];

/// Throttle time, error; directories with error, path, topics (name, partitions with size, lag, future), total and
/// usable bytes and, new, whether the directory takes no new partitions: none is cordoned here.
const LOG_DIRS: &[Field] = &[
    Fixed(4 + 2),
    List(&[
        Fixed(2),
        Text,
        List(&[Text, List(&[Fixed(4 + 8 + 8 + 1), Tags]), Tags]),
        Fixed(8 + 8),
        Added(&[0]),
        Tags,
    ]),
    Tags,
];

const ROWS: [Row; 4] = [
    // The timestamp −6 is all that is new.
    Row { key: ApiKey::ListOffsets, version: 11, request: Same(10), response: Same(10) },
    Row { key: ApiKey::OffsetCommit, version: 10, request: Fields(9, OFFSET_COMMIT), response: Own },
    Row { key: ApiKey::OffsetFetch, version: 10, request: Fields(9, OFFSET_FETCH), response: Own },
    Row { key: ApiKey::DescribeLogDirs, version: 5, request: Same(4), response: Fields(4, LOG_DIRS) },
];

fn row(key: i16, version: i16) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.key as i16 == key && row.version == version)
}

/// The version of an API that is beyond the library, if there is one.
pub fn version(key: ApiKey) -> Option<i16> {
    ROWS.iter().find(|row| row.key == key).map(|row| row.version)
}

impl Form {
    /// The library's version of a message of this version.
    fn library_version(self, version: i16) -> i16 {
        match self {
            Own => version,
            Same(library) | Fields(library, _) => library,
        }
    }
}

/// A request's body as the library decodes it; the same bytes where it has the version.
pub fn request(key: ApiKey, version: i16, body: Bytes) -> Result<Bytes, WireError> {
    match row(key as i16, version).map(|row| row.request) {
        Some(Fields(_, fields)) => into_library(fields, &body),
        _ => Ok(body),
    }
}

/// Appends the body of a request of any version that is served: what a client of that version sends.
///
/// # Errors
/// [`WireError::Unencodable`]: a field is set that the version lacks.
pub fn encode_request<T: Encodable + Request>(
    buffer: &mut BytesMut,
    version: i16,
    request: &T,
) -> Result<(), WireError> {
    encode(buffer, row(T::KEY, version).map_or(Own, |row| row.request), T::KEY, version, request)
}

/// Appends the body of a response of any version that is served.
///
/// # Errors
/// [`WireError::Unencodable`]: a field is set that the version lacks.
pub fn encode_response<T: Encodable>(
    buffer: &mut BytesMut,
    key: ApiKey,
    version: i16,
    response: &T,
) -> Result<(), WireError> {
    let key = key as i16;
    encode(buffer, row(key, version).map_or(Own, |row| row.response), key, version, response)
}

/// A response's body as the library decodes it, and the version in which it does.
pub fn response(key: ApiKey, version: i16, body: Bytes) -> Result<(Bytes, i16), WireError> {
    let form = row(key as i16, version).map_or(Own, |row| row.response);
    let body = match form {
        Fields(_, fields) => into_library(fields, &body)?,
        Own | Same(_) => body,
    };
    Ok((body, form.library_version(version)))
}

/// The version in which the library decodes what [`request`] gives.
pub(super) fn decoded_version<T: Message>(version: i16) -> i16 {
    version.min(T::VERSIONS.max)
}

/// The topic that a name of the library's version stands for; nil if it is no id.
pub fn topic_id(name: &str) -> Uuid {
    if name.len() == ID_NAME_BYTES { Uuid::try_parse(name).unwrap_or_default() } else { Uuid::nil() }
}

/// The name that stands for a topic's id in the library's version.
pub fn topic_id_name(id: Uuid) -> StrBytes {
    StrBytes::from_string(id.simple().to_string())
}

const ID_NAME_BYTES: usize = 32;

fn encode<T: Encodable>(
    buffer: &mut BytesMut,
    form: Form,
    key: i16,
    version: i16,
    message: &T,
) -> Result<(), WireError> {
    let unencodable = WireError::Unencodable { key, version };
    let Fields(library, fields) = form else {
        return message.encode(buffer, form.library_version(version)).map_err(|_| unencodable);
    };
    let mut encoded = BytesMut::new();
    message.encode(&mut encoded, library).map_err(|_| unencodable)?;
    let mut reader = Reader::new(&encoded, true);
    out_of_library(fields, &mut reader, &mut Writer::new(buffer, true))
}

fn into_library(fields: &[Field], body: &Bytes) -> Result<Bytes, WireError> {
    let mut reader = Reader::new(body, true);
    let mut rewritten = BytesMut::with_capacity(body.len() * 2);
    let mut writer = Writer::new(&mut rewritten, true);
    rewrite(fields, &mut reader, &mut writer, &|field, reader, writer| {
        match field {
            TopicId => writer.string(&reader.uuid()?.simple().to_string()),
            Added(bytes) => drop(reader.take(bytes.len())?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    // As everywhere, what is behind the last field is ignored.
    writer.raw(reader.rest());
    Ok(rewritten.freeze())
}

fn out_of_library(
    fields: &[Field],
    reader: &mut Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), WireError> {
    rewrite(fields, reader, writer, &|field, reader, writer| {
        match field {
            TopicId => writer.uuid(topic_id(reader.string()?)),
            Added(bytes) => writer.raw(bytes),
            _ => return Ok(false),
        }
        Ok(true)
    })
}

/// What is done with a field that differs; says whether it is one.
type Differing<'d> = &'d dyn Fn(&Field, &mut Reader<'_>, &mut Writer<'_>) -> Result<bool, WireError>;

/// Copies fields, and has `differing` write those that differ. As deep as the table, whatever the bytes say.
fn rewrite(
    fields: &[Field],
    reader: &mut Reader<'_>,
    writer: &mut Writer<'_>,
    differing: Differing<'_>,
) -> Result<(), WireError> {
    for field in fields {
        if differing(field, reader, writer)? {
            continue;
        }
        let mut ahead = reader.clone();
        match field {
            List(of) => {
                let count = ahead.uvarint()?;
                copy(reader, &ahead, writer)?;
                for _ in 1..count {
                    rewrite(of, reader, writer, differing)?;
                }
            }
            Fixed(length) => {
                ahead.take(*length)?;
                copy(reader, &ahead, writer)?;
            }
            Text => {
                ahead.bytes_nullable()?;
                copy(reader, &ahead, writer)?;
            }
            Tags | TopicId | Added(_) => {
                ahead.skip_tags()?;
                copy(reader, &ahead, writer)?;
            }
        }
    }
    Ok(())
}

/// Copies what a reader has passed that went ahead.
fn copy(reader: &mut Reader<'_>, ahead: &Reader<'_>, writer: &mut Writer<'_>) -> Result<(), WireError> {
    writer.raw(reader.take(reader.remaining() - ahead.remaining())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_log_dirs_response::{
        DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
    };
    use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
    use kafka_protocol::messages::{
        ApiKey as LibraryKey, DescribeLogDirsResponse, OffsetFetchRequest, TopicName,
    };
    use kafka_protocol::protocol::Decodable;

    use super::*;

    fn name(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    fn fetch(id: Uuid) -> OffsetFetchRequest {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(TopicName(topic_id_name(id)))
            .with_partition_indexes(vec![3, 4]);
        let group = OffsetFetchRequestGroup::default().with_group_id(name("g").into());
        let everything = group.clone().with_topics(None).with_member_id(Some(name("m")));
        let some = group.with_topics(Some(vec![topic.clone(), topic]));
        OffsetFetchRequest::default().with_groups(vec![some, everything]).with_require_stable(true)
    }

    #[test]
    fn ids_go_where_names_were_and_come_back_as_names() {
        let id = Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);
        let mut sent = BytesMut::new();
        encode_request(&mut sent, 10, &fetch(id)).unwrap();
        let found = sent.windows(16).filter(|bytes| *bytes == id.as_bytes()).count();
        assert_eq!(found, 2, "the ids stand in the bytes");
        let mut body = request(ApiKey::OffsetFetch, 10, sent.freeze()).unwrap();
        let decoded = OffsetFetchRequest::decode(&mut body, 9).unwrap();
        assert_eq!(decoded, fetch(id));
        let topics = decoded.groups[0].topics.as_ref().unwrap();
        assert_eq!(topic_id(&topics[1].name), id);
        assert_eq!((topic_id("orders"), topic_id(&"x".repeat(32))), (Uuid::nil(), Uuid::nil()));
    }

    #[test]
    fn a_cut_request_is_refused_wherever_it_is_cut() {
        let mut sent = BytesMut::new();
        encode_request(&mut sent, 10, &fetch(Uuid::from_u128(7))).unwrap();
        let sent = sent.freeze();
        for end in 0..sent.len() {
            assert!(request(ApiKey::OffsetFetch, 10, sent.slice(..end)).is_err(), "cut at {end}");
        }
        // A list longer than its bytes ends where they end.
        let lying = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert_eq!(request(ApiKey::OffsetFetch, 10, lying).unwrap_err(), WireError::Truncated);
    }

    #[test]
    fn what_was_added_is_told_and_passed_over() {
        let partition = DescribeLogDirsPartition::default().with_partition_index(1).with_partition_size(5);
        let topic = DescribeLogDirsTopic::default()
            .with_name(TopicName(name("orders")))
            .with_partitions(vec![partition.clone(), partition]);
        let directory = DescribeLogDirsResult::default()
            .with_log_dir(name("/data"))
            .with_topics(vec![topic])
            .with_total_bytes(9)
            .with_usable_bytes(8);
        let answer = DescribeLogDirsResponse::default().with_results(vec![directory.clone(), directory]);
        let (mut old, mut new) = (BytesMut::new(), BytesMut::new());
        encode_response(&mut old, ApiKey::DescribeLogDirs, 4, &answer).unwrap();
        encode_response(&mut new, ApiKey::DescribeLogDirs, 5, &answer).unwrap();
        assert_eq!(new.len(), old.len() + 2, "a byte for each directory");
        let (mut body, version) = response(ApiKey::DescribeLogDirs, 5, new.freeze()).unwrap();
        assert_eq!(DescribeLogDirsResponse::decode(&mut body, version).unwrap(), answer);
    }

    #[test]
    fn a_row_goes_when_the_library_has_its_version() {
        for row in &ROWS {
            let library = LibraryKey::try_from(row.key as i16).unwrap().valid_versions().max;
            let expected = row.request.library_version(row.version);
            assert!(expected < row.version, "{:?}: the library has the request", row.key);
            // The library's range is that of both directions together.
            assert!((expected..=row.version).contains(&library), "{:?}", row.key);
            assert_eq!(row.key.api().version_last, row.version);
        }
    }
}
