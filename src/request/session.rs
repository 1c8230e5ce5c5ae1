//! Fetch sessions (KIP-227): what a client fetches again and again, remembered so that requests
//! and responses carry only what changed. A session lives on its connection's shard, and goes with the connection
//! that used it last when that is moved; its id names the shard that made it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::controller::ShardId;
use crate::wire::{ErrorCode, TopicRef};

/// A session that was idle for longer makes room for a new one, and one that was used for longer may be
/// displaced (Kafka's fixed value).
const EVICT_IDLE_MS: u64 = 120_000;
/// Partitions that the sessions of one shard may remember together.
const PARTITIONS_MAX: usize = 100_000;

/// How a request names a topic, and how its response does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// What a replica has: the epoch of its last record, and where its log starts. -1 for unknown, and for a consumer.
    pub last_fetched_epoch: i32,
    pub log_start_offset: i64,
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
    /// It belongs to a follower: consumers do not displace it.
    privileged: bool,
    /// Its requests name topics by id.
    by_id: bool,
    created_ms: u64,
    used_ms: u64,
    /// In the order in which they are served: what was served goes to the end.
    partitions: BTreeMap<u64, Remembered>,
    places: BTreeMap<(TopicKey, i32), u64>,
    place_next: u64,
    /// The names that ids had when they were first known, and the ids that were not known yet.
    names: BTreeMap<Uuid, Arc<str>>,
    nameless: BTreeSet<Uuid>,
}

impl Session {
    fn put(&mut self, topic: TopicKey, index: i32, wanted: Wanted) {
        let place = *self.places.entry((topic.clone(), index)).or_insert_with(|| {
            self.place_next += 1;
            self.place_next
        });
        if let TopicKey::Id(id) = topic
            && !self.names.contains_key(&id)
        {
            self.nameless.insert(id);
        }
        let fresh = Remembered { topic, index, wanted, high_watermark: -1, log_start_offset: -1 };
        self.partitions.entry(place).and_modify(|known| known.wanted = wanted).or_insert(fresh);
    }

    fn forget(&mut self, topic: TopicKey, index: i32) {
        let key = (topic, index);
        let Some(place) = self.places.remove(&key) else { return };
        self.partitions.remove(&place);
        let (topic, _) = key;
        let TopicKey::Id(id) = topic else { return };
        let left = self.places.range((topic.clone(), i32::MIN)..).next();
        if left.is_none_or(|((left, _), _)| *left != topic) {
            self.names.remove(&id);
            self.nameless.remove(&id);
        }
    }

    fn name_topics(&mut self, name_of: impl Fn(Uuid) -> Option<Arc<str>>) {
        let names = &mut self.names;
        self.nameless.retain(|id| match name_of(*id) {
            Some(name) => {
                names.insert(*id, name);
                false
            }
            None => true,
        });
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
    Continue {
        /// Which session.
        id: i32,
        /// The epoch that the next request must carry.
        epoch_next: i32,
    },
}

/// A full request that asks for a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewSession {
    /// It comes from a follower.
    pub privileged: bool,
    /// It names topics by id.
    pub by_id: bool,
}

/// The epoch after another; after the last one comes 1, as 0 asks for a new session.
fn epoch_after(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct FetchSessions {
    shard: ShardId,
    slots: usize,
    sessions: BTreeMap<i32, Session>,
    partitions: usize,
    id_next: u32,
    /// Which session a request has just used.
    used: Option<i32>,
}

/// A session on its way to another shard.
#[derive(Debug)]
pub struct MovedSession {
    id: i32,
    session: Session,
}

impl MovedSession {
    /// Its id, which it keeps.
    pub fn id(&self) -> i32 {
        self.id
    }
}

impl FetchSessions {
    /// No session yet, and room for so many.
    pub fn new(shard: ShardId, slots: usize) -> Self {
        Self { shard, slots, sessions: BTreeMap::new(), partitions: 0, id_next: 1, used: None }
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
        if session.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.epoch = epoch_after(epoch);
        self.used = Some(id);
        Ok(SessionUse::Continue { id, epoch_next: session.epoch })
    }

    /// Takes a continued session's changes and lists everything that it fetches. A session that
    /// has become empty ends, and the request goes on without one; so does one that has become
    /// larger than all sessions of the shard may be, and its request is refused.
    pub(super) fn update(
        &mut self,
        id: i32,
        now_ms: u64,
        wanted: impl Iterator<Item = (TopicKey, i32, Wanted)>,
        forgotten: impl Iterator<Item = (TopicKey, i32)>,
        name_of: impl Fn(Uuid) -> Option<Arc<str>>,
    ) -> Result<Vec<(TopicKey, i32, Wanted)>, ErrorCode> {
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let before = session.partitions.len();
        session.used_ms = now_ms;
        for (topic, index, wanted) in wanted {
            session.put(topic, index, wanted);
        }
        for (topic, index) in forgotten {
            session.forget(topic, index);
        }
        session.name_topics(name_of);
        let list = session.list();
        self.partitions = self.partitions + list.len() - before;
        if self.partitions > PARTITIONS_MAX {
            self.remove(id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        if list.is_empty() {
            self.remove(id);
        }
        Ok(list)
    }

    /// Makes a session of a full request if there is room; 0 if there is none.
    pub(super) fn make(
        &mut self,
        now_ms: u64,
        NewSession { privileged, by_id }: NewSession,
        list: impl Iterator<Item = (TopicKey, i32, Wanted)>,
        name_of: impl Fn(Uuid) -> Option<Arc<str>>,
    ) -> i32 {
        let (created_ms, used_ms) = (now_ms, now_ms);
        let mut session = Session { epoch: 1, privileged, by_id, created_ms, used_ms, ..Session::default() };
        for (topic, index, wanted) in list {
            session.put(topic, index, wanted);
        }
        session.name_topics(name_of);
        let size = session.partitions.len();
        if !self.make_room(now_ms, privileged, size) {
            return 0;
        }
        let id = self.free_id();
        self.partitions += size;
        self.sessions.insert(id, session);
        self.used = Some(id);
        id
    }

    /// The session that was entered or made since the last call, for the connection to remember.
    pub fn take_used(&mut self) -> Option<i32> {
        self.used.take()
    }

    /// Takes a session out for a connection that goes to another shard.
    pub fn send_off(&mut self, id: i32) -> Option<MovedSession> {
        let session = self.sessions.remove(&id)?;
        self.partitions -= session.partitions.len();
        Some(MovedSession { id, session })
    }

    /// Takes in the session of a connection that came from another shard, if there is room by the rule for new ones.
    /// A client whose session got none is told that it is not found, and makes another.
    pub fn take_in(&mut self, now_ms: u64, MovedSession { id, session }: MovedSession) {
        let size = session.partitions.len();
        // Ids come around again after two million sessions; the last one counts.
        self.remove(id);
        if self.make_room(now_ms, session.privileged, size) {
            self.partitions += size;
            self.sessions.insert(id, session);
        }
    }

    /// Whether there is room for a session of so many partitions, if need be by giving up another one.
    fn make_room(&mut self, now_ms: u64, privileged: bool, size: usize) -> bool {
        let fits = |this: &Self| this.sessions.len() < this.slots && this.partitions + size <= PARTITIONS_MAX;
        if !fits(self) {
            self.evict(now_ms, privileged, size);
        }
        fits(self)
    }

    /// Makes room for a new session by Kafka's rule: one that was not used for two minutes goes first.
    /// Else the one that is worth least goes, if it is worth less than the new one: consumers' before
    /// followers', few partitions before many. One that was not used beyond its first two minutes is
    /// spared, but not a consumer's by a follower.
    fn evict(&mut self, now_ms: u64, privileged: bool, size: usize) {
        let idle = self.sessions.iter().min_by_key(|(_, session)| session.used_ms);
        let idle = idle.filter(|(_, session)| now_ms.saturating_sub(session.used_ms) > EVICT_IDLE_MS);
        let worth = |session: &Session| (session.privileged, session.partitions.len());
        let evictable = |session: &Session| {
            let is_old = session.used_ms.saturating_sub(session.created_ms) > EVICT_IDLE_MS;
            is_old || (privileged && !session.privileged)
        };
        let least = || {
            let evictable = self.sessions.iter().filter(|(_, session)| evictable(session));
            let least = evictable.min_by_key(|(_, session)| worth(session));
            least.filter(|(_, session)| worth(session) < (privileged, size))
        };
        if let Some(id) = idle.or_else(least).map(|(id, _)| *id) {
            self.remove(id);
        }
    }

    /// Whether a session has gone on since a request entered it: the request was repeated, and only
    /// the last of them is answered.
    pub(super) fn has_gone_on(&self, id: i32, epoch_next: i32) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.epoch != epoch_next)
    }

    /// The name that a topic had when the session first knew it.
    pub(super) fn name_of(&self, id: i32, topic_id: Uuid) -> Option<&Arc<str>> {
        self.sessions.get(&id)?.names.get(&topic_id)
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
        if told.is_error || told.is_diverging {
            // Told again next time, whatever comes then.
            known.high_watermark = -1;
        }
        if told.records_bytes > 0 {
            let served = session.partitions.remove(place);
            session.place_next += 1;
            *place = session.place_next;
            session.partitions.extend(served.map(|served| (session.place_next, served)));
        }
        changed || told.is_error || told.is_diverging || told.records_bytes > 0
    }
}

/// What a response would say of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub records_bytes: u64,
    pub is_error: bool,
    pub is_diverging: bool,
}

#[cfg(test)]
mod tests {
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

    fn touch(sessions: &mut FetchSessions, id: i32, now_ms: u64) -> Vec<i32> {
        let list = sessions.update(id, now_ms, std::iter::empty(), std::iter::empty(), |_| None);
        list.unwrap().iter().map(|(_, index, _)| *index).collect()
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
        assert_eq!(all.unwrap(), [(topic(), 1, wanted(7)), (topic(), 2, wanted(0))]);
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
        assert_eq!(refused, Err(ErrorCode::FetchSessionIdNotFound));
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
}
