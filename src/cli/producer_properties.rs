//! The properties of a producer, by Kafka's names.

use std::time::Duration;

use super::properties::Properties;
use crate::client::{Acks, ClientError, ConnectionConfig, ProducerConfig};
use crate::log::codec::Codec;

/// How a producer sends, how it is connected, and how long it looks for leaders. What is not set is as in the Java
/// client.
pub(super) fn producer_properties(
    given: &mut Properties,
) -> Result<(ProducerConfig, ConnectionConfig, Duration), ClientError> {
    let mut config = ProducerConfig::default();
    let milliseconds = |number: Option<u64>, default: Duration| number.map_or(default, Duration::from_millis);
    config.linger = milliseconds(given.number("linger.ms")?, config.linger);
    if let Some(text) = given.text("acks") {
        config.acks = Acks::parse(&text).ok_or_else(|| invalid("acks", &text, "0, 1, -1 or all"))?;
    }
    config.idempotent = given.switch("enable.idempotence", config.acks == Acks::All);
    config.batch_bytes = given.number("batch.size")?.unwrap_or(config.batch_bytes);
    if let Some(text) = given.text("compression.type") {
        config.codec = codec_named(&text)
            .ok_or_else(|| invalid("compression.type", &text, "none, gzip, snappy, lz4 or zstd"))?;
    }
    config.request_timeout = milliseconds(given.number("request.timeout.ms")?, config.request_timeout);
    config.retry_backoff = milliseconds(given.number("retry.backoff.ms")?, config.retry_backoff);
    config.retries = given.number("retries")?.unwrap_or(config.retries);
    let patience = milliseconds(given.number("max.block.ms")?, Duration::from_secs(60));
    let client_id = given.text("client.id").unwrap_or_else(|| "producer".to_owned());
    let response_timeout = config.request_timeout.saturating_add(Duration::from_secs(10));
    Ok((config, ConnectionConfig { client_id, response_timeout, ..ConnectionConfig::default() }, patience))
}

fn invalid(key: &str, value: &str, allowed: &str) -> ClientError {
    ClientError::Usage(format!("Invalid value {value} for configuration {key}: allowed are {allowed}"))
}

fn codec_named(name: &str) -> Option<Codec> {
    match name.trim().to_lowercase().as_str() {
        "none" => Some(Codec::None),
        "gzip" => Some(Codec::Gzip),
        "snappy" => Some(Codec::Snappy),
        "lz4" => Some(Codec::Lz4),
        "zstd" => Some(Codec::Zstd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_those_of_the_java_producer() {
        let pairs = ["acks=1", "linger.ms=7", "compression.type=LZ4", "batch.size=99"].map(str::to_owned);
        let mut given = Properties::read(None, &pairs).unwrap();
        let (config, connection, patience) = producer_properties(&mut given).unwrap();
        assert_eq!((config.acks, config.idempotent, config.batch_bytes), (Acks::Leader, false, 99));
        assert_eq!((config.linger, config.codec), (Duration::from_millis(7), Codec::Lz4));
        assert_eq!((connection.client_id.as_str(), patience), ("producer", Duration::from_secs(60)));
        for wrong in ["acks=2", "compression.type=rar", "linger.ms=-1"] {
            assert!(producer_properties(&mut Properties::read(None, &[wrong.to_owned()]).unwrap()).is_err());
        }
    }
}
