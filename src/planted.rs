//! Bugs that the simulator has to find: proof that it would find their like.
//!
//! Without the feature `planted-bugs` there is none, and the question costs nothing.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A produce is answered when it has its offset, before its write has completed.
    ReplyBeforeWrite,
    /// After a failed append producers and leader epochs stay as if it had succeeded.
    StateAfterFailedAppend,
    /// Recovery believes the header of a batch without its checksum: a torn one is kept.
    TornBatch,
    /// The checkpoints keep the entries of removed topics.
    OutlivingCheckpoint,
    /// The high watermark is the end of what was given out, not of what is written.
    ReservedHighWatermark,
    /// Recovery forgets the producers: what is sent again is not recognised.
    ForgottenProducers,
    /// A coordinator takes its batch for committed when it is sent off.
    CommitBeforeWrite,
    /// A log start counts before it is in the checkpoint.
    LogStartBeforeCheckpoint,
    /// Retention takes a segment for old as soon as its first record is.
    RetentionByFirstRecord,
}

#[cfg(feature = "planted-bugs")]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug for everything that runs on this thread, or none.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}
