//! What a start reads and checks before any shard runs: whether the kernel lets us work, whose
//! the log directories are, what they hold, and the controller's log.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use uuid::Uuid;

use super::file_ops::{self, OwnerDir};
use crate::broker::{DirectoryFacts, FoundReplica};
use crate::config::NodeConfig;
use crate::controller::recovery::{Recovered, Recovery, Step};
use crate::controller::storage::METADATA_DIRECTORY;
use crate::log::checkpoint::MetaProperties;
use crate::log::directory::{
    DirectoryPlan, DirectoryStart, DirectoryState, DirectoryStep, LogDirEntry, META_PROPERTIES,
};
use crate::log::encode_uuid;

/// What the log directories and the controller's log gave.
pub(super) struct Boot {
    /// Log directories, and last the metadata directory where it is none of them.
    pub directories: Vec<PathBuf>,
    /// How many of them hold replicas.
    pub log_directories: u16,
    /// Where the controller's log is.
    pub metadata_directory: u16,
    pub facts: Vec<DirectoryFacts>,
    pub found: BTreeMap<(String, i32), u16>,
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
    let mut directories = config.log_dirs.clone();
    let metadata = directories.iter().position(|dir| *dir == config.metadata_log_dir).unwrap_or_else(|| {
        directories.push(config.metadata_log_dir.clone());
        directories.len() - 1
    });
    let boot_id =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string();
    let locks = directories.iter().map(|dir| prepare(dir)).collect::<Result<Vec<_>, _>>()?;
    let cluster_id = known_cluster_id(&directories)?.unwrap_or_else(|| encode_uuid(Uuid::new_v4()));
    let (mut facts, mut found, mut raft_id) = (Vec::new(), BTreeMap::new(), 0);
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
            facts.push(facts_of(number as u16, &state, &mut found));
        }
    }
    let controller = recover_controller(directories.get(metadata).map_or(Path::new("."), PathBuf::as_path))?;
    Ok(Boot {
        log_directories: config.log_dirs.len() as u16,
        metadata_directory: metadata as u16,
        directories,
        facts,
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

fn facts_of(number: u16, state: &DirectoryState, found: &mut BTreeMap<(String, i32), u16>) -> DirectoryFacts {
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
        found.insert(key.clone(), number);
        facts.found.insert(key, replica);
    }
    facts
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
