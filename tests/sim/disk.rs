//! A disk that forgets: what a power cut leaves of files and directories (the disk model of the simulator).
//!
//! A file is its current bytes (the page cache), its durable bytes and the ordered changes between them; a directory
//! likewise with its entries. A sync makes durable what had been changed when the sync was *issued*. A process
//! that dies loses nothing that was executed. A power cut keeps of each file a prefix of its size changes and any
//! subset of the sectors written, so a size can be durable before its data (a zero tail); of each directory a prefix
//! of its changes.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemill::effect::{FileDone, FileError, FileName, FileOp, FileResult, Stem};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    File(u64),
    Dir(u64),
}

#[derive(Clone, Debug)]
enum FileChange {
    Write { position: usize, bytes: Bytes },
    Size(usize),
}

#[derive(Clone, Debug)]
enum DirChange {
    Link(String, Entry),
    Unlink(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(u64, FileChange)>,
    /// When its bytes last changed, by the wall clock.
    modified_ms: i64,
    /// When it last became shorter, or began, on the disk's count of changes.
    cut_at: u64,
}

#[derive(Debug, Default)]
struct Dir {
    entries: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    pending: Vec<(u64, DirChange)>,
}

/// How much of what is not synced a power cut takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut {
    /// Bytes that the device writes as one.
    pub sector_bytes: usize,
    /// Chance that a sector that was written and not synced is kept.
    pub kept: f64,
    /// Chance that all changes of a directory, or all sizes of a file, are kept.
    pub metadata_kept: f64,
}

/// One log directory on a simulated device.
#[derive(Debug)]
pub struct Disk {
    inodes: BTreeMap<u64, Inode>,
    dirs: BTreeMap<u64, Dir>,
    next: u64,
    sequence: u64,
    /// The wall clock, for the times of files.
    pub wall_ms: i64,
}

const ROOT: u64 = 0;
/// What the kernel says of a file that is there already.
const EEXIST: i32 = 17;

impl Default for Disk {
    fn default() -> Self {
        Self {
            inodes: BTreeMap::new(),
            dirs: BTreeMap::from([(ROOT, Dir::default())]),
            next: 1,
            sequence: 0,
            wall_ms: 0,
        }
    }
}

impl Dir {
    fn change(&mut self, sequence: u64, change: DirChange) {
        apply(&mut self.entries, &change);
        self.pending.push((sequence, change));
    }
}

fn apply(entries: &mut BTreeMap<String, Entry>, change: &DirChange) {
    match change {
        DirChange::Link(name, entry) => drop(entries.insert(name.clone(), *entry)),
        DirChange::Unlink(name) => drop(entries.remove(name)),
        DirChange::Rename(from, to) => {
            if let Some(entry) = entries.remove(from) {
                entries.insert(to.clone(), entry);
            }
        }
    }
}

impl Inode {
    fn change(&mut self, sequence: u64, change: FileChange) {
        apply_to_file(&mut self.data, &change);
        self.pending.push((sequence, change));
    }
}

fn apply_to_file(data: &mut Vec<u8>, change: &FileChange) {
    match change {
        FileChange::Write { position, bytes } => {
            let end = position + bytes.len();
            if data.len() < end {
                data.resize(end, 0);
            }
            data[*position..end].copy_from_slice(bytes);
        }
        FileChange::Size(length) => data.resize(*length, 0),
    }
}

impl Disk {
    /// Stands for everything changed so far; a sync issued now reaches no further.
    pub fn mark(&self) -> u64 {
        self.sequence
    }

    /// Whether a file was truncated, or made anew, after `mark`.
    pub fn was_cut(&mut self, dir: &str, file: FileName, mark: u64) -> bool {
        self.inode(dir, file).is_ok_and(|inode| inode.cut_at > mark)
    }

    /// Whether the log directory itself has a file of that name.
    pub fn has(&self, name: &str) -> bool {
        self.dirs[&ROOT].entries.contains_key(name)
    }

    /// Names of the directories in the log directory.
    pub fn directories(&self) -> Vec<String> {
        let is_dir = |entry: &Entry| matches!(entry, Entry::Dir(_));
        let entries = self.dirs[&ROOT].entries.iter();
        entries.filter(|(_, entry)| is_dir(entry)).map(|(name, _)| name.clone()).collect()
    }

    /// Whether a directory holds a log file with a higher base offset.
    pub fn has_later_log(&self, dir: &str, base_offset: i64) -> bool {
        let Ok(dir) = self.dir_of(dir) else { return false };
        let first = FileName::from(Stem::Log(base_offset + 1)).to_string();
        self.dirs[&dir].entries.range(first..).any(|(name, _)| name.ends_with(".log"))
    }

    fn sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn dir_of(&self, name: &str) -> Result<u64, FileError> {
        if name.is_empty() {
            return Ok(ROOT);
        }
        match self.dirs[&ROOT].entries.get(name) {
            Some(Entry::Dir(id)) => Ok(*id),
            _ => Err(FileError::NotFound),
        }
    }

    fn inode(&mut self, dir: &str, file: FileName) -> Result<&mut Inode, FileError> {
        let dir = self.dir_of(dir)?;
        match self.dirs[&dir].entries.get(&file.to_string()) {
            Some(Entry::File(id)) => Ok(self.inodes.get_mut(id).expect("a name names an inode")),
            _ => Err(FileError::NotFound),
        }
    }

    /// Carries out one operation in the directory of that name (empty: the log directory itself). `appended` are the
    /// bytes of an append. A sync reaches as far as `mark`. A renamed directory's new name is given to `moved`.
    pub fn execute(
        &mut self,
        dir: &mut String,
        op: &FileOp,
        appended: &Bytes,
        mark: u64,
        random: &mut fastrand::Rng,
    ) -> FileResult {
        match op {
            FileOp::MakeDir => {
                if self.dir_of(dir).is_err() {
                    let (id, sequence) = (self.next, self.sequence());
                    self.next += 1;
                    self.dirs.insert(id, Dir::default());
                    let change = DirChange::Link(dir.clone(), Entry::Dir(id));
                    self.dirs.get_mut(&ROOT).expect("root").change(sequence, change);
                }
            }
            FileOp::SyncParent => self.sync_dir(ROOT, mark),
            FileOp::SyncDir => {
                let id = self.dir_of(dir)?;
                self.sync_dir(id, mark);
            }
            FileOp::List => return self.list(dir),
            FileOp::RetireDir => *dir = self.set_aside(dir, "-delete", random)?,
            FileOp::StrayDir => drop(self.set_aside(dir, "-stray", random)?),
            FileOp::RenameDir { name } => *dir = self.rename_dir(dir, name)?,
            FileOp::CopyFrom { .. } => unreachable!("what is copied is the caller's"),
            FileOp::DeleteDir => self.delete_dir(dir),
            FileOp::Create { file, .. } => self.create(dir, *file)?,
            FileOp::Append { base_offset, position, .. } => {
                self.write(dir, Stem::Log(*base_offset).into(), *position, appended)?;
            }
            FileOp::Write { file, position, bytes } => self.write(dir, *file, *position, bytes)?,
            FileOp::Read { file, position, length } => {
                return self.read(dir, *file, *position, *length).map(FileDone::Bytes);
            }
            FileOp::ModifiedAt { file } => {
                return self.inode(dir, *file).map(|inode| FileDone::ModifiedMs(inode.modified_ms));
            }
            FileOp::Sync { file } => {
                let inode = self.inode(dir, *file)?;
                let until = inode.pending.partition_point(|(sequence, _)| *sequence <= mark);
                for (_, change) in inode.pending.drain(..until) {
                    apply_to_file(&mut inode.durable, &change);
                }
            }
            FileOp::Allocate { .. } => {}
            FileOp::Truncate { file, length } => {
                let sequence = self.sequence();
                let inode = self.inode(dir, *file)?;
                inode.cut_at = sequence;
                inode.change(sequence, FileChange::Size(*length as usize));
            }
            FileOp::Rename { from, to } => {
                self.inode(dir, *from)?;
                let (id, sequence) = (self.dir_of(dir)?, self.sequence());
                let change = DirChange::Rename(from.to_string(), to.to_string());
                self.dirs.get_mut(&id).expect("named").change(sequence, change);
            }
            FileOp::Delete { file } => {
                if self.inode(dir, *file).is_ok() {
                    let (id, sequence) = (self.dir_of(dir)?, self.sequence());
                    let change = DirChange::Unlink(file.to_string());
                    self.dirs.get_mut(&id).expect("named").change(sequence, change);
                }
            }
        }
        Ok(FileDone::Ok)
    }

    fn rename_dir(&mut self, dir: &str, to: &str) -> Result<String, FileError> {
        self.dir_of(dir)?;
        let sequence = self.sequence();
        let change = DirChange::Rename(dir.to_owned(), to.to_owned());
        self.dirs.get_mut(&ROOT).expect("root").change(sequence, change);
        Ok(to.to_owned())
    }

    fn set_aside(&mut self, dir: &str, mark: &str, random: &mut fastrand::Rng) -> Result<String, FileError> {
        self.dir_of(dir)?;
        let to = format!("{dir}.{:032x}{mark}", random.u128(..));
        let sequence = self.sequence();
        let change = DirChange::Rename(dir.to_string(), to.clone());
        self.dirs.get_mut(&ROOT).expect("root").change(sequence, change);
        Ok(to)
    }

    /// A name that is there keeps its inode, as in the kernel, but a log with records is left alone.
    fn create(&mut self, dir: &str, file: FileName) -> Result<(), FileError> {
        let sequence = self.sequence();
        if let Ok(inode) = self.inode(dir, file) {
            match file.stem {
                Stem::Log(_) if !inode.data.is_empty() => return Err(FileError::Io(EEXIST)),
                _ if !inode.data.is_empty() => inode.change(sequence, FileChange::Size(0)),
                _ => {}
            }
            return Ok(());
        }
        let (id, dir) = (self.next, self.dir_of(dir)?);
        self.next += 1;
        self.inodes.insert(id, Inode { cut_at: sequence, ..Inode::default() });
        let change = DirChange::Link(file.to_string(), Entry::File(id));
        self.dirs.get_mut(&dir).expect("named").change(sequence, change);
        Ok(())
    }

    fn write(&mut self, dir: &str, file: FileName, position: u64, bytes: &Bytes) -> Result<(), FileError> {
        let (sequence, wall_ms) = (self.sequence(), self.wall_ms);
        let inode = self.inode(dir, file)?;
        inode.modified_ms = wall_ms;
        let change = FileChange::Write { position: position as usize, bytes: bytes.clone() };
        inode.change(sequence, change);
        Ok(())
    }

    /// Writes bytes of another disk's file of the same name, which is made where it is missing.
    pub fn put(&mut self, dir: &str, file: FileName, position: u64, bytes: &Bytes) -> Result<(), FileError> {
        if self.inode(dir, file).is_err() {
            self.create(dir, file)?;
        }
        self.write(dir, file, position, bytes)
    }

    /// Up to `length` bytes, fewer only at the end of the file.
    pub fn read(
        &mut self,
        dir: &str,
        file: FileName,
        position: u64,
        length: u64,
    ) -> Result<Bytes, FileError> {
        let data = &self.inode(dir, file)?.data;
        let from = (position as usize).min(data.len());
        let to = (position.saturating_add(length) as usize).min(data.len());
        Ok(Bytes::copy_from_slice(&data[from..to]))
    }

    fn list(&self, dir: &str) -> FileResult {
        let dir = self.dir_of(dir)?;
        let names = self.dirs[&dir].entries.iter().map(|(name, entry)| match entry {
            Entry::File(id) => (name.clone(), self.inodes[id].data.len() as u64),
            Entry::Dir(_) => (name.clone(), 0),
        });
        Ok(FileDone::Listing(names.collect()))
    }

    fn sync_dir(&mut self, id: u64, mark: u64) {
        let Some(dir) = self.dirs.get_mut(&id) else { return };
        let until = dir.pending.partition_point(|(sequence, _)| *sequence <= mark);
        for (_, change) in dir.pending.drain(..until) {
            apply(&mut dir.durable, &change);
        }
    }

    fn delete_dir(&mut self, name: &str) {
        let Ok(id) = self.dir_of(name) else { return };
        let names: Vec<String> = self.dirs[&id].entries.keys().cloned().collect();
        for file in names {
            let sequence = self.sequence();
            self.dirs.get_mut(&id).expect("named").change(sequence, DirChange::Unlink(file));
        }
        let sequence = self.sequence();
        self.dirs.get_mut(&ROOT).expect("root").change(sequence, DirChange::Unlink(name.to_string()));
    }

    /// The power fails: what was not synced is kept, lost or torn.
    pub fn cut_power(&mut self, cut: Cut, random: &mut fastrand::Rng) {
        for dir in self.dirs.values_mut() {
            let kept = prefix(dir.pending.len(), cut, random);
            for (_, change) in dir.pending.drain(..).take(kept) {
                apply(&mut dir.durable, &change);
            }
            dir.entries.clone_from(&dir.durable);
        }
        for inode in self.inodes.values_mut() {
            if !inode.pending.is_empty() {
                inode.durable = torn(inode, cut, random);
            }
            inode.data.clone_from(&inode.durable);
        }
        self.forget_unnamed();
    }

    fn forget_unnamed(&mut self) {
        let named: Vec<Entry> = self.dirs[&ROOT].entries.values().copied().collect();
        self.dirs.retain(|id, _| *id == ROOT || named.contains(&Entry::Dir(*id)));
        let files: std::collections::BTreeSet<u64> = self
            .dirs
            .values()
            .flat_map(|dir| dir.entries.values())
            .filter_map(|entry| if let Entry::File(id) = entry { Some(*id) } else { None })
            .collect();
        self.inodes.retain(|id, _| files.contains(id));
    }
}

fn prefix(count: usize, cut: Cut, random: &mut fastrand::Rng) -> usize {
    if random.f64() < cut.metadata_kept { count } else { random.usize(0..=count) }
}

fn torn(inode: &mut Inode, cut: Cut, random: &mut fastrand::Rng) -> Vec<u8> {
    let sizes_kept = prefix(inode.pending.len(), cut, random);
    let mut data = inode.durable.clone();
    let mut size = data.len();
    for (at, (_, change)) in inode.pending.drain(..).enumerate() {
        let size_kept = at < sizes_kept;
        match change {
            FileChange::Size(length) if size_kept => {
                size = length;
                data.truncate(length);
            }
            FileChange::Size(_) => {}
            FileChange::Write { position, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let in_sector = (position + from) % cut.sector_bytes;
                    let to = (from + cut.sector_bytes - in_sector).min(bytes.len());
                    if random.f64() < cut.kept {
                        let bytes = bytes.slice(from..to);
                        apply_to_file(&mut data, &FileChange::Write { position: position + from, bytes });
                    }
                    from = to;
                }
                if size_kept {
                    size = size.max(position + bytes.len());
                }
            }
        }
    }
    data.resize(size, 0);
    data
}
