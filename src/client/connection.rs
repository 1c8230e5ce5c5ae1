//! One connection: versions agreed on at its start, requests sent with rising correlation ids, responses taken
//! in the order of the requests, as the protocol promises.
//!
//! A frame is read as its bytes arrive and never allocated by a length that the broker claims; control responses
//! are decoded through [`crate::wire::guard`], which bounds what a false array length may cost.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::ClientError;
use crate::wire::guard::{self, Limits};

/// The largest response that is read.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// Bytes read from the socket at a time.
const READ_BYTES: usize = 64 << 10;
const UNSUPPORTED_VERSION: i16 = 35;

/// How connections behave.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Name told to the broker.
    pub client_id: String,
    /// How long connecting may take, per address.
    pub connect_timeout: Duration,
    /// How long a response may take.
    pub response_timeout: Duration,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            client_id: "tidemill-client".to_owned(),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(40),
        }
    }
}

/// Stands for a response that is still to be taken.
#[derive(Debug)]
#[must_use = "responses are taken in the order of their requests"]
pub struct Ticket<R> {
    correlation_id: i32,
    version: i16,
    request: PhantomData<R>,
}

impl<R> Ticket<R> {
    /// The version that the request was sent in.
    pub fn version(&self) -> i16 {
        self.version
    }
}

/// An open connection to one broker.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: String,
    client_id: StrBytes,
    correlation_id_next: i32,
    expected: VecDeque<i32>,
    versions: BTreeMap<i16, (i16, i16)>,
    received: BytesMut,
    out: BytesMut,
    response_timeout: Duration,
}

impl Connection {
    /// Connects and asks which versions the broker speaks.
    pub fn open(address: &str, config: &ConnectionConfig) -> Result<Self, ClientError> {
        let stream = connect(address, config)
            .map_err(|source| ClientError::Connect { address: address.to_owned(), source })?;
        let mut connection = Self {
            stream,
            address: address.to_owned(),
            client_id: StrBytes::from_string(config.client_id.clone()),
            correlation_id_next: 0,
            expected: VecDeque::new(),
            versions: BTreeMap::new(),
            received: BytesMut::new(),
            out: BytesMut::new(),
            response_timeout: config.response_timeout,
        };
        connection.agree_on_versions()?;
        Ok(connection)
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Requests whose responses have not been taken.
    pub fn in_flight(&self) -> usize {
        self.expected.len()
    }

    /// The highest version of a request that both sides speak, at most `ceiling`.
    pub fn version<R: Request>(&self, ceiling: i16) -> Result<i16, ClientError> {
        let range = R::VERSIONS;
        let (least, most) = self.versions.get(&R::KEY).copied().unwrap_or((0, -1));
        let version = range.max.min(most).min(ceiling);
        if version < range.min.max(least) {
            return Err(ClientError::NoVersion { api_key: R::KEY });
        }
        Ok(version)
    }

    /// Sends a request without waiting.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<Ticket<R>, ClientError> {
        let correlation_id = self.write(request, version)?;
        self.expected.push_back(correlation_id);
        Ok(Ticket { correlation_id, version, request: PhantomData })
    }

    /// Sends a request that has no response (a Produce with acks=0).
    pub fn send_unanswered<R: Request>(&mut self, request: &R, version: i16) -> Result<(), ClientError> {
        self.write(request, version).map(|_| ())
    }

    /// Takes the response of the oldest request, which must be the ticket's.
    pub fn receive<R: Request>(&mut self, ticket: Ticket<R>) -> Result<R::Response, ClientError> {
        assert_eq!(self.expected.front(), Some(&ticket.correlation_id), "responses are taken in order");
        self.expected.pop_front();
        let body = self.read_response::<R>(ticket.correlation_id, ticket.version)?;
        let limits = Limits::default();
        guard::decode(&body, ticket.version, limits).map_err(|error| self.malformed(error))
    }

    /// Sends a request in the highest common version, at most `ceiling`, and waits for its response.
    pub fn call<R: Request>(&mut self, request: &R, ceiling: i16) -> Result<R::Response, ClientError> {
        let version = self.version::<R>(ceiling)?;
        let ticket = self.send(request, version)?;
        self.receive(ticket)
    }

    /// As [`Self::call`], for an answer that the broker may hold back for so long.
    pub fn call_within<R: Request>(
        &mut self,
        request: &R,
        ceiling: i16,
        held_back: Duration,
    ) -> Result<R::Response, ClientError> {
        let set = |stream: &TcpStream, timeout| stream.set_read_timeout(Some(timeout));
        set(&self.stream, self.response_timeout.saturating_add(held_back))
            .map_err(|source| self.io(source))?;
        let answered = self.call(request, ceiling);
        set(&self.stream, self.response_timeout).map_err(|source| self.io(source))?;
        answered
    }

    /// Whether something has come that was not taken yet: an answer, a part of one, or the connection's end.
    pub fn has_arrived(&self) -> bool {
        if !self.received.is_empty() {
            return true;
        }
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let waiting = peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).is_err() || !waiting
    }

    fn agree_on_versions(&mut self) -> Result<(), ClientError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("tidemill"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut response = None;
        for version in [3, 0] {
            let ticket = self.send(&request, version)?;
            self.expected.pop_front();
            let body = self.read_response::<ApiVersionsRequest>(ticket.correlation_id, version)?;
            // A broker that does not know the version answers in version 0, which begins with the same code.
            let code = body.first_chunk::<2>().map(|bytes| i16::from_be_bytes(*bytes));
            if code == Some(UNSUPPORTED_VERSION) && version != 0 {
                continue;
            }
            type Response = <ApiVersionsRequest as Request>::Response;
            let decoded: Response =
                guard::decode(&body, version, Limits::default()).map_err(|error| self.malformed(error))?;
            ClientError::check("ApiVersions", decoded.error_code, None)?;
            response = Some(decoded);
            break;
        }
        let response = response.ok_or(ClientError::NoVersion { api_key: ApiVersionsRequest::KEY })?;
        self.versions =
            response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(())
    }

    fn write<R: Request>(&mut self, request: &R, version: i16) -> Result<i32, ClientError> {
        let correlation_id = self.correlation_id_next;
        self.correlation_id_next = self.correlation_id_next.checked_add(1).unwrap_or_default();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        self.out.clear();
        self.out.extend_from_slice(&[0; 4]);
        let encoded = header
            .encode(&mut self.out, R::header_version(version))
            .and_then(|()| request.encode(&mut self.out, version));
        encoded.map_err(|error| ClientError::Usage(format!("the request cannot be encoded: {error}")))?;
        let length = i32::try_from(self.out.len() - 4)
            .map_err(|_| ClientError::Usage("the request is larger than 2 GiB".to_owned()))?;
        if let Some(prefix) = self.out.first_chunk_mut::<4>() {
            *prefix = length.to_be_bytes();
        }
        self.stream.write_all(&self.out).map_err(|source| self.io(source))?;
        Ok(correlation_id)
    }

    /// The body of the next response, after its header.
    fn read_response<R: Request>(&mut self, correlation_id: i32, version: i16) -> Result<Bytes, ClientError> {
        let mut frame = self.read_frame()?;
        let header_version = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header_version)
            .map_err(|_| self.malformed("its header cannot be read"))?;
        if header.correlation_id != correlation_id {
            return Err(self.malformed("it answers another request"));
        }
        Ok(frame)
    }

    fn read_frame(&mut self) -> Result<Bytes, ClientError> {
        self.read_until(4)?;
        let prefix = self.received.split_to(4);
        let length = prefix.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)).unwrap_or_default();
        let length = usize::try_from(length).ok().filter(|&length| length <= FRAME_BYTES_MAX);
        let Some(length) = length else {
            return Err(self.malformed("its length is negative or above 256 MiB"));
        };
        self.read_until(length)?;
        Ok(self.received.split_to(length).freeze())
    }

    fn read_until(&mut self, length: usize) -> Result<(), ClientError> {
        while self.received.len() < length {
            let start = self.received.len();
            let wanted = (length - start).clamp(READ_BYTES.min(length), READ_BYTES);
            self.received.resize(start + wanted, 0);
            let (_, space) = self.received.split_at_mut(start);
            let read = loop {
                match self.stream.read(space) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    result => break result,
                }
            };
            self.received.truncate(start + read.as_ref().copied().unwrap_or_default());
            match read {
                Ok(0) => return Err(ClientError::Closed { address: self.address.clone() }),
                Ok(_) => {}
                Err(source) => return Err(self.io(source)),
            }
        }
        Ok(())
    }

    fn io(&self, source: std::io::Error) -> ClientError {
        ClientError::Io { address: self.address.clone(), source }
    }

    fn malformed(&self, reason: impl std::fmt::Display) -> ClientError {
        ClientError::Malformed { address: self.address.clone(), reason: reason.to_string() }
    }
}

fn connect(address: &str, config: &ConnectionConfig) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, config.connect_timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(config.response_timeout))?;
                stream.set_write_timeout(Some(config.response_timeout))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A broker that answers each request with the next of the frames (without length prefix, the correlation id
    /// put in), then closes.
    fn broker(frames: Vec<Vec<u8>>) -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for frame in frames {
                let mut prefix = [0; 4];
                stream.read_exact(&mut prefix).unwrap();
                let mut request = vec![0; u32::from_be_bytes(prefix) as usize];
                stream.read_exact(&mut request).unwrap();
                let mut response = request[4..8].to_vec();
                response.extend_from_slice(&frame);
                stream.write_all(&(response.len() as u32).to_be_bytes()).unwrap();
                stream.write_all(&response).unwrap();
            }
        });
        (address, thread)
    }

    fn open(frames: Vec<Vec<u8>>) -> Result<Connection, ClientError> {
        let (address, thread) = broker(frames);
        let opened = Connection::open(&address, &ConnectionConfig::default());
        drop(thread.join());
        opened
    }

    const METADATA_1_TO_5: [u8; 12] = [0, 0, 0, 0, 0, 1, 0, 3, 0, 1, 0, 5];

    #[test]
    fn an_old_broker_is_asked_again_in_version_0() {
        let unsupported = vec![0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2];
        let connection = open(vec![unsupported, METADATA_1_TO_5.to_vec()]).unwrap();
        use kafka_protocol::messages::{FetchRequest, MetadataRequest};
        assert_eq!(connection.version::<MetadataRequest>(12).unwrap(), 5);
        assert_eq!(connection.version::<MetadataRequest>(2).unwrap(), 2);
        assert!(connection.version::<MetadataRequest>(0).is_err());
        assert!(connection.version::<FetchRequest>(12).is_err());
    }

    #[test]
    fn a_false_array_length_is_malformed_and_costs_nothing() {
        let lying = vec![0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 1, 0, 5];
        let unsupported = vec![0, 35, 0, 0, 0, 0];
        assert!(matches!(open(vec![unsupported, lying]), Err(ClientError::Malformed { .. })));
    }

    #[test]
    fn a_closed_connection_is_said_to_be_closed() {
        assert!(open(vec![]).unwrap_err().is_retriable());
    }
}
