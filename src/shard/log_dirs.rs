//! Opening the log directories at start. All of them are looked at before anything but a `.lock`
//! changes in any: a start that is refused leaves everything as it was.
//!
//! | what is wrong | what happens |
//! |---|---|
//! | it is someone else's, in use, half-formatted or named twice; a replica is in two | the start is refused |
//! | a replica is in two because it moved, and its moves are counted | what it left behind is deleted |
//! | it is missing, not writable or its device fails, on the first start | the start is refused |
//! | the same later, of one that does not hold the metadata, while another one is left | it is offline |

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use uuid::Uuid;

use super::file_ops::{self, OwnerDir};
use super::quorum::QuorumPlace;
use crate::config::NodeConfig;
use crate::controller::storage::METADATA_DIRECTORY;
use crate::effect::FileOp;
use crate::log::checkpoint::{MetaProperties, PartitionMetadata};
use crate::log::directory::{
    DirectoryError, DirectoryPlan, DirectoryStart, DirectoryState, DirectoryStep, LogDirEntry,
    META_PROPERTIES,
};
use crate::log::{MOVES_MARK, encode_uuid, moves_of};

/// A node that is told of others must not make a cluster of its own.
const NOT_FORMATTED: &str = "the log directories are not formatted, and the configuration names other nodes: format \
     them with the cluster's id, with `tidemill format --cluster-id`";

/// The log directories of a node that may start.
pub(super) struct LogDirs {
    /// Log directories, and last the metadata directory where it is none of them.
    pub paths: Vec<PathBuf>,
    /// How many of them hold replicas.
    pub log_directories: u16,
    /// Where the controller's log is; never offline.
    pub metadata: u16,
    /// What each of them says; nothing where it is offline.
    pub states: Vec<Option<DirectoryState>>,
    pub cluster_id: String,
    /// Who this node is in the metadata quorum.
    pub quorum: QuorumPlace,
    /// Held for as long as the node runs.
    pub locks: Vec<OwnedFd>,
}

/// Why a directory cannot be used.
enum Unusable {
    /// It cannot be reached, read or written: the node may be able to go on without it.
    Failed(String),
    /// Something is wrong that only an operator can judge.
    Refused(String),
}

/// A directory while the start looks at all of them.
struct Candidate {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// What a start knows before it opens any directory.
struct Scene {
    log_directories: usize,
    metadata: usize,
    /// The node has metadata, so every directory was formatted by an earlier start.
    begun: bool,
}

impl Scene {
    /// Takes a directory that cannot be used offline, if the node can do without it.
    fn spare<T>(&self, number: usize, tried: Result<T, Unusable>) -> Result<Option<T>, String> {
        let spared = self.begun && number != self.metadata && self.log_directories > 1;
        match tried {
            Ok(done) => Ok(Some(done)),
            Err(Unusable::Failed(why)) if spared => {
                super::say(&format!("{why}; its partitions are offline"));
                Ok(None)
            }
            Err(Unusable::Failed(why) | Unusable::Refused(why)) => Err(why),
        }
    }
}

/// Opens the log directories of a node.
pub(super) fn open(config: &NodeConfig, boot_id: &str) -> Result<LogDirs, String> {
    let mut paths = config.log_dirs.clone();
    let metadata = paths.iter().position(|dir| *dir == config.metadata_log_dir).unwrap_or_else(|| {
        paths.push(config.metadata_log_dir.clone());
        paths.len() - 1
    });
    let begun = has_metadata(&config.metadata_log_dir);
    let mut scene = Scene { log_directories: config.log_dirs.len(), metadata, begun };
    let mut reached = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        // One that is missing is made on the first start only: later its disk is.
        reached.push(scene.spare(number, reach(path, !begun))?);
    }
    let same = |number: usize| reached.get(number).and_then(Option::as_ref).map(|dir| dir.identity);
    if metadata >= scene.log_directories
        && let Some(alias) = (0..scene.log_directories).find(|number| same(*number) == same(metadata))
    {
        scene.metadata = alias;
        reached.truncate(scene.log_directories);
        paths.truncate(scene.log_directories);
    }
    refuse_aliases(&reached)?;
    let mut locks = Vec::new();
    for (number, slot) in reached.iter_mut().enumerate() {
        let Some(dir) = slot else { continue };
        match scene.spare(number, lock(&dir.path))? {
            Some(lock) => locks.push(lock),
            None => *slot = None,
        }
    }
    let (cluster_id, judged) = judge_all(&scene, config, boot_id, reached)?;
    let quorum = match judged.get(scene.metadata) {
        Some(Some(dir)) => QuorumPlace::read(config, &dir.path, dir.state().directory_id, &cluster_id)?,
        _ => return Err("the directory of the metadata cannot be used".to_owned()),
    };
    let states = take_all(&scene, judged)?;
    if states.iter().take(scene.log_directories).all(Option::is_none) {
        return Err("none of log.dirs can be used".to_owned());
    }
    Ok(LogDirs {
        paths,
        log_directories: scene.log_directories as u16,
        metadata: scene.metadata as u16,
        states,
        cluster_id,
        quorum,
        locks,
    })
}

/// Whether a node has kept its metadata here.
fn has_metadata(directory: &Path) -> bool {
    let entries = fs::read_dir(directory.join(METADATA_DIRECTORY)).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("raft-"))
}

/// Finds a directory, or makes it.
fn reach(path: &Path, make: bool) -> Result<Candidate, Unusable> {
    let shown = path.display();
    if make {
        fs::create_dir_all(path).map_err(|error| {
            let advice = "create it, or name another one in log.dirs";
            Unusable::Failed(format!("cannot make the log directory {shown}: {error}; {advice}"))
        })?;
    }
    let found = fs::metadata(path)
        .map_err(|error| Unusable::Failed(format!("the log directory {shown} cannot be reached: {error}")))?;
    if !found.is_dir() {
        return Err(Unusable::Failed(format!("the log directory {shown} is not a directory")));
    }
    Ok(Candidate { path: path.to_path_buf(), identity: (found.dev(), found.ino()) })
}

/// One directory under two names would be one replica under two.
fn refuse_aliases(reached: &[Option<Candidate>]) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for dir in reached.iter().flatten() {
        if let Some(other) = seen.insert(dir.identity, &dir.path) {
            let (one, other) = (other.display(), dir.path.display());
            return Err(format!("{one} and {other} are the same directory; name it once in log.dirs"));
        }
    }
    Ok(())
}

/// Checks that the directory can be written and locks it against other processes, Apache Kafka
/// among them: its lock and ours exclude each other.
fn lock(directory: &Path) -> Result<OwnedFd, Unusable> {
    let shown = directory.display();
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(directory.join(".lock"));
    let file = file.map_err(|error| {
        let advice = format!("give it to this user with: chown -R $(id -u) {shown}");
        Unusable::Failed(format!("cannot write to the log directory {shown}: {error}; {advice}"))
    })?;
    let whole_file = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file)) {
        Ok(_) => Ok(file.into()),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(Unusable::Refused(format!(
            "the log directory {shown} is in use by another process, which holds its .lock; stop that one first, or name another directory in log.dirs"
        ))),
        Err(errno) => {
            Err(Unusable::Failed(format!("the log directory {shown} cannot be locked: {}", errno.desc())))
        }
    }
}

/// A directory that is ours, with the first change that its start wants to make.
struct Judged {
    path: PathBuf,
    start: DirectoryStart,
    change: FileOp,
    /// Logs that are in another log directory by now.
    left_behind: Vec<String>,
}

impl Judged {
    /// How often a log has moved; `None` where nobody can tell.
    fn moves(&self, log: &str) -> Option<u64> {
        match fs::read(self.path.join(log).join(MOVES_MARK)) {
            Ok(bytes) => moves_of(&bytes),
            Err(error) => (error.kind() == std::io::ErrorKind::NotFound).then_some(0),
        }
    }

    /// Takes the names of what moves left behind, when the entries of every directory are durable: it is deleted as
    /// other logs are that are on their way out.
    fn retire(&self, state: &mut DirectoryState) -> Result<(), Unusable> {
        for log in &self.left_behind {
            let dir = OwnerDir { path: self.path.join(log) };
            let (result, aftermath) = file_ops::run(&dir, &FileOp::RetireDir);
            let synced = result.and_then(|_| file_ops::run(&dir, &FileOp::SyncParent).0);
            synced.map_err(|error| {
                Unusable::Failed(format!("{} cannot be renamed: {error:?}", dir.path.display()))
            })?;
            super::say(&format!("{} is what a move left behind: it is deleted", dir.path.display()));
            let name = aftermath.moved.as_deref().and_then(Path::file_name).unwrap_or_default();
            state.entries.retain(|(name, _)| name != log);
            state.entries.push((name.to_string_lossy().into_owned(), LogDirEntry::Deleted));
        }
        Ok(())
    }

    fn state(&self) -> &DirectoryState {
        self.start.judged().expect("a directory is judged before it is changed")
    }

    fn logs(&self) -> impl Iterator<Item = &str> {
        let logs = self.state().entries.iter().filter(|(_, entry)| matches!(entry, LogDirEntry::Log { .. }));
        logs.map(|(name, _)| name.as_str())
    }

    /// Which topic a log belongs to, if it says so.
    fn topic_id(&self, log: &str) -> Option<Uuid> {
        let bytes = fs::read(self.path.join(log).join("partition.metadata")).ok()?;
        PartitionMetadata::parse(&bytes).ok().map(|metadata| metadata.topic_id)
    }

    /// Carries out what the start wants to change, and makes the entries durable.
    fn take(&mut self) -> Result<DirectoryState, Unusable> {
        let dir = OwnerDir { path: self.path.clone() };
        let mut last = Some(file_ops::run(&dir, &self.change).0);
        loop {
            match self.start.step(last.take()) {
                DirectoryStep::Op(op) => last = Some(file_ops::run(&dir, &op).0),
                DirectoryStep::Done(state) => return Ok(*state),
                DirectoryStep::Failed(error) => return Err(unusable(&self.path, &error)),
            }
        }
    }
}

/// Carries out what the start wants to change in each directory. What a move left behind goes last: a process that died
/// between the rename of the copy and its sync left a name that only this start makes durable.
fn take_all(scene: &Scene, mut judged: Vec<Option<Judged>>) -> Result<Vec<Option<DirectoryState>>, String> {
    let mut states = Vec::new();
    for (number, judged) in judged.iter_mut().enumerate() {
        states.push(match judged {
            Some(judged) => scene.spare(number, judged.take())?,
            None => None,
        });
    }
    for (number, (judged, slot)) in judged.iter().zip(&mut states).enumerate() {
        let (Some(judged), Some(state)) = (judged, slot.as_mut()) else { continue };
        match scene.spare(number, judged.retire(state))? {
            Some(()) => report(&judged.path, state),
            None => *slot = None,
        }
    }
    Ok(states)
}

/// What the operator should know of a directory that is opened.
fn report(path: &Path, state: &DirectoryState) {
    for problem in &state.unreadable {
        super::say(&format!("{}: {problem}; its offsets count as 0", path.display()));
    }
    for (entry, what) in [
        (LogDirEntry::Stray, "left alone what ends in -stray"),
        (LogDirEntry::Future, "replicas on their way here, to be copied anew"),
    ] {
        let count = state.entries.iter().filter(|(_, found)| *found == entry).count();
        if count > 0 {
            super::say(&format!("{}: {what}: {count}", path.display()));
        }
    }
}

/// Looks at every directory before the first one is changed.
fn judge_all(
    scene: &Scene,
    config: &NodeConfig,
    boot_id: &str,
    reached: Vec<Option<Candidate>>,
) -> Result<(String, Vec<Option<Judged>>), String> {
    let mut cluster_id = None;
    let mut readable = Vec::new();
    for (number, dir) in reached.into_iter().enumerate() {
        let known = match &dir {
            Some(dir) => scene.spare(number, known_cluster_id(&dir.path))?,
            None => None,
        };
        readable.push(dir.filter(|_| known.is_some()));
        cluster_id = cluster_id.or(known.flatten());
    }
    let cluster_id = match cluster_id {
        Some(known) => known,
        None if config.is_told_of_others() => return Err(NOT_FORMATTED.to_owned()),
        None => encode_uuid(Uuid::new_v4()),
    };
    let mut all = Vec::new();
    for (number, dir) in readable.into_iter().enumerate() {
        let Some(dir) = dir else {
            all.push(None);
            continue;
        };
        let plan = DirectoryPlan {
            cluster_id: cluster_id.clone(),
            node_id: config.node_id,
            directory_id: new_directory_id(),
            boot_id: boot_id.to_owned(),
            format: !scene.begun,
        };
        all.push(scene.spare(number, judge(dir.path, plan))?);
    }
    refuse_same_ids(&all)?;
    refuse_logs_without_metadata(scene, &all)?;
    let left_behind = refuse_twins(&all)?;
    for (at, log) in left_behind {
        if let Some(Some(judged)) = all.get_mut(at) {
            judged.left_behind.push(log);
        }
    }
    Ok((cluster_id, all))
}

/// As Kafka's: none that a command line takes for an option.
fn new_directory_id() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if !encode_uuid(id).starts_with('-') {
            return id;
        }
    }
}

fn known_cluster_id(directory: &Path) -> Result<Option<String>, Unusable> {
    let path = directory.join(META_PROPERTIES);
    match fs::read(&path) {
        Ok(bytes) => match MetaProperties::parse(&bytes) {
            Ok(properties) => Ok(properties.cluster_id),
            Err(error) => Err(Unusable::Refused(format!("{}: {error}", directory.display()))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Unusable::Failed(format!("cannot read {}: {error}", path.display()))),
    }
}

fn judge(path: PathBuf, plan: DirectoryPlan) -> Result<Judged, Unusable> {
    let dir = OwnerDir { path };
    let mut start = DirectoryStart::new(plan);
    let mut last = None;
    loop {
        match start.step(last.take()) {
            DirectoryStep::Op(change) if start.judged().is_some() => {
                return Ok(Judged { path: dir.path, start, change, left_behind: Vec::new() });
            }
            DirectoryStep::Op(op) => last = Some(file_ops::run(&dir, &op).0),
            DirectoryStep::Done(_) => panic!("a start makes a directory's entries durable at least"),
            DirectoryStep::Failed(error) => return Err(unusable(&dir.path, &error)),
        }
    }
}

fn unusable(path: &Path, error: &DirectoryError) -> Unusable {
    let shown = path.display();
    let advice = match error {
        DirectoryError::File { .. } => return Unusable::Failed(format!("{shown}: {error}")),
        DirectoryError::NotFormatted => {
            ", though this node has started before: is its disk mounted? A new directory is added by copying \
             meta.properties from another one into it, without the line of directory.id"
        }
        DirectoryError::Foreign { .. } => "; name an empty directory in log.dirs, or the right one",
        DirectoryError::OfKafka => "; name an empty directory in log.dirs",
        DirectoryError::Malformed(_) => "; restore the file, or move the directory away",
        DirectoryError::OtherCluster { .. } | DirectoryError::OtherNode { .. } => {
            "; name this node's own directories in log.dirs, or give it its own node.id"
        }
    };
    Unusable::Refused(format!("{shown}: {error}{advice}"))
}

/// A copied disk: both would claim the same replicas.
fn refuse_same_ids(all: &[Option<Judged>]) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for judged in all.iter().flatten() {
        let id = judged.state().directory_id;
        if let Some(other) = seen.insert(id, &judged.path) {
            let (one, other) = (other.display(), judged.path.display());
            return Err(format!(
                "{one} and {other} have the same directory.id {} in meta.properties: one is a copy of the other; \
                 remove one from log.dirs, or delete the line in a directory without logs",
                encode_uuid(id)
            ));
        }
    }
    Ok(())
}

/// Logs of topics that nobody knows would be made again as empty ones.
fn refuse_logs_without_metadata(scene: &Scene, all: &[Option<Judged>]) -> Result<(), String> {
    if scene.begun {
        return Ok(());
    }
    let found = all.iter().flatten().find_map(|judged| Some((judged, judged.logs().next()?)));
    let Some((judged, log)) = found else { return Ok(()) };
    let metadata = all.get(scene.metadata).and_then(Option::as_ref).map_or(Path::new(""), |dir| &dir.path);
    Err(format!(
        "{} holds logs ({log} is one), but {} holds no metadata of their topics: is metadata.log.dir right and its \
         disk mounted? The logs of an Apache Kafka cluster cannot be taken over yet",
        judged.path.display(),
        metadata.join(METADATA_DIRECTORY).display(),
    ))
}

/// A replica has one directory. Two of one name are told apart by their topics' ids, if they differ, or by how often
/// they have moved: what a move left behind is named, with the number of its directory.
fn refuse_twins(all: &[Option<Judged>]) -> Result<Vec<(usize, String)>, String> {
    let mut seen: BTreeMap<&str, (usize, &Judged)> = BTreeMap::new();
    let mut left_behind = Vec::new();
    for (at, judged) in all.iter().enumerate().filter_map(|(at, judged)| Some((at, judged.as_ref()?))) {
        for log in judged.logs() {
            let Some((before, other)) = seen.insert(log, (at, judged)) else { continue };
            let (one, two) = (other.topic_id(log), judged.topic_id(log));
            if one.is_some() && two.is_some() && one != two {
                continue;
            }
            match (other.moves(log), judged.moves(log)) {
                (Some(first), Some(second)) if first > second => {
                    left_behind.push((at, log.to_owned()));
                    seen.insert(log, (before, other));
                }
                (Some(first), Some(second)) if first < second => left_behind.push((before, log.to_owned())),
                _ => {
                    let (one, two) = (other.path.join(log), judged.path.join(log));
                    return Err(format!(
                        "a replica is in two log directories: {} and {}; move one of them away",
                        one.display(),
                        two.display()
                    ));
                }
            }
        }
    }
    Ok(left_behind)
}
