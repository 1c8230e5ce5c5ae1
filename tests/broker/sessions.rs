//! Fetch sessions (KIP-227) as a client sees them.

use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tidemill::client::Connection;

use crate::process::Home;
use crate::wire::{FETCH_VERSION, append, connect, create, fetch_request, name};

const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const INVALID_FETCH_SESSION_EPOCH: i16 = 71;

fn call(connection: &mut Connection, request: FetchRequest, id: i32, epoch: i32) -> FetchResponse {
    let request = request.with_session_id(id).with_session_epoch(epoch);
    connection.call(&request, FETCH_VERSION).unwrap()
}

fn told(response: &FetchResponse) -> Vec<i32> {
    let mut told: Vec<i32> = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|part| part.partition_index)
        .collect();
    told.sort_unstable();
    told
}

#[test]
fn a_session_tells_only_what_changed() {
    let home = Home::new(&["shard.count=4"]);
    let broker = home.start();
    let (mut consumer, mut producer) = (connect(&broker), connect(&broker));
    create(&mut producer, "watched", 4, &[]);
    let all = [(0, 0), (1, 0), (2, 0), (3, 0)];
    let first = call(&mut consumer, fetch_request("watched", &all), 0, 0);
    let id = first.session_id;
    assert!(id > 0);
    assert_eq!(told(&first), [0, 1, 2, 3], "a full request is answered in full");
    let nothing = || fetch_request("watched", &[]).with_topics(vec![]);
    let quiet = call(&mut consumer, nothing(), id, 1);
    assert_eq!((quiet.error_code, quiet.session_id, told(&quiet)), (0, id, vec![]));
    append(&mut producer, "watched", 2, &[b"v"]);
    let news = call(&mut consumer, nothing().with_max_wait_ms(20_000), id, 2);
    assert_eq!(told(&news), [2]);
    // Still not read: it has records, so it is told again until the client moves on.
    assert_eq!(told(&call(&mut consumer, nothing(), id, 3)), [2]);
    let moved = call(&mut consumer, fetch_request("watched", &[(2, 1)]), id, 4);
    assert_eq!(told(&moved), Vec::<i32>::new());
    append(&mut producer, "watched", 1, &[b"v"]);
    append(&mut producer, "watched", 3, &[b"v"]);
    let forgotten = ForgottenTopic::default().with_topic(name("watched")).with_partitions(vec![1]);
    let fewer = call(&mut consumer, nothing().with_forgotten_topics_data(vec![forgotten]), id, 5);
    assert_eq!(told(&fewer), [3]);
    let wrong = call(&mut consumer, nothing(), id, 99);
    assert_eq!(wrong.error_code, INVALID_FETCH_SESSION_EPOCH);
    let closing = call(&mut consumer, nothing(), id, -1);
    assert_eq!((closing.error_code, closing.session_id), (0, 0));
    let gone = call(&mut consumer, nothing(), id, 6);
    assert_eq!(gone.error_code, FETCH_SESSION_ID_NOT_FOUND);
}

#[test]
fn a_session_of_another_shard_or_of_nobody_is_not_found() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut consumer = connect(&broker);
    create(&mut consumer, "watched", 1, &[]);
    let mut others: Vec<Connection> = (0..2).map(|_| connect(&broker)).collect();
    let id = call(&mut consumer, fetch_request("watched", &[(0, 0)]), 0, 0).session_id;
    // Of two more connections one is on the shard that does not know the session.
    let codes: Vec<i16> = others
        .iter_mut()
        .map(|other| call(other, fetch_request("watched", &[]).with_topics(vec![]), id, 1).error_code)
        .collect();
    assert!(codes.contains(&FETCH_SESSION_ID_NOT_FOUND), "{codes:?}");
    let unknown = call(&mut consumer, fetch_request("watched", &[(0, 0)]), i32::MAX, 1);
    assert_eq!(unknown.error_code, FETCH_SESSION_ID_NOT_FOUND);
}
