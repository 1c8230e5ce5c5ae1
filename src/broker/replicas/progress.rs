//! How far the replicas have got, for the checkpoint files.

use std::sync::Arc;

use super::{FoundReplica, Slot, State};
use crate::broker::message::Progress;

/// How far a replica has got. One that is offline is where the start found it: its damage must be
/// found again by the next start, which therefore has to check everything in its log directory.
pub(super) fn progress(slot: &Slot) -> Option<Progress> {
    let (found, gone_below, unclean) = match &slot.state {
        State::Open(partition) => {
            let log = partition.log();
            let reached = FoundReplica {
                recovery_point: log.recovery_point(),
                log_start_offset: log.log_start_promised(),
                high_watermark: partition.high_watermark(),
            };
            (reached, log.gone_below(), log.is_unclean())
        }
        State::Offline(found) => (*found, 0, true),
        _ => return None,
    };
    Some(Progress {
        directory: slot.directory,
        topic_id: slot.topic_id,
        topic: Arc::clone(&slot.topic),
        partition: slot.partition,
        recovery_point: found.recovery_point,
        log_start_offset: found.log_start_offset,
        high_watermark: found.high_watermark,
        gone_below,
        lowers: false,
        unclean,
    })
}
