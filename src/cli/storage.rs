//! `tidemill storage`, and `tidemill format` for the part of it that writes: whose the log directories of a node are.
//! Flags and lines are those of Kafka's `kafka-storage`.
//!
//! A node that is a cluster of its own needs none of it: its first start formats empty directories. What is written
//! is `meta.properties`, and beside the metadata of a controller whose quorum keeps its voters itself
//! [`INITIAL_VOTERS_FILE`]: first that, then `meta.properties`, so that a directory that has the one has the other.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::output::print;
use super::start::load_quietly;
use crate::client::ClientError;
use crate::config::{Endpoint, INITIAL_VOTERS_FILE, InitialVoter, InitialVoters, NodeConfig};
use crate::controller::features;
use crate::log::checkpoint::MetaProperties;
use crate::log::directory::META_PROPERTIES;
use crate::log::{encode_uuid, parse_uuid};

const VOTERS: &str = "controller.quorum.voters";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill storage random-uuid
  tidemill storage format --config server.properties --cluster-id I7rxdXZqRmy5B4yDWBDDkw --standalone
  tidemill storage info --config server.properties")]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write into empty log directories whose they are.
    Format(FormatOptions),
    /// Show whose the log directories are.
    Info(InfoOptions),
    /// Print a new id, for a cluster or a directory.
    RandomUuid,
}

#[derive(Debug, clap::Args)]
pub(super) struct ConfigOptions {
    /// The node's server.properties; every key has its default without it.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Puts a value over the file's; the last one counts.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// What is formatted: flags of Kafka's `kafka-storage format`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples, on each controller of three with the ids that `tidemill storage random-uuid` gave:
  tidemill format -c server.properties -t I7rxdXZqRmy5B4yDWBDDkw -I \\
      1@a:9093:JEXY6aqzQY-32P5TStzaFg,2@b:9093:MvDxzVmcRsaTz33bUuRU6A,3@c:9093:07R5amHmR32VDA6jHkGbTA
On a broker:
  tidemill format -c server.properties -t I7rxdXZqRmy5B4yDWBDDkw"
)]
pub struct FormatOptions {
    #[command(flatten)]
    config: ConfigOptions,
    /// The cluster's id.
    #[arg(long, short = 't', value_name = "ID")]
    cluster_id: String,
    /// Leave directories alone that are formatted already.
    #[arg(long, short = 'g')]
    ignore_formatted: bool,
    /// The release whose metadata the cluster begins with.
    #[arg(long, short, value_name = "RELEASE")]
    release_version: Option<String>,
    /// A feature and the level that the cluster begins with.
    #[arg(long, short, value_name = "NAME=LEVEL")]
    feature: Vec<String>,
    /// This controller begins as the quorum's only voter.
    #[arg(long, short, conflicts_with_all = ["initial_controllers", "no_initial_controllers"])]
    standalone: bool,
    /// This controller is added to a quorum later.
    #[arg(long, short = 'N', conflicts_with = "initial_controllers")]
    no_initial_controllers: bool,
    /// The voters that the quorum begins with: the same list on each of them.
    #[arg(long, short = 'I', value_name = "ID@HOST:PORT:DIRECTORY,…")]
    initial_controllers: Option<String>,
}

#[derive(Debug, clap::Args)]
struct InfoOptions {
    #[command(flatten)]
    config: ConfigOptions,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    match &options.command {
        Command::Format(options) => format(options),
        Command::Info(options) => {
            let config = options.config.load()?;
            let (text, sound) = info(&directories(&config));
            print(&text)?;
            if sound {
                Ok(())
            } else {
                Err(ClientError::Usage("the log directories are not in order".to_owned()))
            }
        }
        Command::RandomUuid => print(&format!("{}\n", encode_uuid(random_id()))),
    }
}

/// Formats the log directories of a node. Fails on a configuration or directories that do not fit.
pub fn format(options: &FormatOptions) -> Result<(), ClientError> {
    let config = options.config.load()?;
    let text = format_with(options, &config).map_err(ClientError::Usage)?;
    print(&text)
}

/// Formats a node of which all is written in a file, with the voters that its quorum begins with.
pub(super) fn format_node(config: PathBuf, cluster_id: &str, voters: &str) -> Result<(), ClientError> {
    let options = FormatOptions {
        config: ConfigOptions { config: Some(config), overrides: Vec::new() },
        cluster_id: cluster_id.to_owned(),
        ignore_formatted: false,
        release_version: None,
        feature: Vec::new(),
        standalone: false,
        no_initial_controllers: false,
        initial_controllers: Some(voters.to_owned()),
    };
    let config = options.config.load()?;
    format_with(&options, &config).map_err(ClientError::Usage).map(drop)
}

impl ConfigOptions {
    fn load(&self) -> Result<NodeConfig, ClientError> {
        let files: Vec<PathBuf> = self.config.iter().cloned().collect();
        load_quietly(&files, &self.overrides).map_err(ClientError::Usage)
    }
}

/// As Kafka's: none that a command line takes for an option.
pub(super) fn random_id() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if !encode_uuid(id).starts_with('-') {
            return id;
        }
    }
}

/// The log directories and that of the metadata, each once, by name.
fn directories(config: &NodeConfig) -> Vec<PathBuf> {
    let mut all = config.log_dirs.clone();
    all.push(config.metadata_log_dir.clone());
    all.sort();
    all.dedup();
    all
}

/// Carries out a `format`; gives what is to be said.
fn format_with(options: &FormatOptions, config: &NodeConfig) -> Result<String, String> {
    let cluster_id = options.cluster_id.trim();
    if parse_uuid(cluster_id).is_none_or(|id| id.is_nil()) {
        return Err(format!(
            "Cluster ID string {cluster_id} does not appear to be a valid UUID: expected the 22 characters that \
             `tidemill storage random-uuid` prints"
        ));
    }
    let voters = initial_voters(options, config)?;
    let controllers = voters.as_ref().map_or(config.cluster.voters.len(), |voters| voters.voters.len());
    check_features(options, controllers)?;
    let (formatted, empty) = look_at(&directories(config), cluster_id, config.node_id)?;
    if let Some(first) = formatted.keys().next().filter(|_| !options.ignore_formatted) {
        return Err(format!(
            "Log directory {} is already formatted. Use --ignore-formatted to ignore this directory and format the \
             others.",
            first.display()
        ));
    }
    let mut said = String::new();
    if empty.is_empty() {
        said.push_str("All of the log directories are already formatted.\n");
    }
    for directory in empty {
        let is_metadata = directory == config.metadata_log_dir;
        let own = voters.as_ref().and_then(|voters| voters.voter(config.node_id)).filter(|_| is_metadata);
        let kind = match (&voters, own) {
            _ if !is_metadata => "data directory",
            (None, _) => "metadata directory",
            (Some(_), Some(_)) => "dynamic metadata voter directory",
            (Some(_), None) => "dynamic metadata directory",
        };
        let properties = MetaProperties {
            version: 1,
            cluster_id: Some(cluster_id.to_owned()),
            node_id: Some(config.node_id),
            directory_id: Some(own.map_or_else(random_id, |voter| voter.directory_id)),
        };
        let shown = directory.display();
        said.push_str(&format!("Formatting {kind} {shown} with metadata.version {}.\n", features::release()));
        let voters = voters.as_ref().filter(|_| is_metadata);
        write_all(&directory, voters, &properties)
            .map_err(|error| format!("Error while writing {META_PROPERTIES} file in {shown}: {error}"))?;
    }
    Ok(said)
}

/// A cluster begins with the newest level of every feature; one of a single controller has nobody to be eligible.
fn check_features(options: &FormatOptions, controllers: usize) -> Result<(), String> {
    let release = features::release();
    if let Some(wanted) = options.release_version.as_deref().filter(|wanted| {
        // A release stands for the last level that it has.
        *wanted != release && Some(*wanted) != release.split_once("-IV").map(|(release, _)| release)
    }) {
        return Err(format!("Unknown metadata.version {wanted}. Supported metadata.version are {release}"));
    }
    let known = features::supported();
    for one in &options.feature {
        let (name, level) = one
            .split_once('=')
            .and_then(|(name, level)| Some((name.trim(), level.trim().parse::<i16>().ok()?)))
            .ok_or_else(|| format!("Can't parse feature=level string {one}: expected NAME=LEVEL"))?;
        if name == features::METADATA_VERSION {
            let advice =
                format!("Use --release-version instead of --feature {name}={level} to avoid ambiguity.");
            return Err(advice);
        }
        let names: Vec<&str> = known.iter().map(|feature| feature.name).collect();
        let feature = known.iter().find(|feature| feature.name == name).ok_or_else(|| {
            format!("Unsupported feature: {name}. Supported features are: {}", names.join(", "))
        })?;
        let is_needless = name == features::ELIGIBLE_LEADER_REPLICAS_VERSION && controllers < 2;
        let begins = if is_needless { 0 } else { feature.level_most };
        if begins != level {
            return Err(format!("{name} {level} is not supported: this cluster begins with {name}={begins}"));
        }
    }
    Ok(())
}

/// What the quorum begins with, if this node is a controller of one that keeps its voters itself.
fn initial_voters(options: &FormatOptions, config: &NodeConfig) -> Result<Option<InitialVoters>, String> {
    let is_static = !config.cluster.voters.is_empty();
    if is_static && (options.standalone || options.initial_controllers.is_some()) {
        return Err(format!(
            "You cannot specify {VOTERS} and format the node with --initial-controllers or --standalone. If you want \
             to use dynamic quorum, please remove {VOTERS} and specify controller.quorum.bootstrap.servers instead."
        ));
    }
    if let Some(text) = &options.initial_controllers {
        return InitialVoters::parse(text).map(|voters| Some(voters).filter(|_| config.roles.controller));
    }
    if options.standalone {
        return standalone(config).map(Some);
    }
    match config.roles.controller && !is_static {
        true if options.no_initial_controllers => Ok(Some(InitialVoters::default())),
        true => Err(format!(
            "Because {VOTERS} is not set on this controller, you must specify one of the following: --standalone, \
             --initial-controllers, or --no-initial-controllers."
        )),
        false => Ok(None),
    }
}

fn standalone(config: &NodeConfig) -> Result<InitialVoters, String> {
    if !config.roles.controller {
        return Err("You cannot use --standalone on a broker node.".to_owned());
    }
    let is_controllers = |name: &String| config.controller_listeners.contains(name);
    // A node that is a cluster of its own is asked through its listeners for clients too.
    let listener = config.listeners.iter().find(|listener| is_controllers(&listener.name));
    let listener = listener.or(config.listeners.first()).ok_or("No controller listeners found.")?;
    let Endpoint { host, port } = listener.advertised.as_ref().unwrap_or(&listener.bind);
    let host = if host.is_empty() { "localhost" } else { host.as_str() };
    if *port == 0 {
        return Err(format!("the listener {} has port 0: nobody could find the voter again", listener.name));
    }
    let endpoint = Endpoint { host: host.to_owned(), port: *port };
    let voter = InitialVoter { node_id: config.node_id, endpoint, directory_id: random_id() };
    Ok(InitialVoters { voters: vec![voter] })
}

/// The directories that are formatted, with what they say, and those that are not.
type Looked = (BTreeMap<PathBuf, MetaProperties>, Vec<PathBuf>);

/// Looks at every directory before the first one is written to.
fn look_at(directories: &[PathBuf], cluster_id: &str, node_id: i32) -> Result<Looked, String> {
    let (mut formatted, mut empty) = (BTreeMap::new(), Vec::new());
    for directory in directories {
        let path = directory.join(META_PROPERTIES);
        match read(&path)? {
            None => empty.push(directory.clone()),
            Some(properties) => drop(formatted.insert(directory.clone(), properties)),
        }
    }
    for (directory, properties) in &formatted {
        let path = directory.join(META_PROPERTIES);
        let (own_cluster, own_node) = (properties.cluster_id.as_deref(), properties.node_id);
        if let Some(found) = own_cluster.filter(|found| *found != cluster_id) {
            return Err(format!(
                "Invalid cluster.id in: {}. Expected {cluster_id}, but read {found}",
                path.display()
            ));
        }
        if let Some(found) = own_node.filter(|found| *found != node_id) {
            return Err(format!(
                "Invalid node.id in: {}. Expected {node_id}, but read {found}",
                path.display()
            ));
        }
    }
    Ok((formatted, empty))
}

fn read(path: &Path) -> Result<Option<MetaProperties>, String> {
    match fs::read(path) {
        Ok(bytes) => match MetaProperties::parse(&bytes) {
            Ok(properties) => Ok(Some(properties)),
            Err(error) => Err(format!("Error loading {}: {error}", path.display())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("I/O error trying to read {}: {error}", path.display())),
    }
}

/// Everything that a directory needs, durably, `meta.properties` last.
fn write_all(
    directory: &Path,
    voters: Option<&InitialVoters>,
    properties: &MetaProperties,
) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    if let Some(voters) = voters {
        replace(directory, INITIAL_VOTERS_FILE, &voters.encode())?;
    }
    replace(directory, META_PROPERTIES, &properties.encode())
}

/// Writes a file under another name and renames it, so that it is there whole or not at all.
fn replace(directory: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let unfinished = directory.join(format!("{name}.tmp"));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))?;
    fs::File::open(directory)?.sync_all()
}

/// What the directories say, and whether nothing is wrong with them.
fn info(directories: &[PathBuf]) -> (String, bool) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let mut first: Option<MetaProperties> = None;
    for directory in directories {
        let shown = directory.display();
        if !directory.is_dir() {
            let what = if directory.exists() { "is not a directory" } else { "does not exist" };
            problems.push(format!("{shown} {what}"));
            continue;
        }
        found.push(shown.to_string());
        match (read(&directory.join(META_PROPERTIES)), &first) {
            (Err(why), _) => problems.push(why),
            (Ok(None), _) => problems.push(format!("{shown} is not formatted.")),
            (Ok(Some(own)), None) => first = Some(own),
            (Ok(Some(own)), Some(other)) if own.cluster_id != other.cluster_id => {
                problems.push("Mismatched cluster IDs between storage directories.".to_owned());
            }
            (Ok(Some(own)), Some(other)) if own.node_id != other.node_id => {
                problems.push("Mismatched node IDs between storage directories.".to_owned());
            }
            _ => {}
        }
    }
    let mut text = listed(("Found log directory:", "Found log directories:"), &found);
    if let Some(first) = first {
        text.push_str(&format!("Found metadata: {}\n\n", shown(&first)));
    }
    text.push_str(&listed(("Found problem:", "Found problems:"), &problems));
    (text, problems.is_empty())
}

fn listed((one, several): (&str, &str), lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let head = if lines.len() == 1 { one } else { several };
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("{head}\n{lines}\n")
}

/// As Kafka shows a `meta.properties`.
fn shown(properties: &MetaProperties) -> String {
    let part = |name: &str, value: Option<String>| value.map(|v| format!(", {name}={v}")).unwrap_or_default();
    format!(
        "MetaProperties(version={}{}{}{})",
        properties.version,
        part("clusterId", properties.cluster_id.clone()),
        part("nodeId", properties.node_id.map(|id| id.to_string())),
        part("directoryId", properties.directory_id.map(encode_uuid)),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const CLUSTER: &str = "I7rxdXZqRmy5B4yDWBDDkw";
    const OWN: &str = "JEXY6aqzQY-32P5TStzaFg";

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: FormatOptions,
    }

    /// Formats the directories `a` and `b` of a folder, metadata in `b`.
    fn format_in(folder: &Path, overrides: &[&str], flags: &[&str]) -> Result<String, String> {
        let dirs = format!("log.dirs={},{}", folder.join("a").display(), folder.join("b").display());
        let metadata = format!("metadata.log.dir={}", folder.join("b").display());
        let mut line = vec!["format", "-t", CLUSTER, "--override", &dirs, "--override", &metadata];
        overrides.iter().for_each(|one| line.extend(["--override", one]));
        line.extend(flags);
        let options = Line::try_parse_from(line).map_err(|error| error.to_string())?.options;
        let config = options.config.load().map_err(|error| error.to_string())?;
        format_with(&options, &config).map(|said| said.replace(&folder.display().to_string(), ""))
    }

    fn properties(folder: &Path, name: &str) -> MetaProperties {
        read(&folder.join(name).join(META_PROPERTIES)).unwrap().unwrap()
    }

    fn voters(folder: &Path) -> Option<InitialVoters> {
        let text = fs::read_to_string(folder.join("b").join(INITIAL_VOTERS_FILE)).ok()?;
        Some(InitialVoters::decode(&text).unwrap())
    }

    #[test]
    fn a_standalone_controller_becomes_the_only_voter_on_its_own_disk() {
        let folder = tempfile::tempdir().unwrap();
        let release = features::release();
        let said = format_in(folder.path(), &[], &["--standalone"]).unwrap();
        let expected = format!(
            "Formatting data directory /a with metadata.version {release}.\n\
             Formatting dynamic metadata voter directory /b with metadata.version {release}.\n"
        );
        assert_eq!(said, expected);
        let own = properties(folder.path(), "b");
        assert_eq!((own.version, own.cluster_id.as_deref(), own.node_id), (1, Some(CLUSTER), Some(1)));
        let [voter] = voters(folder.path()).unwrap().voters.try_into().unwrap();
        assert_eq!((voter.node_id, Some(voter.directory_id)), (1, own.directory_id));
        assert_ne!(properties(folder.path(), "a").directory_id, own.directory_id);
        assert!(!folder.path().join("a").join(INITIAL_VOTERS_FILE).exists());
    }

    #[test]
    fn what_is_formatted_is_left_alone_and_must_be_of_this_node() {
        let folder = tempfile::tempdir().unwrap();
        let again = |overrides: &[&str], flags: &[&str]| format_in(folder.path(), overrides, flags);
        again(&[], &["-s"]).unwrap();
        assert!(again(&[], &["-s"]).unwrap_err().contains("/a is already formatted. Use --ignore-formatted"));
        let all = "All of the log directories are already formatted.\n";
        assert_eq!(again(&[], &["-s", "-g"]).unwrap(), all);
        let before = properties(folder.path(), "b");
        fs::remove_dir_all(folder.path().join("a")).unwrap();
        assert!(again(&[], &["-s", "-g"]).unwrap().starts_with("Formatting data directory /a"));
        assert_eq!(properties(folder.path(), "b"), before);
        assert!(again(&["node.id=2"], &["-s", "-g"]).unwrap_err().contains("Expected 2, but read 1"));
        fs::write(folder.path().join("a").join(META_PROPERTIES), "version=7\n").unwrap();
        assert!(again(&[], &["-s", "-g"]).unwrap_err().contains("Error loading"));
    }

    #[test]
    fn several_controllers_begin_with_the_same_list() {
        let folder = tempfile::tempdir().unwrap();
        let list = format!("2@b:9093:MvDxzVmcRsaTz33bUuRU6A,1@a:9093:{OWN}");
        let said = format_in(folder.path(), &[], &["-I", &list]).unwrap();
        assert!(said.contains("dynamic metadata voter directory /b"), "{said}");
        assert_eq!(properties(folder.path(), "b").directory_id, parse_uuid(OWN));
        assert_eq!(voters(folder.path()), Some(InitialVoters::parse(&list).unwrap()));
        let folder = tempfile::tempdir().unwrap();
        let said = format_in(folder.path(), &["node.id=9"], &["-I", &list]).unwrap();
        assert!(said.contains("Formatting dynamic metadata directory /b"), "{said}");
        let folder = tempfile::tempdir().unwrap();
        format_in(folder.path(), &[], &["-N"]).unwrap();
        assert_eq!(voters(folder.path()), Some(InitialVoters::default()));
    }

    #[test]
    fn brokers_and_controllers_of_named_voters_need_no_list() {
        let folder = tempfile::tempdir().unwrap();
        let broker = [
            "process.roles=broker",
            "controller.listener.names=CONTROLLER",
            "controller.quorum.bootstrap.servers=a:9093",
            "node.id=7",
        ];
        let said = format_in(folder.path(), &broker, &[]).unwrap();
        assert!(said.contains("Formatting metadata directory /b"), "{said}");
        assert_eq!(voters(folder.path()), None);
        assert!(format_in(folder.path(), &broker, &["-s"]).unwrap_err().contains("on a broker node"));
        let fixed = [
            "listeners=PLAINTEXT://:9092,CONTROLLER://:9093",
            "controller.listener.names=CONTROLLER",
            "controller.quorum.voters=1@a:9093,2@b:9093",
        ];
        let folder = tempfile::tempdir().unwrap();
        assert!(format_in(folder.path(), &fixed, &["-s"]).unwrap_err().contains("You cannot specify"));
        assert!(format_in(folder.path(), &fixed, &[]).unwrap().contains("metadata directory /b"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |flags: &[&str]| format_in(folder.path(), &[], flags).unwrap_err();
        assert!(refused(&[]).contains("you must specify one of the following"));
        assert!(refused(&["-s", "-N"]).contains("cannot be used with"));
        assert!(refused(&["-I", "1@a:9093"]).contains("dynamic voter string"));
        assert!(refused(&["-s", "-r", "3.0"]).contains("Unknown metadata.version 3.0"));
        assert!(refused(&["-s", "-f", "x=1"]).contains("Unsupported feature: x"));
        assert!(refused(&["-s", "-f", "metadata.version=7"]).contains("Use --release-version"));
        assert!(refused(&["-s", "-f", "group.version=0"]).contains("begins with group.version=1"));
        let eligible = refused(&["-s", "-f", "eligible.leader.replicas.version=1"]);
        assert!(eligible.contains("begins with eligible.leader.replicas.version=0"), "{eligible}");
        assert!(refused(&["-s", "-f", "group.version"]).contains("expected NAME=LEVEL"));
        let id = refused(&["-s", "--override", "num.partitions=0"]);
        assert!(id.contains("num.partitions"), "{id}");
        let options = Line::try_parse_from(["format", "-t", "short", "-s"]).unwrap().options;
        assert!(format_with(&options, &NodeConfig::default()).unwrap_err().contains("valid UUID"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let release = features::release();
        assert!(format_in(folder.path(), &[], &["-s", "-r", release, "-f", "group.version=1"]).is_ok());
    }

    #[test]
    fn whose_directories_are_is_shown_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let told = || info(&paths).0.replace(&folder.path().display().to_string(), "");
        assert_eq!(told(), "Found problems:\n  /a does not exist\n  /b does not exist\n\n");
        format_in(folder.path(), &[], &["-I", &format!("1@a:9093:{OWN}")]).unwrap();
        let a = encode_uuid(properties(folder.path(), "a").directory_id.unwrap());
        let found = format!(
            "Found log directories:\n  /a\n  /b\n\nFound metadata: MetaProperties(version=1, clusterId={CLUSTER}, \
             nodeId=1, directoryId={a})\n\n"
        );
        assert_eq!((told(), info(&paths).1), (found.clone(), true));
        fs::remove_file(folder.path().join("b").join(META_PROPERTIES)).unwrap();
        assert_eq!(told(), format!("{found}Found problem:\n  /b is not formatted.\n\n"));
        let mut other = properties(folder.path(), "a");
        other.node_id = Some(2);
        fs::write(folder.path().join("b").join(META_PROPERTIES), other.encode()).unwrap();
        assert!(told().contains("Mismatched node IDs between storage directories."));
        assert!(!info(&paths).1);
    }

    #[test]
    fn ids_are_none_that_a_command_line_takes_for_an_option() {
        for _ in 0..1000 {
            let text = encode_uuid(random_id());
            assert!(text.len() == 22 && !text.starts_with('-') && parse_uuid(&text).is_some());
        }
    }
}
