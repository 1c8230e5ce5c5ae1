//! What the processes of a broker and their threads use, read from `/proc` a few times a second.
//!
//! Invariant: one look reads one file for the process's CPU, one for its memory and one for each of its shards, however
//! many threads it has: which threads are shards is found out once, by their names.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{SysconfVar, sysconf};

/// Threads whose names begin so are shards of a broker.
const SHARD_PREFIX: &str = "shard-";

/// Seconds of CPU and bytes of memory, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// CPU of the process, user and kernel, since its start.
    pub cpu_s: f64,
    /// Resident bytes.
    pub resident_bytes: u64,
    /// CPU of each shard, in the order of [`Process::shards`].
    pub shards_s: Vec<f64>,
    /// CPU that everything on the machine has used, the harness and the broker too.
    pub machine_s: f64,
    /// CPU that the harness has used.
    pub own_s: f64,
}

struct Shard {
    name: String,
    stat: PathBuf,
}

/// A process that is looked at, or the nodes of a cluster together.
pub struct Process {
    root: PathBuf,
    folders: Vec<PathBuf>,
    shards: Vec<Shard>,
    ticks_per_s: f64,
    page_bytes: u64,
}

impl Process {
    /// The processes with those numbers. Of several, shards are not told apart.
    pub fn new(pids: &[u32]) -> Process {
        Process::under(Path::new("/proc"), pids)
    }

    fn under(root: &Path, pids: &[u32]) -> Process {
        let setting = |name, usual| sysconf(name).ok().flatten().map_or(usual, |value| value as u64);
        let folders: Vec<PathBuf> = pids.iter().map(|pid| root.join(pid.to_string())).collect();
        let alone = folders.first().filter(|_| folders.len() == 1);
        let threads = alone.into_iter().flat_map(|folder| fs::read_dir(folder.join("task")));
        let threads = threads.flatten().flatten();
        let mut shards: Vec<(u32, u32, PathBuf)> = threads
            .filter_map(|thread| {
                let tid = thread.file_name().to_string_lossy().parse().ok()?;
                let name = fs::read_to_string(thread.path().join("comm")).ok()?;
                Some((shard_number(name.trim())?, tid, thread.path().join("stat")))
            })
            .collect();
        // A thread that a shard starts inherits its name; the shard is the older one.
        shards.sort();
        shards.dedup_by_key(|(number, ..)| *number);
        let shards = shards.into_iter();
        let shards =
            shards.map(|(number, _, stat)| Shard { name: format!("{SHARD_PREFIX}{number}"), stat }).collect();
        Process {
            root: root.to_owned(),
            folders,
            shards,
            ticks_per_s: setting(SysconfVar::CLK_TCK, 100) as f64,
            page_bytes: setting(SysconfVar::PAGE_SIZE, 4096),
        }
    }

    /// The names of its threads that are shards.
    pub fn shards(&self) -> Vec<String> {
        self.shards.iter().map(|shard| shard.name.clone()).collect()
    }

    /// Looks. None when a process is gone.
    pub fn look(&self) -> Option<Used> {
        let (mut cpu_s, mut pages) = (0.0, 0);
        for folder in &self.folders {
            let statm = fs::read_to_string(folder.join("statm")).ok()?;
            pages += statm.split_whitespace().nth(1)?.parse::<u64>().ok()?;
            cpu_s += self.cpu(&folder.join("stat"))?;
        }
        let machine = fs::read_to_string(self.root.join("stat")).ok().and_then(|stat| machine_ticks(&stat));
        Some(Used {
            cpu_s,
            resident_bytes: pages * self.page_bytes,
            shards_s: self.shards.iter().map(|shard| self.cpu(&shard.stat).unwrap_or(0.0)).collect(),
            machine_s: machine.map_or(0.0, |ticks| ticks as f64 / self.ticks_per_s),
            own_s: self.cpu(&self.root.join("self/stat")).unwrap_or(0.0),
        })
    }

    fn cpu(&self, stat: &Path) -> Option<f64> {
        let (user, system) = cpu_ticks(&fs::read_to_string(stat).ok()?)?;
        Some((user + system) as f64 / self.ticks_per_s)
    }
}

/// The number in the name of a shard's thread; the executor puts a number of its own behind it.
fn shard_number(thread: &str) -> Option<u32> {
    thread.strip_prefix(SHARD_PREFIX)?.split('-').next()?.parse().ok()
}

/// utime and stime of a `stat` file. The command's name is in brackets and may hold spaces and brackets itself.
pub fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Everything in the first line of `/proc/stat` but idling and waiting for devices. Guests are counted as users
/// already.
fn machine_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let busy = ticks.iter().take(8).enumerate().filter(|(field, _)| *field != 3 && *field != 4);
    (ticks.len() >= 4).then(|| busy.map(|(_, ticks)| ticks).sum())
}

/// A process of files, for tests: what is written into them is what a look sees.
#[cfg(test)]
pub struct FakeProcess {
    root: PathBuf,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl FakeProcess {
    /// One with these threads, that has used nothing.
    pub fn new(name: &str, threads: &[&str]) -> FakeProcess {
        let root = std::env::temp_dir().join(format!("bench-proc-{name}-{}", std::process::id()));
        for (tid, thread) in threads.iter().enumerate() {
            let folder = root.join(format!("7/task/{tid}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("comm"), format!("{thread}\n")).unwrap();
        }
        fs::create_dir_all(root.join("self")).unwrap();
        let fake = FakeProcess { root };
        fake.uses(0, 0, &vec![0; threads.len()], 0);
        fake
    }

    /// Ticks of the process, pages, ticks of each thread, and ticks of all CPUs; the harness itself uses none.
    pub fn uses(&self, ticks: u64, pages: u64, threads: &[u64], machine: u64) {
        let stat = |ticks: u64| format!("7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 {ticks} 0 0 0 20");
        fs::write(self.root.join("7/stat"), stat(ticks)).unwrap();
        fs::write(self.root.join("7/statm"), format!("999 {pages} 5 1 0 1 0")).unwrap();
        fs::write(self.root.join("self/stat"), stat(0)).unwrap();
        fs::write(self.root.join("stat"), format!("cpu  {machine} 0 0 5000 600 0 0 0 0 0\ncpu0 1 2 3\n"))
            .unwrap();
        for (tid, ticks) in threads.iter().enumerate() {
            fs::write(self.root.join(format!("7/task/{tid}/stat")), stat(*ticks)).unwrap();
        }
    }

    /// What looks at it.
    pub fn process(&self) -> Process {
        let mut process = Process::under(&self.root, &[7]);
        (process.ticks_per_s, process.page_bytes) = (100.0, 4096);
        process
    }
}

#[cfg(test)]
impl Drop for FakeProcess {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cpu_ticks_are_found_behind_a_name_with_brackets() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0";
        assert_eq!(cpu_ticks(stat), Some((111, 222)));
        assert_eq!(cpu_ticks("12 (a) S 1"), None);
    }

    #[test]
    fn idle_time_is_not_use() {
        assert_eq!(machine_ticks("cpu  10 20 30 4000 5000 1 2 3 9 9\n"), Some(66));
        assert_eq!(machine_ticks("intr 5"), None);
    }

    #[test]
    fn only_threads_named_so_are_shards_and_they_come_by_number() {
        let fake =
            FakeProcess::new("shards", &["main", "shard-10-11", "helper-0-0", "shard-9-10", "shard-9-10"]);
        fake.uses(250, 3, &[1, 120, 7, 80, 3], 400);
        let process = fake.process();
        assert_eq!(process.shards(), ["shard-9", "shard-10"]);
        let used = process.look().unwrap();
        assert_eq!((used.cpu_s, used.resident_bytes), (2.5, 3 * 4096));
        assert_eq!((used.shards_s, used.machine_s, used.own_s), (vec![0.8, 1.2], 4.0, 0.0));
    }

    #[test]
    fn a_process_that_is_gone_is_seen_as_gone() {
        let fake = FakeProcess::new("gone", &["shard-0"]);
        let process = fake.process();
        drop(fake);
        assert_eq!(process.look(), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let used = Process::new(&[std::process::id()]).look().unwrap();
        assert!(used.resident_bytes > 0 && used.machine_s > 0.0);
        assert_eq!(used.cpu_s > 0.0, used.own_s > 0.0);
    }
}
