//! Batches that are refused: with Kafka's error where there is an answer, by closing where there is none.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use tidemill::log::batch::BatchBuilder;

use crate::process::{Home, until};
use crate::wire::{PRODUCE_VERSION, append, batch, connect, create, produce, produce_request, read_all};

const CORRUPT_MESSAGE: i16 = 2;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_REQUIRED_ACKS: i16 = 21;
const INVALID_RECORD: i16 = 87;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;

fn with_byte_changed(batch: &Bytes, at: usize) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[at] ^= 0x10;
    bytes.freeze()
}

#[test]
fn damaged_and_large_batches_get_kafkas_errors_and_nothing_is_written() {
    let home = Home::new(&["message.max.bytes=1000"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "checked", 1, &[]);
    create(&mut connection, "roomy", 1, &[("max.message.bytes", "5000")]);
    append(&mut connection, "checked", 0, &[b"one"]);
    let whole = batch(&[b"two"]);
    for at in [17, 21, 30, whole.len() - 1] {
        let answer = produce(&mut connection, "checked", 0, -1, with_byte_changed(&whole, at));
        assert_eq!((answer.error_code, answer.base_offset), (CORRUPT_MESSAGE, -1), "byte {at}");
    }
    let answer = produce(&mut connection, "checked", 0, -1, whole.slice(..whole.len() - 1));
    assert_eq!(answer.error_code, INVALID_RECORD, "a batch that is cut short");
    let large = batch(&[&[b'x'; 2000]]);
    assert_eq!(produce(&mut connection, "checked", 0, -1, large.clone()).error_code, MESSAGE_TOO_LARGE);
    assert_eq!(produce(&mut connection, "roomy", 0, -1, large).error_code, 0);
    assert_eq!(produce(&mut connection, "checked", 0, 7, whole).error_code, INVALID_REQUIRED_ACKS);
    assert_eq!(append(&mut connection, "checked", 0, &[b"three"]), 1);
    assert_eq!(read_all(&mut connection, "checked", 0), [(0, b"one".to_vec()), (1, b"three".to_vec())]);
}

#[test]
fn an_error_under_acks_0_closes_the_connection_and_success_says_nothing() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut other = connect(&broker);
    create(&mut other, "silent", 2, &[]);
    let mut connection = connect(&broker);
    for _ in 0..3 {
        let request = produce_request("silent", 0, vec![(0, batch(&[b"v"]))]);
        connection.send_unanswered(&request, PRODUCE_VERSION).unwrap();
    }
    // The next answer is that of the next request: the three before had none.
    assert_eq!(append(&mut connection, "silent", 0, &[b"v"]), 3);
    let damaged = with_byte_changed(&batch(&[b"v"]), 30);
    let request = produce_request("silent", 0, vec![(0, damaged)]);
    connection.send_unanswered(&request, PRODUCE_VERSION).unwrap();
    let ticket = connection.send(&produce_request("silent", -1, vec![(1, batch(&[b"v"]))]), PRODUCE_VERSION);
    if let Ok(ticket) = ticket {
        assert!(connection.receive(ticket).is_err(), "the connection is closed");
    }
    assert_eq!(read_all(&mut other, "silent", 0).len(), 4);
    // A partition that is not there is an error as well.
    let mut connection = connect(&broker);
    let request = produce_request("silent", 0, vec![(9, batch(&[b"v"]))]);
    connection.send_unanswered(&request, PRODUCE_VERSION).unwrap();
    until("the connection is closed", || {
        let request = produce_request("silent", -1, vec![]);
        match connection.call(&request, PRODUCE_VERSION) {
            Ok(_) => Err("answered"),
            Err(_) => Ok(()),
        }
    });
}

#[test]
fn a_duplicate_is_answered_like_its_original_and_a_gap_is_refused() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "once", 1, &[]);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let producer = connection.call(&request, i16::MAX).unwrap();
    assert_eq!((producer.error_code, producer.producer_epoch), (0, 0));
    let numbered = |sequence: i32| {
        BatchBuilder::new()
            .producer(producer.producer_id.0, 0, sequence)
            .record(1, None, Some(b"a"))
            .record(2, None, Some(b"b"))
            .build()
    };
    for (sequence, base_offset) in [(0, 0), (2, 2), (0, 0), (2, 2), (4, 4)] {
        let answer = produce(&mut connection, "once", 0, -1, numbered(sequence));
        assert_eq!((answer.error_code, answer.base_offset), (0, base_offset), "sequence {sequence}");
    }
    let answer = produce(&mut connection, "once", 0, -1, numbered(9));
    assert_eq!(answer.error_code, OUT_OF_ORDER_SEQUENCE_NUMBER);
    // The window outlives the process.
    broker.kill();
    let broker = home.start();
    let mut connection = connect(&broker);
    let answer = produce(&mut connection, "once", 0, -1, numbered(4));
    assert_eq!((answer.error_code, answer.base_offset), (0, 4));
    assert_eq!(read_all(&mut connection, "once", 0).len(), 6);
    let another = connection.call(&request, i16::MAX).unwrap();
    assert!(another.producer_id.0 > producer.producer_id.0, "an id is given out once");
}

#[test]
fn transactions_are_refused_for_good() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "plain", 1, &[]);
    let id = TransactionalId(StrBytes::from_static_str("mine"));
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id.clone()))
        .with_transaction_timeout_ms(1);
    let retriable = |code: i16| {
        let error = kafka_protocol::ResponseError::try_from_code(code);
        error.expect("an error").is_retriable()
    };
    let answer = connection.call(&request, i16::MAX).unwrap();
    assert!(!retriable(answer.error_code), "{}", answer.error_code);
    let transactional =
        BatchBuilder::new().producer(1, 0, 0).transactional().record(1, None, Some(b"a")).build();
    for name in [Some(id), None] {
        let request =
            produce_request("plain", -1, vec![(0, transactional.clone())]).with_transactional_id(name);
        let response = connection.call(&request, PRODUCE_VERSION).unwrap();
        let code = response.responses[0].partition_responses[0].error_code;
        assert!(!retriable(code), "{code}");
    }
    assert_eq!(read_all(&mut connection, "plain", 0).len(), 0);
}
