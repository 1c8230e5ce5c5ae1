//! Rounds against a leader in memory that keeps sessions as KIP-227 says.

use super::*;
use crate::wire::TopicRef;
use crate::wire::fetch::{FetchPartition, FetchRequest};
use crate::wire::fetch_response::{EpochEnd, FetchPartitionResponse, FetchResponseHead, FetchResponseWriter};
use crate::wire::fetch_round::FETCH_ROUND_VERSION;
use crate::wire::outbound;

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, wall_ms: 0 }
}

fn key(topic: u128, index: i32) -> ReplicaKey {
    (Uuid::from_u128(topic), index)
}

fn position(fetch_offset: i64) -> FetchPosition {
    FetchPosition { leader: 2, leader_epoch: 5, fetch_offset, last_fetched_epoch: 4, log_start_offset: 0 }
}

fn fetcher() -> Fetcher {
    Fetcher::new(1, FetchRules::default())
}

fn round(fetcher: &mut Fetcher, now_ms: u64) -> Option<FetchRequest> {
    let body = fetcher.next_round(at(now_ms))?;
    Some(FetchRequest::parse(body.freeze(), FETCH_ROUND_VERSION).unwrap())
}

fn entries(request: &FetchRequest) -> Vec<(ReplicaKey, FetchPartition)> {
    let id = |topic: TopicRef<'_>| match topic {
        TopicRef::Id(id) => id,
        TopicRef::Name(_) => panic!("topics go by id"),
    };
    let of_topic = |topic: crate::wire::topics::Topic<'_, FetchPartition>| {
        let id = id(topic.topic);
        topic.partitions.map(move |partition| ((id, partition.index), partition)).collect::<Vec<_>>()
    };
    request.topics().flat_map(of_topic).collect()
}

fn asked(request: &FetchRequest) -> Vec<(ReplicaKey, i64)> {
    entries(request).iter().map(|(key, partition)| (*key, partition.fetch_offset)).collect()
}

fn forgotten(request: &FetchRequest) -> Vec<ReplicaKey> {
    let mut keys = Vec::new();
    for topic in request.forgotten() {
        let TopicRef::Id(id) = topic.topic else { panic!("topics go by id") };
        keys.extend(topic.partitions.map(|index| (id, index)));
    }
    keys
}

/// What the leader says of one partition.
#[derive(Clone)]
struct Told {
    key: ReplicaKey,
    error: Option<ErrorCode>,
    diverging: Option<(i32, i64)>,
    records: Vec<u8>,
}

fn told(key: ReplicaKey, records: &[u8]) -> Told {
    Told { key, error: None, diverging: None, records: records.to_vec() }
}

fn answer(error: Option<ErrorCode>, session_id: i32, throttle_time_ms: i32, parts: &[Told]) -> Bytes {
    let mut buffer = BytesMut::new();
    let head = FetchResponseHead { throttle_time_ms, error, session_id };
    let version = FETCH_ROUND_VERSION;
    let mut writer = FetchResponseWriter::new(&mut buffer, version, 0, head, parts.len() as u32);
    for part in parts {
        writer.topic(TopicRef::Id(part.key.0), 1);
        let empty = FetchPartitionResponse::error(part.key.1, ErrorCode::UnknownServerError);
        let diverging_epoch = part.diverging.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
        let fields =
            FetchPartitionResponse { error: part.error, high_watermark: 7, diverging_epoch, ..empty };
        writer.partition_inline(&fields, &part.records);
    }
    writer.finish(&[]);
    outbound::answer(&buffer.freeze().slice(4..)).unwrap().1
}

fn take(fetcher: &mut Fetcher, now_ms: u64, body: Bytes) -> Vec<Part> {
    let mut parts = Vec::new();
    fetcher.answered(at(now_ms), body, &mut parts).unwrap();
    parts
}

#[test]
fn the_first_round_names_everything_and_later_ones_what_moved() {
    let mut fetcher = fetcher();
    assert!(round(&mut fetcher, 0).is_none(), "nobody follows");
    fetcher.set_broker_epoch(99);
    for index in 0..3 {
        fetcher.want(key(1, index), Some(position(10)));
    }
    let first = round(&mut fetcher, 0).unwrap();
    assert_eq!((first.session_id, first.session_epoch), (0, 0));
    assert_eq!((first.replica_id, first.replica_epoch), (1, 99));
    assert_eq!(asked(&first), [(key(1, 0), 10), (key(1, 1), 10), (key(1, 2), 10)]);
    assert!(round(&mut fetcher, 0).is_none(), "one at a time");
    let everything = [told(key(1, 0), b"abc"), told(key(1, 1), b""), told(key(1, 2), b"")];
    let parts = take(&mut fetcher, 1, answer(None, 33, 0, &everything));
    assert_eq!(parts.len(), 3);
    assert_eq!((parts[0].0, parts[0].1, &parts[0].2.records[..]), (key(1, 0), position(10), &b"abc"[..]));
    for (key, position, part) in parts {
        let end = position.fetch_offset + part.records.len() as i64;
        fetcher.want(key, Some(FetchPosition { fetch_offset: end, ..position }));
    }
    let second = round(&mut fetcher, 1).unwrap();
    assert_eq!((second.session_id, second.session_epoch), (33, 1));
    assert_eq!(asked(&second), [(key(1, 0), 13)]);
    assert!(take(&mut fetcher, 2, answer(None, 33, 0, &[])).is_empty(), "nothing has changed");
    fetcher.leave(key(1, 1));
    let third = round(&mut fetcher, 2).unwrap();
    assert_eq!((third.session_epoch, asked(&third)), (2, vec![]));
    assert_eq!(forgotten(&third), [key(1, 1)]);
    take(&mut fetcher, 3, answer(None, 33, 0, &[]));
    (0..3).for_each(|index| fetcher.leave(key(1, index)));
    assert!(round(&mut fetcher, 3).is_none(), "nobody follows any more");
}

#[test]
fn a_round_waits_a_little_for_those_that_write() {
    let mut fetcher = fetcher();
    fetcher.want(key(1, 0), Some(position(0)));
    fetcher.want(key(1, 1), Some(position(0)));
    round(&mut fetcher, 0).unwrap();
    take(&mut fetcher, 100, answer(None, 33, 0, &[told(key(1, 0), b"abc"), told(key(1, 1), b"")]));
    fetcher.want(key(1, 0), None);
    assert!(round(&mut fetcher, 100).is_none(), "it is being written");
    assert_eq!((fetcher.next_wake_ms(true), fetcher.next_wake_ms(false)), (Some(120), None));
    let mut other = fetcher_of(&fetcher);
    other.want(key(1, 0), Some(position(3)));
    assert_eq!(asked(&round(&mut other, 101).unwrap()), [(key(1, 0), 3)], "and at once when it is written");
    let late = round(&mut fetcher, 120).unwrap();
    assert_eq!((asked(&late), forgotten(&late)), (vec![], vec![key(1, 0)]), "but not for ever");
}

/// The same fetcher again, for two ways to go on.
#[test]
fn a_round_that_is_held_back_is_nudged_once_when_there_is_more_to_ask() {
    let mut fetcher = fetcher();
    fetcher.want(key(1, 0), Some(position(10)));
    round(&mut fetcher, 0).unwrap();
    assert!(fetcher.next_wake_ms(true).is_none() && fetcher.take_nudge(at(500)).is_none(), "nothing more");
    fetcher.want(key(1, 1), Some(position(20)));
    assert_eq!(fetcher.next_wake_ms(true), Some(10));
    assert!(fetcher.take_nudge(at(9)).is_none(), "it may be on its way");
    let nudge =
        FetchRequest::parse(fetcher.take_nudge(at(10)).unwrap().freeze(), FETCH_ROUND_VERSION).unwrap();
    assert_eq!((nudge.session_id, nudge.session_epoch, nudge.max_wait_ms), (0, -1, 0));
    assert!(asked(&nudge).is_empty() && nudge.replica_id == 1);
    assert!(fetcher.take_nudge(at(20)).is_none() && fetcher.next_wake_ms(true).is_none(), "once");
    take(&mut fetcher, 21, answer(None, 33, 0, &[told(key(1, 0), b"")]));
    let second = round(&mut fetcher, 21).unwrap();
    assert_eq!((second.session_epoch, asked(&second)), (1, vec![(key(1, 1), 20)]));
    fetcher.leave(key(1, 0));
    assert_eq!(fetcher.next_wake_ms(true), Some(31));
    fetcher.lost();
    assert!(fetcher.take_nudge(at(40)).is_none(), "there is no round");
}

fn fetcher_of(fetcher: &Fetcher) -> Fetcher {
    Fetcher {
        replicas: fetcher.replicas.clone(),
        changed: fetcher.changed.clone(),
        resting: fetcher.resting.clone(),
        settling: fetcher.settling.clone(),
        ..*fetcher
    }
}

#[test]
fn errors_rest_longer_each_time_and_a_new_position_ends_the_first_rest() {
    let mut fetcher = fetcher();
    let one = key(1, 0);
    fetcher.want(one, Some(position(5)));
    let refused = |error| Told { error: Some(error), ..told(one, b"") };
    let mut now_ms = 0;
    for rest_ms in [20, 40, 80, 160, 320, 640, 1_000, 1_000] {
        round(&mut fetcher, now_ms).unwrap();
        let refusal = refused(ErrorCode::UnknownLeaderEpoch);
        let parts = take(&mut fetcher, now_ms, answer(None, 0, 0, &[refusal]));
        assert_eq!(parts[0].2.error, Some(ErrorCode::UnknownLeaderEpoch));
        fetcher.want(one, Some(position(5)));
        assert_eq!(fetcher.next_wake_ms(true), Some(now_ms + rest_ms));
        fetcher.wake(at(now_ms + rest_ms - 1));
        assert!(round(&mut fetcher, now_ms + rest_ms - 1).is_none());
        now_ms += rest_ms;
        fetcher.wake(at(now_ms));
    }
    round(&mut fetcher, now_ms).unwrap();
    take(&mut fetcher, now_ms, answer(None, 0, 0, &[told(one, b"")]));
    round(&mut fetcher, now_ms).unwrap();
    take(&mut fetcher, now_ms, answer(None, 0, 0, &[refused(ErrorCode::OffsetOutOfRange)]));
    fetcher.want(one, Some(position(50)));
    assert_eq!(asked(&round(&mut fetcher, now_ms).unwrap()), [(one, 50)], "that was the answer to it");
    take(&mut fetcher, now_ms, answer(None, 0, 0, &[refused(ErrorCode::OffsetOutOfRange)]));
    fetcher.want(one, Some(position(5)));
    assert!(round(&mut fetcher, now_ms).is_none(), "but not time and again");
}

#[test]
fn a_lost_session_is_made_again_at_once_and_other_refusals_rest() {
    let mut fetcher = fetcher();
    fetcher.want(key(1, 0), Some(position(5)));
    round(&mut fetcher, 0).unwrap();
    take(&mut fetcher, 0, answer(None, 33, 0, &[]));
    let mut others = [ErrorCode::FetchSessionIdNotFound, ErrorCode::InvalidFetchSessionEpoch].into_iter();
    for (id, error) in [(0, others.next()), (33, others.next())] {
        fetcher.want(key(1, 0), Some(position(6)));
        let incremental = round(&mut fetcher, 1).unwrap();
        assert_eq!((incremental.session_id, incremental.session_epoch), (33, 1));
        take(&mut fetcher, 1, answer(error, 0, 0, &[]));
        let full = round(&mut fetcher, 1).unwrap();
        assert_eq!((full.session_id, full.session_epoch), (id, 0), "it ends the one that may be there");
        assert_eq!(asked(&full), [(key(1, 0), 6)]);
        take(&mut fetcher, 1, answer(None, 33, 0, &[]));
        fetcher.want(key(1, 0), Some(position(5)));
    }
    round(&mut fetcher, 1).unwrap();
    take(&mut fetcher, 1, answer(Some(ErrorCode::UnknownServerError), 0, 0, &[]));
    assert!(round(&mut fetcher, 20).is_none());
    assert_eq!(fetcher.next_wake_ms(true), Some(21));
    round(&mut fetcher, 21).unwrap();
    take(&mut fetcher, 21, answer(None, 0, 70, &[]));
    assert!(round(&mut fetcher, 90).is_none(), "the leader asked to be left alone");
    assert!(round(&mut fetcher, 91).is_some());
}

#[test]
fn a_lost_link_and_an_answer_to_something_else_begin_anew() {
    let mut fetcher = fetcher();
    fetcher.want(key(1, 0), Some(position(5)));
    round(&mut fetcher, 0).unwrap();
    fetcher.lost();
    let again = round(&mut fetcher, 0).unwrap();
    assert_eq!((again.session_epoch, asked(&again)), (0, vec![(key(1, 0), 5)]));
    let parts = take(&mut fetcher, 1, answer(None, 33, 0, &[told(key(9, 9), b"what?")]));
    assert!(parts.is_empty());
    let again = round(&mut fetcher, 1).unwrap();
    assert_eq!((again.session_id, again.session_epoch), (33, 0));
    assert!(fetcher.answered(at(1), Bytes::from_static(b"nonsense"), &mut Vec::new()).is_err());
    fetcher.lost();
    assert_eq!(round(&mut fetcher, 1).unwrap().session_epoch, 0);
}

#[test]
fn a_replica_that_is_held_is_not_asked_for_whatever_its_position() {
    let mut fetcher = fetcher();
    fetcher.want(key(1, 0), Some(position(5)));
    fetcher.hold(key(1, 0), 500);
    fetcher.want(key(1, 0), Some(position(6)));
    assert!(round(&mut fetcher, 499).is_none());
    assert_eq!(fetcher.next_wake_ms(true), Some(500));
    fetcher.wake(at(500));
    assert_eq!(asked(&round(&mut fetcher, 500).unwrap()), [(key(1, 0), 6)]);
}

/// A leader with sessions: what it knows of each partition, and how long each log is.
#[derive(Default)]
struct Leader {
    logs: BTreeMap<ReplicaKey, i64>,
    sessions: BTreeMap<i32, (i32, BTreeMap<ReplicaKey, i64>)>,
    next_id: i32,
}

impl Leader {
    fn serve(&mut self, request: &FetchRequest, random: &mut fastrand::Rng, is_calm: bool) -> Bytes {
        if !is_calm && random.u8(0..20) == 0 {
            self.sessions.clear();
        }
        let epoch = request.session_epoch;
        let (id, session) = if epoch == 0 {
            self.sessions.remove(&request.session_id);
            self.next_id += 1;
            (self.next_id, (1, BTreeMap::new()))
        } else {
            match self.sessions.remove(&request.session_id) {
                Some((expected, known)) if expected == epoch => (request.session_id, (epoch + 1, known)),
                _ => return answer(Some(ErrorCode::FetchSessionIdNotFound), 0, 0, &[]),
            }
        };
        let (epoch_next, mut known) = session;
        known.extend(asked(request));
        known.retain(|key, _| !forgotten(request).contains(key));
        let mut parts = Vec::new();
        for (key, offset) in &known {
            let end = self.logs[key];
            if !is_calm && random.u8(0..10) == 0 {
                parts.push(Told { error: Some(ErrorCode::NotLeaderOrFollower), ..told(*key, b"") });
            } else if *offset < end {
                // A record says its offset in one byte.
                let records: Vec<u8> = (*offset..end.min(offset + 3)).map(|offset| offset as u8).collect();
                parts.push(told(*key, &records));
            } else if epoch == 0 {
                parts.push(told(*key, b""));
            }
        }
        random.shuffle(&mut parts);
        if random.u8(0..15) == 0 && !is_calm {
            // No room for a session.
            return answer(None, 0, 0, &parts);
        }
        self.sessions.insert(id, (epoch_next, known));
        answer(None, id, 0, &parts)
    }
}

#[test]
fn any_order_of_rounds_losses_and_moves_brings_every_record_once_and_in_order() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut fetcher, mut leader) = (fetcher(), Leader::default());
        let mut copies: BTreeMap<ReplicaKey, i64> = BTreeMap::new();
        let keys: Vec<ReplicaKey> = (0..6).map(|n| key(1 + n as u128 % 2, n)).collect();
        for key in &keys {
            leader.logs.insert(*key, 0);
            copies.insert(*key, 0);
            fetcher.want(*key, Some(position(0)));
        }
        let mut now_ms = 0;
        for step in 0..400 {
            let is_calm = step >= 300;
            now_ms += random.u64(0..30) + if is_calm { 50 } else { 0 };
            fetcher.wake(at(now_ms));
            let key = keys[random.usize(..keys.len())];
            match random.u8(0..6) {
                0 if !is_calm => *leader.logs.get_mut(&key).unwrap() += random.i64(0..5),
                1 if !is_calm => fetcher.leave(key),
                2 | 3 => fetcher.want(key, Some(position(copies[&key]))),
                4 if !is_calm => fetcher.want(key, None),
                _ => {}
            }
            let Some(request) = round(&mut fetcher, now_ms) else { continue };
            if !is_calm && random.u8(0..12) == 0 {
                fetcher.lost();
                continue;
            }
            let body = leader.serve(&request, &mut random, is_calm);
            for (key, position, part) in take(&mut fetcher, now_ms, body) {
                let copy = copies.get_mut(&key).unwrap();
                assert_eq!(position.fetch_offset, *copy, "seed {seed}: positions are those that were asked");
                for (offset, record) in (*copy..).zip(&part.records) {
                    assert_eq!(*record, offset as u8, "seed {seed}: what was asked is what came");
                }
                *copy += part.records.len() as i64;
                if is_calm || random.bool() {
                    let next = FetchPosition { fetch_offset: *copy, ..position };
                    fetcher.want(key, Some(next));
                } else {
                    fetcher.want(key, None);
                }
            }
        }
        for key in &keys {
            fetcher.want(*key, Some(position(copies[key])));
        }
        for _ in 0..40 {
            now_ms += 1_000;
            fetcher.wake(at(now_ms));
            let Some(request) = round(&mut fetcher, now_ms) else { continue };
            let body = leader.serve(&request, &mut random, true);
            for (key, position, part) in take(&mut fetcher, now_ms, body) {
                *copies.get_mut(&key).unwrap() += part.records.len() as i64;
                fetcher.want(key, Some(FetchPosition { fetch_offset: copies[&key], ..position }));
            }
        }
        assert_eq!(copies, leader.logs, "seed {seed}");
        let (_, known) = leader.sessions.values().next().expect("there is a session");
        assert_eq!(known, &copies, "seed {seed}: both know the same session");
    }
}
