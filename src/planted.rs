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
    /// The high watermark does not wait for followers.
    WatermarkOfLeaderAlone,
    /// The high watermark waits for the ISR that is known, and not for the one that was asked for.
    WatermarkOfKnownIsr,
    /// A replica may join the ISR without everything from before the leader's epoch.
    JoinsBeforeEpochStart,
    /// A new leader tells its end before it knows up to where the one before had committed.
    EndBeforeWatermark,
    /// Consumers read to the log end.
    ReadsUncommitted,
    /// A leader does not look at the leader epoch of those who ask it.
    EpochUnchecked,
    /// A replica that begins to follow cuts its log at its own high watermark.
    CutAtWatermark,
    /// A leader does not tell a follower that its log is another one.
    DivergenceUntold,
    /// A follower cuts where the leader's epoch ended, whatever its own did there.
    CutAtLeadersWord,
    /// A follower tells what is on its way to its files as held.
    UnwrittenCountsAsHeld,
    /// A follower's high watermark is its leader's, also beyond its own log.
    WatermarkBeyondLog,
    /// A follower does not take in the producers of what it fetches.
    FollowersProducersForgotten,
    /// Of a producer's batches only the last five are known to be there.
    OldBatchesForgotten,
    /// A follower does not take in the leader epochs of what it fetches.
    FollowersEpochsForgotten,
    /// Any replica that is up is elected, the first one first.
    AnyReplicaLeads,
    /// A process that was started again leads what the one before led, until it hears of its own registration.
    LeadsUnregistered,
    /// A new leader has the epoch of the one before.
    EpochOutlivesLeader,
    /// A replica that may have lost what it had stays eligible.
    EligibleAfterLoss,
    /// The high watermark rises with fewer in sync than `min.insync.replicas`.
    WatermarkOfTooFew,
    /// The ISR is changed whatever it was when that was decided.
    IsrChangedBlindly,
    /// A controller says what it promises before that is on its disk.
    PromisedBeforePersisted,
    /// A controller answers before that is committed.
    AnsweredBeforeCommit,
    /// Blocks of producer ids are given twice.
    ProducerIdsTwice,
    /// The replica of a topic that was deleted stays.
    ReplicaOutlivesTopic,
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
