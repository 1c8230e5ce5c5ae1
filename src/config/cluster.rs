//! The keys of a cluster of several nodes, taken together: who votes in the metadata quorum, how brokers and
//! controllers keep in touch, and how replicas are fetched.
//!
//! The rules and most of their words are Kafka's, with two that are kinder: a node of both roles needs neither voters
//! nor bootstrap servers (it is a cluster of its own), and no controller listener as long as it votes alone.

use super::given::{Given, Problem, Warning};
use super::listeners::Listeners;
use super::{Endpoint, ProcessRoles};

const ROLES: &str = "process.roles";
const VOTERS: &str = "controller.quorum.voters";
const BOOTSTRAP: &str = "controller.quorum.bootstrap.servers";
const CONTROLLER_LISTENERS: &str = "controller.listener.names";
/// An address that means every interface: nobody can connect to it.
const NOT_ROUTABLE: &str = "0.0.0.0";

/// One entry of `controller.quorum.voters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its `node.id`.
    pub node_id: i32,
    /// Where its controller's listener is reached.
    pub endpoint: Endpoint,
}

/// How a follower fetches from a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFetchConfig {
    /// `replica.fetch.min.bytes`
    pub min_bytes: i32,
    /// `replica.fetch.max.bytes`, of one partition.
    pub partition_max_bytes: i32,
    /// `replica.fetch.response.max.bytes`
    pub response_max_bytes: i32,
    /// `replica.fetch.wait.max.ms`
    pub wait_max_ms: i32,
    /// `replica.fetch.backoff.ms`: the rest after a failed fetch.
    pub backoff_ms: u64,
    /// `replica.socket.timeout.ms`: the most that a fetch may take.
    pub socket_timeout_ms: u64,
}

/// The keys of the cluster, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `controller.quorum.voters` in the order given, each node once; empty for a quorum whose voters stand in its
    /// own log.
    pub voters: Vec<Voter>,
    /// `controller.quorum.bootstrap.servers` in the order given.
    pub bootstrap_servers: Vec<Endpoint>,
    /// `broker.heartbeat.interval.ms`
    pub heartbeat_interval_ms: u64,
    /// `broker.session.timeout.ms`: silence of a broker after which it is fenced.
    pub session_timeout_ms: u64,
    /// `initial.broker.registration.timeout.ms`
    pub registration_timeout_ms: u64,
    /// `controlled.shutdown.enable`
    pub controlled_shutdown: bool,
    /// `auto.leader.rebalance.enable`
    pub auto_leader_rebalance: bool,
    /// `leader.imbalance.check.interval.seconds`, in milliseconds.
    pub leader_imbalance_check_interval_ms: u64,
    /// `unclean.leader.election.interval.ms`
    pub unclean_election_interval_ms: u64,
    /// `request.timeout.ms`: the most that a call between nodes may take.
    pub request_timeout_ms: u64,
    /// `replica.fetch.*`
    pub fetch: ReplicaFetchConfig,
}

/// Reads all of it; what is wrong goes to `problems`.
pub(super) fn read(given: &Given, problems: &mut Vec<Problem>) -> ClusterConfig {
    ClusterConfig {
        voters: voters(given, problems),
        bootstrap_servers: bootstrap_servers(given, problems),
        heartbeat_interval_ms: time_ms(given, "broker.heartbeat.interval.ms"),
        session_timeout_ms: time_ms(given, "broker.session.timeout.ms"),
        registration_timeout_ms: time_ms(given, "initial.broker.registration.timeout.ms"),
        controlled_shutdown: given.switch("controlled.shutdown.enable"),
        auto_leader_rebalance: given.switch("auto.leader.rebalance.enable"),
        leader_imbalance_check_interval_ms: given
            .number::<u64>("leader.imbalance.check.interval.seconds")
            .saturating_mul(1000),
        unclean_election_interval_ms: given.number("unclean.leader.election.interval.ms"),
        request_timeout_ms: time_ms(given, "request.timeout.ms"),
        fetch: ReplicaFetchConfig {
            min_bytes: given.number("replica.fetch.min.bytes"),
            partition_max_bytes: given.number("replica.fetch.max.bytes"),
            response_max_bytes: given.number("replica.fetch.response.max.bytes"),
            wait_max_ms: given.number("replica.fetch.wait.max.ms"),
            backoff_ms: given.number("replica.fetch.backoff.ms"),
            socket_timeout_ms: time_ms(given, "replica.socket.timeout.ms"),
        },
    }
}

/// A time that Kafka's table leaves without a lower bound; less than a millisecond counts as one.
fn time_ms(given: &Given, key: &'static str) -> u64 {
    given.number_unless_negative::<u64>(key).unwrap_or(0).max(1)
}

fn voters(given: &Given, problems: &mut Vec<Problem>) -> Vec<Voter> {
    let mut voters: Vec<Voter> = Vec::new();
    for entry in given.list(VOTERS) {
        match parse_voter(entry) {
            Ok(voter) if voters.iter().any(|other| other.node_id == voter.node_id) => {
                let message = format!("the node id {} is named twice", voter.node_id);
                problems.push(Problem::new(VOTERS, entry, message));
            }
            Ok(voter) => voters.push(voter),
            Err(message) => problems.push(Problem::new(VOTERS, entry, message)),
        }
    }
    voters
}

fn parse_voter(entry: &str) -> Result<Voter, String> {
    let form = "Each entry should be in the form `{id}@{host}:{port}`.";
    let (id, address) =
        entry.split_once('@').ok_or_else(|| format!("Invalid configuration value for {VOTERS}. {form}"))?;
    let node_id = id.parse().ok().filter(|id: &i32| *id >= 0);
    let node_id = node_id.ok_or_else(|| format!("Failed to parse voter ID as an integer from {id}"))?;
    let endpoint = parse_endpoint(address).map_err(|part| {
        format!("Failed to parse host {part} from entry {entry} for the configuration {VOTERS}. {form}")
    })?;
    if endpoint.host == NOT_ROUTABLE {
        return Err(format!("Host string ({NOT_ROUTABLE}) is not routeable"));
    }
    Ok(Voter { node_id, endpoint })
}

fn bootstrap_servers(given: &Given, problems: &mut Vec<Problem>) -> Vec<Endpoint> {
    let mut servers = Vec::new();
    for entry in given.list(BOOTSTRAP) {
        match parse_endpoint(entry) {
            Ok(server) => servers.push(server),
            Err(part) => problems.push(Problem::new(
                BOOTSTRAP,
                entry,
                format!(
                    "Failed to parse host {part} from entry {entry} for the configuration {BOOTSTRAP}. Each entry \
                     should be in the form `{{host}}:{{port}}`"
                ),
            )),
        }
    }
    servers
}

/// `host:port` that can be connected to, the host in brackets where it is an IPv6 address; or the part that is wrong.
pub(super) fn parse_endpoint(text: &str) -> Result<Endpoint, &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("port")?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port: &u16| is_port && *port > 0).ok_or("port")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_address = |byte: u8| is_host(byte) || matches!(byte, b':' | b'%');
    let sound = match bare {
        Some(address) => !address.is_empty() && address.bytes().all(is_address),
        None => !host.is_empty() && host.bytes().all(is_host),
    };
    let host = bare.unwrap_or(host).to_owned();
    if sound { Ok(Endpoint { host, port }) } else { Err("name") }
}

/// What a check across keys looks at.
pub(super) struct Checked<'a> {
    pub node_id: i32,
    pub roles: ProcessRoles,
    pub listeners: &'a Listeners,
    pub cluster: &'a ClusterConfig,
    pub replica_lag_time_max_ms: u64,
}

/// The rules that join the keys of the cluster.
pub(super) fn check(node: &Checked<'_>, problems: &mut Vec<Problem>) {
    check_quorum(node, problems);
    check_listeners(node, problems);
    check_fetch(node, problems);
}

fn ids(voters: &[Voter]) -> String {
    let ids: Vec<String> = voters.iter().map(|voter| voter.node_id.to_string()).collect();
    format!("Set({})", ids.join(", "))
}

fn entries(voters: &[Voter]) -> String {
    let entry =
        |Voter { node_id, endpoint }: &Voter| format!("{node_id}@{}:{}", endpoint.host, endpoint.port);
    voters.iter().map(entry).collect::<Vec<_>>().join(",")
}

fn check_quorum(node: &Checked<'_>, problems: &mut Vec<Problem>) {
    let Checked { node_id, roles, cluster, .. } = node;
    let votes = cluster.voters.iter().any(|voter| voter.node_id == *node_id);
    let set = ids(&cluster.voters);
    if cluster.voters.is_empty() {
        if roles.broker && !roles.controller && cluster.bootstrap_servers.is_empty() {
            let message = format!(
                "If using {ROLES}, either {BOOTSTRAP} must contain the set of bootstrap controllers or {VOTERS} must \
                 contain a parseable set of controllers."
            );
            problems.push(Problem::new(VOTERS, "", message));
        }
    } else if roles.controller && !votes {
        let message = format!(
            "If {ROLES} contains the 'controller' role, the node id {node_id} must be included in the set of voters \
             {VOTERS}={set}"
        );
        problems.push(Problem::new(VOTERS, entries(&cluster.voters), message));
    } else if !roles.controller && votes {
        let message = format!(
            "If {ROLES} contains just the 'broker' role, the node id {node_id} must not be included in the set of \
             voters {VOTERS}={set}"
        );
        problems.push(Problem::new(VOTERS, entries(&cluster.voters), message));
    }
}

fn check_listeners(node: &Checked<'_>, problems: &mut Vec<Problem>) {
    let Checked { roles, listeners, cluster, .. } = node;
    let names = listeners.controller.join(",");
    let mut refuse = |message: String| problems.push(Problem::new(CONTROLLER_LISTENERS, &names, message));
    let is_controllers = |name: &String| listeners.controller.contains(name);
    let own = listeners.listeners.iter().filter(|listener| is_controllers(&listener.name)).count();
    match (roles.broker, roles.controller) {
        (true, false) if listeners.controller.is_empty() => refuse(format!(
            "{CONTROLLER_LISTENERS} must contain at least one value when running KRaft with just the broker role"
        )),
        (true, false) if own > 0 => refuse(format!(
            "{CONTROLLER_LISTENERS} must not contain a value appearing in the 'listeners' configuration when running \
             KRaft with just the broker role"
        )),
        // A quorum of one node is asked through its listeners for clients too.
        (broker, true) if own == 0 && (!broker || cluster.voters.len() > 1) => refuse(format!(
            "{CONTROLLER_LISTENERS} must contain at least one value appearing in the 'listeners' configuration when \
             running the KRaft controller role"
        )),
        (false, true) if own < listeners.listeners.len() => refuse(format!(
            "The listeners config must only contain KRaft controller listeners from {CONTROLLER_LISTENERS} when \
             {ROLES}=controller"
        )),
        _ => {}
    }
}

fn check_fetch(node: &Checked<'_>, problems: &mut Vec<Problem>) {
    const WAIT: &str = "replica.fetch.wait.max.ms";
    let fetch = &node.cluster.fetch;
    let wait_ms = u64::try_from(fetch.wait_max_ms).unwrap_or(0);
    if wait_ms > fetch.socket_timeout_ms {
        let message = format!(
            "replica.socket.timeout.ms should always be at least {WAIT} to prevent unnecessary socket timeouts"
        );
        problems.push(Problem::new(WAIT, wait_ms.to_string(), message));
    }
    if wait_ms > node.replica_lag_time_max_ms {
        let message = format!(
            "{WAIT} should always be less than or equal to replica.lag.time.max.ms to prevent frequent changes in ISR"
        );
        problems.push(Problem::new(WAIT, wait_ms.to_string(), message));
    }
}

/// What lets the node start and is hardly meant.
pub(super) fn warn(node: &Checked<'_>, warnings: &mut Vec<Warning>) {
    let cluster = node.cluster;
    let mut say = |key: &str, message: String| warnings.push(Warning { key: key.to_owned(), message });
    if !cluster.voters.is_empty() && !cluster.bootstrap_servers.is_empty() {
        say(BOOTSTRAP, format!("has no effect, because {VOTERS} names the quorum; set only one of the two"));
    }
    let (interval_ms, session_ms) = (cluster.heartbeat_interval_ms, cluster.session_timeout_ms);
    if interval_ms.saturating_mul(2) > session_ms {
        say(
            "broker.heartbeat.interval.ms",
            format!(
                "{interval_ms} must be less than or equal to half of broker.session.timeout.ms, {session_ms}: a broker \
                 that misses one heartbeat would be fenced"
            ),
        );
    }
    if node.roles.broker && !node.roles.controller && node.listeners.controller.len() > 1 {
        say(
            CONTROLLER_LISTENERS,
            format!("has multiple entries; only the first will be used since {ROLES}=broker"),
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{NodeConfig, Warning};
    use super::*;

    const COMBINED: [(&str, &str); 3] = [
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("controller.listener.names", "CONTROLLER"),
        ("controller.quorum.voters", "1@a:9093,2@b:9093,3@[::1]:9093"),
    ];
    const BROKER: [(&str, &str); 3] = [
        ("process.roles", "broker"),
        ("controller.listener.names", "CONTROLLER"),
        ("controller.quorum.bootstrap.servers", "a:9093"),
    ];
    const CONTROLLER: [(&str, &str); 3] = [
        ("process.roles", "controller"),
        ("listeners", "CONTROLLER://a:9093"),
        ("controller.listener.names", "CONTROLLER"),
    ];

    fn load(base: &[(&str, &str)], more: &[(&str, &str)]) -> Result<(NodeConfig, Vec<Warning>), Vec<String>> {
        let pairs: Vec<(String, String)> =
            base.iter().chain(more).map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        NodeConfig::load(None, &pairs)
            .map_err(|error| error.problems.iter().map(ToString::to_string).collect())
    }

    fn refused(base: &[(&str, &str)], more: &[(&str, &str)]) -> String {
        let [only] = load(base, more).unwrap_err().try_into().unwrap();
        only
    }

    #[test]
    fn the_defaults_are_kafkas() {
        let cluster = NodeConfig::default().cluster;
        assert!(cluster.voters.is_empty() && cluster.bootstrap_servers.is_empty());
        assert_eq!((cluster.heartbeat_interval_ms, cluster.session_timeout_ms), (2_000, 9_000));
        assert!(cluster.controlled_shutdown && cluster.auto_leader_rebalance);
        assert_eq!(cluster.leader_imbalance_check_interval_ms, 300_000);
        let fetch = cluster.fetch;
        assert_eq!((fetch.min_bytes, fetch.wait_max_ms, fetch.backoff_ms), (1, 500, 1_000));
        assert_eq!((fetch.partition_max_bytes, fetch.response_max_bytes), (1 << 20, 10 << 20));
    }

    #[test]
    fn nodes_of_every_role_are_read() {
        let (config, _) = load(&COMBINED, &[]).unwrap();
        let voters: Vec<_> = config.cluster.voters.iter().map(|v| (v.node_id, &*v.endpoint.host)).collect();
        assert_eq!(voters, [(1, "a"), (2, "b"), (3, "::1")]);
        let (config, _) = load(&BROKER, &[("node.id", "7")]).unwrap();
        assert_eq!((config.roles.broker, config.roles.controller), (true, false));
        let server = Endpoint { host: "a".to_owned(), port: 9093 };
        assert_eq!(
            (config.cluster.bootstrap_servers, config.inter_broker_listener),
            (vec![server], "PLAINTEXT".into())
        );
        let (config, _) = load(&CONTROLLER, &[]).unwrap();
        assert_eq!(
            (config.controller_listeners, config.inter_broker_listener),
            (vec!["CONTROLLER".into()], String::new())
        );
    }

    #[test]
    fn voters_and_roles_must_agree() {
        assert!(refused(&COMBINED, &[("node.id", "4")]).contains(
            "the node id 4 must be included in the set of voters controller.quorum.voters=Set(1, 2, 3)"
        ));
        let voters = [("controller.quorum.voters", "1@a:9093")];
        assert!(refused(&BROKER, &voters).contains("just the 'broker' role, the node id 1 must not be"));
        let alone = [("process.roles", "broker"), ("controller.listener.names", "CONTROLLER")];
        assert!(refused(&alone, &[]).contains("either controller.quorum.bootstrap.servers must contain"));
        assert!(refused(&COMBINED[..0], &[("process.roles", " , ")]).contains("allowed are broker"));
    }

    #[test]
    fn the_controllers_listener_belongs_to_nodes_that_are_one() {
        assert!(refused(&COMBINED[2..], &[]).contains("when running the KRaft controller role"));
        assert!(refused(&BROKER, &[("controller.listener.names", "")]).contains("at least one value"));
        let bound = [("listeners", "PLAINTEXT://a:9092,CONTROLLER://a:9093")];
        assert!(refused(&BROKER, &bound).contains("must not contain a value appearing in"));
        let unmapped = [("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT")];
        assert!(refused(&BROKER, &unmapped).contains("add CONTROLLER:PLAINTEXT"));
        assert!(refused(&CONTROLLER, &bound).contains("must only contain KRaft controller listeners"));
        let nobody = load(&CONTROLLER, &[("controller.listener.names", "OTHER")]).unwrap_err();
        assert!(nobody.iter().any(|why| why.contains("not among the names of listeners")), "{nobody:?}");
    }

    #[test]
    fn an_entry_that_is_none_is_refused_in_kafkas_words() {
        let voter = |entry| refused(&COMBINED, &[("controller.quorum.voters", entry)]);
        assert!(voter("1@a:9093,b:9093").contains("in the form `{id}@{host}:{port}`"));
        assert!(voter("1@a:9093,x@b:9093").contains("Failed to parse voter ID as an integer from x"));
        assert!(voter("1@a:9093,2@b").contains("Failed to parse host port from entry 2@b"));
        assert!(voter("1@a:9093,2@:9093").contains("Failed to parse host name"));
        assert!(voter("1@a:9093,2@b:0").contains("host port"));
        assert!(voter("1@a:9093,2@0.0.0.0:9093").contains("Host string (0.0.0.0) is not routeable"));
        assert!(voter("1@a:9093,1@b:9093").contains("named twice"));
        let server = refused(&BROKER, &[("controller.quorum.bootstrap.servers", "a:9093,b")]);
        assert!(server.contains("in the form `{host}:{port}`"), "{server}");
    }

    #[test]
    fn waits_of_followers_keep_below_what_would_throw_them_out() {
        let wait = |key, value| refused(&[("replica.fetch.wait.max.ms", "500")], &[(key, value)]);
        assert!(wait("replica.socket.timeout.ms", "499").contains("unnecessary socket timeouts"));
        assert!(wait("replica.lag.time.max.ms", "499").contains("frequent changes in ISR"));
    }

    #[test]
    fn what_is_hardly_meant_is_said() {
        let said = |more: &[(&str, &str)], key: &str| {
            let (_, warnings) = load(&COMBINED, more).unwrap();
            let found = warnings.into_iter().filter(|warning| warning.key == key);
            found.map(|warning| warning.message).collect::<Vec<_>>().join("\n")
        };
        let key = "controller.quorum.bootstrap.servers";
        assert!(said(&[(key, "a:9093")], key).contains("set only one of the two"));
        assert_eq!(said(&[], "broker.heartbeat.interval.ms"), "");
        let slow = [("broker.heartbeat.interval.ms", "4501")];
        assert!(said(&slow, "broker.heartbeat.interval.ms").contains("half of broker.session.timeout.ms"));
        let two = [("controller.listener.names", "CONTROLLER,SSL")];
        let (_, warnings) = load(&BROKER, &two).unwrap();
        assert!(warnings.iter().any(|warning| warning.message.contains("only the first will be used")));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}|[0-9@:a-z.,\\[\\]]{0,40}") {
            let _ = load(&COMBINED, &[("controller.quorum.voters", text.as_str())]);
            let _ = load(&BROKER, &[("controller.quorum.bootstrap.servers", text.as_str())]);
            if let Ok(Endpoint { host, port }) = parse_endpoint(&text) {
                prop_assert!(!host.is_empty() && port > 0);
            }
        }
    }
}
