//! Which CPUs there are, and which of them are threads of one core, as Linux tells it in sysfs.
//!
//! A CPU that sysfs says nothing of counts as a core of its own.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use tidemill::config::ShardCpus;

/// One CPU as the kernel counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub number: usize,
    /// The processor that it belongs to.
    pub package: usize,
    /// Its core, unique over all processors.
    pub core: usize,
    /// Which of its core's threads it is, from 0.
    pub thread: usize,
}

/// These CPUs with their places, by processor, core and thread.
pub fn of(numbers: &[usize]) -> Vec<Cpu> {
    under(Path::new("/sys/devices/system/cpu"), numbers)
}

fn under(root: &Path, numbers: &[usize]) -> Vec<Cpu> {
    let read = |number: usize, name: &str| -> Option<usize> {
        let path = root.join(format!("cpu{number}/topology/{name}"));
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let mut places: Vec<(usize, usize, usize)> = numbers
        .iter()
        .map(|number| {
            let package = read(*number, "physical_package_id").unwrap_or(0);
            // Unknown ones come behind all known ones, each by itself.
            (package, read(*number, "core_id").unwrap_or(usize::MAX / 2 + number), *number)
        })
        .collect();
    places.sort_unstable();
    places.dedup();
    let (mut cpus, mut last) = (Vec::<Cpu>::new(), None);
    for (package, core_id, number) in places {
        let (core, thread) = match cpus.last() {
            Some(before) if last == Some((package, core_id)) => (before.core, before.thread + 1),
            Some(before) => (before.core + 1, 0),
            None => (0, 0),
        };
        last = Some((package, core_id));
        cpus.push(Cpu { number, package, core, thread });
    }
    cpus
}

/// Reads `all` or a list such as `0-3,6` out of those that may be used.
pub fn chosen(text: &str, allowed: &[usize]) -> Result<Vec<usize>> {
    let list = match ShardCpus::parse(text).map_err(anyhow::Error::msg)? {
        ShardCpus::All => allowed.to_vec(),
        ShardCpus::List(list) => list.iter().map(|cpu| *cpu as usize).collect(),
    };
    let missing: Vec<usize> = list.iter().copied().filter(|cpu| !allowed.contains(cpu)).collect();
    ensure!(
        missing.is_empty(),
        "CPUs {} may not be used here, only {}",
        in_words(&missing),
        in_words(allowed)
    );
    ensure!(!list.is_empty(), "there are no CPUs to choose from");
    Ok(list)
}

/// Numbers as `shard.cpus` takes them: `0-3,6`.
pub fn in_words(cpus: &[usize]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let word = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(word).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_core_are_known_by_its_number_in_its_package() {
        let root = tempfile::tempdir().unwrap();
        // As on most machines: the second threads are numbered behind all first ones.
        for (number, package, core) in [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 0, 0), (4, 0, 1), (5, 1, 0)] {
            let folder = root.path().join(format!("cpu{number}/topology"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("physical_package_id"), format!("{package}\n")).unwrap();
            fs::write(folder.join("core_id"), format!("{core}\n")).unwrap();
        }
        let cpus = under(root.path(), &[0, 1, 2, 3, 4, 5, 9]);
        let told: Vec<_> = cpus.iter().map(|cpu| (cpu.number, cpu.package, cpu.core, cpu.thread)).collect();
        let expected = [
            (0, 0, 0, 0),
            (3, 0, 0, 1),
            (1, 0, 1, 0),
            (4, 0, 1, 1),
            (9, 0, 2, 0),
            (2, 1, 3, 0),
            (5, 1, 3, 1),
        ];
        assert_eq!(told, expected, "CPU 9 is not known to the kernel and a core of its own");
    }

    #[test]
    fn lists_are_read_and_written_as_the_configuration_has_them() {
        assert_eq!(chosen("all", &[2, 3]).unwrap(), [2, 3]);
        assert_eq!(chosen("0-2,7", &[0, 1, 2, 7]).unwrap(), [0, 1, 2, 7]);
        assert!(
            chosen("0-2", &[0, 1]).unwrap_err().to_string().contains("CPUs 2 may not be used here, only 0-1")
        );
        assert!(chosen("all", &[]).unwrap_err().to_string().contains("no CPUs to choose from"));
        assert!(chosen("x", &[0]).is_err());
        assert_eq!(in_words(&[7, 2, 0, 1]), "0-2,7");
        assert_eq!(ShardCpus::parse(&in_words(&[5, 3, 4])), Ok(ShardCpus::List(vec![3, 4, 5])));
    }
}
