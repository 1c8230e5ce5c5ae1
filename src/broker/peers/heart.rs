//! A broker's life in its cluster, as it tells it to the active controller: it registers, catches up with the
//! metadata, is unfenced, says every `broker.heartbeat.interval.ms` that it is there, and leaves in order.
//!
//! ```text
//! registering ──epoch──▶ catching up ──caught up, ready──▶ waiting ──unfenced──▶ serving
//!      ▲                                                     ▲ fenced ◀────────────┘
//!      └────────── STALE_BROKER_EPOCH, in any state          │ stop: leaving ──should shut down──▶ free to stop
//! ```
//!
//! A broker that the controller fenced for its silence is unfenced by its next heartbeats; one whose epoch is stale
//! (it was unregistered, or another process of its id registered) registers again. A machine over plain values:
//! who the controller is and how it is reached is known elsewhere.

use crate::controller::HeartbeatAnswer;
use crate::effect::Now;
use crate::wire::ErrorCode;

/// How long a stop waits for the controller (Kafka's fixed value).
const LEAVING_MS: u64 = 300_000;
/// The pause between heartbeats while something is waited for.
const EAGER_MS: u64 = 100;
/// The pause after a first failure; it doubles up to the heartbeat interval.
const RETRY_FIRST_MS: u64 = 20;

/// How a broker keeps in touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartRules {
    /// `broker.heartbeat.interval.ms`
    pub interval_ms: u64,
    /// `initial.broker.registration.timeout.ms`: how long the first registration may take before the node gives up.
    pub registration_ms: u64,
    /// `broker.session.timeout.ms`: a stop does not wait for a controller that is silent for so long. By then this
    /// broker is fenced, or nobody is left who could do it.
    pub session_ms: u64,
}

/// What is to be said to the controller next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// BrokerRegistration.
    Register {
        /// The broker epoch before, -1 for none or where the last stop was not clean.
        previous_epoch: i64,
    },
    /// BrokerHeartbeat.
    Heartbeat {
        /// The broker epoch.
        epoch: i64,
        /// The Image version that every shard has applied.
        applied_version: u64,
        /// The broker does not want to serve yet.
        wants_fence: bool,
        /// The broker wants to stop.
        wants_shutdown: bool,
    },
}

/// What others are to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeartEvent {
    /// The broker has this epoch from now on.
    Registered(i64),
    /// It knows all metadata that was there when it registered.
    CaughtUp,
    /// It serves from now on.
    Unfenced,
    /// It serves no more, until it is unfenced again.
    Fenced,
    /// Whoever was asked does not lead the quorum.
    NotController,
    /// A stop may go on: the controller has taken every leadership away, or has been asked for long enough.
    MayStop,
    /// The node cannot become part of its cluster.
    GiveUp(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Registering,
    Registered {
        is_fenced: bool,
    },
    /// `until_ms` at most, and `heard_ms` is when a controller was last heard.
    Leaving {
        until_ms: u64,
        heard_ms: u64,
    },
    Left,
}

/// One broker's heart.
#[derive(Debug)]
pub struct Heart {
    interval_ms: u64,
    session_ms: u64,
    phase: Phase,
    /// -1 before the first registration.
    epoch: i64,
    previous_epoch: i64,
    applied_version: u64,
    is_caught_up: bool,
    /// The broker would serve if it were let.
    is_ready: bool,
    /// What the next heartbeat says is to be known soon.
    has_news: bool,
    in_flight: bool,
    due_ms: u64,
    failures: u32,
    /// When the first registration is given up; `None` once there was one.
    give_up_ms: Option<u64>,
    /// Why the last registration was refused.
    refusal: Option<ErrorCode>,
}

impl Heart {
    /// A broker that is not registered. `previous_epoch` is that of its last run where it stopped cleanly, else -1.
    pub fn new(now: Now, rules: HeartRules, previous_epoch: i64) -> Self {
        Self {
            interval_ms: rules.interval_ms.max(1),
            session_ms: rules.session_ms,
            phase: Phase::Registering,
            epoch: -1,
            previous_epoch,
            applied_version: 0,
            is_caught_up: false,
            is_ready: false,
            has_news: false,
            in_flight: false,
            due_ms: now.mono_ms,
            failures: 0,
            give_up_ms: Some(now.mono_ms + rules.registration_ms),
            refusal: None,
        }
    }

    /// The broker epoch, -1 while there is none.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether the controller has unfenced the broker, as far as it knows.
    pub fn is_unfenced(&self) -> bool {
        self.phase == Phase::Registered { is_fenced: false }
    }

    /// Whether the broker serves: it is unfenced, or gives away what it leads before it stops.
    pub fn serves(&self) -> bool {
        self.is_unfenced() || matches!(self.phase, Phase::Leaving { .. })
    }

    /// Every shard has applied this Image version.
    pub fn applied(&mut self, now: Now, version: u64) {
        if version > self.applied_version {
            self.applied_version = version;
            self.hurry(now);
        }
    }

    /// The broker would serve if it were let: its shards are up.
    pub fn ready(&mut self, now: Now) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.hurry(now);
        }
    }

    /// Heartbeats say something else from now on, which the controller is to know soon: the next one goes now.
    pub fn say_soon(&mut self, now: Now) {
        self.has_news = true;
        if self.failures == 0 {
            self.due_ms = self.due_ms.min(now.mono_ms);
        }
    }

    /// The next heartbeat goes now where the controller waits for it.
    fn hurry(&mut self, now: Now) {
        if self.is_awaited() && self.failures == 0 {
            self.due_ms = self.due_ms.min(now.mono_ms);
        }
    }

    /// Whether something waits for the next heartbeat.
    fn is_awaited(&self) -> bool {
        matches!(self.phase, Phase::Registered { is_fenced: true } | Phase::Leaving { .. })
    }

    /// The broker wants to stop: it asks the controller to take its leaderships away.
    pub fn begin_stop(&mut self, now: Now, events: &mut Vec<HeartEvent>) {
        match self.phase {
            // Nobody knows of it.
            Phase::Registering => {
                self.phase = Phase::Left;
                events.push(HeartEvent::MayStop);
            }
            Phase::Registered { .. } => {
                let (until_ms, heard_ms) = (now.mono_ms + LEAVING_MS, now.mono_ms);
                self.phase = Phase::Leaving { until_ms, heard_ms };
                self.due_ms = now.mono_ms;
            }
            Phase::Leaving { .. } | Phase::Left => {}
        }
    }

    /// Nobody is left who could let the broker go.
    pub fn left_alone(&mut self, events: &mut Vec<HeartEvent>) {
        if matches!(self.phase, Phase::Leaving { .. }) {
            self.phase = Phase::Left;
            events.push(HeartEvent::MayStop);
        }
    }

    /// What is to be said now, if anything. Its answer, or its loss, comes before anything more is said.
    pub fn next(&mut self, now: Now) -> Option<Beat> {
        if self.in_flight || self.phase == Phase::Left || now.mono_ms < self.due_ms {
            return None;
        }
        (self.in_flight, self.has_news) = (true, false);
        Some(match self.phase {
            Phase::Registering => Beat::Register { previous_epoch: self.previous_epoch },
            _ => Beat::Heartbeat {
                epoch: self.epoch,
                applied_version: self.applied_version,
                wants_fence: !(self.is_caught_up && self.is_ready),
                wants_shutdown: matches!(self.phase, Phase::Leaving { .. }),
            },
        })
    }

    /// When [`Heart::wake`] or [`Heart::next`] wants to be called, in monotonic milliseconds; `can_ask` says whether
    /// there is a controller to talk to.
    pub fn next_wake_ms(&self, can_ask: bool) -> Option<u64> {
        let due = (can_ask && !self.in_flight && self.phase != Phase::Left).then_some(self.due_ms);
        [due, self.leaves_at_ms(), self.give_up_ms].into_iter().flatten().min()
    }

    /// When a stop goes on whatever the controller says.
    fn leaves_at_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Leaving { until_ms, heard_ms } => Some(until_ms.min(heard_ms + self.session_ms)),
            _ => None,
        }
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Now, events: &mut Vec<HeartEvent>) {
        if self.give_up_ms.take_if(|at_ms| *at_ms <= now.mono_ms).is_some()
            && self.phase == Phase::Registering
        {
            let why = self.refusal.map_or_else(
                || "no controller answered".to_owned(),
                |error| format!("the controller refused the registration: {error:?}"),
            );
            events.push(HeartEvent::GiveUp(why));
        }
        if self.leaves_at_ms().is_some_and(|at_ms| at_ms <= now.mono_ms) {
            self.phase = Phase::Left;
            events.push(HeartEvent::MayStop);
        }
    }

    /// The answer to a registration: the broker epoch.
    pub fn registered(&mut self, now: Now, result: Result<i64, ErrorCode>, events: &mut Vec<HeartEvent>) {
        self.in_flight = false;
        if self.phase != Phase::Registering {
            return;
        }
        match result {
            Ok(epoch) => {
                self.phase = Phase::Registered { is_fenced: true };
                self.epoch = epoch;
                (self.failures, self.refusal, self.give_up_ms) = (0, None, None);
                self.due_ms = now.mono_ms;
                events.push(HeartEvent::Registered(epoch));
            }
            Err(error) => {
                if error != ErrorCode::NotController {
                    self.refusal = Some(error);
                }
                self.failed(now, error, events);
            }
        }
    }

    /// The answer to a heartbeat.
    pub fn beaten(
        &mut self,
        now: Now,
        result: Result<HeartbeatAnswer, ErrorCode>,
        events: &mut Vec<HeartEvent>,
    ) {
        self.in_flight = false;
        if matches!(self.phase, Phase::Registering | Phase::Left) {
            return;
        }
        let answer = match result {
            Ok(answer) => answer,
            Err(ErrorCode::StaleBrokerEpoch | ErrorCode::BrokerIdNotRegistered) => {
                return self.begin_again(now, events);
            }
            Err(error) => return self.failed(now, error, events),
        };
        self.failures = 0;
        if let Phase::Leaving { heard_ms, .. } = &mut self.phase {
            *heard_ms = now.mono_ms;
        }
        if answer.is_caught_up && !std::mem::replace(&mut self.is_caught_up, true) {
            events.push(HeartEvent::CaughtUp);
            // The next one says that the broker would serve.
            self.due_ms = now.mono_ms;
        } else {
            self.due_ms = now.mono_ms + self.interval_ms;
        }
        match self.phase {
            Phase::Registered { is_fenced } => {
                self.phase = Phase::Registered { is_fenced: answer.is_fenced };
                if is_fenced != answer.is_fenced {
                    let event = if answer.is_fenced { HeartEvent::Fenced } else { HeartEvent::Unfenced };
                    events.push(event);
                }
            }
            _ if answer.should_shut_down => {
                self.phase = Phase::Left;
                events.push(HeartEvent::MayStop);
            }
            _ => {}
        }
        if self.is_awaited() {
            self.due_ms = self.due_ms.min(now.mono_ms + EAGER_MS);
        }
        if self.has_news {
            self.due_ms = now.mono_ms;
        }
    }

    /// The controller does not know this epoch: the broker registers again. One that wants to stop has nothing left
    /// that it could be relieved of.
    fn begin_again(&mut self, now: Now, events: &mut Vec<HeartEvent>) {
        if matches!(self.phase, Phase::Leaving { .. }) {
            self.phase = Phase::Left;
            events.push(HeartEvent::MayStop);
            return;
        }
        if self.is_unfenced() {
            events.push(HeartEvent::Fenced);
        }
        self.phase = Phase::Registering;
        self.previous_epoch = self.epoch;
        self.is_caught_up = false;
        self.failures += 1;
        self.due_ms = now.mono_ms + self.retry_ms();
    }

    fn failed(&mut self, now: Now, error: ErrorCode, events: &mut Vec<HeartEvent>) {
        if error == ErrorCode::NotController {
            events.push(HeartEvent::NotController);
        }
        self.failures += 1;
        self.due_ms = now.mono_ms + self.retry_ms();
    }

    /// Whoever was asked will not answer any more.
    pub fn lost(&mut self, now: Now) {
        if std::mem::take(&mut self.in_flight) {
            self.failures += 1;
            self.due_ms = now.mono_ms + self.retry_ms();
        }
    }

    fn retry_ms(&self) -> u64 {
        let doublings = self.failures.saturating_sub(1).min(16);
        RETRY_FIRST_MS.saturating_mul(1 << doublings).min(self.interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    const RULES: HeartRules = HeartRules { interval_ms: 2_000, registration_ms: 60_000, session_ms: 9_000 };
    const FENCED: HeartbeatAnswer =
        HeartbeatAnswer { is_caught_up: true, is_fenced: true, should_shut_down: false };
    const SERVES: HeartbeatAnswer =
        HeartbeatAnswer { is_caught_up: true, is_fenced: false, should_shut_down: false };

    fn beat(epoch: i64, applied_version: u64, wants_fence: bool, wants_shutdown: bool) -> Option<Beat> {
        Some(Beat::Heartbeat { epoch, applied_version, wants_fence, wants_shutdown })
    }

    /// A broker that serves with epoch 7, and its next heartbeat is due at 2,000.
    fn serving() -> Heart {
        let (mut heart, mut events) = (Heart::new(at(0), RULES, -1), Vec::new());
        heart.next(at(0));
        heart.registered(at(0), Ok(7), &mut events);
        heart.ready(at(0));
        heart.next(at(0));
        heart.beaten(at(0), Ok(FENCED), &mut events);
        heart.next(at(0));
        heart.beaten(at(0), Ok(SERVES), &mut events);
        assert!(heart.is_unfenced());
        assert_eq!(events, [HeartEvent::Registered(7), HeartEvent::CaughtUp, HeartEvent::Unfenced]);
        heart
    }

    #[test]
    fn a_broker_registers_catches_up_is_unfenced_and_beats() {
        let (mut heart, mut events) = (Heart::new(at(0), RULES, 5), Vec::new());
        assert_eq!(heart.next(at(0)), Some(Beat::Register { previous_epoch: 5 }));
        assert_eq!(heart.next(at(0)), None, "one at a time");
        heart.registered(at(1), Ok(7), &mut events);
        assert_eq!(heart.next(at(1)), beat(7, 0, true, false));
        let behind = HeartbeatAnswer { is_caught_up: false, ..FENCED };
        heart.beaten(at(2), Ok(behind), &mut events);
        assert_eq!((heart.next(at(101)), heart.next_wake_ms(true)), (None, Some(102)));
        heart.applied(at(50), 9);
        assert_eq!(heart.next(at(50)), beat(7, 9, true, false), "it has just caught up");
        heart.beaten(at(51), Ok(FENCED), &mut events);
        assert_eq!(heart.next(at(51)), beat(7, 9, true, false), "caught up, but not ready");
        heart.beaten(at(52), Ok(FENCED), &mut events);
        heart.ready(at(60));
        assert_eq!(heart.next(at(60)), beat(7, 9, false, false));
        heart.beaten(at(61), Ok(SERVES), &mut events);
        assert_eq!(heart.next_wake_ms(true), Some(2_061));
        heart.applied(at(70), 10);
        assert_eq!(heart.next(at(2_060)), None, "nobody waits for it");
        assert_eq!(heart.next(at(2_061)), beat(7, 10, false, false));
        assert_eq!(events, [HeartEvent::Registered(7), HeartEvent::CaughtUp, HeartEvent::Unfenced]);
    }

    #[test]
    fn a_fenced_broker_is_unfenced_again_and_one_with_a_stale_epoch_registers_again() {
        let (mut heart, mut events) = (serving(), Vec::new());
        heart.next(at(2_000)).unwrap();
        heart.beaten(at(2_000), Ok(FENCED), &mut events);
        assert_eq!(heart.next(at(2_100)), beat(7, 0, false, false), "soon, since it waits to serve");
        heart.beaten(at(2_100), Ok(SERVES), &mut events);
        assert_eq!(events, [HeartEvent::Fenced, HeartEvent::Unfenced]);
        events.clear();
        heart.next(at(5_000)).unwrap();
        heart.beaten(at(5_000), Err(ErrorCode::StaleBrokerEpoch), &mut events);
        assert_eq!(events, [HeartEvent::Fenced]);
        assert_eq!(heart.next(at(5_020)), Some(Beat::Register { previous_epoch: 7 }));
        heart.registered(at(5_020), Ok(11), &mut events);
        assert_eq!(heart.next(at(5_020)), beat(11, 0, true, false), "it has to catch up again");
    }

    #[test]
    fn failures_are_tried_again_ever_more_slowly_and_another_controller_is_asked() {
        let (mut heart, mut events) = (serving(), Vec::new());
        let mut now_ms = 2_000;
        for pause_ms in [20, 40, 80, 160, 320, 640, 1_280, 2_000, 2_000] {
            assert!(heart.next(at(now_ms)).is_some());
            heart.lost(at(now_ms));
            assert_eq!(heart.next_wake_ms(true), Some(now_ms + pause_ms));
            now_ms += pause_ms;
        }
        assert_eq!(heart.next_wake_ms(false), None, "nobody to talk to");
        heart.next(at(now_ms)).unwrap();
        heart.beaten(at(now_ms), Err(ErrorCode::NotController), &mut events);
        assert_eq!(events, [HeartEvent::NotController]);
        heart.next(at(now_ms + 2_000)).unwrap();
        heart.beaten(at(now_ms + 2_000), Ok(SERVES), &mut events);
        assert!(heart.is_unfenced() && events.len() == 1);
    }

    #[test]
    fn a_stop_asks_until_it_is_let_go_or_nobody_is_there_to_do_so() {
        let (mut heart, mut events) = (serving(), Vec::new());
        heart.begin_stop(at(100), &mut events);
        assert_eq!(heart.next(at(100)), beat(7, 0, false, true));
        heart.beaten(at(101), Ok(SERVES), &mut events);
        assert_eq!(heart.next(at(201)), beat(7, 0, false, true), "its leaderships are on their way");
        assert!(events.is_empty());
        heart.beaten(at(202), Ok(HeartbeatAnswer { should_shut_down: true, ..FENCED }), &mut events);
        assert_eq!(events, [HeartEvent::MayStop]);
        assert_eq!((heart.next(at(10_000)), heart.next_wake_ms(true)), (None, None));

        let mut heart = serving();
        heart.begin_stop(at(100), &mut events);
        heart.next(at(100)).unwrap();
        heart.lost(at(100));
        assert_eq!(
            heart.next_wake_ms(false),
            Some(9_100),
            "a controller that is silent for a session is gone"
        );
        events.clear();
        heart.next(at(5_000)).unwrap();
        heart.beaten(at(5_000), Ok(SERVES), &mut events);
        heart.wake(at(13_999), &mut events);
        assert!(events.is_empty(), "it was heard meanwhile");
        heart.wake(at(14_000), &mut events);
        assert_eq!(events, [HeartEvent::MayStop]);

        let mut heart = serving();
        heart.begin_stop(at(100), &mut events);
        events.clear();
        for at_ms in (1_000..=301_000).step_by(1_000) {
            if heart.next(at(at_ms)).is_some() {
                heart.beaten(at(at_ms), Ok(SERVES), &mut events);
            }
            heart.wake(at(at_ms), &mut events);
        }
        assert_eq!(events, [HeartEvent::MayStop], "five minutes are enough");

        events.clear();
        Heart::new(at(0), RULES, -1).begin_stop(at(1), &mut events);
        assert_eq!(events, [HeartEvent::MayStop], "nobody knows of it");
    }

    #[test]
    fn the_last_of_a_cluster_that_stops_waits_for_nobody() {
        let (mut heart, mut events) = (serving(), Vec::new());
        heart.left_alone(&mut events);
        assert!(events.is_empty(), "it does not want to stop");
        heart.begin_stop(at(100), &mut events);
        heart.left_alone(&mut events);
        heart.left_alone(&mut events);
        assert_eq!(events, [HeartEvent::MayStop]);
    }

    #[test]
    fn a_node_that_cannot_register_gives_up_after_a_minute_and_says_why() {
        let (mut heart, mut events) = (Heart::new(at(0), RULES, -1), Vec::new());
        heart.next(at(0)).unwrap();
        heart.registered(at(1), Err(ErrorCode::DuplicateBrokerRegistration), &mut events);
        heart.next(at(1_000)).unwrap();
        heart.registered(at(1_001), Err(ErrorCode::NotController), &mut events);
        heart.wake(at(59_999), &mut events);
        assert_eq!(events, [HeartEvent::NotController]);
        events.clear();
        heart.wake(at(60_000), &mut events);
        let [HeartEvent::GiveUp(why)] = &events[..] else { panic!("{events:?}") };
        assert!(why.contains("DuplicateBrokerRegistration"), "{why}");
        let mut registered = serving();
        events.clear();
        registered.wake(at(60_000), &mut events);
        assert!(events.is_empty());
    }

    #[test]
    fn news_go_at_once_and_again_where_a_heartbeat_was_on_its_way() {
        let (mut heart, mut events) = (serving(), Vec::new());
        assert_eq!((heart.next(at(10)), heart.next_wake_ms(true)), (None, Some(2_000)));
        heart.say_soon(at(10));
        assert!(heart.next(at(10)).is_some());
        heart.say_soon(at(11));
        heart.beaten(at(12), Ok(SERVES), &mut events);
        assert_eq!(heart.next_wake_ms(true), Some(12));
        assert!(heart.next(at(12)).is_some());
        heart.beaten(at(13), Ok(SERVES), &mut events);
        assert_eq!((heart.next(at(13)), heart.next_wake_ms(true)), (None, Some(2_013)));
    }
}
