//! The open files of one shard: a bounded cache. The one that was not used for longest is closed; a span that is being
//! sent keeps its own count, and so keeps its file open.

use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;

use crate::broker::Owner;
use crate::effect::FileName;

#[derive(Debug)]
struct OpenFile {
    file: Arc<OwnedFd>,
    /// Since it was looked at last.
    used: bool,
}

/// Files by owner and name.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: IndexMap<(Owner, FileName), OpenFile, FxBuildHasher>,
    /// The names of each owner's files. Thousands of owners may go at once, and each takes its own alone.
    of: FxHashMap<Owner, SmallVec<[FileName; 2]>>,
    /// Which one is looked at next when one has to go. Second chance: one that was used since then is passed over.
    hand: usize,
    /// Files that are being opened elsewhere and have a place here.
    opening: usize,
    most: usize,
}

impl OpenFiles {
    /// At most so many at once, but for those that are sent from.
    pub fn new(most: usize) -> Self {
        Self { files: IndexMap::default(), of: FxHashMap::default(), hand: 0, opening: 0, most }
    }

    /// At most so many at once from now on: those that are too many are closed.
    pub fn resize(&mut self, most: usize) {
        self.most = most;
        if self.files.len() + self.opening > most {
            self.make_room();
        }
    }

    /// One of them, if it is open.
    pub fn get(&mut self, owner: Owner, file: FileName) -> Option<&Arc<OwnedFd>> {
        let open = self.files.get_mut(&(owner, file))?;
        open.used = true;
        Some(&open.file)
    }

    /// Keeps an opened file if there is room for it.
    pub fn keep(&mut self, owner: Owner, file: FileName, opened: OwnedFd) -> Arc<OwnedFd> {
        let opened = Arc::new(opened);
        if self.make_room() {
            let open = OpenFile { file: Arc::clone(&opened), used: true };
            if self.files.insert((owner, file), open).is_none() {
                self.of.entry(owner).or_default().push(file);
            }
        }
        opened
    }

    /// One is being opened elsewhere.
    pub fn begin(&mut self) {
        self.opening += 1;
    }

    /// One that was begun is open, or could not be opened.
    pub fn end(&mut self) {
        self.opening = self.opening.saturating_sub(1);
    }

    /// Closes a file that nobody sends from, if there are too many. Says whether there is room.
    pub fn make_room(&mut self) -> bool {
        // Twice round: the first time may only find that files were used.
        for _ in 0..2 * self.files.len() {
            if self.has_room() {
                return true;
            }
            if self.hand >= self.files.len() {
                self.hand = 0;
            }
            let Some((_, open)) = self.files.get_index_mut(self.hand) else { break };
            if std::mem::take(&mut open.used) || Arc::strong_count(&open.file) > 1 {
                self.hand += 1;
            } else {
                let gone = self.files.swap_remove_index(self.hand);
                gone.into_iter().for_each(|((owner, file), _)| unlist(&mut self.of, owner, file));
            }
        }
        self.has_room()
    }

    fn has_room(&self) -> bool {
        self.files.len() + self.opening < self.most
    }

    /// Its name is another's now, or nobody's. Who gets the file closes it: that may take long ([`Job::Close`]).
    ///
    /// [`Job::Close`]: super::helpers::Job::Close
    pub fn forget(&mut self, owner: Owner, file: FileName) -> Option<Arc<OwnedFd>> {
        let open = self.files.swap_remove(&(owner, file))?;
        unlist(&mut self.of, owner, file);
        Some(open.file)
    }

    /// The owner is gone: its files, as [`Self::forget`] gives them.
    pub fn disown(&mut self, owner: Owner) -> Vec<Arc<OwnedFd>> {
        let names = self.of.remove(&owner).unwrap_or_default();
        names.into_iter().filter_map(|file| Some(self.files.swap_remove(&(owner, file))?.file)).collect()
    }

    /// Closes every file that nobody sends from.
    pub fn close_unused(&mut self) {
        let of = &mut self.of;
        self.files.retain(|(owner, file), open| {
            let is_used = Arc::strong_count(&open.file) > 1;
            if !is_used {
                unlist(of, *owner, *file);
            }
            is_used
        });
    }
}

fn unlist(of: &mut FxHashMap<Owner, SmallVec<[FileName; 2]>>, owner: Owner, file: FileName) {
    if let Entry::Occupied(mut names) = of.entry(owner) {
        names.get_mut().retain(|name| *name != file);
        if names.get().is_empty() {
            names.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Stem;

    const OWNER: Owner = Owner::Replica(3);

    fn name(base_offset: i64) -> FileName {
        Stem::Log(base_offset).into()
    }

    fn any_file() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn whoever_takes_a_file_away_has_to_close_it() {
        let mut files = OpenFiles::new(9);
        let kept: Vec<_> = (0..3).map(|at| files.keep(OWNER, name(at), any_file())).collect();
        let others = files.keep(Owner::Replica(4), name(0), any_file());
        let forgotten = files.forget(OWNER, name(1)).unwrap();
        assert!(Arc::ptr_eq(&forgotten, &kept[1]) && files.forget(OWNER, name(1)).is_none());
        assert_eq!(files.disown(OWNER).len(), 2);
        assert!(files.get(OWNER, name(0)).is_none());
        assert!(Arc::ptr_eq(files.get(Owner::Replica(4), name(0)).unwrap(), &others));
    }

    #[test]
    fn what_was_not_used_goes_first() {
        let mut files = OpenFiles::new(3);
        (0..3).for_each(|at| drop(files.keep(OWNER, name(at), any_file())));
        // The first look finds all of them used, and takes the first one the second time round.
        drop(files.keep(OWNER, name(3), any_file()));
        assert!(files.get(OWNER, name(0)).is_none());
        assert!(files.get(OWNER, name(1)).is_some());
        drop(files.keep(OWNER, name(4), any_file()));
        let left: Vec<i64> = (0..5).filter(|at| files.get(OWNER, name(*at)).is_some()).collect();
        assert_eq!(left.len(), 3);
        assert!(left.contains(&1) && left.contains(&4), "{left:?}");
    }

    #[test]
    fn what_is_sent_from_stays_and_leaves_no_room() {
        let mut files = OpenFiles::new(2);
        let sent: Vec<_> = (0..2).map(|at| files.keep(OWNER, name(at), any_file())).collect();
        assert!(!files.make_room());
        let third = files.keep(OWNER, name(2), any_file());
        assert!(files.get(OWNER, name(2)).is_none(), "whoever has it closes it");
        drop((sent, third));
        assert!(files.make_room());
    }

    #[test]
    fn files_go_when_there_is_room_for_fewer() {
        let mut files = OpenFiles::new(10);
        (0..10).for_each(|at| drop(files.keep(OWNER, name(at), any_file())));
        files.resize(4);
        assert!(files.files.len() < 4, "{}, and one more has room", files.files.len());
        assert_eq!(files.of[&OWNER].len(), files.files.len());
        files.resize(20);
        (0..30).for_each(|at| drop(files.keep(OWNER, name(at), any_file())));
        assert_eq!(files.files.len(), 20);
    }

    #[test]
    fn a_place_is_held_for_what_is_being_opened() {
        let mut files = OpenFiles::new(2);
        files.begin();
        drop(files.keep(OWNER, name(0), any_file()));
        assert!(files.make_room(), "the other one goes");
        assert!(files.get(OWNER, name(0)).is_none());
        files.begin();
        assert!(!files.make_room());
        files.end();
        assert!(files.make_room());
    }

    #[test]
    fn nothing_is_left_of_files_that_are_gone() {
        let mut files = OpenFiles::new(1_000);
        for at in 0..10_000 {
            drop(files.keep(OWNER, name(at), any_file()));
            files.forget(OWNER, name(at));
        }
        assert!(files.files.is_empty() && files.of.is_empty());
        assert!(files.files.capacity() < 100, "{}", files.files.capacity());
    }
}
