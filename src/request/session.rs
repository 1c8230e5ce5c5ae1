//! Fetch sessions (KIP-227): what a client fetches again and again, remembered so that requests
//! and responses carry only what changed. A session lives on its connection's shard, and its id
//! names that shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::controller::ShardId;
use crate::wire::{ErrorCode, TopicRef};

/// A session that was idle for this long makes room for a new one (Kafka's fixed value).
const EVICT_IDLE_MS: u64 = 120_000;
/// Partitions that the sessions of one shard may remember together.
const PARTITIONS_MAX: usize = 100_000;

/// How a request names a topic, and how its response does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TopicKey {
    /// Before version 13.
    Name(Arc<str>),
    /// From version 13 on.
    Id(Uuid),
}

impl TopicKey {
    /// As it stands in a response.
    pub(super) fn as_ref(&self) -> TopicRef<'_> {
        match self {
            Self::Name(name) => TopicRef::Name(name),
            Self::Id(id) => TopicRef::Id(*id),
        }
    }
}

/// What a request says of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub fetch_offset: i64,
    pub max_bytes: i32,
    pub current_leader_epoch: i32,
}

/// One partition of a session, with what its client was told last.
#[derive(Clone, Debug)]
struct Remembered {
    topic: TopicKey,
    index: i32,
    wanted: Wanted,
    high_watermark: i64,
    log_start_offset: i64,
}

/// One client's session.
#[derive(Debug, Default)]
struct Session {
    /// Epoch that the next request must carry.
    epoch: i32,
    used_ms: u64,
    /// In the order in which they are served: what was served goes to the end.
    partitions: BTreeMap<u64, Remembered>,
    places: BTreeMap<(TopicKey, i32), u64>,
    place_next: u64,
}

impl Session {
    fn put(&mut self, topic: TopicKey, index: i32, wanted: Wanted) {
        let place = *self.places.entry((topic.clone(), index)).or_insert_with(|| {
            self.place_next += 1;
            self.place_next
        });
        let fresh = Remembered { topic, index, wanted, high_watermark: -1, log_start_offset: -1 };
        self.partitions.entry(place).and_modify(|known| known.wanted = wanted).or_insert(fresh);
    }

    fn forget(&mut self, topic: TopicKey, index: i32) {
        if let Some(place) = self.places.remove(&(topic, index)) {
            self.partitions.remove(&place);
        }
    }

    fn list(&self) -> Vec<(TopicKey, i32, Wanted)> {
        self.partitions.values().map(|p| (p.topic.clone(), p.index, p.wanted)).collect()
    }
}

/// What a fetch request is to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionUse {
    /// No session: everything is answered.
    None,
    /// Everything is answered, and a session is made of it if there is room.
    Make,
    /// Only what changed is answered.
    Continue(i32),
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct FetchSessions {
    shard: ShardId,
    slots: usize,
    sessions: BTreeMap<i32, Session>,
    partitions: usize,
    id_next: u32,
}

impl FetchSessions {
    /// No session yet, and room for so many.
    pub fn new(shard: ShardId, slots: usize) -> Self {
        Self { shard, slots, sessions: BTreeMap::new(), partitions: 0, id_next: 1 }
    }

    /// Finds out what a request's session id and epoch mean. An epoch of 0 or −1 ends the session
    /// that is named; an epoch of 0 then asks for a new one.
    pub(super) fn enter(&mut self, id: i32, epoch: i32, by_id: bool) -> Result<SessionUse, ErrorCode> {
        if epoch <= 0 {
            self.remove(id);
            return Ok(if epoch == 0 { SessionUse::Make } else { SessionUse::None });
        }
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        let same_names = |key: &(TopicKey, i32)| matches!(key.0, TopicKey::Id(_)) == by_id;
        if !session.places.keys().next().is_none_or(same_names) {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        // The epoch after the last one is 1, as 0 asks for a new session.
        session.epoch = epoch.checked_add(1).unwrap_or(1);
        Ok(SessionUse::Continue(id))
    }

    /// Takes a continued session's changes and lists everything that it fetches. A session that
    /// has become empty ends, and the request goes on without one.
    pub(super) fn update(
        &mut self,
        id: i32,
        now_ms: u64,
        wanted: impl Iterator<Item = (TopicKey, i32, Wanted)>,
        forgotten: impl Iterator<Item = (TopicKey, i32)>,
    ) -> Vec<(TopicKey, i32, Wanted)> {
        let Some(session) = self.sessions.get_mut(&id) else { return Vec::new() };
        let before = session.partitions.len();
        session.used_ms = now_ms;
        for (topic, index, wanted) in wanted {
            session.put(topic, index, wanted);
        }
        for (topic, index) in forgotten {
            session.forget(topic, index);
        }
        let list = session.list();
        self.partitions = self.partitions + list.len() - before;
        if list.is_empty() {
            self.remove(id);
        }
        list
    }

    /// Makes a session of a full request if there is room; 0 if there is none.
    pub(super) fn make(&mut self, now_ms: u64, list: impl Iterator<Item = (TopicKey, i32, Wanted)>) -> i32 {
        let mut session = Session { epoch: 1, used_ms: now_ms, ..Session::default() };
        for (topic, index, wanted) in list {
            session.put(topic, index, wanted);
        }
        let fits = |this: &Self| {
            this.sessions.len() < this.slots && this.partitions + session.partitions.len() <= PARTITIONS_MAX
        };
        if !fits(self) {
            self.evict_idle(now_ms);
        }
        if session.partitions.is_empty() || !fits(self) {
            return 0;
        }
        let id = self.free_id();
        self.partitions += session.partitions.len();
        self.sessions.insert(id, session);
        id
    }

    fn evict_idle(&mut self, now_ms: u64) {
        let idle = self.sessions.iter().min_by_key(|(_, session)| session.used_ms);
        if let Some((&id, session)) = idle
            && now_ms.saturating_sub(session.used_ms) > EVICT_IDLE_MS
        {
            self.remove(id);
        }
    }

    /// Ids are positive; the low 10 bits name the shard.
    fn free_id(&mut self) -> i32 {
        loop {
            self.id_next = (self.id_next + 1) % (1 << 21);
            let id = (self.id_next << 10 | u32::from(self.shard.0) & 0x3ff) as i32;
            if id > 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }

    /// Notes what a client is told of a partition and says whether it must be told at all. What
    /// was served goes to the end, so that every partition gets its turn.
    pub(super) fn must_tell(&mut self, id: i32, topic: &TopicKey, index: i32, told: &Told) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return true };
        let Some(place) = session.places.get_mut(&(topic.clone(), index)) else { return true };
        let Some(known) = session.partitions.get_mut(place) else { return true };
        let changed =
            known.high_watermark != told.high_watermark || known.log_start_offset != told.log_start_offset;
        known.high_watermark = told.high_watermark;
        known.log_start_offset = told.log_start_offset;
        if told.is_error {
            // Told again next time, whatever comes then.
            known.high_watermark = -1;
        }
        if told.records_bytes > 0 {
            let served = session.partitions.remove(place);
            session.place_next += 1;
            *place = session.place_next;
            session.partitions.extend(served.map(|served| (session.place_next, served)));
        }
        changed || told.is_error || told.records_bytes > 0
    }
}

/// What a response would say of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub records_bytes: u64,
    pub is_error: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(fetch_offset: i64) -> Wanted {
        Wanted { fetch_offset, max_bytes: 1, current_leader_epoch: -1 }
    }

    fn topic() -> TopicKey {
        TopicKey::Name("t".into())
    }

    fn list(indexes: std::ops::Range<i32>) -> impl Iterator<Item = (TopicKey, i32, Wanted)> {
        indexes.map(|index| (topic(), index, wanted(0)))
    }

    fn nothing() -> std::iter::Empty<(TopicKey, i32)> {
        std::iter::empty()
    }

    #[test]
    fn a_session_goes_on_with_the_next_epoch_only() {
        let mut sessions = FetchSessions::new(ShardId(3), 10);
        assert_eq!(sessions.enter(0, 0, false), Ok(SessionUse::Make));
        let id = sessions.make(0, list(0..2));
        assert_eq!(id & 0x3ff, 3);
        assert_eq!(sessions.enter(id, 2, false), Err(ErrorCode::InvalidFetchSessionEpoch));
        assert_eq!(sessions.enter(id, 1, true), Err(ErrorCode::FetchSessionTopicIdError));
        assert_eq!(sessions.enter(id, 1, false), Ok(SessionUse::Continue(id)));
        assert_eq!(sessions.enter(id, 2, false), Ok(SessionUse::Continue(id)));
        assert_eq!(sessions.enter(id, -1, false), Ok(SessionUse::None));
        assert_eq!(sessions.enter(id, 3, false), Err(ErrorCode::FetchSessionIdNotFound));
    }

    #[test]
    fn changes_and_forgotten_partitions_are_remembered() {
        let mut sessions = FetchSessions::new(ShardId(0), 10);
        let id = sessions.make(0, list(0..3));
        let change = [(topic(), 1, wanted(7))].into_iter();
        let all = sessions.update(id, 0, change, [(topic(), 0)].into_iter());
        assert_eq!(all, [(topic(), 1, wanted(7)), (topic(), 2, wanted(0))]);
        let none = sessions.update(id, 0, std::iter::empty(), [(topic(), 1), (topic(), 2)].into_iter());
        assert!(none.is_empty());
        assert_eq!(sessions.partitions, 0);
        assert!(sessions.sessions.is_empty());
    }

    #[test]
    fn a_partition_is_told_when_something_changed_and_then_waits_its_turn() {
        let mut sessions = FetchSessions::new(ShardId(0), 10);
        let id = sessions.make(0, list(0..2));
        let told = Told { high_watermark: 5, log_start_offset: 0, records_bytes: 10, is_error: false };
        assert!(sessions.must_tell(id, &topic(), 0, &told));
        let order: Vec<i32> = sessions
            .update(id, 0, std::iter::empty(), nothing())
            .iter()
            .map(|(_, index, _)| *index)
            .collect();
        assert_eq!(order, [1, 0]);
        let quiet = Told { records_bytes: 0, ..told };
        assert!(!sessions.must_tell(id, &topic(), 0, &quiet));
        let failed = Told { is_error: true, ..quiet };
        assert!(sessions.must_tell(id, &topic(), 0, &failed));
        assert!(sessions.must_tell(id, &topic(), 0, &quiet));
        assert!(!sessions.must_tell(id, &topic(), 0, &quiet));
    }

    #[test]
    fn a_full_table_gives_room_only_from_the_idle() {
        let mut sessions = FetchSessions::new(ShardId(0), 1);
        let first = sessions.make(0, list(0..1));
        assert_eq!(sessions.make(EVICT_IDLE_MS, list(0..1)), 0);
        let second = sessions.make(EVICT_IDLE_MS + 1, list(0..1));
        assert!(second != 0 && second != first);
        assert_eq!(sessions.partitions, 1);
    }
}
