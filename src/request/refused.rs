//! Requests that were refused, for the operator: who asked, for what, and why. Of nodes all that only nodes of the
//! cluster ask for; of clients what no cluster of these brokers can do, and APIs that their listener does not have.
//! Each kind is said the first ten times and then at each doubling, so that nobody fills the log by asking again; what
//! is usual while leaders change at each doubling from the first on.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

use super::Scene;
use crate::controller::request::TopicAnswer;
use crate::controller::{ApiError, ControllerAnswer};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, api};

/// How much of a client's own words stands in a line: the longest name of a topic.
const TOLD_CHARS_MAX: usize = 249;

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// A fetch as a replica.
    ReplicaFetch,
    /// One partition of it.
    FetchedPartition,
    /// BrokerRegistration.
    Registration,
    /// BrokerHeartbeat.
    Heartbeat,
    /// AlterPartition as a whole.
    IsrChange,
    /// One partition of it.
    IsrOfPartition,
    /// AssignReplicasToDirs as a whole.
    Directories,
    /// AllocateProducerIds.
    ProducerIds,
    /// Messages of a controller.
    RaftMessages,
    /// JoinQuorum.
    Join,
    /// A request that is not served on its listener.
    Api,
    /// A topic of CreateTopics, or one that is made for who asks for it.
    Topic,
    /// A topic of CreatePartitions.
    MorePartitions,
    /// A partition of AlterPartitionReassignments.
    Reassignment,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReplicaFetch => "a fetch as the replica",
            Self::FetchedPartition => "a partition in a fetch",
            Self::Registration => "the registration",
            Self::Heartbeat => "a heartbeat",
            Self::IsrChange => "changes of in-sync replicas",
            Self::IsrOfPartition => "a partition in changes of in-sync replicas",
            Self::Directories => "log directories of replicas",
            Self::ProducerIds => "producer ids",
            Self::RaftMessages => "raft messages",
            Self::Join => "membership in the quorum",
            Self::Api => "an unknown API",
            Self::Topic => "a topic",
            Self::MorePartitions => "more partitions",
            Self::Reassignment => "a reassignment",
        })
    }
}

/// Who was refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker<'a> {
    /// A node, as it says itself.
    Node(i32),
    /// A client, with its name for itself.
    Client(Option<&'a str>),
}

impl fmt::Display for Asker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node_id) => write!(f, "node {node_id}"),
            Self::Client(Some(name)) => write!(f, "client {}", Told(name)),
            Self::Client(None) => f.write_str("a client"),
        }
    }
}

/// Which part of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Topic(&'a str),
    Partition(&'a str, i32),
    /// Of a topic that is not known here.
    PartitionById(Uuid, i32),
    /// Its kind, by the key of its API.
    Api(i16),
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => Told(name).fmt(f),
            Self::Partition(name, index) => write!(f, "{}-{index}", Told(name)),
            Self::PartitionById(topic_id, index) => write!(f, "{topic_id}-{index}"),
            Self::Api(key) => match api::find(*key) {
                Some(api) => write!(f, "API {key}, {}", api.name),
                None => write!(f, "API {key}"),
            },
        }
    }
}

/// What somebody else has chosen, as it may stand in a line: in quotes, no longer than it need be, and with nothing
/// that a terminal would obey.
struct Told<'a>(&'a str);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(TOLD_CHARS_MAX).map_or(self.0.len(), |(at, _)| at);
        let (shown, rest) = self.0.split_at_checked(end).unwrap_or_default();
        write!(f, "{shown:?}{}", if rest.is_empty() { "" } else { "..." })
    }
}

/// Why it was refused, and what of it where it was not the whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Why<'a> {
    pub code: ErrorCode,
    pub part: Option<Part<'a>>,
    /// The controller's words; of a code that says enough there are none.
    pub words: &'a str,
}

impl From<ErrorCode> for Why<'_> {
    fn from(code: ErrorCode) -> Self {
        Self { code, part: None, words: "" }
    }
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.code)?;
        if let Some(part) = self.part {
            write!(f, " for {part}")?;
        }
        if self.words.is_empty() { Ok(()) } else { write!(f, ": {}", Told(self.words)) }
    }
}

/// Nobody did anything wrong: another controller is to be asked, a leader is to ask again for what did not fit in one
/// entry, or the change was done and took its leadership away.
fn is_no_refusal(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotController | ErrorCode::OperationNotAttempted | ErrorCode::NewLeaderElected)
}

/// Whether it is to be expected when leaders, brokers or topics come and go: one of two has heard of it first.
fn is_usual(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::InvalidUpdateVersion
            | ErrorCode::IneligibleReplica
            | ErrorCode::UnknownTopicId
            | ErrorCode::UnknownTopicOrPartition
    )
}

/// What was refused on one shard since its start, by kind and error number, and the lines that are to be said.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: BTreeMap<(Refusal, i16), u64>,
    lines: Vec<String>,
}

impl Refusals {
    /// Somebody at that address was refused.
    pub(super) fn note(&mut self, what: Refusal, who: Asker<'_>, peer: IpAddr, why: Why<'_>) {
        if is_no_refusal(why.code) {
            return;
        }
        let is_usual = is_usual(why.code);
        let count = self.counts.entry((what, why.code.code())).or_default();
        *count += 1;
        if count.is_power_of_two() || (*count <= 10 && !is_usual) {
            let usual = if is_usual { ", usual while leaders or brokers change" } else { "" };
            self.lines.push(format!(
                "refused {what} of {who} at {peer}: {why} ({count} of this kind on this shard{usual})"
            ));
        }
    }

    /// Takes the lines that are to be said.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Whether there are none.
    pub fn is_silent(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Notes of what a client asked the controller for that no cluster of these brokers can do: a number of replicas or an
/// assignment.
pub(super) fn note_impossible(answer: &ControllerAnswer, header: &RequestHeader, scene: &mut Scene) {
    let who = Asker::Client(header.client_id.as_deref());
    let mut note = |what, part: Part<'_>, result: Result<(), &ApiError>| {
        let Err(ApiError { code, message }) = result else { return };
        if [ErrorCode::InvalidReplicationFactor, ErrorCode::InvalidReplicaAssignment].contains(code) {
            let why = Why { code: *code, part: Some(part), words: message };
            scene.desk.refusals.note(what, who, scene.context.peer, why);
        }
    };
    match answer {
        ControllerAnswer::Topics(topics) => {
            for TopicAnswer { name, result } in topics {
                note(Refusal::Topic, Part::Topic(name), result.as_ref().map(|_| ()));
            }
        }
        ControllerAnswer::Partitions(topics) => {
            for (name, result) in topics {
                note(Refusal::MorePartitions, Part::Topic(name), result.as_ref().map(|_| ()));
            }
        }
        ControllerAnswer::Reassigned(partitions) => {
            for (name, index, result) in partitions {
                note(Refusal::Reassignment, Part::Partition(name, *index), result.as_ref().map(|_| ()));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use bytes::BytesMut;
    use kafka_protocol::messages::{CreateTopicsRequest, EnvelopeRequest};

    use super::super::forward::Forwarded;
    use super::super::stage::{Stage, TO};
    use super::super::{Answered, Work};
    use super::*;
    use crate::security::Principal;
    use crate::wire::StrBytes;
    use crate::wire::api::ApiKey;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn what_goes_on_is_said_ever_more_rarely_and_each_kind_for_itself() {
        let mut refusals = Refusals::default();
        let mut note = |what, node_id, code: ErrorCode| {
            refusals.note(what, Asker::Node(node_id), PEER, code.into());
        };
        for _ in 0..100 {
            note(Refusal::Registration, 2, ErrorCode::DuplicateBrokerRegistration);
            note(Refusal::Heartbeat, 2, ErrorCode::NotController);
        }
        note(Refusal::Registration, 3, ErrorCode::InconsistentClusterId);
        let lines = refusals.take();
        assert_eq!(lines.len(), 10 + 3 + 1);
        assert_eq!(
            lines[13],
            "refused the registration of node 3 at 127.0.0.1: InconsistentClusterId (1 of this kind on this shard)"
        );
        assert!(refusals.is_silent());
    }

    #[test]
    fn what_is_usual_while_leaders_change_is_said_at_doublings_only_and_what_was_done_never() {
        let mut refusals = Refusals::default();
        let mut note = |code| {
            let why = Why { part: Some(Part::Partition("orders", 3)), ..Why::from(code) };
            refusals.note(Refusal::IsrOfPartition, Asker::Node(2), PEER, why);
        };
        for _ in 0..100 {
            note(ErrorCode::InvalidUpdateVersion);
            note(ErrorCode::NewLeaderElected);
            note(ErrorCode::OperationNotAttempted);
        }
        let lines = refusals.take();
        assert_eq!(lines.len(), 7, "1, 2, 4, ... 64");
        assert_eq!(
            lines[1],
            "refused a partition in changes of in-sync replicas of node 2 at 127.0.0.1: InvalidUpdateVersion for \
             \"orders\"-3 (2 of this kind on this shard, usual while leaders or brokers change)"
        );
    }

    #[test]
    fn a_clients_own_words_are_short_and_plain_in_a_line() {
        let mut refusals = Refusals::default();
        let (name, topic) = ("\u{1b}[2J\nrefused \"me\"", "\u{202e}x".repeat(20_000));
        let code = ErrorCode::InvalidReplicaAssignment;
        let why = Why { code, part: Some(Part::Topic(&topic)), words: &topic };
        refusals.note(Refusal::Topic, Asker::Client(Some(name)), PEER, why);
        let lines = refusals.take();
        assert!(
            lines[0].starts_with(r#"refused a topic of client "\u{1b}[2J\nrefused \"me\"" at 127.0.0.1: "#)
        );
        assert!(lines[0].len() < 5_000 && lines[0].ends_with(r#""... (1 of this kind on this shard)"#));
        assert!(!lines[0].contains(char::is_control) && !lines[0].contains('\u{202e}'));
    }

    fn impossible(name: &str) -> ControllerAnswer {
        let error = ApiError {
            code: ErrorCode::InvalidReplicationFactor,
            message: "Unable to replicate the partition 3 time(s)".to_owned(),
        };
        let exists = ApiError { code: ErrorCode::TopicAlreadyExists, message: "It exists.".to_owned() };
        let answer = |name: &str, error| TopicAnswer { name: name.to_owned(), result: Err(error) };
        ControllerAnswer::Topics(vec![answer(name, error), answer("there", exists)])
    }

    const ORDERS: &str = "InvalidReplicationFactor for \"orders\": \"Unable to replicate the partition 3 time(s)\" \
                          (1 of this kind on this shard)";

    #[test]
    fn a_topic_that_no_cluster_of_these_brokers_can_hold_is_said_with_its_client() {
        let mut stage = Stage::new(&[]);
        let (header, mut work) = stage.start(ApiKey::CreateTopics, 7, &CreateTopicsRequest::default());
        let header = RequestHeader { client_id: Some(StrBytes::from_static_str("admin")), ..header };
        let answer = Answered::Controller(Box::new(impossible("orders")));
        work.answer(&header, TO, answer, &mut stage.scene());
        let said = format!("refused a topic of client \"admin\" at 127.0.0.1: {ORDERS}");
        assert_eq!(stage.desk.refusals.take(), [said]);
    }

    #[test]
    fn what_another_node_passes_on_is_said_once_and_with_the_client_who_asked() {
        let mut stage = Stage::new(&[]);
        let (header, _) = stage.start(ApiKey::CreateTopics, 7, &CreateTopicsRequest::default());
        let mut body = BytesMut::new();
        kafka_protocol::protocol::Encodable::encode(&CreateTopicsRequest::default(), &mut body, 7).unwrap();
        let client = Ipv4Addr::new(10, 0, 0, 7);
        let passed_on = Forwarded::new(&header, &body.freeze(), Principal::Anonymous, client.into());
        let envelope = EnvelopeRequest::default()
            .with_request_data(passed_on.request)
            .with_client_host_address(client.octets().to_vec().into());
        let (header, mut work) = stage.start(ApiKey::Envelope, 0, &envelope);
        assert!(matches!(work, Work::Envelope(_)));
        let answer = Answered::Controller(Box::new(impossible("orders")));
        work.answer(&header, TO, answer, &mut stage.scene());
        assert_eq!(
            stage.desk.refusals.take(),
            [format!("refused a topic of a client at 10.0.0.7: {ORDERS}")]
        );
    }

    #[test]
    fn more_partitions_and_moves_that_cannot_be_are_said_and_what_can_be_tried_again_is_not() {
        let mut stage = Stage::new(&[]);
        let (header, _) = stage.start(ApiKey::CreateTopics, 7, &CreateTopicsRequest::default());
        let refused = |code| Err(ApiError { code, message: String::new() });
        let partitions = vec![
            ("a".to_owned(), refused(ErrorCode::InvalidReplicaAssignment)),
            ("b".to_owned(), refused(ErrorCode::UnknownTopicOrPartition)),
            ("c".to_owned(), Ok(())),
        ];
        let moves = vec![
            ("a".to_owned(), 4, refused(ErrorCode::InvalidReplicationFactor)),
            ("a".to_owned(), 5, refused(ErrorCode::NoReassignmentInProgress)),
        ];
        note_impossible(&ControllerAnswer::Partitions(partitions), &header, &mut stage.scene());
        note_impossible(&ControllerAnswer::Reassigned(moves), &header, &mut stage.scene());
        let said = stage.desk.refusals.take();
        let expected = [
            "refused more partitions of a client at 127.0.0.1: InvalidReplicaAssignment for \"a\"",
            "refused a reassignment of a client at 127.0.0.1: InvalidReplicationFactor for \"a\"-4",
        ];
        assert_eq!(said, expected.map(|said| format!("{said} (1 of this kind on this shard)")));
    }
}
