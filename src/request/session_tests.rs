//! What sessions remember, and who makes room.

use super::*;

fn wanted(fetch_offset: i64) -> Wanted {
    Wanted {
        fetch_offset,
        max_bytes: 1,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
    }
}

fn topic() -> TopicKey {
    TopicKey::Name("t".into())
}

fn list(indexes: std::ops::Range<i32>) -> impl Iterator<Item = (TopicKey, i32, Wanted)> {
    indexes.map(|index| (topic(), index, wanted(0)))
}

const CONSUMER: NewSession = NewSession { privileged: false, by_id: false };

fn make(sessions: &mut FetchSessions, now_ms: u64, partitions: i32) -> i32 {
    sessions.make(now_ms, CONSUMER, list(0..partitions), |_| None)
}

fn indexes(list: &[Asked]) -> Vec<i32> {
    list.iter().map(|asked| asked.index).collect()
}

fn touch(sessions: &mut FetchSessions, id: i32, now_ms: u64) -> Vec<i32> {
    let list = sessions.update(id, now_ms, std::iter::empty(), std::iter::empty(), |_| None);
    indexes(&list.unwrap())
}

#[test]
fn a_session_goes_on_with_the_next_epoch_only() {
    let mut sessions = FetchSessions::new(ShardId(3), 10);
    assert_eq!(sessions.enter(0, 0, false), Ok(SessionUse::Make));
    let id = make(&mut sessions, 0, 2);
    assert_eq!(id & 0x3ff, 3);
    assert_eq!(sessions.enter(id, 2, false), Err(ErrorCode::InvalidFetchSessionEpoch));
    assert_eq!(sessions.enter(id, 1, true), Err(ErrorCode::FetchSessionTopicIdError));
    assert_eq!(sessions.enter(id, 1, false), Ok(SessionUse::Continue { id, epoch_next: 2 }));
    assert!(!sessions.has_gone_on(id, 2));
    assert_eq!(sessions.enter(id, 2, false), Ok(SessionUse::Continue { id, epoch_next: 3 }));
    assert!(sessions.has_gone_on(id, 2));
    assert_eq!(sessions.enter(id, -1, false), Ok(SessionUse::None));
    assert_eq!(sessions.enter(id, 3, false), Err(ErrorCode::FetchSessionIdNotFound));
    assert!(!sessions.has_gone_on(id, 2), "what is gone has not gone on");
    assert_eq!(epoch_after(i32::MAX), 1);
}

#[test]
fn changes_and_forgotten_partitions_are_remembered() {
    let mut sessions = FetchSessions::new(ShardId(0), 10);
    let id = make(&mut sessions, 0, 3);
    let change = [(topic(), 1, wanted(7))].into_iter();
    let all = sessions.update(id, 0, change, [(topic(), 0)].into_iter(), |_| None);
    let all = all.unwrap();
    let offsets = all.iter().map(|asked| (asked.index, asked.wanted.fetch_offset));
    assert_eq!(offsets.collect::<Vec<_>>(), [(1, 7), (2, 0)]);
    let forgotten = [(topic(), 1), (topic(), 2)].into_iter();
    let none = sessions.update(id, 0, std::iter::empty(), forgotten, |_| None);
    assert!(none.unwrap().is_empty());
    assert_eq!(sessions.partitions, 0);
    assert!(sessions.sessions.is_empty());
}

#[test]
fn a_session_cannot_grow_beyond_what_a_shard_remembers() {
    let mut sessions = FetchSessions::new(ShardId(0), 10);
    let id = make(&mut sessions, 0, 1);
    let many = list(0..PARTITIONS_MAX as i32 + 1);
    let refused = sessions.update(id, 0, many, std::iter::empty(), |_| None);
    assert_eq!(refused.unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    assert_eq!((sessions.partitions, sessions.sessions.len()), (0, 0));
    assert_eq!(make(&mut sessions, 0, PARTITIONS_MAX as i32 + 1), 0);
}

#[test]
fn a_partition_is_told_when_something_changed_and_then_waits_its_turn() {
    let mut sessions = FetchSessions::new(ShardId(0), 10);
    let id = make(&mut sessions, 0, 2);
    let told = Told {
        high_watermark: 5,
        log_start_offset: 0,
        records_bytes: 10,
        is_error: false,
        is_diverging: false,
        may_rest: false,
    };
    assert!(sessions.must_tell(id, &topic(), 0, &told));
    assert_eq!(touch(&mut sessions, id, 0), [1, 0]);
    let quiet = Told { records_bytes: 0, ..told };
    assert!(!sessions.must_tell(id, &topic(), 0, &quiet));
    let failed = Told { is_error: true, ..quiet };
    assert!(sessions.must_tell(id, &topic(), 0, &failed));
    assert!(sessions.must_tell(id, &topic(), 0, &quiet));
    assert!(!sessions.must_tell(id, &topic(), 0, &quiet));
}

#[test]
fn a_full_table_gives_room_from_the_idle_first() {
    let mut sessions = FetchSessions::new(ShardId(0), 2);
    let (first, second) = (make(&mut sessions, 0, 1), make(&mut sessions, 1, 1));
    touch(&mut sessions, first, 2);
    assert_eq!(make(&mut sessions, EVICT_IDLE_MS + 1, 9), 0, "nobody is idle and nobody is old");
    let third = make(&mut sessions, EVICT_IDLE_MS + 2, 1);
    assert!(third != 0 && !sessions.sessions.contains_key(&second));
    assert_eq!((sessions.sessions.len(), sessions.partitions), (2, 2));
}

#[test]
fn of_the_old_the_smallest_makes_room_for_a_larger_one() {
    let mut sessions = FetchSessions::new(ShardId(0), 2);
    let (large, small) = (make(&mut sessions, 0, 5), make(&mut sessions, 0, 3));
    let now_ms = EVICT_IDLE_MS + 1;
    for id in [large, small] {
        touch(&mut sessions, id, now_ms);
    }
    assert_eq!(make(&mut sessions, now_ms, 3), 0, "no larger than what is there");
    let new = make(&mut sessions, now_ms, 4);
    assert!(new != 0 && sessions.sessions.contains_key(&large));
    assert!(!sessions.sessions.contains_key(&small));
    assert_eq!(make(&mut sessions, now_ms, 5), 0, "the new one is not old, the large one not smaller");
}

#[test]
fn a_session_goes_on_where_its_connection_goes() {
    let (mut from, mut to) = (FetchSessions::new(ShardId(0), 10), FetchSessions::new(ShardId(1), 1));
    let id = make(&mut from, 0, 3);
    assert_eq!((from.take_used(), from.take_used()), (Some(id), None));
    assert_eq!(from.enter(id, 1, false), Ok(SessionUse::Continue { id, epoch_next: 2 }));
    assert_eq!(from.take_used(), Some(id));
    to.take_in(1, from.send_off(id).unwrap());
    assert!(from.send_off(id).is_none());
    assert_eq!((from.partitions, to.partitions), (0, 3));
    assert_eq!(from.enter(id, 2, false), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(to.enter(id, 2, false), Ok(SessionUse::Continue { id, epoch_next: 3 }));
    assert_eq!(touch(&mut to, id, 1), [0, 1, 2]);
    // Where there is no room for it, it is lost, and nothing else is.
    let late = make(&mut from, 2, 3);
    to.take_in(2, from.send_off(late).unwrap());
    assert_eq!(to.enter(late, 1, false), Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!((to.partitions, to.sessions.len()), (3, 1));
}

#[test]
fn a_follower_displaces_a_consumer_of_any_size_and_is_not_displaced() {
    let mut sessions = FetchSessions::new(ShardId(0), 1);
    let consumer = make(&mut sessions, 0, 5);
    let follower = NewSession { privileged: true, by_id: true };
    let id = sessions.make(1, follower, list(0..1), |_| None);
    assert!(id != 0 && !sessions.sessions.contains_key(&consumer));
    touch(&mut sessions, id, EVICT_IDLE_MS + 2);
    assert_eq!(make(&mut sessions, EVICT_IDLE_MS + 2, 9), 0);
}

#[test]
fn a_topics_name_is_remembered_from_when_it_was_first_known() {
    let mut sessions = FetchSessions::new(ShardId(0), 1);
    let by_id = NewSession { privileged: false, by_id: true };
    let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let list = ids.iter().map(|id| (TopicKey::Id(*id), 0, wanted(0)));
    let name: Arc<str> = "t".into();
    let id = sessions.make(0, by_id, list, |id| (id == ids[0]).then(|| name.clone()));
    assert_eq!(ids.map(|topic| sessions.name_of(id, topic).is_some()), [true, false]);
    let later = |topic| (topic == ids[1]).then(|| name.clone());
    sessions.update(id, 0, std::iter::empty(), std::iter::empty(), later).unwrap();
    assert_eq!(ids.map(|topic| sessions.name_of(id, topic).is_some()), [true, true]);
    // What is forgotten is not remembered by name either.
    let unknown = Uuid::from_u128(3);
    let added = [(TopicKey::Id(unknown), 0, wanted(0)), (TopicKey::Id(ids[0]), 1, wanted(0))];
    let forgotten = [unknown, ids[0], ids[1]].map(|topic| (TopicKey::Id(topic), 0));
    sessions.update(id, 0, added.into_iter(), forgotten.into_iter(), |_| None).unwrap();
    let session = &sessions.sessions[&id];
    assert_eq!(session.names.keys().collect::<Vec<_>>(), [&ids[0]]);
    assert!(session.nameless.is_empty());
}
