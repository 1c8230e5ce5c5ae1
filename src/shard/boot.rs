//! What a start reads and checks before any shard runs: whether the kernel lets us work, whose
//! the log directories are, what they hold, and the controller's log.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use uuid::Uuid;

use super::file_ops::{self, OwnerDir};
use crate::broker::{DirectoryFacts, FoundReplica, FoundReplicas, StoredOffsets};
use crate::config::NodeConfig;
use crate::controller::recovery::{Recovered, Recovery, Step};
use crate::controller::storage::METADATA_DIRECTORY;
use crate::log::checkpoint::MetaProperties;
use crate::log::directory::{
    DirectoryPlan, DirectoryStart, DirectoryState, DirectoryStep, LogDirEntry, META_PROPERTIES,
};
use crate::log::{PartitionMetadata, encode_uuid};

/// What the log directories and the controller's log gave.
pub(super) struct Boot {
    /// Log directories, and last the metadata directory where it is none of them.
    pub directories: Vec<PathBuf>,
    /// How many of them hold replicas.
    pub log_directories: u16,
    /// Where the controller's log is.
    pub metadata_directory: u16,
    pub facts: Vec<DirectoryFacts>,
    /// What the checkpoint files say, by directory.
    pub stored: Vec<StoredOffsets>,
    pub found: FoundReplicas,
    pub cluster_id: String,
    pub boot_id: String,
    /// Raft id of this node on this disk.
    pub raft_id: u64,
    pub controller: Recovered,
    /// Held for as long as the node runs.
    pub locks: Vec<OwnedFd>,
}

/// Whether the kernel lets a shard run, and what to do if not.
pub(super) fn check_kernel() -> Result<(), String> {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let is_root = nix::unistd::geteuid().is_root();
    if disabled.trim() == "2" || (disabled.trim() == "1" && !is_root) {
        return Err(format!(
            "io_uring is disabled (kernel.io_uring_disabled = {}); enable it with: sysctl -w kernel.io_uring_disabled=0",
            disabled.trim()
        ));
    }
    // SAFETY: a null parameter block is invalid on purpose; the kernel only looks at its pointer.
    let probe = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null_mut::<libc::c_void>()) };
    let errno = nix::errno::Errno::last();
    if probe < 0 && matches!(errno, nix::errno::Errno::ENOSYS | nix::errno::Errno::EPERM) {
        return Err(format!(
            "io_uring is not available ({errno}): a container profile or the kernel forbids it; \
             with Docker: --security-opt seccomp=unconfined, and a kernel of 5.8 or newer"
        ));
    }
    Ok(())
}

/// Whether so many shards may lock the memory that their rings need.
pub(super) fn check_memlock(shards: usize) -> Result<(), String> {
    const PER_SHARD_BYTES: u64 = 512 * 1024;
    let needed = PER_SHARD_BYTES * shards as u64;
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK)
        .map_err(|errno| format!("cannot read the memlock limit: {errno}"))?;
    if soft >= needed {
        return Ok(());
    }
    let raised =
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK, needed.min(hard), hard);
    if hard >= needed && raised.is_ok() {
        return Ok(());
    }
    Err(format!(
        "the memlock limit of {} KiB is too small for {shards} shards, which need {} KiB; raise it with: \
         ulimit -l {} (in a systemd unit: LimitMEMLOCK=infinity), or run fewer shards with shard.count",
        soft / 1024,
        needed / 1024,
        needed / 1024,
    ))
}

/// Opens the log directories and the controller's log.
pub(super) fn boot(config: &NodeConfig) -> Result<Boot, String> {
    let mut directories = config.log_dirs.clone();
    let metadata = directories.iter().position(|dir| *dir == config.metadata_log_dir).unwrap_or_else(|| {
        directories.push(config.metadata_log_dir.clone());
        directories.len() - 1
    });
    let boot_id =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string();
    let locks = directories.iter().map(|dir| prepare(dir)).collect::<Result<Vec<_>, _>>()?;
    let cluster_id = known_cluster_id(&directories)?.unwrap_or_else(|| encode_uuid(Uuid::new_v4()));
    let (mut facts, mut stored, mut found, mut raft_id) = (Vec::new(), Vec::new(), FoundReplicas::new(), 0);
    for (number, directory) in directories.iter().enumerate() {
        let plan = DirectoryPlan {
            cluster_id: cluster_id.clone(),
            node_id: config.node_id,
            directory_id: Uuid::new_v4(),
            boot_id: boot_id.clone(),
            format: true,
        };
        let state = open_directory(directory, plan)?;
        if number == metadata {
            // Not 0, and new with every disk (a wiped disk must not vote as its predecessor).
            raft_id = state.directory_id.as_u64_pair().1 | 1;
        }
        if number < config.log_dirs.len() {
            remove_retired(directory, &state);
            facts.push(facts_of(&state));
            for (replica, topic_id) in topic_ids(directory, &state) {
                found.entry(replica).or_default().push((number as u16, topic_id));
            }
            stored.push(StoredOffsets {
                recovery_points: state.recovery_points,
                log_starts: state.log_starts,
                high_watermarks: state.high_watermarks,
            });
        }
    }
    let controller = recover_controller(directories.get(metadata).map_or(Path::new("."), PathBuf::as_path))?;
    Ok(Boot {
        log_directories: config.log_dirs.len() as u16,
        metadata_directory: metadata as u16,
        directories,
        facts,
        stored,
        found,
        cluster_id,
        boot_id,
        raft_id,
        controller,
        locks,
    })
}

/// Makes the directory, checks that it can be written and locks it against other processes,
/// Apache Kafka among them: its lock and ours exclude each other.
fn prepare(directory: &Path) -> Result<OwnedFd, String> {
    let shown = directory.display();
    fs::create_dir_all(directory).map_err(|error| {
        format!("cannot make the log directory {shown}: {error}; create it, or name another one in log.dirs")
    })?;
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(directory.join(".lock"));
    let file = file.map_err(|error| {
        format!("cannot write to the log directory {shown}: {error}; give it to this user with: chown -R $(id -u) {shown}")
    })?;
    let whole_file = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file)).map_err(|_| {
        format!("the log directory {shown} is in use by another process, which holds its .lock; stop that one first, or name another directory in log.dirs")
    })?;
    Ok(file.into())
}

fn known_cluster_id(directories: &[PathBuf]) -> Result<Option<String>, String> {
    for directory in directories {
        let path = directory.join(META_PROPERTIES);
        match fs::read(&path) {
            Ok(bytes) => {
                let properties =
                    MetaProperties::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
                if properties.cluster_id.is_some() {
                    return Ok(properties.cluster_id);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        }
    }
    Ok(None)
}

fn open_directory(directory: &Path, plan: DirectoryPlan) -> Result<DirectoryState, String> {
    let dir = OwnerDir { path: directory.to_path_buf() };
    let mut start = DirectoryStart::new(plan);
    let mut last = None;
    loop {
        match start.step(last.take()) {
            DirectoryStep::Op(op) => last = Some(file_ops::run(&dir, &op).0),
            DirectoryStep::Done(state) => {
                for problem in &state.unreadable {
                    super::say(&format!("{}: {problem}; its offsets count as 0", directory.display()));
                }
                return Ok(*state);
            }
            DirectoryStep::Failed(error) => return Err(format!("{}: {error}", directory.display())),
        }
    }
}

/// Deletes what a deletion before the last stop left behind, beside the start.
fn remove_retired(directory: &Path, state: &DirectoryState) {
    let retired = state.entries.iter().filter(|(_, entry)| matches!(entry, LogDirEntry::Deleted));
    let paths: Vec<PathBuf> = retired.map(|(name, _)| directory.join(name)).collect();
    if !paths.is_empty() {
        std::thread::spawn(move || paths.iter().for_each(|path| drop(fs::remove_dir_all(path))));
    }
}

fn facts_of(state: &DirectoryState) -> DirectoryFacts {
    let mut facts = DirectoryFacts {
        clean: state.clean_shutdown.is_some(),
        same_boot: state.same_boot,
        found: BTreeMap::new(),
    };
    for (_, entry) in &state.entries {
        let LogDirEntry::Log { topic, partition } = entry else { continue };
        let key = (topic.clone(), *partition);
        let replica = FoundReplica {
            recovery_point: state.recovery_points.get(&key).copied().unwrap_or(0),
            log_start_offset: state.log_starts.get(&key).copied().unwrap_or(0),
        };
        facts.found.insert(key, replica);
    }
    facts
}

/// Which topic each replica of a log directory belongs to, by its `partition.metadata`. The files
/// are read by many threads: there may be thousands, none of them in memory.
fn topic_ids(directory: &Path, state: &DirectoryState) -> Vec<((String, i32), Option<Uuid>)> {
    const PER_THREAD: usize = 64;
    const THREADS_MAX: usize = 32;
    let replicas: Vec<_> = state
        .entries
        .iter()
        .filter_map(|(name, entry)| match entry {
            LogDirEntry::Log { topic, partition } => Some((name, (topic.clone(), *partition))),
            _ => None,
        })
        .collect();
    let read = |(name, replica): &(&String, (String, i32))| {
        let bytes = fs::read(directory.join(name).join("partition.metadata")).ok();
        let metadata = bytes.and_then(|bytes| PartitionMetadata::parse(&bytes).ok());
        (replica.clone(), metadata.map(|metadata| metadata.topic_id))
    };
    let share = replicas.len().div_ceil(THREADS_MAX).max(PER_THREAD);
    std::thread::scope(|scope| {
        let parts = replicas.chunks(share);
        let threads: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(read).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

fn recover_controller(metadata_directory: &Path) -> Result<Recovered, String> {
    let dir = OwnerDir { path: metadata_directory.join(METADATA_DIRECTORY) };
    let mut recovery = Recovery::new();
    let mut last = None;
    loop {
        match recovery.step(last.take()) {
            Step::Op(op) => last = Some(file_ops::run(&dir, &op).0),
            Step::Done(recovered) => return Ok(*recovered),
            Step::Failed(why) => return Err(format!("{}: {why}", dir.path.display())),
        }
    }
}
