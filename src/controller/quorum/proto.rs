//! Our messages and entries as the raft library's, and back. Its types stay between here and
//! [`raft`](super::super::raft).

use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{self, EntryType, MessageType};

use super::codec::{Body, Message};
use super::members::{Members, changes_members};
use crate::controller::raft::Entry;

/// An entry as the library has it. One that changes the members is a configuration change whose records lie in the
/// context: the data would be the library's own bytes, which it reads only of what it proposes itself.
pub(in crate::controller) fn entry_to_proto(entry: Entry) -> eraftpb::Entry {
    let Entry { index, term, data } = entry;
    let mut proto = eraftpb::Entry { index, term, ..eraftpb::Entry::default() };
    if changes_members(&data) {
        proto.set_entry_type(EntryType::EntryConfChangeV2);
        proto.context = data;
    } else {
        proto.data = data;
    }
    proto
}

/// An entry of the library's as ours.
pub(in crate::controller) fn entry_from_proto(entry: &eraftpb::Entry) -> Entry {
    let is_normal = entry.get_entry_type() == EntryType::EntryNormal;
    let data = if is_normal { &entry.data } else { &entry.context };
    Entry { index: entry.index, term: entry.term, data: data.clone() }
}

/// The members as the library's configuration.
pub(in crate::controller) fn conf_state(members: &Members) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: members.voters().map(|member| member.raft_id).collect(),
        learners: members.learners().map(|member| member.raft_id).collect(),
        ..eraftpb::ConfState::default()
    }
}

/// A message of the library's as ours; `None` for kinds that members do not exchange.
pub(in crate::controller) fn message_from_proto(message: eraftpb::Message) -> Option<Message> {
    let (from, to, term) = (message.from, message.to, message.term);
    let (index, log_term) = (message.index, message.log_term);
    let (commit, commit_term) = (message.commit, message.commit_term);
    let kind = message.get_msg_type();
    let body = match kind {
        MessageType::MsgAppend => {
            let entries = message.entries.iter().map(entry_from_proto).collect();
            Body::Append { index, log_term, commit, entries }
        }
        MessageType::MsgAppendResponse => {
            let refused = message.reject.then_some((message.reject_hint, log_term));
            Body::Appended { index, commit, refused }
        }
        MessageType::MsgHeartbeat => Body::Heartbeat { commit },
        MessageType::MsgHeartbeatResponse => Body::HeartbeatHeard { commit },
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => Body::Vote {
            pre: kind == MessageType::MsgRequestPreVote,
            index,
            log_term,
            commit,
            commit_term,
            transfer: message.context == CAMPAIGN_TRANSFER,
        },
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => Body::Voted {
            pre: kind == MessageType::MsgRequestPreVoteResponse,
            refused: message.reject,
            commit,
            commit_term,
        },
        MessageType::MsgTimeoutNow => Body::TakeOver,
        MessageType::MsgSnapshot => {
            let metadata = message.get_snapshot().get_metadata();
            Body::Snapshot { index: metadata.index, log_term: metadata.term }
        }
        _ => return None,
    };
    Some(Message { from, to, term, body })
}

/// A message for the library; `None` for those of this code, which it does not know. A snapshot's members are those
/// given.
pub(in crate::controller) fn message_to_proto(
    message: Message,
    members: &Members,
) -> Option<eraftpb::Message> {
    let Message { from, to, term, body } = message;
    let mut proto = eraftpb::Message { from, to, term, ..eraftpb::Message::default() };
    let kind = match body {
        Body::Append { index, log_term, commit, entries } => {
            (proto.index, proto.log_term, proto.commit) = (index, log_term, commit);
            proto.set_entries(entries.into_iter().map(entry_to_proto).collect());
            MessageType::MsgAppend
        }
        Body::Appended { index, commit, refused } => {
            (proto.index, proto.commit, proto.reject) = (index, commit, refused.is_some());
            (proto.reject_hint, proto.log_term) = refused.unwrap_or_default();
            MessageType::MsgAppendResponse
        }
        Body::Heartbeat { commit } => {
            proto.commit = commit;
            MessageType::MsgHeartbeat
        }
        Body::HeartbeatHeard { commit } => {
            proto.commit = commit;
            MessageType::MsgHeartbeatResponse
        }
        Body::Vote { pre, index, log_term, commit, commit_term, transfer } => {
            (proto.index, proto.log_term, proto.commit, proto.commit_term) =
                (index, log_term, commit, commit_term);
            if transfer {
                proto.context = CAMPAIGN_TRANSFER.into();
            }
            if pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote }
        }
        Body::Voted { pre, refused, commit, commit_term } => {
            (proto.reject, proto.commit, proto.commit_term) = (refused, commit, commit_term);
            if pre { MessageType::MsgRequestPreVoteResponse } else { MessageType::MsgRequestVoteResponse }
        }
        Body::TakeOver => MessageType::MsgTimeoutNow,
        Body::Snapshot { index, log_term } => {
            proto.set_snapshot(snapshot(index, log_term, members));
            MessageType::MsgSnapshot
        }
        Body::Chunk(_) | Body::ChunkTaken { .. } | Body::Ask { .. } | Body::Told(_) => return None,
    };
    proto.set_msg_type(kind);
    Some(proto)
}

/// What the library knows of a snapshot: everything but its bytes.
pub(in crate::controller) fn snapshot(index: u64, log_term: u64, members: &Members) -> eraftpb::Snapshot {
    let mut snapshot = eraftpb::Snapshot::default();
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (index, log_term);
    metadata.set_conf_state(conf_state(members));
    snapshot
}
