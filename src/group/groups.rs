//! What is asked of whole groups: joining and leaving them, describing, listing and deleting them.

use std::sync::Arc;

use super::classic::{CONSUMER, ClassicGroup, State, Turn};
use super::consumer::state::ConsumerState;
use super::record::{OffsetKey, Record, STRING_BYTES_MAX};
use super::request::{
    DescribedGroup, Heartbeat, Join, Joined, Leave, ListedGroup, Request, Response, Sync, Synced,
};
use super::{Coordinator, Group, GroupConfig, Output};
use crate::effect::Now;
use crate::wire::ErrorCode;

/// Bytes that a new member's id adds to the name that it begins with.
const MEMBER_ID_SUFFIX_BYTES: usize = 37;
/// What the type filter of ListGroups and its answer call groups of this protocol.
const CLASSIC: &str = "classic";
/// The state of a group that is not there.
const DEAD: &str = "Dead";

/// The answer to a request that no state could make right.
pub(super) fn refused_at_once(config: &GroupConfig, request: &Request) -> Option<Response> {
    let is_bad = |group: &str| group.is_empty() || group.len() > STRING_BYTES_MAX;
    let error = ErrorCode::InvalidGroupId;
    match request {
        Request::Join(join) => {
            let sessions = config.session_timeout_min_ms..=config.session_timeout_max_ms;
            let error = if is_bad(&join.group) {
                error
            } else if !sessions.contains(&join.session_timeout_ms) {
                ErrorCode::InvalidSessionTimeout
            } else if has_long_name(join) {
                ErrorCode::InvalidRequest
            } else {
                return None;
            };
            Some(Response::Joined(Joined::refused(&join.member_id, error)))
        }
        Request::Sync(sync) => is_bad(&sync.group).then(|| Response::Synced(Synced::refused(error))),
        Request::Heartbeat(heartbeat) => is_bad(&heartbeat.group).then_some(Response::Heartbeat(Some(error))),
        Request::Leave(leave) => is_bad(&leave.group).then_some(Response::Refused(error)),
        Request::DeleteOffsets { group, .. } => is_bad(group).then_some(Response::Refused(error)),
        Request::CommitOffsets(commit) => {
            (commit.group.len() > STRING_BYTES_MAX).then_some(Response::Refused(error))
        }
        Request::ConsumerHeartbeat(heartbeat) => {
            super::consumer::check(&config.consumer, heartbeat).err().map(Response::BeatRefused)
        }
        Request::Describe(_)
        | Request::List { .. }
        | Request::Delete(_)
        | Request::FetchOffsets { .. }
        | Request::FetchMemberOffsets { .. }
        | Request::DescribeConsumers(_) => None,
    }
}

/// Whether a record could not hold a name of the member.
fn has_long_name(join: &Join) -> bool {
    let mut names = vec![&join.client_host, &join.protocol_type, &join.member_id];
    names.extend(join.protocols.iter().map(|protocol| &protocol.name));
    let prefixes = [Some(&join.client_id), join.instance_id.as_ref()];
    names.iter().any(|name| name.len() > STRING_BYTES_MAX)
        || prefixes.into_iter().flatten().any(|name| name.len() + MEMBER_ID_SUFFIX_BYTES > STRING_BYTES_MAX)
}

impl Coordinator {
    pub(super) fn classic(&self, id: &str) -> Option<&ClassicGroup> {
        self.groups.get(id).and_then(Group::as_classic)
    }

    fn is_consumer(&self, id: &str) -> bool {
        self.store.consumer(id).is_some()
    }

    pub(super) fn join(&mut self, now: Now, token: u64, request: &Join, out: &mut Vec<Output>) {
        let id = &request.group;
        let consumer = self.store.consumer(id);
        if consumer.is_some_and(|state| !state.is_empty()) {
            return self.join_consumers(now, token, request, out);
        }
        // A consumer group that nobody is in makes way.
        let gone = consumer.map(ConsumerState::tombstones).unwrap_or_default();
        let will_exist = gone.is_empty() && (self.store.will_exist(id) || self.groups.contains_key(id));
        if !will_exist && !request.member_id.is_empty() {
            let refused = Joined::refused(&request.member_id, ErrorCode::UnknownMemberId);
            return self.hold(now, vec![(token, Response::Joined(refused))], out);
        }
        if !self.groups.contains_key(id) {
            let group = ClassicGroup::new(id.clone(), self.store.metadata(id), now);
            self.groups.insert(id.clone(), Group::Classic(Box::new(group)));
        }
        let config = Arc::clone(&self.config);
        let mut turn = Turn::new(now, &config);
        let mut first = Vec::new();
        if let Some(group) = self.groups.get_mut(id).and_then(Group::as_classic_mut) {
            group.join(&mut turn, token, request);
            // A refused one leaves nothing behind.
            if !will_exist && !group.is_idle() {
                first.push(group.first_record());
            }
        }
        if !first.is_empty() {
            let gone = gone.into_iter().map(|record| Record::Consumer(id.clone(), record));
            self.append(gone.collect(), Vec::new(), out);
        }
        self.finish(now, id, turn, first, out);
    }

    pub(super) fn sync(&mut self, now: Now, token: u64, request: &Sync, out: &mut Vec<Output>) {
        if self.is_consumer(&request.group) {
            return self.sync_consumers(now, token, request, out);
        }
        if self.classic(&request.group).is_none_or(|group| group.state == State::Empty) {
            let refused = Response::Synced(Synced::refused(ErrorCode::UnknownMemberId));
            return self.hold(now, vec![(token, refused)], out);
        }
        self.with_group(now, &request.group, out, |group, turn| group.sync(turn, token, request));
    }

    pub(super) fn heartbeat(&mut self, now: Now, token: u64, request: &Heartbeat, out: &mut Vec<Output>) {
        if self.is_consumer(&request.group) {
            return self.heartbeat_consumers(now, token, request, out);
        }
        let config = Arc::clone(&self.config);
        let group = self.groups.get_mut(&request.group).and_then(Group::as_classic_mut);
        let error = match group {
            Some(group) => group.heartbeat(&Turn::new(now, &config), request),
            None => Some(ErrorCode::UnknownMemberId),
        };
        self.hold(now, vec![(token, Response::Heartbeat(error))], out);
        self.settle_group(&request.group, false);
    }

    pub(super) fn leave(&mut self, now: Now, token: u64, request: &Leave, out: &mut Vec<Output>) {
        if self.is_consumer(&request.group) {
            return self.leave_consumers(now, token, request, out);
        }
        if self.classic(&request.group).is_none() {
            let unknown =
                request.members.iter().map(|leaver| (leaver.clone(), Some(ErrorCode::UnknownMemberId)));
            return self.hold(now, vec![(token, Response::Left(unknown.collect()))], out);
        }
        self.with_group(now, &request.group, out, |group, turn| {
            let left = group.leave(turn, request);
            turn.answer(token, Response::Left(left));
        });
    }

    pub(super) fn describe(&self, ids: &[Arc<str>]) -> Vec<DescribedGroup> {
        let describe = |id: &Arc<str>| {
            let stored = self.store.groups().get(id);
            let Some(stored) = stored.filter(|stored| stored.consumer.is_none()) else {
                return DescribedGroup {
                    group: id.clone(),
                    error: Some(ErrorCode::GroupIdNotFound),
                    is_of_other_type: stored.is_some(),
                    state: DEAD,
                    ..DescribedGroup::default()
                };
            };
            let stored_type = || stored.metadata.as_ref().map(|metadata| metadata.protocol_type.clone());
            self.classic(id).map_or_else(
                || DescribedGroup {
                    group: id.clone(),
                    state: State::Empty.name(),
                    protocol_type: stored_type().unwrap_or_default(),
                    ..DescribedGroup::default()
                },
                ClassicGroup::described,
            )
        };
        ids.iter().map(describe).collect()
    }

    pub(super) fn list(&self, states: &[String], types: &[String]) -> Vec<ListedGroup> {
        let is_wanted = |wanted: &[String], name: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
        };
        let listed = self.store.groups().iter().flat_map(|(id, stored)| match &stored.consumer {
            Some(state) => vec![ListedGroup {
                group: id.clone(),
                protocol_type: CONSUMER.into(),
                state: state.state().name(),
                group_type: CONSUMER,
            }],
            None => {
                let described = self.describe(std::slice::from_ref(id)).into_iter();
                let listed = described.map(|described| ListedGroup {
                    group: described.group,
                    protocol_type: described.protocol_type,
                    state: described.state,
                    group_type: CLASSIC,
                });
                listed.collect()
            }
        });
        listed.filter(|group| is_wanted(states, group.state) && is_wanted(types, group.group_type)).collect()
    }

    pub(super) fn delete(&mut self, now: Now, token: u64, ids: &[Arc<str>], out: &mut Vec<Output>) {
        let mut records = Vec::new();
        let mut deleted: Vec<(Arc<str>, Option<ErrorCode>)> = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            if ids.iter().take(at).any(|earlier| earlier == id) {
                continue;
            }
            let has_members = self.classic(id).is_some_and(|group| group.state != State::Empty)
                || self.store.consumer(id).is_some_and(|state| !state.is_empty());
            let error = if has_members {
                Some(ErrorCode::NonEmptyGroup)
            } else if !self.store.will_exist(id) {
                Some(ErrorCode::GroupIdNotFound)
            } else {
                records.extend(self.tombstones(id));
                None
            };
            deleted.push((id.clone(), error));
        }
        if !self.fits(&records) {
            let refused = Response::Refused(ErrorCode::UnknownServerError);
            return self.hold(now, vec![(token, refused)], out);
        }
        for (id, _) in deleted.iter().filter(|(_, error)| error.is_none()) {
            // Whoever was given an id for it, and has not come back with it, will be told that it is unknown.
            self.drop_group(id);
        }
        self.append(records, Vec::new(), out);
        self.hold(now, vec![(token, Response::Deleted(deleted))], out);
    }

    /// Whether one batch can hold the records.
    pub(super) fn fits(&self, records: &[Record]) -> bool {
        records.iter().map(Record::bytes_estimate).sum::<usize>() <= self.config.batch_bytes_max
    }

    /// What takes a group and its offsets away.
    fn tombstones(&self, id: &Arc<str>) -> Vec<Record> {
        let mut records = Vec::new();
        for (topic, partitions) in self.store.offsets(id).iter() {
            records.extend(partitions.keys().map(|partition| {
                let key = OffsetKey { group: id.clone(), topic: topic.clone(), partition: *partition };
                Record::Offset(key, None)
            }));
        }
        match self.store.consumer(id) {
            Some(state) => {
                let gone = state.tombstones().into_iter();
                records.extend(gone.map(|record| Record::Consumer(id.clone(), record)));
            }
            None => records.push(Record::Group(id.clone(), None)),
        }
        records
    }

    /// Forgets a group that nobody is in.
    pub(super) fn drop_group(&mut self, id: &Arc<str>) {
        let removed = self.groups.remove(id);
        if let Some(at_ms) = removed.as_ref().and_then(Group::wakes_at_ms) {
            self.timers.remove(&(at_ms, id.clone()));
        }
    }

    /// Whether members of the group have subscribed to a topic, as far as that is known.
    pub(super) fn is_subscribed(&self, id: &str, topic: &str) -> bool {
        if let Some(state) = self.store.consumer(id) {
            return state.subscribed().contains(topic);
        }
        let Some(group) = self.classic(id).filter(|group| group.state != State::Empty) else { return false };
        match group.subscribed() {
            Some(topics) => topics.contains(topic),
            None => group.protocol_type.as_deref() == Some(CONSUMER),
        }
    }
}
