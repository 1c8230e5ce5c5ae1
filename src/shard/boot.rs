//! What a start reads and checks before any shard runs: whether the kernel lets us work, whose
//! the log directories are, what they hold, and the controller's log.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use uuid::Uuid;

use super::file_ops::{self, OwnerDir};
use super::log_dirs::{self, LogDirs};
use super::quorum::QuorumPlace;
use crate::broker::{DirectoryFacts, FoundReplica, FoundReplicas, StoredOffsets};
use crate::config::NodeConfig;
use crate::controller::recovery::{Recovered, Recovery, Step};
use crate::controller::storage::METADATA_DIRECTORY;
use crate::log::PartitionMetadata;
use crate::log::directory::{DirectoryState, LogDirEntry, kept_epoch};

/// What the log directories and the controller's log gave.
pub(super) struct Boot {
    /// Log directories, and last the metadata directory where it is none of them.
    pub directories: Vec<PathBuf>,
    /// How many of them hold replicas.
    pub log_directories: u16,
    /// Where the controller's log is.
    pub metadata_directory: u16,
    /// Those that cannot be used.
    pub offline: Vec<u16>,
    pub facts: Vec<DirectoryFacts>,
    /// What the checkpoint files say, by directory.
    pub stored: Vec<StoredOffsets>,
    pub found: FoundReplicas,
    pub cluster_id: String,
    pub boot_id: String,
    /// Who this node is in the metadata quorum.
    pub quorum: QuorumPlace,
    /// Ids of the log directories, by number; none of one that cannot be used.
    pub directory_ids: Vec<Option<Uuid>>,
    /// The broker epoch of the last run, where every log directory was closed in order; else -1.
    pub previous_epoch: i64,
    pub controller: Recovered,
    /// Held for as long as the node runs.
    pub locks: Vec<OwnedFd>,
}

/// Whether the kernel lets a shard run, and what to do if not.
pub(super) fn check_kernel() -> Result<(), String> {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    // SAFETY: a null parameter block is invalid on purpose; the kernel only looks at its pointer.
    let probe = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null_mut::<libc::c_void>()) };
    let errno = if probe < 0 { Errno::last() } else { Errno::UnknownErrno };
    io_uring_refusal(disabled.trim(), nix::unistd::geteuid().is_root(), errno).map_or(Ok(()), Err)
}

/// Why the kernel lets no shard run, and what to do: what `kernel.io_uring_disabled` says, and the
/// errno of a probe that is refused for its arguments where io_uring is there.
fn io_uring_refusal(disabled: &str, is_root: bool, probe: Errno) -> Option<String> {
    if disabled == "2" || (disabled == "1" && !is_root) {
        return Some(format!(
            "io_uring is disabled (kernel.io_uring_disabled = {disabled}); enable it with: sysctl -w kernel.io_uring_disabled=0"
        ));
    }
    matches!(probe, Errno::ENOSYS | Errno::EPERM).then(|| {
        format!(
            "io_uring is not available ({probe}): a container profile or the kernel forbids it; \
             with Docker: --security-opt seccomp=unconfined, and a kernel of 5.8 or newer"
        )
    })
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
    let boot_id =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string();
    let LogDirs { paths: directories, log_directories, metadata, states, cluster_id, mut quorum, locks } =
        log_dirs::open(config, &boot_id)?;
    let (mut facts, mut stored, mut found) = (Vec::new(), Vec::new(), FoundReplicas::new());
    let (mut offline, mut directory_ids) = (Vec::new(), Vec::new());
    let previous_epoch = kept_epoch(states.iter().take(usize::from(log_directories)).map(Option::as_ref));
    for ((number, directory), state) in (0..).zip(&directories).zip(states) {
        let Some(state) = state else {
            offline.push(number);
            directory_ids.extend((number < log_directories).then_some(None));
            facts.push(DirectoryFacts::default());
            stored.push(StoredOffsets::default());
            continue;
        };
        if number < log_directories {
            directory_ids.push(Some(state.directory_id));
            remove_retired(directory, &state);
            facts.push(facts_of(&state));
            for (replica, topic_id) in topic_ids(directory, &state) {
                found.entry(replica).or_default().push((number, topic_id));
            }
            stored.push(StoredOffsets {
                recovery_points: state.recovery_points,
                log_starts: state.log_starts,
                high_watermarks: state.high_watermarks,
            });
        }
    }
    let metadata_path = directories.get(usize::from(metadata)).map_or(Path::new("."), PathBuf::as_path);
    let controller = recover_controller(metadata_path)?;
    quorum.raft_id = controller.raft_id.unwrap_or(quorum.raft_id);
    Ok(Boot {
        log_directories,
        metadata_directory: metadata,
        offline,
        directories,
        facts,
        stored,
        found,
        cluster_id,
        boot_id,
        quorum,
        directory_ids,
        previous_epoch,
        controller,
        locks,
    })
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
        clean: state.clean_shutdown,
        same_boot: state.same_boot,
        found: BTreeMap::new(),
        futures: Vec::new(),
    };
    for (name, entry) in &state.entries {
        if *entry == LogDirEntry::Future {
            facts.futures.push(name.clone());
        }
        let LogDirEntry::Log { topic, partition } = entry else { continue };
        let key = (topic.clone(), *partition);
        let replica = FoundReplica {
            recovery_point: state.recovery_points.get(&key).copied().unwrap_or(0),
            log_start_offset: state.log_starts.get(&key).copied().unwrap_or(0),
            high_watermark: state.high_watermarks.get(&key).copied().unwrap_or(0),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_io_uring_is_refused_with_what_to_do() {
        assert_eq!(io_uring_refusal("0", false, Errno::EFAULT), None);
        assert_eq!(io_uring_refusal("", false, Errno::EFAULT), None, "a kernel before the setting");
        assert_eq!(io_uring_refusal("1", true, Errno::EFAULT), None);
        let refused = |disabled, probe| io_uring_refusal(disabled, false, probe).unwrap();
        assert!(refused("1", Errno::EFAULT).contains("sysctl -w kernel.io_uring_disabled=0"));
        assert!(refused("2", Errno::EPERM).contains("io_uring_disabled = 2"));
        assert!(refused("0", Errno::EPERM).contains("seccomp=unconfined"));
        assert!(refused("0", Errno::ENOSYS).contains("5.8"));
    }
}
