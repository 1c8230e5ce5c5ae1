//! The machine: where processes run, what they used, and what a result must say about it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::time::clock_getcpuclockid;
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use crate::process::cpu_ticks;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_signal(_: nix::libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Lets Ctrl-C and SIGTERM end a run in order, so that brokers stop and their directories go.
pub fn catch_signals() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note_signal), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler does one atomic store, which is safe in a signal handler.
        unsafe { sigaction(signal, &action) }.context("setting a signal handler")?;
    }
    Ok(())
}

/// Whether a signal asked for the end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Which CPUs the broker and the load use. Every result names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// The broker on the first CPU, the load on the second.
    Split,
    /// Both on all CPUs: for several shards, and for CPU per request only.
    Shared,
}

impl Layout {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Split => "split",
            Layout::Shared => "shared",
        }
    }

    /// The CPUs that a broker may use.
    pub fn broker_cpus(self, all: &[usize]) -> &[usize] {
        match self {
            Layout::Split => all.get(..1).unwrap_or(all),
            Layout::Shared => all,
        }
    }

    /// The CPUs of the load.
    pub fn load_cpus(self, all: &[usize]) -> &[usize] {
        match self {
            Layout::Split => all.get(1..2).unwrap_or(all),
            Layout::Shared => all,
        }
    }

    /// Refuses a layout that this machine cannot give.
    pub fn check(self, all: &[usize]) -> Result<()> {
        let enough = self == Layout::Shared || all.len() >= 2;
        ensure!(enough, "layout split needs two CPUs, this process may use {}: --layout shared", all.len());
        Ok(())
    }
}

/// The CPUs that this process may use.
pub fn cpus() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect()
}

/// Lets this thread run on these CPUs only.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("pinning to CPUs")
}

/// What a process used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Resident bytes.
    pub resident_bytes: u64,
    /// The most bytes that were ever resident.
    pub resident_peak_bytes: u64,
}

impl Usage {
    /// User and kernel time together.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }

    /// Reads `/proc/PID/stat` and `/proc/PID/status`. CPU comes in ticks of 10 ms.
    pub fn of(pid: u32) -> Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the broker is gone")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let hz = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as u64;
        let (user, system) = cpu_ticks(&stat).context("/proc/PID/stat has an unknown form")?;
        let ticks = |count: u64| Duration::from_micros(count * 1_000_000 / hz);
        Ok(Usage {
            user: ticks(user),
            system: ticks(system),
            resident_bytes: status_bytes(&status, "VmRSS:"),
            resident_peak_bytes: status_bytes(&status, "VmHWM:"),
        })
    }

    /// What several processes used together; none of no process.
    pub fn of_all(pids: &[u32]) -> Result<Option<Usage>> {
        let mut sum = None;
        for pid in pids {
            let (so_far, one): (Usage, Usage) = (sum.unwrap_or_default(), Usage::of(*pid)?);
            sum = Some(Usage {
                user: so_far.user + one.user,
                system: so_far.system + one.system,
                resident_bytes: so_far.resident_bytes + one.resident_bytes,
                resident_peak_bytes: so_far.resident_peak_bytes + one.resident_peak_bytes,
            });
        }
        Ok(sum)
    }
}

/// What a process has used so far, to the nanosecond: `/proc` counts in ticks of 10 ms, too coarse for a short slice.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?)).context("the broker is gone")?;
    Ok(clock.now().context("reading the broker's CPU clock")?.into())
}

/// The bytes that a process has caused to be written to disks so far; 0 where that cannot be read.
pub fn written_bytes(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}

/// What several processes have used so far together.
pub fn cpu_times(pids: &[u32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu_time(*pid)).sum()
}

/// How long the threads of a process, or one thread of this one, were ready and had no CPU: the second number of
/// `schedstat`. Nothing where the kernel does not count it.
pub fn waited(pid: Option<u32>) -> Duration {
    let of = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let Some(pid) = pid else { return Duration::from_nanos(of(Path::new("/proc/thread-self/schedstat"))) };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    Duration::from_nanos(tasks.map(|task| of(&task.path().join("schedstat"))).sum())
}

fn status_bytes(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What a result says about where it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// CPUs that the harness may use.
    pub cpus: usize,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// The kernel's release.
    pub kernel: String,
    /// The file system under the data, and its device's kind.
    pub file_system: String,
    /// The first line of `java -version`, empty without Java.
    pub java: String,
    /// UTC, to the minute.
    pub date: String,
    /// The command as it was typed.
    pub command: String,
}

impl Machine {
    /// Looks around.
    pub fn here(data: &Path, cpus: usize) -> Machine {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_gib = status_bytes(&meminfo, "MemTotal:") as f64 / f64::from(1 << 30);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        Machine {
            processor: processor("model name"),
            cpus,
            memory_gib: (memory_gib * 10.0).round() / 10.0,
            kernel,
            file_system: file_system(data),
            java: spoken(Command::new("java").arg("-version")),
            date: date(SystemTime::now()),
            command: command_line(),
        }
    }
}

impl Machine {
    /// What it is, in one line.
    pub fn sentence(&self) -> String {
        format!(
            "{}, {} CPUs, {} GiB; Linux {}; {}; {}",
            self.processor,
            self.cpus,
            self.memory_gib,
            self.kernel,
            self.file_system,
            if self.java.is_empty() { "no Java" } else { &self.java },
        )
    }
}

/// What the harness was built from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// The harness's and Tidemill's version.
    pub version: String,
    /// The commit of the working tree, with a + where it was changed since; empty outside one.
    pub commit: String,
    /// `release` or `debug`.
    pub profile: String,
}

impl Build {
    /// This program.
    pub fn this() -> Build {
        let commit = spoken(Command::new("git").args(["rev-parse", "--short", "HEAD"]));
        let changed = !spoken(Command::new("git").args(["status", "--porcelain", "-uno"])).is_empty();
        Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: if changed { commit + "+" } else { commit },
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        }
    }
}

/// What `/proc/cpuinfo` has under `key` of the first processor; "unknown" where it has none.
pub fn processor(key: &str) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = cpuinfo.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
}

/// The command with the program's name instead of its path: paths of one machine mean nothing on another.
fn command_line() -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let head = "cargo run --release -p bench-harness";
    if words.is_empty() { head.to_owned() } else { format!("{head} -- {}", words.join(" ")) }
}

/// The first line that a command says; nothing where it fails.
pub fn spoken(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return String::new() };
    if !output.status.success() {
        return String::new();
    }
    let bytes = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&bytes).lines().next().unwrap_or("").to_owned()
}

/// The type of the mount that holds a path: the longest mount point that is a prefix wins.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    holding.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_owned()
}

/// `YYYY-MM-DD HH:MM UTC`.
pub fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Days to a date of the Gregorian calendar, in years that begin with March.
    let day = (seconds / 86_400) as i64 + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, date) =
        (if shifted < 10 { shifted + 3 } else { shifted - 9 }, of_year - (153 * shifted + 2) / 5 + 1);
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year}-{month:02}-{date:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 0);
        assert!(usage.resident_peak_bytes >= usage.resident_bytes);
    }

    #[test]
    fn the_cpu_clock_of_a_process_runs_while_it_works() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut sum = 0u64;
        while cpu_time(std::process::id()).unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu_time(1 << 22).is_err(), "process ids end below that");
    }

    #[test]
    fn dates_follow_the_calendar() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_782_340), "2000-02-28 23:59 UTC");
        assert_eq!(at(951_868_740), "2000-02-29 23:59 UTC");
        assert_eq!(at(1_735_689_600), "2025-01-01 00:00 UTC");
    }
}
