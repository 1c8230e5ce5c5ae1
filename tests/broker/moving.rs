//! A connection is handed to the shard that owns most of what it asks for, and nobody notices: order, records, fetch
//! sessions and counts are as before.
//!
//! The low ten bits of a new fetch session's id name the shard that serves the connection.

use std::collections::VecDeque;
use std::time::Instant;

use kafka_protocol::messages::ProduceRequest;
use tidemill::client::{Connection, Ticket};

use crate::process::{Broker, Home, PATIENCE};
use crate::wire::{
    FETCH_VERSION, PRODUCE_VERSION, Raw, append, batch, connect, create, fetch_request, produce_request,
    read_all,
};

const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
/// Requests between two looks at where a connection is.
const LOOK_EVERY: u64 = 50;
/// Bytes after which it is enough to have tried: the owner of large writes may be so much busier than the shard that
/// receives them that it rightly takes nobody on.
const TRIED_BYTES: u64 = 400 << 20;

/// The shard that serves a connection.
fn shard_of(connection: &mut Connection) -> i32 {
    let request = fetch_request("moving", &[(0, 0)]).with_session_epoch(0).with_max_bytes(1);
    let id = connection.call(&request, FETCH_VERSION).unwrap().session_id;
    assert!(id > 0, "a session is made");
    let end = fetch_request("moving", &[]).with_topics(vec![]).with_session_id(id).with_session_epoch(-1);
    assert_eq!(connection.call(&end, FETCH_VERSION).unwrap().error_code, 0);
    id & 0x3ff
}

/// Opens connections until one is on that shard; the others stay open.
fn connect_to(broker: &Broker, shard: i32, others: &mut Vec<Connection>) -> Connection {
    loop {
        let mut connection = connect(broker);
        if shard_of(&mut connection) == shard {
            return connection;
        }
        others.push(connection);
        assert!(others.len() < 50, "no connection comes to shard {shard}");
    }
}

/// A producer with several requests in flight on one partition, whose records say how many came before them.
struct Pipeline {
    connection: Connection,
    partition: i32,
    padding: Vec<u8>,
    sent: u64,
    waiting: VecDeque<(u64, Ticket<ProduceRequest>)>,
}

impl Pipeline {
    fn new(connection: Connection, partition: i32, padding_bytes: usize) -> Self {
        let padding = vec![b'.'; padding_bytes];
        Self { connection, partition, padding, sent: 0, waiting: VecDeque::new() }
    }

    fn value(&self, number: u64) -> Vec<u8> {
        [format!("{number}").into_bytes(), self.padding.clone()].concat()
    }

    /// Sends one request more, and takes answers until at most `in_flight` are missing.
    fn go_on(&mut self, in_flight: usize) {
        let value = self.value(self.sent);
        let request = produce_request("moving", 1, vec![(self.partition, batch(&[&value]))]);
        self.waiting.push_back((self.sent, self.connection.send(&request, PRODUCE_VERSION).unwrap()));
        self.sent += 1;
        self.take(in_flight);
    }

    fn take(&mut self, in_flight: usize) {
        while self.waiting.len() > in_flight {
            let (number, ticket) = self.waiting.pop_front().unwrap();
            let response = self.connection.receive(ticket).unwrap();
            let part = &response.responses[0].partition_responses[0];
            assert_eq!((part.error_code, part.base_offset), (0, number as i64), "in the order it was sent");
        }
    }

    /// Produces until the connection is on that shard, or much has been written.
    fn drive_to(&mut self, shard: i32, in_flight: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            (0..LOOK_EVERY).for_each(|_| self.go_on(in_flight));
            self.take(0);
            if shard_of(&mut self.connection) == shard || self.sent * self.padding.len() as u64 > TRIED_BYTES
            {
                return;
            }
            assert!(Instant::now() < deadline, "still not on shard {shard}");
        }
    }

    /// Everything is there, in the order in which it was sent.
    fn check(mut self) {
        self.take(0);
        let records = read_all(&mut self.connection, "moving", self.partition);
        assert_eq!(records.len() as u64, self.sent);
        for (number, (_, value)) in (0..).zip(records) {
            assert!(value == self.value(number), "record {number}");
        }
    }
}

#[test]
fn a_connection_goes_to_the_shard_that_owns_what_it_writes_and_nothing_is_lost_or_out_of_order() {
    let home = Home::new(&["shard.count=2"]);
    let broker = home.start();
    create(&mut connect(&broker), "moving", 4, &[]);
    std::thread::scope(|scope| {
        // Small and large requests, alone and many in flight: large ones are cut anywhere when their connection goes.
        for (partition, padding_bytes, in_flight) in
            [(0, 10, 1), (1, 10, 90), (2, 200_000, 3), (3, 3_000, 20)]
        {
            let broker = &broker;
            scope.spawn(move || {
                let (owner, mut others) = (partition % 2, Vec::new());
                let connection = connect_to(broker, 1 - owner, &mut others);
                let mut pipeline = Pipeline::new(connection, partition, padding_bytes);
                pipeline.drive_to(owner, in_flight);
                (0..200).for_each(|_| pipeline.go_on(in_flight));
                pipeline.check();
            });
        }
    });
    let (code, lines) = broker.stop_and_tell();
    assert_eq!(code, Some(0));
    assert!(lines.iter().any(|line| line.contains("gone to other shards")), "{lines:?}");
}

#[test]
fn a_fetch_session_goes_on_where_its_connection_goes() {
    let home = Home::new(&["shard.count=2"]);
    let broker = home.start();
    let mut others = Vec::new();
    create(&mut connect(&broker), "moving", 2, &[]);
    let mut producer = connect(&broker);
    append(&mut producer, "moving", 0, &[b"first"]);
    let mut consumer = connect_to(&broker, 1, &mut others);
    let mut watcher = connect_to(&broker, 0, &mut others);
    let nothing = |id, epoch| {
        fetch_request("moving", &[]).with_topics(vec![]).with_session_id(id).with_session_epoch(epoch)
    };
    let begin = fetch_request("moving", &[(0, 1)]).with_session_epoch(0);
    let id = consumer.call(&begin, FETCH_VERSION).unwrap().session_id;
    assert_eq!(id & 0x3ff, 1);
    let deadline = Instant::now() + PATIENCE;
    let (mut epoch, mut offset) = (1, 1);
    loop {
        for _ in 0..LOOK_EVERY {
            let response = consumer.call(&nothing(id, epoch), FETCH_VERSION).unwrap();
            assert_eq!((response.error_code, response.session_id), (0, id), "epoch {epoch}");
            assert!(response.responses.is_empty(), "nothing has changed since epoch {epoch}");
            epoch += 1;
        }
        // What came meanwhile is told, and only that.
        append(&mut producer, "moving", 0, &[b"news"]);
        let response = consumer.call(&nothing(id, epoch), FETCH_VERSION).unwrap();
        let part = &response.responses[0].partitions[0];
        assert_eq!((part.error_code, part.high_watermark), (0, offset + 1));
        offset += 1;
        let on = fetch_request("moving", &[(0, offset)]).with_session_id(id).with_session_epoch(epoch + 1);
        assert_eq!(consumer.call(&on, FETCH_VERSION).unwrap().error_code, 0);
        epoch += 2;
        // Only the shard that has the session knows which epoch is next.
        let there = watcher.call(&nothing(id, epoch + 7), FETCH_VERSION).unwrap().error_code;
        if there == INVALID_FETCH_SESSION_EPOCH {
            break;
        }
        assert!(Instant::now() < deadline, "the session never went");
    }
    // A long poll on the new shard is woken by what it waits for.
    let ticket = consumer.send(&nothing(id, epoch).with_max_wait_ms(20_000), FETCH_VERSION).unwrap();
    append(&mut producer, "moving", 0, &[b"more"]);
    let response = consumer.receive(ticket).unwrap();
    assert_eq!((response.error_code, response.responses.len()), (0, 1));
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn connections_are_counted_where_they_are() {
    let home = Home::new(&["shard.count=2", "max.connections.per.ip=9"]);
    let broker = home.start();
    let mut first = connect(&broker);
    create(&mut first, "moving", 2, &[]);
    append(&mut first, "moving", 0, &[b"v"]);
    let mut connections = vec![first];
    connections.extend((0..7).map(|_| connect(&broker)));
    let away = |connections: &mut Vec<Connection>| {
        let shards = connections.iter_mut().map(shard_of);
        shards.filter(|shard| *shard == 1).count()
    };
    assert_eq!(away(&mut connections), 4);
    // Everybody reads the one partition, which shard 0 owns.
    let deadline = Instant::now() + PATIENCE;
    while away(&mut connections) > 0 {
        for connection in &mut connections {
            for _ in 0..LOOK_EVERY {
                connection.call(&fetch_request("moving", &[(0, 0)]), FETCH_VERSION).unwrap();
            }
        }
        assert!(Instant::now() < deadline, "not everybody went");
    }
    // So the next one comes to the shard that has none, and the address still has nine.
    let mut ninth = connect(&broker);
    assert_eq!(shard_of(&mut ninth), 1);
    Raw::open(&broker).assert_closed("its address has nine");
    drop(connections);
    // All their places were given back, and those who come are dealt out again.
    crate::process::until("nine are welcome again", || {
        let mut again: Vec<Connection> = Vec::new();
        while again.len() < 8 {
            let config = tidemill::client::ConnectionConfig::default();
            again.push(Connection::open(&broker.address, &config).map_err(|error| error.to_string())?);
        }
        let away = away(&mut again);
        if away == 4 || away == 3 { Ok(()) } else { Err(format!("{away} on shard 1")) }
    });
}

#[test]
fn who_uses_all_partitions_alike_stays_where_it_is() {
    let home = Home::new(&["shard.count=2"]);
    let broker = home.start();
    create(&mut connect(&broker), "moving", 4, &[]);
    let mut others = Vec::new();
    let mut witness = Pipeline::new(connect_to(&broker, 1, &mut others), 0, 10);
    let mut everywhere: Vec<Connection> =
        (0..2).map(|shard| connect_to(&broker, shard, &mut others)).collect();
    let deadline = Instant::now() + PATIENCE;
    while shard_of(&mut witness.connection) != 0 {
        for number in 0..40 {
            witness.go_on(0);
            for connection in &mut everywhere {
                append(connection, "moving", 1 + number % 2, &[b"v"]);
                append(connection, "moving", 2 + number % 2, &[b"v"]);
            }
        }
        for (shard, connection) in (0..).zip(&mut everywhere) {
            assert_eq!(shard_of(connection), shard);
        }
        assert!(Instant::now() < deadline, "not even who uses one partition went");
    }
}

#[test]
fn nobody_goes_where_that_is_switched_off() {
    let home = Home::new(&["shard.count=2", "shard.connections.move=false"]);
    let broker = home.start();
    create(&mut connect(&broker), "moving", 2, &[]);
    let mut others = Vec::new();
    let mut pipeline = Pipeline::new(connect_to(&broker, 1, &mut others), 0, 10);
    // As many requests as take others there several times over.
    let until = Instant::now() + std::time::Duration::from_secs(3);
    while Instant::now() < until {
        pipeline.go_on(5);
    }
    pipeline.take(0);
    assert_eq!(shard_of(&mut pipeline.connection), 1);
    pipeline.check();
    let (_, lines) = broker.stop_and_tell();
    assert!(!lines.iter().any(|line| line.contains("gone to other shards")), "{lines:?}");
}
