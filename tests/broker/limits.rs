//! Limits of connections: of the node, of an address, of a second, and of the process's descriptors.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::process::{Home, until};
use crate::wire::{Raw, append, connect, create, read_all, request};

fn is_served(raw: &mut Raw) -> bool {
    raw.send_frame(&request(18, 0, 7, &[]));
    raw.frame()[..4] == [0, 0, 0, 7]
}

#[test]
fn a_connection_over_the_limit_waits_until_another_one_has_gone() {
    let home = Home::new(&["max.connections=3"]);
    let broker = home.start();
    let mut first = connect(&broker);
    let (second, _third) = (connect(&broker), connect(&broker));
    let mut waiting = Raw::open(&broker);
    waiting.send_frame(&request(18, 0, 9, &[]));
    waiting.give_up_after(Duration::from_millis(300));
    let nothing = waiting.0.peek(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "it is neither served nor closed");
    create(&mut first, "stays", 1, &[]);
    drop(second);
    waiting.give_up_after(crate::process::PATIENCE);
    assert_eq!(waiting.frame()[..4], [0, 0, 0, 9]);
}

#[test]
fn an_address_with_enough_connections_gets_no_more_and_others_do() {
    let home = Home::new(&["max.connections.per.ip=3", "max.connections.per.ip.overrides=127.0.0.2:1"]);
    let broker = home.start();
    let mut allowed: Vec<Raw> = (0..3).map(|_| Raw::open(&broker)).collect();
    assert!(allowed.iter_mut().all(is_served));
    Raw::open(&broker).assert_closed("one too many of 127.0.0.1");
    let from_another = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.2:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&broker.address.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        let raw = Raw(socket.into());
        raw.give_up_after(crate::process::PATIENCE);
        raw
    };
    let mut other = from_another();
    assert!(is_served(&mut other));
    from_another().assert_closed("one too many of 127.0.0.2");
    drop(allowed.pop());
    until("its place is free", || {
        let mut raw = Raw::open(&broker);
        raw.send_frame(&request(18, 0, 7, &[]));
        match raw.0.peek(&mut [0]) {
            Ok(1) => Ok(()),
            other => Err(other),
        }
    });
    assert!(is_served(&mut other) && allowed.iter_mut().all(is_served));
    broker.wait_for_line("its address has enough");
}

#[test]
fn connections_that_come_too_fast_are_accepted_later() {
    let home = Home::new(&["max.connection.creation.rate=20"]);
    let broker = home.start();
    let began = Instant::now();
    let mut raws: Vec<Raw> = (0..60).map(|_| Raw::open(&broker)).collect();
    assert!(raws.iter_mut().all(is_served));
    // Twenty at once, and forty at twenty a second.
    assert!(began.elapsed() > Duration::from_millis(1_900), "{:?}", began.elapsed());
}

#[test]
fn few_descriptors_serve_many_partitions_and_hold_back_connections() {
    const LIMIT: u32 = 130;
    const PARTITIONS: i32 = 120;
    let home = Home::new(&[]);
    let broker = home.start_with_descriptors(LIMIT);
    let mut good = connect(&broker);
    create(&mut good, "many", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        append(&mut good, "many", partition, &[format!("{partition}").as_bytes()]);
    }
    let mut crowd: Vec<Raw> = (0..100).map(|_| Raw::open(&broker)).collect();
    let api_versions = request(18, 0, 1, &[]);
    crowd.iter_mut().for_each(|raw| raw.send_frame(&api_versions));
    for partition in 0..PARTITIONS {
        append(&mut good, "many", partition, &[b"again"]);
        let values: Vec<Vec<u8>> =
            read_all(&mut good, "many", partition).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, [format!("{partition}").into_bytes(), b"again".to_vec()]);
    }
    // One request for everything: what finds no descriptor is empty, never an error.
    let parts: Vec<(i32, i64)> = (0..PARTITIONS).map(|index| (index, 0)).collect();
    let response = good.call(&crate::wire::fetch_request("many", &parts), 12).unwrap();
    let found = &response.responses[0].partitions;
    assert!(found.iter().all(|part| part.error_code == 0));
    assert!(found.iter().any(|part| part.records.as_ref().is_some_and(|records| !records.is_empty())));
    assert!(broker.descriptors() <= LIMIT as usize);
    let offline = broker.lines().iter().any(|line| line.contains("offline") || line.contains("failed"));
    assert!(!offline, "{:?}", broker.lines());
    // Whoever leaves makes room for those who wait.
    let mut served = 0;
    while let Some(mut raw) = (!crowd.is_empty()).then(|| crowd.remove(0)) {
        assert_eq!(raw.frame()[..4], [0, 0, 0, 1]);
        served += 1;
    }
    assert_eq!(served, 100);
    assert_eq!(broker.stop(), Some(0));
}
