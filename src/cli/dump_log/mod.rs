//! `tidemill dump-log`: what stands in the files of a partition. Flags and lines are those of Kafka's
//! `kafka-dump-log`; unlike it, a file with something wrong in it ends in exit code 1.
//!
//! Reads files one batch at a time, so the memory it takes is bounded by the largest batch.

mod index;
mod segment;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill dump-log --files tidemill-data/words-0/00000000000000000000.log --print-data-log
  tidemill dump-log --files tidemill-data/words-0/00000000000000000000.index,tidemill-data/words-0/00000000000000000000.timeindex

What is wrong with a file is said on standard error, and the exit code is then 1.")]
pub(super) struct Options {
    /// The .log, .index and .timeindex files to read.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',', required = true)]
    files: Vec<PathBuf>,
    /// Show each record, not only each batch.
    #[arg(long)]
    deep_iteration: bool,
    /// Show the records' keys and values too.
    #[arg(long)]
    print_data_log: bool,
    /// Leave out what stands before a record's key.
    #[arg(long)]
    skip_record_metadata: bool,
    /// Check the entries of an index without showing them.
    #[arg(long)]
    verify_index_only: bool,
    /// Check of an index only what a broker checks when it starts.
    #[arg(long)]
    index_sanity_check: bool,
    /// The largest batch that an index may point at.
    #[arg(long, value_name = "BYTES", default_value_t = 5 << 20)]
    max_message_size: u32,
    /// Stop after so many bytes of a .log file.
    #[arg(long, value_name = "BYTES", default_value_t = i32::MAX as u64)]
    max_bytes: u64,
}

/// One file that is being dumped: where its lines go, and what is wrong with it.
struct Dump<'a, W: Write> {
    options: &'a Options,
    path: &'a Path,
    out: W,
    complaints: Vec<String>,
}

impl<W: Write> Dump<'_, W> {
    /// Offset in the file's name.
    fn base_offset(&self) -> Result<i64, String> {
        let stem = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        stem.parse().map_err(|_| format!("{}: the name is not an offset", self.path.display()))
    }

    /// Notes that something is wrong; shown under `heading` when the file is done.
    fn complain(&mut self, heading: &str, lines: &[String]) {
        if !lines.is_empty() {
            self.complaints.push(format!("{heading} {}", self.path.display()));
            self.complaints.extend(lines.iter().map(|line| format!("  {line}")));
        }
    }
}

/// Writes one formatted line; fails when nobody reads them any more.
macro_rules! line {
    ($dump:expr, $($part:tt)*) => {
        writeln!($dump.out, $($part)*).map_err(|error| format!("cannot write: {error}"))
    };
}
use line;

pub(super) fn run(options: &Options) -> Result<(), String> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut wrong = 0;
    for path in &options.files {
        let complaints = dump(options, path, &mut out)?;
        out.flush().map_err(|error| format!("cannot write: {error}"))?;
        wrong += usize::from(!complaints.is_empty());
        for complaint in complaints {
            eprintln!("{complaint}");
        }
    }
    if wrong == 0 {
        Ok(())
    } else {
        Err(format!("{wrong} of {} files are not in order", options.files.len()))
    }
}

/// Dumps one file; what is wrong with it.
fn dump(options: &Options, path: &Path, out: impl Write) -> Result<Vec<String>, String> {
    let mut dump = Dump { options, path, out, complaints: Vec::new() };
    line!(dump, "Dumping {}", path.display())?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => dump.segment()?,
        Some("index") => dump.offset_index()?,
        Some("timeindex") => dump.time_index()?,
        _ => return Err(format!("{}: not a .log, .index or .timeindex file", path.display())),
    }
    Ok(dump.complaints)
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|error| cannot_read(path, &error))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::log::batch::BatchBuilder;
    use crate::log::codec::Codec;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(flags: &str) -> Options {
        Line::parse_from(format!("dump-log --files none {flags}").split_whitespace()).options
    }

    /// Lines and complaints, without the folder's name.
    fn dumped(folder: &Path, file: &str, flags: &str) -> (String, Vec<String>) {
        let mut out = Vec::new();
        let complaints = dump(&options(flags), &folder.join(file), &mut out).unwrap();
        let bare = |text: &str| text.replace(&format!("{}/", folder.display()), "");
        (bare(&String::from_utf8(out).unwrap()), complaints.iter().map(|line| bare(line)).collect())
    }

    /// A segment of two batches: offsets 5 and 6, then 7.
    fn folder() -> (tempfile::TempDir, usize) {
        let folder = tempfile::tempdir().unwrap();
        let batch = BatchBuilder::new().base_offset(5).leader_epoch(3).producer(9, 1, 40).codec(Codec::Lz4);
        let first = batch.record(1000, Some(b"k"), Some(b"one")).record(1002, None, None).build();
        let second = BatchBuilder::new().base_offset(7).record(1001, None, Some(b"two")).build();
        fs::write(folder.path().join("00000000000000000005.log"), [&first[..], &second[..]].concat())
            .unwrap();
        (folder, first.len())
    }

    #[test]
    fn a_segment_is_shown_batch_by_batch_and_record_by_record() {
        let (folder, second_at) = folder();
        let (text, complaints) = dumped(folder.path(), "00000000000000000005.log", "--print-data-log");
        let lines: Vec<&str> = text.lines().collect();
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(lines[..2], ["Dumping 00000000000000000005.log", "Log starting offset: 5"]);
        assert!(lines[2].starts_with(
            "baseOffset: 5 lastOffset: 6 count: 2 baseSequence: 40 lastSequence: 41 producerId: 9 producerEpoch: 1 \
             partitionLeaderEpoch: 3 isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty \
             position: 0 CreateTime: 1002 size: "
        ));
        assert!(
            lines[2].contains(" magic: 2 compresscodec: lz4 crc: ") && lines[2].ends_with(" isvalid: true")
        );
        assert_eq!(
            lines[3..5],
            [
                "| offset: 5 CreateTime: 1000 keySize: 1 valueSize: 3 sequence: 40 headerKeys: [] key: k payload: one",
                "| offset: 6 CreateTime: 1002 keySize: -1 valueSize: -1 sequence: 41 headerKeys: []"
            ]
        );
        assert!(lines[5].contains(&format!(" position: {second_at} ")), "{}", lines[5]);
        assert_eq!(lines.len(), 7);
        let (text, _) = dumped(folder.path(), "00000000000000000005.log", "");
        assert!(!text.contains("| offset"), "{text}");
    }

    #[test]
    fn what_is_wrong_with_a_segment_is_said() {
        let (folder, second_at) = folder();
        let path = folder.path().join("00000000000000000005.log");
        let mut bytes = fs::read(&path).unwrap();
        // A byte of the value; the offset is outside the checksum.
        *bytes.iter_mut().nth_back(1).unwrap() ^= 1;
        bytes[second_at + 7] = 9;
        bytes.extend([0; 30]);
        fs::write(&path, &bytes).unwrap();
        let (text, complaints) = dumped(folder.path(), "00000000000000000005.log", "--deep-iteration");
        assert!(text.contains("isvalid: false"), "{text}");
        assert!(text.ends_with("Found 30 invalid bytes at the end of 00000000000000000005.log\n"), "{text}");
        let expected = [
            "Invalid batches in 00000000000000000005.log",
            "  the checksum of the batch at offset 9 does not hold",
            "Non-consecutive offsets in 00000000000000000005.log",
            "  6 is followed by 9",
            "Found 30 invalid bytes at the end of 00000000000000000005.log",
        ];
        assert_eq!(complaints, expected);
    }

    #[test]
    fn indexes_are_held_against_the_segment() {
        let (folder, second_at) = folder();
        let entry =
            |delta: u32, position: usize| [delta.to_be_bytes(), (position as u32).to_be_bytes()].concat();
        let index = "00000000000000000005.index";
        fs::write(folder.path().join(index), [entry(1, 0), entry(2, second_at)].concat()).unwrap();
        let (text, complaints) = dumped(folder.path(), index, "");
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(
            text,
            format!("Dumping {index}\noffset: 6 position: 0\noffset: 7 position: {second_at}\n")
        );
        let (text, _) = dumped(folder.path(), index, "--index-sanity-check");
        assert!(text.ends_with(&format!("{index} passed sanity check.\n")), "{text}");

        fs::write(folder.path().join(index), [entry(1, 0), entry(3, second_at), vec![1]].concat()).unwrap();
        let (_, complaints) = dumped(folder.path(), index, "--verify-index-only");
        assert_eq!(
            complaints,
            [
                format!("Mismatches in {index}"),
                "  Index offset: 8, log offset: 7".to_owned(),
                format!("Found 1 bytes behind the last whole entry of {index}")
            ]
        );

        let times = "00000000000000000005.timeindex";
        let entry =
            |timestamp: i64, delta: u32| [&timestamp.to_be_bytes()[..], &delta.to_be_bytes()[..]].concat();
        fs::write(folder.path().join(times), [entry(1002, 1), entry(1001, 2), entry(1004, 3)].concat())
            .unwrap();
        let (text, complaints) = dumped(folder.path(), times, "");
        assert!(text.contains("timestamp: 1002 offset: 6\n"), "{text}");
        assert_eq!(
            complaints,
            [
                format!("Out of order timestamps in {times}"),
                "  Index timestamp: 1001, previously indexed timestamp: 1002".to_owned(),
                format!("No batch for entries of {times}"),
                "  Indexed offset: 8".to_owned()
            ]
        );
    }
}
