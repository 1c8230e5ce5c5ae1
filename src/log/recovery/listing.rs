//! The names in a partition's directory: which file each is, and which are left over.

use std::collections::BTreeMap;

use crate::effect::{FileName, Stem, Suffix};
use crate::log::epoch::LEADER_EPOCH_CHECKPOINT;
use crate::log::mark::TRUNCATION_MARK;

/// The file that holds the topic id.
pub(super) const PARTITION_METADATA: &str = "partition.metadata";

/// Files by name, with their lengths in bytes.
pub(super) type Files = BTreeMap<FileName, u64>;

const SUFFIXES: [(&str, Suffix); 4] = [
    (".tmp", Suffix::Tmp),
    (".deleted", Suffix::Deleted),
    (".cleaned", Suffix::Cleaned),
    (".swap", Suffix::Swap),
];

/// Reads a name as [`FileName`] writes it; `None` is a file that is not ours.
pub(in crate::log) fn parse_name(name: &str) -> Option<FileName> {
    let found = SUFFIXES.iter().find_map(|(text, suffix)| Some((name.strip_suffix(text)?, *suffix)));
    let (stem, suffix) = found.unwrap_or((name, Suffix::None));
    let stem = match stem {
        LEADER_EPOCH_CHECKPOINT => Stem::Named(LEADER_EPOCH_CHECKPOINT),
        PARTITION_METADATA => Stem::Named(PARTITION_METADATA),
        TRUNCATION_MARK => Stem::Named(TRUNCATION_MARK),
        _ => parse_numbered(stem)?,
    };
    Some(FileName { stem, suffix })
}

fn parse_numbered(stem: &str) -> Option<Stem> {
    let (digits, kind) = stem.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let base: i64 = digits.parse().ok()?;
    Some(match kind {
        "log" => Stem::Log(base),
        "index" => Stem::OffsetIndex(base),
        "timeindex" => Stem::TimeIndex(base),
        "txnindex" => Stem::TxnIndex(base),
        "snapshot" => Stem::ProducerSnapshot(base),
        _ => return None,
    })
}

/// The offset in a file's name.
pub(super) fn offset_of(file: FileName) -> Option<i64> {
    match file.stem {
        Stem::Log(base)
        | Stem::OffsetIndex(base)
        | Stem::TimeIndex(base)
        | Stem::TxnIndex(base)
        | Stem::ProducerSnapshot(base) => Some(base),
        Stem::Named(_) | Stem::Numbered(..) => None,
    }
}

/// The files of a segment, its log first: without it the others are orphans.
pub(super) fn segment_files(base: i64) -> [FileName; 4] {
    [Stem::Log(base), Stem::OffsetIndex(base), Stem::TimeIndex(base), Stem::TxnIndex(base)]
        .map(FileName::from)
}

/// Takes the files that no stop leaves behind on purpose out of a listing: checkpoints and
/// compactions that did not finish, deletions that did not begin. A `.swap` goes with them when
/// it belongs to a compaction whose output was not yet complete (a `.cleaned` at or below it).
pub(super) fn take_leftovers(files: &mut Files) -> Vec<FileName> {
    let cleaned = files.keys().filter(|file| file.suffix == Suffix::Cleaned);
    let first_cleaned = cleaned.filter_map(|file| offset_of(*file)).min().unwrap_or(i64::MAX);
    let is_left_over = |file: &FileName| match file.suffix {
        Suffix::None => false,
        Suffix::Tmp | Suffix::Deleted | Suffix::Cleaned => true,
        Suffix::Swap => offset_of(*file).is_none_or(|offset| offset >= first_cleaned),
    };
    // Swaps first: without the `.cleaned` that marks them as incomplete they would be renamed.
    let mut left: Vec<FileName> = files.keys().copied().filter(is_left_over).collect();
    left.sort_by_key(|file| file.suffix != Suffix::Swap);
    files.retain(|file, _| !is_left_over(file));
    left
}

/// Takes indexes without a log out of a listing.
pub(super) fn take_orphans(files: &mut Files) -> Vec<FileName> {
    let is_orphan = |file: &FileName| match file.stem {
        Stem::OffsetIndex(base) | Stem::TimeIndex(base) | Stem::TxnIndex(base) => {
            !files.contains_key(&FileName::from(Stem::Log(base)))
        }
        _ => false,
    };
    let orphans: Vec<FileName> = files.keys().copied().filter(is_orphan).collect();
    files.retain(|file, _| !orphans.contains(file));
    orphans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_it_is_written() {
        for name in [
            "00000000000000000042.log",
            "00000000000000000042.index.swap",
            "00000000000000000042.timeindex.cleaned",
            "00000000000000000042.txnindex.deleted",
            "00000000000000000042.snapshot",
            "leader-epoch-checkpoint.tmp",
            "partition.metadata",
            ".tidemill-truncation",
        ] {
            assert_eq!(parse_name(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn foreign_names_are_left_alone() {
        for name in
            ["42.log", "99999999999999999999.log", "0000000000000000004x.log", "lost+found", ".log", ""]
        {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_swap_beside_unfinished_output_is_left_over() {
        let names = [
            "00000000000000000000.log.swap",
            "00000000000000000010.log.swap",
            "00000000000000000005.log.cleaned",
        ];
        let mut files: Files = names.iter().map(|name| (parse_name(name).unwrap(), 1)).collect();
        let left: Vec<String> = take_leftovers(&mut files).iter().map(FileName::to_string).collect();
        assert_eq!(left, [names[1], names[2]]);
        assert_eq!(files.len(), 1);
    }
}
