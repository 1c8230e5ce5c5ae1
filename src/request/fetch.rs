//! Fetch: reads of every partition, the wait for `min_bytes`, and the byte budget in request order.
//! Replicas fetch as consumers do, up to the log end, and learn where their log and the leader's part.
//!
//! A request for one partition leaves a watch behind with its first read. A request for several
//! reads them first without watches: under load it is answered at once and has nothing to take
//! back. Only when too little is there it reads again, now leaving watches.
//!
//! A request that goes on with a session reads what does not rest there ([`super::session`]), and leaves the
//! watches to the session: nothing is taken back when it ends.

mod entering;

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use self::entering::{enter, topic_name, unknown_id};

use super::leader_hint::LeaderHints;
use super::nearer::Nearness;
use super::outbox::Outbox;
use super::refused::Refusal;
use super::session::{Asked, NewSession, SessionUse, Told, TopicKey, Wanted, WatchFired};
use super::{Call, CloseReason, ClusterView, Scene, Timer, Work};
use crate::config::CompressionType;
use crate::controller::TopicImage;
use crate::effect::ByteSpan;
use crate::partition::{Answer, Isolation, Op, Read, ReadFound, Reader, ReplyTo};
use crate::wire::ErrorCode;
use crate::wire::fetch::FetchRequest;
use crate::wire::fetch_response::{EpochEnd, FetchPartitionResponse, FetchResponseHead, FetchResponseWriter};
use crate::wire::header::RequestHeader;

/// First version whose senders know zstd (KIP-110).
const VERSION_ZSTD: i16 = 10;
/// The last version before it that is sent by clients which read zstd all the same: aiokafka, rskafka and
/// kafka-python 2.0 never went beyond it. Java's own clients without zstd send 5 to 8.
const VERSION_ZSTD_UNSAID: i16 = 4;
/// First version that names topics by id.
const VERSION_BY_ID: i16 = 13;
/// First version whose errors tell where the leader is.
const VERSION_HINTS: i16 = 16;

/// A fetch request between its start and its response.
#[derive(Debug)]
pub struct Fetch {
    parts: SmallVec<[Part; 1]>,
    session: SessionUse,
    refusal: Option<ErrorCode>,
    isolation: Isolation,
    /// Node id and broker epoch of the replica that fetches; `None` for a consumer.
    replica: Option<(i32, i64)>,
    nearness: Nearness,
    /// Topics that say `compression.type=zstd` may be read.
    reads_zstd_topics: bool,
    /// Batches of zstd may be read.
    knows_zstd: bool,
    min_bytes: u64,
    max_bytes: u64,
    outstanding: usize,
    /// When what is there is answered, in monotonic milliseconds.
    deadline_ms: u64,
    timer_set: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Reading without watches.
    First,
    /// Reading or waiting with watches left behind.
    Watching,
    /// Nothing more is read.
    Done,
}

#[derive(Debug)]
struct Part {
    topic: TopicKey,
    index: i32,
    wanted: Wanted,
    /// Where it is in the session that the request goes on with, and its place in the order there.
    slot: Option<u32>,
    turn: u64,
    found: Result<ReadFound, (ErrorCode, i64)>,
    span: Option<ByteSpan>,
    /// A watch may lie on the partition's shard.
    watched: bool,
    reading: bool,
    /// The session's watch has fired while what it was left by is still being read.
    fired: bool,
    /// Another replica may be named to it at any time.
    has_nearer: bool,
}

impl Part {
    fn new(Asked { topic, index, wanted, slot, turn }: Asked) -> Self {
        Self {
            topic,
            index,
            wanted,
            slot,
            turn,
            found: Err((ErrorCode::UnknownServerError, -1)),
            span: None,
            watched: false,
            reading: false,
            fired: false,
            has_nearer: false,
        }
    }

    fn records_bytes(&self) -> u64 {
        self.span.as_ref().map_or(0, ByteSpan::length)
    }

    fn reader(&self, replica: Option<(i32, i64)>) -> Reader {
        let Some((id, epoch)) = replica else { return Reader::Consumer };
        let Wanted { log_start_offset, last_fetched_epoch, .. } = self.wanted;
        Reader::Replica { id, epoch, log_start_offset, last_fetched_epoch }
    }

    /// Where the replica's log and this one part, if they do.
    fn diverging(&self) -> Option<(i32, i64)> {
        self.found.as_ref().ok().and_then(|found| found.diverging)
    }

    /// Whether there is something to say that does not wait for `min_bytes`.
    fn is_urgent(&self) -> bool {
        self.found.is_err() || self.is_sent_elsewhere() || self.diverging().is_some()
    }

    fn is_sent_elsewhere(&self) -> bool {
        self.found.as_ref().is_ok_and(|found| found.preferred.is_some())
    }
}

impl Fetch {
    pub(super) fn start(
        header: &RequestHeader,
        body: Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Work, CloseReason> {
        let request = FetchRequest::parse(body, header.version)?;
        let (session, parts, refusal) = enter(&request, header, scene);
        let at_least = |value: i32| u64::try_from(value).unwrap_or(0);
        let replica = (request.replica_id >= 0).then_some((request.replica_id, request.replica_epoch));
        scene.desk.replicas_heard.extend((replica.is_some() && refusal.is_none()).then_some(to));
        let mut fetch = Self {
            parts,
            session,
            refusal,
            isolation: if request.isolation_level == 1 {
                Isolation::Committed
            } else {
                Isolation::Uncommitted
            },
            replica,
            nearness: match replica {
                None => Nearness::of(header.version, request.rack_id(), scene),
                Some(_) => Nearness::default(),
            },
            reads_zstd_topics: header.version >= VERSION_ZSTD,
            knows_zstd: header.version >= VERSION_ZSTD || header.version <= VERSION_ZSTD_UNSAID,
            min_bytes: at_least(request.min_bytes),
            max_bytes: at_least(request.max_bytes).min(u64::from(scene.node.config.fetch_max_bytes)),
            outstanding: 0,
            deadline_ms: scene.now.mono_ms + at_least(request.max_wait_ms),
            timer_set: false,
            stage: Stage::First,
        };
        let session_id = fetch.session_id();
        let is_empty = fetch.parts.is_empty() && session_id.is_none();
        let may_wait = request.max_wait_ms > 0 && fetch.min_bytes > 0 && !is_empty;
        if !may_wait {
            fetch.min_bytes = 0;
        }
        if session_id.is_some() || (fetch.parts.len() == 1 && may_wait) {
            fetch.stage = Stage::Watching;
        }
        session_id.into_iter().for_each(|id| scene.desk.sessions.wait(id, to));
        fetch.read_all(to, scene);
        fetch.evaluate(to, scene);
        Ok(Work::Fetch(Box::new(fetch)))
    }

    /// The session that it goes on with.
    fn session_id(&self) -> Option<i32> {
        match self.session {
            SessionUse::Continue { id, .. } => Some(id),
            SessionUse::None | SessionUse::Make => None,
        }
    }

    /// Asks every partition; those of one topic stand together, and it is looked up once.
    fn read_all(&mut self, to: ReplyTo, scene: &mut Scene) {
        let mut topic = None;
        for at in 0..self.parts.len() {
            let key = |at: usize| self.parts.get(at).map(|part| &part.topic);
            if at == 0 || key(at) != key(at - 1) {
                topic = key(at).and_then(|key| topic_of(key, scene.view));
            }
            self.read(at, topic, to, scene);
        }
    }

    /// Asks a partition, wherever it is.
    fn read(&mut self, at: usize, topic: Option<&Arc<TopicImage>>, to: ReplyTo, scene: &mut Scene) {
        let watching = self.stage == Stage::Watching;
        let session_id = self.session_id();
        let Some(part) = self.parts.get_mut(at) else { return };
        part.fired = false;
        let topic = topic.ok_or_else(|| match &part.topic {
            TopicKey::Name(_) => ErrorCode::UnknownTopicOrPartition,
            TopicKey::Id(id) => unknown_id(self.session, *id, part.index, scene),
        });
        let topic = topic.and_then(|topic| {
            let image = usize::try_from(part.index).ok().and_then(|index| topic.partitions.get(index));
            let Some(image) = image else { return Err(ErrorCode::UnknownTopicOrPartition) };
            let config = (!self.reads_zstd_topics).then(|| scene.view.topic_configs.get(&topic.id)).flatten();
            match config.map(|config| config.compression_type) {
                Some(CompressionType::Zstd(_)) => Err(ErrorCode::UnsupportedCompressionType),
                _ => Ok((topic, self.nearness.nearer(image, scene.node.config.node_id))),
            }
        });
        match topic {
            Ok((topic, nearer)) => {
                let session = session_id.and_then(|id| scene.desk.sessions.watch(id, part.slot, topic.id));
                part.watched |= watching && session.is_none();
                part.reading = true;
                part.has_nearer = !nearer.is_empty();
                self.outstanding += 1;
                let max_bytes = u64::try_from(part.wanted.max_bytes).unwrap_or(0).min(self.max_bytes);
                let read = Read {
                    current_leader_epoch: part.wanted.current_leader_epoch,
                    isolation: self.isolation,
                    knows_zstd: self.knows_zstd,
                    // What a session finds nothing of rests, also where its request does not wait.
                    watch_below_bytes: match session {
                        Some(_) => self.min_bytes.max(1),
                        None if watching => self.min_bytes,
                        None => 0,
                    },
                    session,
                    from_follower: self.nearness.from_follower,
                    nearer,
                    ..Read::new(part.reader(self.replica), part.wanted.fetch_offset, max_bytes)
                };
                let to = ReplyTo { part: at as u32, ..to };
                scene.desk.calls.push(Call {
                    topic_id: topic.id,
                    partition: part.index,
                    to,
                    op: Op::Read(read),
                });
            }
            Err(error) => {
                part.found = Err((error, -1));
                part.span = None;
            }
        }
    }

    pub(super) fn answer(&mut self, to: ReplyTo, answer: Answer, span: Option<ByteSpan>, scene: &mut Scene) {
        let at = to.part as usize;
        let Some(part) = self.parts.get_mut(at) else { return };
        match answer {
            Answer::Fired => {
                // A watch that fires while a read is under way is answered by that read's watch.
                if self.stage == Stage::Watching && !part.reading {
                    part.watched = false;
                    let topic = topic_of(&part.topic, scene.view);
                    self.read(at, topic, to, scene);
                }
                return self.evaluate(to, scene);
            }
            Answer::Read(found) => {
                part.found = Ok(found);
                part.span = span;
            }
            Answer::Failed { error, log_start_offset } => {
                part.found = Err((error, log_start_offset));
                part.span = None;
                if let Some((node_id, _)) = self.replica {
                    part.note_refused(node_id, error, scene);
                }
            }
            Answer::Appended { .. }
            | Answer::Offset { .. }
            | Answer::EpochEnd { .. }
            | Answer::Deleted { .. }
            | Answer::Size(_)
            | Answer::Placed(_)
            | Answer::Moves
            | Answer::News
            | Answer::Producers(_) => return,
        }
        if std::mem::take(&mut part.reading) {
            self.outstanding -= 1;
        }
        if part.fired && self.stage == Stage::Watching {
            let topic = topic_of(&part.topic, scene.view);
            self.read(at, topic, to, scene);
        }
        self.evaluate(to, scene);
    }

    /// A watch of its session has fired: there is more to read of that partition.
    pub(super) fn watch_fired(&mut self, WatchFired(asked): WatchFired, to: ReplyTo, scene: &mut Scene) {
        if self.stage == Stage::Done {
            return;
        }
        let at = self.parts.iter().position(|part| part.slot == asked.slot).unwrap_or(self.parts.len());
        match self.parts.get_mut(at) {
            Some(part) if part.reading => return part.fired = true,
            Some(_) => {}
            None => self.parts.push(Part::new(asked)),
        }
        let topic = self.parts.get(at).and_then(|part| topic_of(&part.topic, scene.view));
        self.read(at, topic, to, scene);
        self.evaluate(to, scene);
    }

    /// When nothing is outstanding: enough, or an error, is answered; otherwise watches wait.
    fn evaluate(&mut self, to: ReplyTo, scene: &mut Scene) {
        if self.outstanding > 0 || self.stage == Stage::Done {
            return;
        }
        let bytes: u64 = self.parts.iter().map(Part::records_bytes).sum();
        if bytes >= self.min_bytes || self.parts.iter().any(Part::is_urgent) {
            self.finish(to, scene);
            if self.session_id().is_some() {
                // Those that a watch had read came last.
                self.parts.sort_by_key(|part| part.turn);
            }
            self.share_budget();
            return self.count_sent(to, scene);
        }
        if !std::mem::replace(&mut self.timer_set, true) {
            scene.desk.timers.push(Timer { at_ms: self.deadline_ms, to: ReplyTo { part: 0, ..to } });
        }
        if self.stage == Stage::First {
            self.stage = Stage::Watching;
            self.read_all(to, scene);
        }
    }

    fn finish(&mut self, to: ReplyTo, scene: &mut Scene) {
        self.stage = Stage::Done;
        if let Some(id) = self.session_id() {
            scene.desk.sessions.waits_no_more(id, ReplyTo { part: 0, ..to });
        }
        let enough = if self.parts.len() == 1 { self.min_bytes } else { 0 };
        for (at, part) in (0..).zip(&mut self.parts) {
            // A lone partition that found enough left no watch.
            let left_none = enough > 0 && part.records_bytes() >= enough;
            if std::mem::take(&mut part.watched) && !left_none {
                unwatch(part, ReplyTo { part: at, ..to }, scene);
            }
        }
    }

    /// What throttled replicas are sent counts in the rate of their leader's shard.
    fn count_sent(&self, to: ReplyTo, scene: &mut Scene) {
        let view = scene.view;
        if self.replica.is_none() || !view.config.replication_limits.limits_leaders() {
            return;
        }
        for (at, part) in (0..).zip(&self.parts) {
            let bytes = part.records_bytes();
            let topic = topic_of(&part.topic, view).filter(|_| bytes > 0);
            let config = topic.and_then(|topic| Some((topic.id, view.topic_configs.get(&topic.id)?)));
            if let Some((topic_id, config)) = config
                && config.leader_throttled.contains(part.index, scene.node.config.node_id)
            {
                let (to, op) = (ReplyTo { part: at, ..to }, Op::Sent(bytes));
                scene.desk.calls.push(Call { topic_id, partition: part.index, to, op });
            }
        }
    }

    /// `max_wait_ms` has passed: what is there is answered.
    pub(super) fn timeout(&mut self, to: ReplyTo, scene: &mut Scene) {
        self.min_bytes = 0;
        self.evaluate(to, scene);
    }

    /// The connection is gone.
    pub(super) fn cancel(mut self, to: ReplyTo, scene: &mut Scene) {
        self.finish(to, scene);
    }

    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    pub(super) fn encode(mut self, header: &RequestHeader, outbox: &mut Outbox, scene: &mut Scene) {
        let (sessions, view) = (&mut scene.desk.sessions, scene.view);
        let session_id = match self.session {
            SessionUse::Make => {
                let by_id = header.version >= VERSION_BY_ID;
                // Anybody may say that it is a replica.
                let is_broker = |id: i32| scene.node.config.node_id != id && view.image.broker(id).is_some();
                let privileged = self.replica.is_some_and(|(id, _)| is_broker(id));
                let new = NewSession { privileged, by_id };
                let list = self.parts.iter().map(|part| (part.topic.clone(), part.index, part.wanted));
                sessions.make(scene.now.mono_ms, new, list, |id| topic_name(id, view))
            }
            SessionUse::Continue { id, epoch_next } => {
                if sessions.has_gone_on(id, epoch_next) {
                    self.refusal = Some(ErrorCode::InvalidFetchSessionEpoch);
                    self.parts.clear();
                }
                id
            }
            SessionUse::None => 0,
        };
        let incremental = matches!(self.session, SessionUse::Continue { .. });
        self.parts.retain(|part| {
            let must_tell = session_id == 0
                || scene.desk.sessions.must_tell(session_id, &part.topic, part.index, &part.told());
            must_tell || !incremental
        });
        let groups = || self.parts.chunk_by(|a, b| a.topic == b.topic);
        let mut hints = LeaderHints::default();
        let head = FetchResponseHead { throttle_time_ms: 0, error: self.refusal, session_id };
        let (version, correlation_id, buffer) = (header.version, header.correlation_id, outbox.buffer());
        let topics_count = groups().count() as u32;
        let mut writer = FetchResponseWriter::new(buffer, version, correlation_id, head, topics_count);
        let mut cuts: SmallVec<[usize; 4]> = SmallVec::new();
        for group in groups() {
            let Some(first) = group.first() else { continue };
            let topic = first.topic.as_ref();
            writer.topic(topic, group.len() as u32);
            for part in group {
                let mut response = part.response(self.isolation);
                if part.wants_hint() && version >= VERSION_HINTS {
                    response.current_leader = Some(hints.current_leader(scene, topic, part.index));
                }
                let cut = writer.partition(&response, part.records_bytes() as u32);
                if part.span.is_some() {
                    cuts.push(cut);
                }
            }
        }
        writer.finish(&hints.endpoints(scene));
        outbox.lay_spans(cuts.into_iter().zip(self.parts.into_iter().filter_map(|part| part.span)));
    }

    /// Spends `max_bytes` in request order. The first non-empty partition may exceed it by the
    /// rest of one batch; a later one that would not get a whole batch gets nothing (KIP-74).
    fn share_budget(&mut self) {
        let mut left = self.max_bytes;
        let mut first = true;
        for part in &mut self.parts {
            let Ok(ReadFound { span: Some(found), .. }) = &part.found else { continue };
            let Some(span) = &mut part.span else { continue };
            let whole_batch = found.first_batch_bytes.min(span.length());
            if first {
                span.truncate(left.max(whole_batch));
            } else if left >= whole_batch {
                span.truncate(left);
            } else {
                part.span = None;
                continue;
            }
            first = false;
            left = left.saturating_sub(span.length());
        }
    }
}

impl Part {
    /// A replica that has another leader's epoch, or one of a process before it, is to find out.
    fn note_refused(&self, node_id: i32, error: ErrorCode, scene: &mut Scene) {
        let stale =
            [ErrorCode::FencedLeaderEpoch, ErrorCode::UnknownLeaderEpoch, ErrorCode::NotLeaderOrFollower];
        if stale.contains(&error)
            && let Some(topic) = topic_of(&self.topic, scene.view)
        {
            scene.refused_partition(Refusal::FetchedPartition, node_id, (topic.id, self.index), error);
        }
    }

    /// Whether the error is one that another leader, or a newer epoch of it, would not answer.
    fn wants_hint(&self) -> bool {
        matches!(self.found, Err((ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch, _)))
    }

    fn told(&self) -> Told {
        let records_bytes = self.records_bytes();
        match &self.found {
            Ok(found) => Told {
                high_watermark: found.high_watermark,
                log_start_offset: found.log_start_offset,
                records_bytes,
                is_error: false,
                // Either is told until the reader does something else.
                is_diverging: found.diverging.is_some() || found.preferred.is_some(),
                may_rest: found.watched && found.span.is_none() && !self.has_nearer,
            },
            Err((_, log_start_offset)) => Told {
                high_watermark: -1,
                log_start_offset: *log_start_offset,
                records_bytes,
                is_error: true,
                is_diverging: false,
                may_rest: false,
            },
        }
    }

    fn response(&self, isolation: Isolation) -> FetchPartitionResponse<'static> {
        match &self.found {
            Ok(found) => FetchPartitionResponse {
                index: self.index,
                error: None,
                high_watermark: found.high_watermark,
                last_stable_offset: found.last_stable_offset,
                log_start_offset: found.log_start_offset,
                aborted_transactions: (isolation == Isolation::Committed).then_some(&[]),
                preferred_read_replica: found.preferred.unwrap_or(-1),
                diverging_epoch: found.diverging.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset }),
                current_leader: None,
                snapshot_id: None,
            },
            Err((error, log_start_offset)) => FetchPartitionResponse {
                log_start_offset: *log_start_offset,
                ..FetchPartitionResponse::error(self.index, *error)
            },
        }
    }
}

fn topic_of<'v>(key: &TopicKey, view: &'v ClusterView) -> Option<&'v Arc<TopicImage>> {
    match key {
        TopicKey::Name(name) => view.image.topic(name),
        TopicKey::Id(id) => view.image.topic_by_id(*id),
    }
}

fn unwatch(part: &Part, to: ReplyTo, scene: &mut Scene) {
    // A topic that is gone has fired its watches when it went.
    if let Some(topic) = topic_of(&part.topic, scene.view) {
        scene.desk.calls.push(Call { topic_id: topic.id, partition: part.index, to, op: Op::Unwatch });
    }
}
