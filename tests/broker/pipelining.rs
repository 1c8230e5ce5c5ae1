//! Many requests in flight on one connection, over partitions on every shard: answered in their order.

use crate::process::Home;
use crate::wire::{
    FETCH_VERSION, PRODUCE_VERSION, batch, connect, create, fetch_request, only_partition, produce_request,
    read_all,
};

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let home = Home::new(&["shard.count=4"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "ordered", 12, &[]);
    let mut produced = Vec::new();
    for number in 0..300 {
        let value = format!("{number}").into_bytes();
        let request = produce_request("ordered", -1, vec![(number % 12, batch(&[&value]))]);
        produced.push((number, connection.send(&request, PRODUCE_VERSION).unwrap()));
    }
    for (number, ticket) in produced {
        // The connection refuses a response whose correlation id is not the oldest request's.
        let response = connection.receive(ticket).unwrap();
        let part = &response.responses[0].partition_responses[0];
        assert_eq!((part.error_code, part.index, part.base_offset), (0, number % 12, i64::from(number / 12)));
    }
    for partition in 0..12 {
        let values: Vec<Vec<u8>> =
            read_all(&mut connection, "ordered", partition).into_iter().map(|(_, value)| value).collect();
        let expected: Vec<Vec<u8>> =
            (0..25).map(|round| format!("{}", round * 12 + partition).into_bytes()).collect();
        assert_eq!(values, expected);
    }
}

#[test]
fn one_request_may_name_partitions_of_every_shard() {
    let home = Home::new(&["shard.count=4"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "wide", 12, &[]);
    for round in 0..20 {
        let parts = (0..12).rev().map(|index| (index, batch(&[b"v", b"w", b"x"]))).collect();
        let response = connection.call(&produce_request("wide", 1, parts), PRODUCE_VERSION).unwrap();
        let answers: Vec<_> = response.responses[0]
            .partition_responses
            .iter()
            .map(|part| (part.index, part.error_code, part.base_offset))
            .collect();
        assert_eq!(answers, (0..12).rev().map(|index| (index, 0, round * 3)).collect::<Vec<_>>());
    }
    let request = fetch_request("wide", &(0..12).map(|index| (index, 30)).collect::<Vec<_>>());
    let response = connection.call(&request, FETCH_VERSION).unwrap();
    let found: Vec<_> = response.responses[0]
        .partitions
        .iter()
        .map(|part| {
            let mut read = Vec::new();
            crate::wire::records(part.records.as_deref().unwrap(), &mut read);
            (part.partition_index, part.error_code, read.len())
        })
        .collect();
    assert_eq!(found, (0..12).map(|index| (index, 0, 30)).collect::<Vec<_>>());
}

#[test]
fn fetches_behind_produces_of_the_same_connection_see_them() {
    let home = Home::new(&["shard.count=4"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "seen", 4, &[]);
    for round in 0..50_i64 {
        let partition = (round % 4) as i32;
        let produced =
            connection.send(&produce_request("seen", 1, vec![(partition, batch(&[b"v"]))]), PRODUCE_VERSION);
        let request = fetch_request("seen", &[(partition, round / 4)]).with_max_wait_ms(20_000);
        let fetched = connection.send(&request, FETCH_VERSION);
        let produced = connection.receive(produced.unwrap()).unwrap();
        assert_eq!(produced.responses[0].partition_responses[0].base_offset, round / 4);
        let found = only_partition(&connection.receive(fetched.unwrap()).unwrap());
        assert_eq!((found.error_code, found.high_watermark), (0, round / 4 + 1));
    }
}

#[test]
fn partitions_and_topics_that_are_not_there_are_errors_of_their_part_only() {
    let home = Home::new(&["auto.create.topics.enable=false"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "some", 2, &[]);
    let parts = vec![(1, batch(&[b"a"])), (7, batch(&[b"b"])), (-1, batch(&[b"c"])), (0, batch(&[b"d"]))];
    let response = connection.call(&produce_request("some", -1, parts), PRODUCE_VERSION).unwrap();
    let answers: Vec<_> = response.responses[0]
        .partition_responses
        .iter()
        .map(|part| (part.index, part.error_code, part.base_offset))
        .collect();
    assert_eq!(answers, [(1, 0, 0), (7, 3, -1), (-1, 3, -1), (0, 0, 0)]);
    let response = connection.call(&produce_request("none", -1, vec![(0, batch(&[b"a"]))]), PRODUCE_VERSION);
    assert_eq!(response.unwrap().responses[0].partition_responses[0].error_code, 3);
    let response = connection.call(&fetch_request("some", &[(9, 0), (0, 0), (1, 5)]), FETCH_VERSION).unwrap();
    let mut answers: Vec<_> =
        response.responses[0].partitions.iter().map(|part| (part.partition_index, part.error_code)).collect();
    answers.sort_unstable();
    assert_eq!(answers, [(0, 0), (1, 1), (9, 3)]);
}
