//! What a fetch request asks for: its session, the partitions that are read for it, or why it is refused.

use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;
use uuid::Uuid;

use super::super::refused::Refusal;
use super::super::session::{Asked, SessionUse, TopicKey, Wanted};
use super::super::{ClusterView, Scene};
use super::{Part, VERSION_BY_ID};
use crate::wire::fetch::FetchRequest;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, TopicRef};

/// Finds out which session a request belongs to and what it wants, or why it is refused.
pub(super) fn enter(
    request: &FetchRequest,
    header: &RequestHeader,
    scene: &mut Scene,
) -> (SessionUse, SmallVec<[Part; 1]>, Option<ErrorCode>) {
    let (mut session, mut refusal) = match scene.desk.sessions.enter(
        request.session_id,
        request.session_epoch,
        header.version >= VERSION_BY_ID,
    ) {
        Ok(_) if request.replica_id >= 0 && !is_among_brokers(scene) => {
            let code = ErrorCode::ClusterAuthorizationFailed;
            scene.refused(Refusal::ReplicaFetch, request.replica_id, code);
            (SessionUse::None, Some(code))
        }
        Ok(session) => (session, None),
        Err(error) => (SessionUse::None, Some(error)),
    };
    let parts = match session {
        _ if refusal.is_some() => SmallVec::new(),
        SessionUse::Continue { id, .. } => {
            let forgotten = request.forgotten().flat_map(|topic| {
                let key = topic_key(topic.topic, scene.view);
                topic.partitions.map(move |index| (key.clone(), index))
            });
            let changed = wanted(request, scene.view);
            let name_of = |id| topic_name(id, scene.view);
            let sessions = &mut scene.desk.sessions;
            let all = sessions.update(id, scene.now.mono_ms, changed, forgotten, name_of);
            let waits = request.max_wait_ms > 0 && request.min_bytes > 0;
            let all = all.map(|changed| if waits { changed } else { sessions.list_all(id) });
            let all = all.unwrap_or_else(|error| {
                refusal = Some(error);
                Vec::new()
            });
            if !scene.desk.sessions.knows(id) {
                session = SessionUse::None;
            }
            all.into_iter().map(Part::new).collect()
        }
        SessionUse::None | SessionUse::Make => {
            let mut parts = SmallVec::with_capacity(request.counts().partitions as usize);
            parts.extend(wanted(request, scene.view).map(Asked::alone).map(Part::new));
            without_repeats(parts)
        }
    };
    (session, parts, refusal)
}

/// Whether the listener is the one that brokers use among themselves. Elsewhere nobody may pose as a replica: what
/// one fetches moves the high watermark.
fn is_among_brokers(scene: &Scene) -> bool {
    let config = &scene.node.config;
    let listener = config.listeners.get(scene.context.listener);
    listener.is_some_and(|listener| *listener.name == *config.inter_broker_listener)
}

/// A partition that is named twice counts once, in its first place and with what was said of it last, as in Kafka.
/// Nobody can have one partition looked at thousands of times by one request.
fn without_repeats(parts: SmallVec<[Part; 1]>) -> SmallVec<[Part; 1]> {
    if parts.windows(2).all(|pair| matches!(pair, [a, b] if a.topic == b.topic && a.index < b.index)) {
        return parts;
    }
    let mut places = FxHashMap::with_capacity_and_hasher(parts.len(), FxBuildHasher);
    let mut kept: SmallVec<[Part; 1]> = SmallVec::with_capacity(parts.len());
    for part in parts {
        let place = *places.entry((part.topic.clone(), part.index)).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(first) => first.wanted = part.wanted,
            None => kept.push(part),
        }
    }
    kept
}

/// Why an id cannot be read. A session that knew its name tells more: the topic was made again under it,
/// or is gone.
pub(super) fn unknown_id(session: SessionUse, id: Uuid, index: i32, scene: &Scene) -> ErrorCode {
    let SessionUse::Continue { id: session_id, .. } = session else { return ErrorCode::UnknownTopicId };
    let name = scene.desk.sessions.name_of(session_id, id);
    let Some(name) = name else { return ErrorCode::UnknownTopicId };
    let again = scene.view.image.topic(name);
    let is_there = |index| again.is_some_and(|topic| index < topic.partitions.len());
    if usize::try_from(index).is_ok_and(is_there) {
        ErrorCode::InconsistentTopicId
    } else {
        ErrorCode::UnknownTopicOrPartition
    }
}

pub(super) fn topic_name(id: Uuid, view: &ClusterView) -> Option<Arc<str>> {
    view.image.topic_by_id(id).map(|topic| topic.name.clone())
}

/// The key under which a topic is remembered; a known name shares the Image's string.
fn topic_key(topic: TopicRef, view: &ClusterView) -> TopicKey {
    match topic {
        TopicRef::Name(name) => {
            TopicKey::Name(view.image.topic(name).map_or_else(|| name.into(), |topic| topic.name.clone()))
        }
        TopicRef::Id(id) => TopicKey::Id(id),
    }
}

fn wanted<'a>(
    request: &'a FetchRequest,
    view: &'a ClusterView,
) -> impl Iterator<Item = (TopicKey, i32, Wanted)> + 'a {
    request.topics().flat_map(|topic| {
        let key = topic_key(topic.topic, view);
        topic.partitions.map(move |partition| {
            let wanted = Wanted {
                fetch_offset: partition.fetch_offset,
                max_bytes: partition.max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                log_start_offset: partition.log_start_offset,
            };
            (key.clone(), partition.index, wanted)
        })
    })
}
