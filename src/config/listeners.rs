//! The keys about listeners, taken together: `listeners`, what is advertised, protocols, and who uses which.
//!
//! The rules are Kafka's, with two that are kinder: a node of both roles needs no controller listener, and the first
//! listener serves the brokers where none is named for them.

use std::collections::BTreeMap;

use super::given::{Given, Problem};
use super::{Endpoint, Listener, ProcessRoles, SecurityProtocol};

/// What the listener keys say together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listeners {
    pub listeners: Vec<Listener>,
    pub inter_broker: String,
    pub controller: Vec<String>,
}

/// Reads all listener keys; what is wrong goes to `problems`.
pub(super) fn read(given: &Given, roles: ProcessRoles, problems: &mut Vec<Problem>) -> Listeners {
    let controller: Vec<String> =
        given.list("controller.listener.names").iter().map(|name| name.to_uppercase()).collect();
    let protocols = protocols(given, &controller, problems);
    let (key, bound) = bound(given, problems);
    let advertised = advertised(given, &bound, problems);
    let mut listeners = Vec::new();
    for (name, bind) in &bound {
        let Some(protocol) = protocol(key, name, &protocols, problems) else { continue };
        let told = advertised.get(name).cloned();
        let told = if controller.contains(name) { told } else { Some(told.unwrap_or_else(|| bind.clone())) };
        if told.as_ref().is_some_and(|endpoint| is_meta_address(&endpoint.host)) {
            let message =
                "clients cannot connect to a meta-address; set advertised.listeners to one they can";
            problems.push(Problem::new("advertised.listeners", name.clone(), message));
        }
        listeners.push(Listener { name: name.clone(), protocol, bind: bind.clone(), advertised: told });
    }
    check_ports(key, &bound, problems);
    check_controller(&controller, roles, &bound, &protocols, problems);
    // A node that is only a controller has nobody to tell where brokers reach it.
    let inter_broker =
        if roles.broker { inter_broker(given, &controller, &bound, problems) } else { String::new() };
    Listeners { listeners, inter_broker, controller }
}

fn is_meta_address(host: &str) -> bool {
    matches!(host, "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0")
}

/// `NAME://host:port` entries by name, in order.
fn parse_endpoints(key: &str, entries: &[&str], problems: &mut Vec<Problem>) -> Vec<(String, Endpoint)> {
    let mut endpoints: Vec<(String, Endpoint)> = Vec::new();
    for entry in entries {
        match parse_endpoint(entry) {
            Some((name, _)) if endpoints.iter().any(|(other, _)| *other == name) => {
                problems.push(Problem::new(key, *entry, "each listener must have a different name"));
            }
            Some(endpoint) => endpoints.push(endpoint),
            None => problems.push(Problem::new(
                key,
                *entry,
                "allowed are entries such as PLAINTEXT://host:9092 or PLAINTEXT://[::1]:9092",
            )),
        }
    }
    endpoints
}

fn parse_endpoint(entry: &str) -> Option<(String, Endpoint)> {
    let (name, address) = entry.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None => host,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_host = |byte: u8| is_name(byte) || matches!(byte, b':' | b'%');
    let port: u16 = port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    let sound = !name.is_empty() && name.bytes().all(is_name) && host.bytes().all(is_host);
    sound.then(|| (name.to_uppercase(), Endpoint { host: host.to_owned(), port }))
}

/// `listeners`, or what `host.name` and `port` of old files say; with the key that said it.
fn bound(given: &Given, problems: &mut Vec<Problem>) -> (&'static str, Vec<(String, Endpoint)>) {
    let old = given.text("port").is_some() || given.text("host.name").is_some();
    if given.text("listeners").is_none() && old {
        let host = given.text("host.name").unwrap_or_default().to_owned();
        return ("port", vec![("PLAINTEXT".to_owned(), Endpoint { host, port: given.number("port") })]);
    }
    let entries = given.list("listeners");
    if given.text("listeners").is_some_and(str::is_empty) {
        problems.push(Problem::new("listeners", "", "at least one listener is needed"));
    }
    ("listeners", parse_endpoints("listeners", &entries, problems))
}

/// `advertised.listeners` by name, or what `advertised.host.name` and `advertised.port` say.
fn advertised(
    given: &Given,
    bound: &[(String, Endpoint)],
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Endpoint> {
    const KEY: &str = "advertised.listeners";
    let entries = given.list(KEY);
    let (host, port) = (given.text("advertised.host.name"), given.text("advertised.port"));
    if entries.is_empty() && (host.is_some() || port.is_some()) {
        let Some((name, bind)) = bound.first() else { return BTreeMap::new() };
        let host = host.unwrap_or(&bind.host).to_owned();
        let port = port.and_then(|port| port.parse().ok()).unwrap_or(bind.port);
        return BTreeMap::from([(name.clone(), Endpoint { host, port })]);
    }
    let endpoints = parse_endpoints(KEY, &entries, problems);
    for (name, endpoint) in &endpoints {
        let Some((_, bind)) = bound.iter().find(|(other, _)| other == name) else {
            problems.push(Problem::new(KEY, name.clone(), "its name is not among those of listeners"));
            continue;
        };
        if endpoint.port == 0 && bind.port != 0 {
            problems.push(Problem::new(KEY, name.clone(), "clients cannot connect to port 0"));
        }
    }
    endpoints.into_iter().collect()
}

/// `listener.security.protocol.map` by listener name, still as text.
fn protocols(given: &Given, controller: &[String], problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    const KEY: &str = "listener.security.protocol.map";
    let mut protocols = BTreeMap::new();
    for entry in given.list(KEY) {
        match entry.split_once(':').map(|(name, protocol)| (name.trim(), protocol.trim().to_uppercase())) {
            Some((name, protocol)) if !name.is_empty() && PROTOCOLS.contains(&protocol.as_str()) => {
                if protocols.insert(name.to_uppercase(), protocol).is_some() {
                    problems.push(Problem::new(KEY, entry, "each listener has one protocol"));
                }
            }
            _ => problems.push(Problem::new(
                KEY,
                entry,
                format!("allowed are entries NAME:PROTOCOL with a protocol of {}", PROTOCOLS.join(", ")),
            )),
        }
    }
    if given.text(KEY).is_none() {
        for name in controller {
            protocols.entry(name.clone()).or_insert_with(|| "PLAINTEXT".to_owned());
        }
    }
    protocols
}

const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

fn protocol(
    key: &str,
    name: &str,
    protocols: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Option<SecurityProtocol> {
    let message = match protocols.get(name).map(String::as_str) {
        Some("PLAINTEXT") => return Some(SecurityProtocol::Plaintext),
        Some(other) => {
            format!("{other} is not built yet and nothing else may stand for it; use a PLAINTEXT listener")
        }
        None => format!("it has no protocol; add {name}:PLAINTEXT to listener.security.protocol.map"),
    };
    problems.push(Problem::new(key, name, message));
    None
}

/// Two listeners may share a port only where one is IPv4 and the other IPv6.
fn check_ports(key: &str, bound: &[(String, Endpoint)], problems: &mut Vec<Problem>) {
    for (index, (name, bind)) in bound.iter().enumerate() {
        let clashes = |other: &Endpoint| {
            let families = bind.host.contains(':') != other.host.contains(':');
            let one_is_a_name = bind.host.is_empty() || other.host.is_empty();
            bind.port != 0 && bind.port == other.port && (!families || one_is_a_name)
        };
        if let Some((other, _)) = bound.iter().take(index).find(|(_, other)| clashes(other)) {
            let message = format!("it has the port of {other}; each listener must have a different port");
            problems.push(Problem::new(key, name.clone(), message));
        }
    }
}

fn check_controller(
    controller: &[String],
    roles: ProcessRoles,
    bound: &[(String, Endpoint)],
    protocols: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    const KEY: &str = "controller.listener.names";
    for name in controller {
        if roles.controller && !bound.iter().any(|(other, _)| other == name) {
            problems.push(Problem::new(KEY, name.clone(), "it is not among the names of listeners"));
        }
        // The controllers' listeners are elsewhere; what is spoken there must be known here.
        if !roles.controller && !protocols.contains_key(name) {
            let message =
                format!("it has no protocol; add {name}:PLAINTEXT to listener.security.protocol.map");
            problems.push(Problem::new(KEY, name.clone(), message));
        }
    }
    if roles.broker && !bound.is_empty() && bound.iter().all(|(name, _)| controller.contains(name)) {
        problems.push(Problem::new(KEY, controller.join(","), "no listener is left for clients"));
    }
}

fn inter_broker(
    given: &Given,
    controller: &[String],
    bound: &[(String, Endpoint)],
    problems: &mut Vec<Problem>,
) -> String {
    const KEY: &str = "inter.broker.listener.name";
    const BY_PROTOCOL: &str = "security.inter.broker.protocol";
    let for_clients = || bound.iter().map(|(name, _)| name).filter(|name| !controller.contains(name));
    let by_protocol = given.text(BY_PROTOCOL);
    let named = given.text(KEY).filter(|name| !name.is_empty()).map(str::to_uppercase);
    if let (Some(name), Some(_)) = (&named, by_protocol) {
        let message = format!("{BY_PROTOCOL} is given too; only one of the two may be");
        problems.push(Problem::new(KEY, name.clone(), message));
    }
    if let Some(protocol) = by_protocol.filter(|protocol| *protocol != "PLAINTEXT") {
        problems.push(Problem::new(
            BY_PROTOCOL,
            protocol,
            format!("{protocol} is not built yet; use PLAINTEXT"),
        ));
    }
    let fallback = || for_clients().find(|name| *name == "PLAINTEXT").or_else(|| for_clients().next());
    match named {
        None => fallback().cloned().unwrap_or_default(),
        Some(name) => {
            if !for_clients().any(|other| *other == name) {
                let names: Vec<&str> = for_clients().map(String::as_str).collect();
                let message = format!("allowed are the listeners for clients: {}", names.join(", "));
                problems.push(Problem::new(KEY, name.clone(), message));
            }
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(pairs: &[(&str, &str)]) -> (Listeners, Vec<String>) {
        let (mut warnings, mut problems) = (Vec::new(), Vec::new());
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let given = Given::read(None, &pairs, &mut warnings, &mut problems);
        let roles = ProcessRoles { broker: true, controller: true };
        let listeners = read(&given, roles, &mut problems);
        (listeners, problems.iter().map(ToString::to_string).collect())
    }

    fn refused(pairs: &[(&str, &str)]) -> String {
        let (_, problems) = read_all(pairs);
        let [problem] = problems.try_into().unwrap();
        problem
    }

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.to_owned(), port }
    }

    #[test]
    fn without_any_key_the_node_listens_on_this_machine_only() {
        let (listeners, problems) = read_all(&[]);
        assert_eq!(problems, [""; 0]);
        let [only] = listeners.listeners.try_into().unwrap();
        assert_eq!((only.name.as_str(), only.bind), ("PLAINTEXT", endpoint("127.0.0.1", 9092)));
        assert_eq!(only.advertised, Some(endpoint("127.0.0.1", 9092)));
        assert_eq!(listeners.inter_broker, "PLAINTEXT");
    }

    #[test]
    fn an_empty_host_is_every_interface_and_brackets_hold_ipv6() {
        let (listeners, problems) = read_all(&[
            ("listeners", "plaintext://:0, v6://[::1]:9093"),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,V6:plaintext"),
        ]);
        assert_eq!(problems, [""; 0]);
        let binds: Vec<&Endpoint> = listeners.listeners.iter().map(|listener| &listener.bind).collect();
        assert_eq!(binds, [&endpoint("", 0), &endpoint("::1", 9093)]);
    }

    #[test]
    fn a_controller_listener_is_plaintext_and_not_advertised() {
        let (listeners, problems) = read_all(&[
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("controller.listener.names", "CONTROLLER"),
        ]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(listeners.listeners.last().unwrap().advertised, None);
        assert_eq!(listeners.controller, ["CONTROLLER"]);
    }

    #[test]
    fn listeners_that_need_tls_or_sasl_are_refused() {
        assert!(refused(&[("listeners", "SSL://:9092")]).contains("SSL is not built yet"));
        let mapped = [("listeners", "OUT://:9092"), ("listener.security.protocol.map", "OUT:SASL_SSL")];
        assert!(refused(&mapped).contains("SASL_SSL is not built yet"));
        assert!(refused(&[("security.inter.broker.protocol", "SSL")]).contains("not built yet"));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_allowed() {
        assert!(refused(&[("listeners", "PLAINTEXT://:9092,PLAINTEXT://:9093")]).contains("different name"));
        assert!(refused(&[("listeners", "OUT://:9092")]).contains("add OUT:PLAINTEXT"));
        assert!(refused(&[("listeners", "PLAINTEXT://0.0.0.0:9092")]).contains("meta-address"));
        assert!(refused(&[("advertised.listeners", "OTHER://a:1")]).contains("not among"));
        assert!(refused(&[("inter.broker.listener.name", "OTHER")]).contains("allowed are"));
        assert!(refused(&[("controller.listener.names", "CONTROLLER")]).contains("not among"));
        let (_, problems) = read_all(&[("listeners", "9092,PLAINTEXT://:70000")]);
        assert_eq!(problems.len(), 2);
        let same = [
            ("listeners", "PLAINTEXT://a:9092,IN://b:9092"),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,IN:PLAINTEXT"),
        ];
        assert!(refused(&same).contains("different port"));
    }

    #[test]
    fn keys_of_the_oldest_files_stand_for_the_one_listener() {
        let (listeners, problems) =
            read_all(&[("port", "9095"), ("host.name", "h"), ("advertised.host.name", "outside")]);
        assert_eq!(problems, [""; 0]);
        let only = listeners.listeners.first().unwrap();
        assert_eq!(
            (&only.bind, only.advertised.as_ref()),
            (&endpoint("h", 9095), Some(&endpoint("outside", 9095)))
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}|[A-Z:/,0-9.\\[\\]]{0,40}") {
            read_all(&[("listeners", &text)]);
            read_all(&[("advertised.listeners", &text)]);
            read_all(&[("listener.security.protocol.map", &text)]);
        }
    }
}
