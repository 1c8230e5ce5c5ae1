//! What became of the frames, by API and version and by what was wrong with them.

use std::collections::BTreeMap;
use std::fmt;

use tidemill::wire::api::{self, TABLE};

use crate::frames::{Frame, Kind};

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its answer came, and is one of its API and version.
    Answered,
    /// It asked for no answer, and what followed it was answered.
    Silent,
    /// The broker closed its connection.
    Closed,
    /// The client went away.
    Gone,
}

/// Frames of one kind or row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub frames: u64,
    pub valid_up_to_body: u64,
    answered: u64,
    silent: u64,
    closed: u64,
    gone: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    rows: BTreeMap<(i16, i16), Counts>,
    kinds: BTreeMap<Kind, Counts>,
    /// Frames behind one that closed the connection; nobody has looked at them, and they count nowhere else.
    pub behind: u64,
    /// Connections opened.
    pub connections: u64,
    /// Those that the broker closed for what was sent on them.
    pub closed_connections: u64,
    /// Those whose client left, or ended its half, behind a frame that was not whole: the broker may have
    /// closed them for something before it.
    pub left_connections: u64,
    /// The slowest pipeline, in milliseconds.
    pub slowest_ms: u128,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.frames += other.frames;
        self.valid_up_to_body += other.valid_up_to_body;
        self.answered += other.answered;
        self.silent += other.silent;
        self.closed += other.closed;
        self.gone += other.gone;
    }
}

impl Tally {
    pub fn count(&mut self, frame: &Frame, fate: Fate) {
        let mut one = Counts { frames: 1, ..Counts::default() };
        one.valid_up_to_body = u64::from(frame.kind.is_valid_up_to_body());
        match fate {
            Fate::Answered => one.answered = 1,
            Fate::Silent => one.silent = 1,
            Fate::Closed => one.closed = 1,
            Fate::Gone => one.gone = 1,
        }
        self.rows.entry(frame.row).or_default().add(&one);
        self.kinds.entry(frame.kind).or_default().add(&one);
    }

    pub fn add(&mut self, other: &Tally) {
        for (row, counts) in &other.rows {
            self.rows.entry(*row).or_default().add(counts);
        }
        for (kind, counts) in &other.kinds {
            self.kinds.entry(*kind).or_default().add(counts);
        }
        self.behind += other.behind;
        self.connections += other.connections;
        self.closed_connections += other.closed_connections;
        self.left_connections += other.left_connections;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
    }

    pub fn total(&self) -> Counts {
        self.rows.values().fold(Counts::default(), |mut sum, counts| {
            sum.add(counts);
            sum
        })
    }

    /// APIs and versions that no frame, or no frame valid up to its body, was made for.
    pub fn missed(&self) -> Vec<(i16, i16)> {
        let rows = TABLE
            .iter()
            .flat_map(|api| (api.version_first..=api.version_last).map(|version| (api.key as i16, version)));
        rows.filter(|row| self.rows.get(row).is_none_or(|counts| counts.valid_up_to_body == 0)).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9} {:>9} {:>9} {:>7} {:>8} {:>6}",
            self.frames, self.valid_up_to_body, self.answered, self.silent, self.closed, self.gone
        )
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28}    frames   to body  answered  silent   closed   gone", "")?;
        for ((key, version), counts) in &self.rows {
            let name = api::find(*key).map_or("?", |api| api.name);
            writeln!(f, "{:<28} {counts}", format!("{name} v{version}"))?;
        }
        for (kind, counts) in &self.kinds {
            writeln!(f, "{:<28} {counts}", format!("{kind:?}"))?;
        }
        writeln!(f, "{:<28} {}", "all", self.total())?;
        writeln!(
            f,
            "{} connections, {} of them closed by the broker, {} left by their client; {} frames behind a \
             closing one; slowest write and its answers {} ms",
            self.connections, self.closed_connections, self.left_connections, self.behind, self.slowest_ms
        )
    }
}
