//! What can go wrong between a client and a cluster.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection to the address.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `host:port`
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An open connection failed.
    #[error("the connection to {address} failed: {source}")]
    Io {
        /// `host:port`
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The broker closed the connection.
    #[error("{address} closed the connection")]
    Closed {
        /// `host:port`
        address: String,
    },
    /// The broker sent what the protocol does not allow.
    #[error("{address} sent a malformed response: {reason}")]
    Malformed {
        /// `host:port`
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// Broker and client have no version of a request in common.
    #[error("the broker does not serve {} in a version that this client speaks", api_name(*.api_key))]
    NoVersion {
        /// Kafka's number of the request.
        api_key: i16,
    },
    /// The broker answered with an error code.
    #[error("{subject}: {name} ({code}){message}")]
    Broker {
        /// What the request was about, a topic for example.
        subject: String,
        /// Kafka's number of the error.
        code: i16,
        /// Kafka's name of the error.
        name: String,
        /// What the broker added, with a separator in front, or empty.
        message: String,
    },
    /// No broker could be asked, or no leader was found, in time.
    #[error("{0}")]
    Unavailable(String),
    /// Records were damaged on the way, or before.
    #[error("records of {topic}-{partition} at offset {offset} are damaged: {reason}")]
    Corrupt {
        /// The topic's name.
        topic: String,
        /// The partition's number.
        partition: i32,
        /// The offset of the batch, or where it should be.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
}

fn api_name(api_key: i16) -> String {
    ApiKey::try_from(api_key)
        .map_or_else(|()| format!("request {api_key}"), |key| format!("{key:?} ({api_key})"))
}

impl ClientError {
    /// `Ok` for code 0, the error otherwise.
    pub(super) fn check(subject: &str, code: i16, message: Option<&str>) -> Result<(), Self> {
        match ResponseError::try_from_code(code) {
            None => Ok(()),
            Some(error) => Err(Self::Broker {
                subject: subject.to_owned(),
                code,
                name: format!("{error:?}"),
                message: message
                    .filter(|text| !text.is_empty())
                    .map(|text| format!(": {text}"))
                    .unwrap_or_default(),
            }),
        }
    }

    /// An error as a broker would give it, by Kafka's number.
    pub fn from_code(subject: &str, code: i16) -> Self {
        match Self::check(subject, code, None) {
            Err(error) => error,
            Ok(()) => Self::Unavailable(format!("{subject}: no error")),
        }
    }

    /// Whether the same call may succeed later: connections that failed, and the errors that Kafka calls retriable.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Io { .. } | Self::Closed { .. } => true,
            Self::Broker { code, .. } => {
                ResponseError::try_from_code(*code).is_some_and(|error| error.is_retriable())
            }
            _ => false,
        }
    }

    /// Whether the coordinator is elsewhere, not there yet, or still loading.
    pub(super) fn is_about_the_coordinator(&self) -> bool {
        matches!(self, Self::Broker { code: 14..=16, .. })
    }

    /// What a tool says of it: the broker's own words where there are any.
    pub fn told(&self) -> String {
        match self {
            Self::Broker { message, subject, name, .. } if message.is_empty() => format!("{subject}: {name}"),
            Self::Broker { message, .. } => message.trim_start_matches(": ").to_owned(),
            error => error.to_string(),
        }
    }

    /// Whether the connection can no longer be used.
    pub(super) fn is_fatal_to_connection(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Io { .. } | Self::Closed { .. } | Self::Malformed { .. })
    }

    /// Kafka's number of the error, where the broker gave one.
    pub fn code(&self) -> Option<i16> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }
}
