//! Fetch sessions (KIP-227): what a client fetches again and again, remembered so that requests
//! and responses carry only what changed. A session lives on its connection's shard, and goes with the connection
//! that used it last when that is moved; its id names the shard that made it.
//!
//! A session knows which of its partitions have changed. One that was read in vain, and of which its client knows all
//! there is to know, *rests*: the watch that the read left lies at the partition, under the session's address
//! ([`ReplyTo::session`]), also between requests. It says when there are records, or news. So a request reads those
//! that do not rest, and costs what has changed and not what there is. Every watch has a number of its own: what one
//! says that was replaced or taken back since is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slab::Slab;
use uuid::Uuid;

use super::{Call, Timer};
use crate::controller::ShardId;
use crate::partition::{Op, ReplyTo};
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
    /// Its place in the order in which partitions are served.
    turn: u64,
    /// The watch that may lie at the partition.
    watch: Option<SessionWatch>,
    /// The watch has told that something but records is new.
    has_news: bool,
}

/// A watch that a read of a session's partition may have left.
#[derive(Clone, Copy, Debug)]
struct SessionWatch {
    topic_id: Uuid,
    to: ReplyTo,
}

/// One partition that a request of a session reads.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub topic: TopicKey,
    pub index: i32,
    pub wanted: Wanted,
    /// Where it is in its session; none without one.
    pub slot: Option<u32>,
    /// Its place in the order in which the session's partitions are served.
    pub turn: u64,
}

impl Asked {
    /// One that belongs to no session.
    pub(super) fn alone((topic, index, wanted): (TopicKey, i32, Wanted)) -> Self {
        Self { topic, index, wanted, slot: None, turn: 0 }
    }
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
    partitions: Slab<Remembered>,
    places: BTreeMap<(TopicKey, i32), u32>,
    /// Those that do not rest, in the order in which they are served: what was served goes to the end.
    changed: BTreeMap<u64, u32>,
    turn_next: u64,
    watch_next: u32,
    /// The request that waits, to be told what watches say.
    waiting: Option<ReplyTo>,
    /// The names that ids had when they were first known, and the ids that were not known yet.
    names: BTreeMap<Uuid, Arc<str>>,
    nameless: BTreeSet<Uuid>,
}

impl Session {
    fn put(&mut self, topic: TopicKey, index: i32, wanted: Wanted) {
        let place = self.places.get(&(topic.clone(), index)).copied();
        if let Some(known) = place.and_then(|slot| self.partitions.get_mut(slot as usize)) {
            known.wanted = wanted;
            self.changed.extend(place.map(|slot| (known.turn, slot)));
            return;
        }
        if let TopicKey::Id(id) = topic
            && !self.names.contains_key(&id)
        {
            self.nameless.insert(id);
        }
        self.turn_next += 1;
        let slot = self.partitions.insert(Remembered {
            topic: topic.clone(),
            index,
            wanted,
            high_watermark: -1,
            log_start_offset: -1,
            turn: self.turn_next,
            watch: None,
            has_news: false,
        }) as u32;
        self.places.insert((topic, index), slot);
        self.changed.insert(self.turn_next, slot);
    }

    fn forget(&mut self, topic: TopicKey, index: i32, calls: &mut Vec<Call>) {
        let key = (topic, index);
        let Some(slot) = self.places.remove(&key) else { return };
        if let Some(mut known) = self.partitions.try_remove(slot as usize) {
            self.changed.remove(&known.turn);
            calls.extend(known.take_back());
        }
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

    /// Those that are to be read, in the order in which they are served.
    fn list(&self) -> Vec<Asked> {
        self.changed.values().filter_map(|slot| self.asked(*slot)).collect()
    }

    fn asked(&self, slot: u32) -> Option<Asked> {
        let known = self.partitions.get(slot as usize)?;
        let Remembered { topic, index, wanted, turn, .. } = known;
        Some(Asked { topic: topic.clone(), index: *index, wanted: *wanted, slot: Some(slot), turn: *turn })
    }

    /// Takes all watches back: every partition is read again.
    fn take_back(&mut self, calls: &mut Vec<Call>) {
        for (slot, known) in &mut self.partitions {
            calls.extend(known.take_back());
            self.changed.insert(known.turn, slot as u32);
        }
    }
}

impl Remembered {
    fn take_back(&mut self) -> Option<Call> {
        let SessionWatch { topic_id, to } = self.watch.take()?;
        Some(Call { topic_id, partition: self.index, to, op: Op::Unwatch })
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
    /// Watches that are taken back.
    calls: Vec<Call>,
    /// Requests that wait for what watches of a session say that is gone.
    orphaned: Vec<ReplyTo>,
}

/// What a request of a session is to read again, since there are records.
#[derive(Debug)]
pub struct WatchFired(pub(super) Asked);

/// A session on its way to another shard.
#[derive(Debug)]
pub struct MovedSession {
    id: i32,
    session: Box<Session>,
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
        Self {
            shard,
            slots,
            sessions: BTreeMap::new(),
            partitions: 0,
            id_next: 1,
            used: None,
            calls: Vec::new(),
            orphaned: Vec::new(),
        }
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

    /// Takes a continued session's changes and lists what may have changed for it. A session that
    /// has become empty ends, and the request goes on without one; so does one that has become
    /// larger than all sessions of the shard may be, and its request is refused.
    pub(super) fn update(
        &mut self,
        id: i32,
        now_ms: u64,
        wanted: impl Iterator<Item = (TopicKey, i32, Wanted)>,
        forgotten: impl Iterator<Item = (TopicKey, i32)>,
        name_of: impl Fn(Uuid) -> Option<Arc<str>>,
    ) -> Result<Vec<Asked>, ErrorCode> {
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let before = session.partitions.len();
        session.used_ms = now_ms;
        for (topic, index, wanted) in wanted {
            session.put(topic, index, wanted);
        }
        for (topic, index) in forgotten {
            session.forget(topic, index, &mut self.calls);
        }
        session.name_topics(name_of);
        let (list, size) = (session.list(), session.partitions.len());
        self.partitions = self.partitions + size - before;
        if self.partitions > PARTITIONS_MAX {
            self.remove(id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        if size == 0 {
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

    /// Everything that a session fetches, in the order in which it is served. A request that waits for nothing reads
    /// all of it: what a watch says may still be on its way from another shard, and the request would not be there.
    pub(super) fn list_all(&self, id: i32) -> Vec<Asked> {
        let Some(session) = self.sessions.get(&id) else { return Vec::new() };
        let slots = session.partitions.iter().filter_map(|(slot, _)| session.asked(slot as u32));
        let mut all: Vec<Asked> = slots.collect();
        all.sort_by_key(|asked| asked.turn);
        all
    }

    /// Whether there is a session with this id.
    pub(super) fn knows(&self, id: i32) -> bool {
        self.sessions.contains_key(&id)
    }

    /// A request of a session is about to read a partition. Gives the address of the watch that it may leave.
    pub(super) fn watch(&mut self, id: i32, slot: Option<u32>, topic_id: Uuid) -> Option<ReplyTo> {
        let (slot, session) = (slot?, self.sessions.get_mut(&id)?);
        let known = session.partitions.get_mut(slot as usize)?;
        session.watch_next = session.watch_next.wrapping_add(1);
        let to = ReplyTo::session(self.shard.0, id, session.watch_next, slot);
        if known.watch.is_some_and(|watch| watch.topic_id != topic_id) {
            // The topic was made again under its name.
            self.calls.extend(known.take_back());
        }
        (known.watch, known.has_news) = (Some(SessionWatch { topic_id, to }), false);
        Some(to)
    }

    /// What a watch says: there are records, or there is only news. Gives the request that waits for records, and what
    /// it is to read.
    pub fn told_by_watch(&mut self, to: ReplyTo, is_news: bool) -> Option<(ReplyTo, WatchFired)> {
        let session = self.sessions.get_mut(&to.session_id()?)?;
        let known = session.partitions.get_mut(to.part as usize)?;
        if known.watch.is_none_or(|watch| watch.to != to) {
            return None;
        }
        session.changed.insert(known.turn, to.part);
        known.has_news = true;
        if is_news {
            return None;
        }
        known.watch = None;
        Some((session.waiting?, WatchFired(session.asked(to.part)?)))
    }

    /// A request of a session waits for what its watches say.
    pub(super) fn wait(&mut self, id: i32, to: ReplyTo) {
        if let Some(session) = self.sessions.get_mut(&id) {
            // One that was overtaken learns it now.
            self.orphaned.extend(session.waiting.replace(to));
        }
    }

    /// A request of a session waits no more.
    pub(super) fn waits_no_more(&mut self, id: i32, to: ReplyTo) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.waiting = session.waiting.filter(|waiting| *waiting != to);
        }
    }

    /// The connection that used a session last is gone: nobody may come for what the watches would say.
    pub fn leave(&mut self, id: i32) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| session.waiting.is_none()) {
            session.take_back(&mut self.calls);
        }
    }

    /// Hands over the watches that are taken back, and wakes who waits for a session that is gone.
    pub fn settle(&mut self, now_ms: u64, calls: &mut Vec<Call>, timers: &mut Vec<Timer>) {
        calls.append(&mut self.calls);
        timers.extend(self.orphaned.drain(..).map(|to| Timer { at_ms: now_ms, to }));
    }

    /// Takes a session out for a connection that goes to another shard. Its watches would say there what they have to
    /// say under another address: they are taken back.
    pub fn send_off(&mut self, id: i32) -> Option<MovedSession> {
        let mut session = self.sessions.remove(&id)?;
        self.partitions -= session.partitions.len();
        session.take_back(&mut self.calls);
        Some(MovedSession { id, session: Box::new(session) })
    }

    /// Takes in the session of a connection that came from another shard, if there is room by the rule for new ones.
    /// A client whose session got none is told that it is not found, and makes another.
    pub fn take_in(&mut self, now_ms: u64, MovedSession { id, session }: MovedSession) {
        let size = session.partitions.len();
        // Ids come around again after two million sessions; the last one counts.
        self.remove(id);
        if self.make_room(now_ms, session.privileged, size) {
            self.partitions += size;
            self.sessions.insert(id, *session);
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
        if let Some(mut session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
            session.take_back(&mut self.calls);
            self.orphaned.extend(session.waiting);
        }
    }

    /// Notes what a client is told of a partition and says whether it must be told at all. What
    /// was served goes to the end, so that every partition gets its turn. What has nothing more to say rests.
    pub(super) fn must_tell(&mut self, id: i32, topic: &TopicKey, index: i32, told: &Told) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return true };
        let Some(slot) = session.places.get(&(topic.clone(), index)).copied() else { return true };
        let Some(known) = session.partitions.get_mut(slot as usize) else { return true };
        let changed =
            known.high_watermark != told.high_watermark || known.log_start_offset != told.log_start_offset;
        known.high_watermark = told.high_watermark;
        known.log_start_offset = told.log_start_offset;
        if told.is_error || told.is_diverging {
            // Told again next time, whatever comes then.
            known.high_watermark = -1;
        }
        if told.records_bytes > 0 {
            session.changed.remove(&known.turn);
            session.turn_next += 1;
            known.turn = session.turn_next;
            session.changed.insert(known.turn, slot);
        } else if told.may_rest && !told.is_error && !known.has_news && known.watch.is_some() {
            session.changed.remove(&known.turn);
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
    /// Nothing was there, and a watch waits for what comes.
    pub may_rest: bool,
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
