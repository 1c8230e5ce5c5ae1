//! Who waits on a partition: produces for their promise, readers for more to read.
//!
//! Both lists are bounded by the requests that the connections' shards have admitted, and by what their fetch
//! sessions may remember.

use std::collections::VecDeque;

use super::effect::{Answer, Effect, ReplyTo};
use crate::wire::ErrorCode;

/// Entries for which a list of who waits keeps room when it is empty: a fan-out of that many readers costs no memory
/// anew with each append.
const LIST_KEPT: usize = 256;

/// A crowd that has gone from a list leaves no room behind.
pub(super) fn rest<T>(list: &mut Vec<T>) {
    if list.is_empty() {
        list.shrink_to(LIST_KEPT);
    }
}

/// A produce that is not yet as safe as its acks ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub to: ReplyTo,
    pub base_offset: i64,
    /// Answered once the tail it waits for has reached this offset.
    pub offset_end: i64,
    pub log_append_time_ms: i64,
    pub deadline_ms: u64,
}

/// Produces waiting for one tail of the log, ordered by the offset they wait for.
#[derive(Debug, Default)]
pub(super) struct ParkedProduces {
    queue: VecDeque<Parked>,
    /// No deadline passes before this. May be that of a produce which was answered since, so that
    /// answering costs no search; the wake-up that this brings looks for the next one.
    deadline_floor_ms: Option<u64>,
}

impl ParkedProduces {
    /// Parks behind every produce with the same or a lower end. Nearly always the very end; a
    /// duplicate of an earlier batch goes beside its original.
    pub fn park(&mut self, parked: Parked) {
        let after = self.queue.iter().rev().take_while(|p| p.offset_end > parked.offset_end).count();
        let floor_ms = self.deadline_floor_ms.filter(|_| !self.queue.is_empty());
        self.deadline_floor_ms = Some(floor_ms.map_or(parked.deadline_ms, |ms| ms.min(parked.deadline_ms)));
        self.queue.insert(self.queue.len() - after, parked);
    }

    /// Answers everything whose end the tail has reached.
    pub fn release(&mut self, tail: i64, log_start_offset: i64, effects: &mut Vec<Effect>) {
        while let Some(parked) = self.queue.pop_front_if(|p| p.offset_end <= tail) {
            effects.push(Effect::Reply(
                parked.to,
                Answer::Appended {
                    base_offset: parked.base_offset,
                    log_append_time_ms: parked.log_append_time_ms,
                    log_start_offset,
                },
            ));
        }
    }

    /// Answers everything that waits for an offset above `offset` with an error, in their order.
    pub fn fail_above(&mut self, offset: i64, error: ErrorCode, effects: &mut Vec<Effect>) {
        let kept = self.queue.partition_point(|p| p.offset_end <= offset);
        effects.extend(self.queue.drain(kept..).map(|parked| fail(parked.to, error)));
    }

    /// Answers everything past its deadline with REQUEST_TIMED_OUT.
    pub fn expire(&mut self, mono_ms: u64, effects: &mut Vec<Effect>) {
        if self.deadline_floor_ms.is_none_or(|ms| ms > mono_ms) {
            return;
        }
        self.queue.retain(|parked| {
            let expired = parked.deadline_ms <= mono_ms;
            if expired {
                effects.push(fail(parked.to, ErrorCode::RequestTimedOut));
            }
            !expired
        });
        self.deadline_floor_ms = self.queue.iter().map(|parked| parked.deadline_ms).min();
    }

    /// When [`Self::expire`] is to be called: not after the first deadline, and never without a produce.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadline_floor_ms.filter(|_| !self.queue.is_empty())
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

pub(super) fn fail(to: ReplyTo, error: ErrorCode) -> Effect {
    Effect::Reply(to, Answer::Failed { error, log_start_offset: -1 })
}

/// An end of the log that a reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// The high watermark, for consumers.
    HighWatermark,
    /// The last stable offset, for consumers of committed transactions.
    LastStable,
    /// The log end, for replicas.
    LogEnd,
}

/// Where the ends of the log are, as far as they can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub high_watermark: i64,
    pub last_stable: i64,
    pub log_end: i64,
}

impl Ends {
    pub fn of(&self, watched: Watched) -> i64 {
        match watched {
            Watched::HighWatermark => self.high_watermark,
            Watched::LastStable => self.last_stable,
            Watched::LogEnd => self.log_end,
        }
    }
}

/// One-shot watches of readers that found nothing.
///
/// One of a fetch session lasts until it fires or the session takes it back. Meanwhile its reader is told once when
/// something else than records is new.
#[derive(Debug, Default)]
pub(super) struct Watches {
    list: Vec<Watch>,
    /// What the readers were told, but for those that know of news.
    told: Told,
}

/// What a reader is told beside records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub high_watermark: i64,
    pub log_start_offset: i64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub to: ReplyTo,
    pub watched: Watched,
    /// Fires when the end that the reader may see is above this offset.
    pub above: i64,
    /// Node id of the replica that waits; none for a consumer.
    pub replica: Option<i32>,
    /// Its session knows that there is news.
    pub has_news: bool,
}

impl Watches {
    pub fn add(&mut self, watch: Watch) {
        self.list.push(watch);
    }

    /// Takes a watch back. Gives the replica that it was of, where it was a session's.
    pub fn remove(&mut self, to: ReplyTo) -> Option<i32> {
        self.take(|watch| watch.to == to)
    }

    /// A partition of a session is read again: the watch that lies for it goes.
    pub fn replace(&mut self, to: ReplyTo) -> Option<i32> {
        self.take(|watch| watch.to.is_same_in_session(&to))
    }

    fn take(&mut self, is_it: impl Fn(&Watch) -> bool) -> Option<i32> {
        let mut replica = None;
        self.list.retain(|watch| {
            let goes = is_it(watch);
            if goes && watch.to.session_id().is_some() {
                replica = watch.replica;
            }
            !goes
        });
        rest(&mut self.list);
        replica
    }

    /// Tells sessions that what they were told beside records is not so any more.
    pub fn tell_news(&mut self, now: Told, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.told, now) == now {
            return;
        }
        for watch in self.list.iter_mut().filter(|watch| watch.to.session_id().is_some()) {
            if !std::mem::replace(&mut watch.has_news, true) {
                effects.push(Effect::Reply(watch.to, Answer::News));
            }
        }
    }

    /// Fires the watches of replicas with sessions: what their next fetches bring about is another thing now.
    pub fn fire_replicas(&mut self, effects: &mut Vec<Effect>) {
        self.list.retain(|watch| {
            let fires = watch.replica.is_some() && watch.to.session_id().is_some();
            effects.extend(fires.then_some(Effect::Reply(watch.to, Answer::Fired)));
            !fires
        });
        rest(&mut self.list);
    }

    /// The replicas whose sessions wait for an end that is passed now: they had everything until then.
    pub fn replicas_passed(&self, log_end: i64) -> impl Iterator<Item = i32> {
        let passed = move |watch: &&Watch| watch.above < log_end && watch.to.session_id().is_some();
        self.list.iter().filter(passed).filter_map(|watch| watch.replica)
    }

    /// Fires every watch whose end has moved past what it waits for.
    pub fn fire(&mut self, ends: &Ends, effects: &mut Vec<Effect>) {
        self.list.retain(|watch| {
            let end = ends.of(watch.watched);
            if end > watch.above {
                effects.push(Effect::Reply(watch.to, Answer::Fired));
            }
            end <= watch.above
        });
        rest(&mut self.list);
    }

    /// Fires every watch: the partition changes hands and the readers must look again.
    pub fn fire_all(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.list.drain(..).map(|w| Effect::Reply(w.to, Answer::Fired)));
        rest(&mut self.list);
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a replica waits.
    pub fn has_replica(&self) -> bool {
        self.list.iter().any(|watch| watch.watched == Watched::LogEnd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(part: u32) -> ReplyTo {
        ReplyTo { shard: 0, connection: 1, generation: 1, request: 1, part }
    }

    fn parked(part: u32, offset_end: i64) -> Parked {
        Parked {
            to: to(part),
            base_offset: offset_end - 1,
            offset_end,
            log_append_time_ms: -1,
            deadline_ms: 100,
        }
    }

    fn parts(effects: &[Effect]) -> Vec<u32> {
        let part = |e: &Effect| if let Effect::Reply(to, _) = e { to.part } else { u32::MAX };
        effects.iter().map(part).collect()
    }

    #[test]
    fn produces_are_released_in_offset_order_up_to_the_tail() {
        let mut waiting = ParkedProduces::default();
        for (part, end) in [(0, 10), (1, 20), (2, 10), (3, 30), (4, 40)] {
            waiting.park(parked(part, end));
        }
        let mut effects = Vec::new();
        waiting.release(20, 0, &mut effects);
        assert_eq!(parts(&effects), [0, 2, 1]);
        effects.clear();
        waiting.fail_above(20, ErrorCode::KafkaStorageError, &mut effects);
        assert_eq!(parts(&effects), [3, 4]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_deadline_answers_and_forgets() {
        let mut waiting = ParkedProduces::default();
        waiting.park(parked(0, 10));
        let mut effects = Vec::new();
        waiting.expire(99, &mut effects);
        assert!(effects.is_empty());
        assert_eq!(waiting.next_deadline_ms(), Some(100));
        waiting.expire(100, &mut effects);
        assert_eq!(effects, [fail(to(0), ErrorCode::RequestTimedOut)]);
        waiting.release(10, 0, &mut effects);
        assert_eq!(effects.len(), 1);
    }

    #[test]
    fn the_next_deadline_is_never_late_and_never_left_without_a_produce() {
        let mut waiting = ParkedProduces::default();
        waiting.park(Parked { deadline_ms: 100, ..parked(0, 10) });
        waiting.park(Parked { deadline_ms: 300, ..parked(1, 20) });
        let mut effects = Vec::new();
        waiting.release(10, 0, &mut effects);
        waiting.expire(100, &mut effects);
        assert_eq!((effects.len(), waiting.next_deadline_ms()), (1, Some(300)));
        waiting.park(Parked { deadline_ms: 200, ..parked(2, 30) });
        assert_eq!(waiting.next_deadline_ms(), Some(200));
        waiting.release(30, 0, &mut effects);
        assert_eq!(waiting.next_deadline_ms(), None);
    }

    #[test]
    fn a_watch_fires_once_and_by_the_end_it_waits_for() {
        let mut watches = Watches::default();
        let watch =
            |part, watched, above| Watch { to: to(part), watched, above, replica: None, has_news: false };
        watches.add(watch(0, Watched::HighWatermark, 5));
        watches.add(watch(1, Watched::LastStable, 5));
        watches.add(watch(2, Watched::LogEnd, 8));
        let mut effects = Vec::new();
        watches.fire(&Ends { high_watermark: 6, last_stable: 5, log_end: 8 }, &mut effects);
        assert_eq!(parts(&effects), [0]);
        watches.fire(&Ends { high_watermark: 6, last_stable: 5, log_end: 9 }, &mut effects);
        assert_eq!(parts(&effects), [0, 2]);
        watches.fire(&Ends { high_watermark: 7, last_stable: 6, log_end: 9 }, &mut effects);
        assert_eq!(parts(&effects), [0, 2, 1]);
        assert!(watches.is_empty());
    }
}
