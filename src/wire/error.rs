//! Why bytes are not a request that this broker answers.
//!
//! Every one of these closes the connection, as in Kafka: after a malformed frame nothing on the
//! connection can be trusted. An ApiVersions request of an unknown version is not an error here
//! (see `header`).

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame's length prefix is negative.
    #[error("frame length {length} is negative")]
    FrameNegative {
        /// The length as sent.
        length: i32,
    },
    /// A frame is too short for a request header.
    #[error("a frame of {length} bytes cannot hold a request header")]
    FrameShort {
        /// The length as sent.
        length: u32,
    },
    /// A frame is longer than its limit.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    FrameTooLarge {
        /// The length as sent.
        length: u32,
        /// The limit that it breaks, in bytes.
        limit: u32,
    },
    /// The API key is not served.
    #[error("API key {key} is not served")]
    ApiUnknown {
        /// The key as sent.
        key: i16,
    },
    /// The version of a known API is not served.
    #[error("version {version} of API key {key} is not served")]
    VersionUnsupported {
        /// The key as sent.
        key: i16,
        /// The version as sent.
        version: i16,
    },
    /// The bytes end inside a field.
    #[error("the request ends inside a field")]
    Truncated,
    /// A length is negative where it cannot be.
    #[error("a length is negative")]
    LengthNegative,
    /// A field that cannot be null is null.
    #[error("a field is null that cannot be")]
    Null,
    /// A variable-length integer does not fit 32 bits.
    #[error("a variable-length integer is over 32 bits")]
    VarintOverflow,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A struct carries more tagged fields than allowed.
    #[error("{count} tagged fields are over the limit")]
    TagsTooMany {
        /// How many the struct announces.
        count: u32,
    },
    /// A tagged field is not valid in this version, or its length is wrong.
    #[error("tagged field {tag} is malformed")]
    TagMalformed {
        /// The tag.
        tag: u32,
    },
    /// The decoded request would take more memory than allowed.
    #[error("the decoded request would take more than {limit_bytes} bytes of memory")]
    TooCostly {
        /// The limit in bytes.
        limit_bytes: usize,
    },
    /// The library refused the request for another reason.
    #[error("the request is malformed")]
    Malformed,
    /// A response cannot be encoded in the version of its request.
    #[error("the response of API key {key} cannot be encoded in version {version}")]
    Unencodable {
        /// The API key.
        key: i16,
        /// The version.
        version: i16,
    },
}
