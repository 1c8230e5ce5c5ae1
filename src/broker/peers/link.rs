//! One connection to another node, from its first dial to its last: dialled, up, lost, dialled again.
//!
//! A link knows who waits for which answer. Answers come in the order of their requests, as on every connection of
//! Kafka's protocol; each has a deadline, and one that is missed ends the connection, since nothing behind it can be
//! told apart any more. What was asked and not answered is given back with the loss: whoever asked decides whether
//! to ask again.
//!
//! The first dial after a link that worked is made at once. Every further one waits 20 ms, twice as long each time up
//! to a second, give or take a fifth, so that the nodes of a cluster do not come in step. An answer makes it as new.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::broker::Output;
use crate::effect::Now;
use crate::wire::outbound;

/// A link of this shard. Ids rise and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// How a connection that this node made, or tried to make, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLoss {
    /// Nobody listens there.
    Refused,
    /// The other side's kernel knows nothing of it.
    Reset,
    /// The other side closed it.
    Closed,
    /// Nothing came in time, or the other side cannot be found or reached: that says nothing of its process.
    Timeout,
}

/// How long a link waits and how much it takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRules {
    /// How long a dial may take, in milliseconds.
    pub dial_ms: u64,
    /// How long a dial waits after the second failure in a row, in milliseconds.
    pub backoff_first_ms: u64,
    /// The longest that it ever waits, in milliseconds, but for the fifth that chance adds.
    pub backoff_max_ms: u64,
    /// Requests that may wait for their answers.
    pub in_flight_max: usize,
}

impl LinkRules {
    /// Those of a link with so many requests in flight.
    pub fn new(in_flight_max: usize) -> Self {
        Self { dial_ms: 2_000, backoff_first_ms: 20, backoff_max_ms: 1_000, in_flight_max }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody wants it.
    Idle,
    /// Being dialled until then.
    Dialing { until_ms: u64 },
    /// Frames may go.
    Up,
    /// Dialled again then.
    Resting { until_ms: u64 },
}

#[derive(Debug)]
struct Waiting<P> {
    correlation_id: i32,
    purpose: P,
    until_ms: u64,
}

/// The end of a connection, for those who waited on it.
#[derive(Debug)]
pub struct Loss<P> {
    /// How it ended.
    pub loss: LinkLoss,
    /// The other process is gone: it had answered, closed or reset, and then nobody listened any more.
    pub is_gone: bool,
    /// Dials that failed and connections that ended without an answer, in a row, this one included.
    pub in_a_row: u32,
    /// What was asked and not answered, oldest first.
    pub unanswered: Vec<P>,
}

/// What an answer that came in was.
#[derive(Debug)]
pub enum Answered<P> {
    /// The answer to the oldest request: its purpose, and its body, a slice of the frame.
    Body(P, Bytes),
    /// Nothing of the link can be trusted any more: it is closed.
    Lost(Loss<P>),
}

/// One link. `P` tells its owner what a request was for.
#[derive(Debug)]
pub struct Link<P> {
    id: LinkId,
    host: Arc<str>,
    port: u16,
    rules: LinkRules,
    state: State,
    random: fastrand::Rng,
    /// Dials that failed since the last answer, and connections that ended without one.
    failures: u32,
    /// The last connection that answered was ended by the other side, and nothing since says that anybody is there.
    was_left: bool,
    /// This connection has answered.
    has_answered: bool,
    correlation_next: i32,
    waiting: VecDeque<Waiting<P>>,
}

impl<P> Link<P> {
    /// A link that nobody wants yet. `seed` is for the length of its rests.
    pub fn new(id: LinkId, host: Arc<str>, port: u16, rules: LinkRules, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            id,
            host,
            port,
            rules,
            state: State::Idle,
            random,
            failures: 0,
            was_left: false,
            has_answered: false,
            correlation_next: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Whether frames may go.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether one more request may go now.
    pub fn may_send(&self) -> bool {
        self.is_up() && self.waiting.len() < self.rules.in_flight_max
    }

    /// The correlation id of the next request.
    pub fn correlation_next(&self) -> i32 {
        self.correlation_next
    }

    /// How many requests wait for their answers.
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Somebody wants it: it is dialled unless it is up, being dialled, or rests.
    pub fn want(&mut self, now: Now, outputs: &mut Vec<Output>) {
        if self.state == State::Idle {
            self.dial(now, outputs);
        }
    }

    /// As [`Link::want`], or nobody wants it for now: one that is up stays so while the other side lets it, and one
    /// that is not is not dialled any more.
    pub fn want_if(&mut self, is_wanted: bool, now: Now, outputs: &mut Vec<Output>) {
        if is_wanted {
            self.want(now, outputs);
        } else if !self.is_up() {
            self.close(outputs);
        }
    }

    fn dial(&mut self, now: Now, outputs: &mut Vec<Output>) {
        self.state = State::Dialing { until_ms: now.mono_ms + self.rules.dial_ms };
        outputs.push(Output::Dial { link: self.id, host: Arc::clone(&self.host), port: self.port });
    }

    /// The other node is somewhere else now. A connection to where it was is given up; what was asked of it comes
    /// back.
    pub fn retarget(&mut self, host: &Arc<str>, port: u16, outputs: &mut Vec<Output>) -> Option<Loss<P>> {
        if self.host == *host && self.port == port {
            return None;
        }
        (self.host, self.port) = (Arc::clone(host), port);
        (self.failures, self.was_left) = (0, false);
        Some(self.close(outputs))
    }

    /// The dial has succeeded.
    pub fn up(&mut self) {
        if matches!(self.state, State::Dialing { .. }) {
            self.state = State::Up;
            self.has_answered = false;
            self.correlation_next = 0;
        }
    }

    /// The connection, or the dial, has ended. It rests before it is dialled again.
    pub fn down(&mut self, now: Now, loss: LinkLoss) -> Loss<P> {
        let is_gone = self.was_left && loss == LinkLoss::Refused;
        let by_peer = matches!(loss, LinkLoss::Closed | LinkLoss::Reset);
        let had_answered = std::mem::take(&mut self.has_answered);
        // One that ended without an answer may have been made by the kernel, for a process that was being killed and
        // had not closed its listener yet: it takes nothing back of what the one before said.
        self.was_left = by_peer && (had_answered || self.was_left);
        let rest_ms = self.rest_ms();
        self.failures += 1;
        self.state = State::Resting { until_ms: now.mono_ms + rest_ms };
        Loss { loss, is_gone, in_a_row: self.failures, unanswered: self.take_unanswered() }
    }

    /// How long it rests after this failure.
    fn rest_ms(&mut self) -> u64 {
        let Some(doublings) = self.failures.checked_sub(1) else { return 0 };
        let doubled = self.rules.backoff_first_ms.saturating_mul(1 << doublings.min(16));
        let base = doubled.min(self.rules.backoff_max_ms);
        base - base / 5 + self.random.u64(0..=2 * base / 5)
    }

    fn take_unanswered(&mut self) -> Vec<P> {
        self.waiting.drain(..).map(|waiting| waiting.purpose).collect()
    }

    /// Nobody wants it any more, or not at this place. Nothing that it sent is answered from now on.
    pub fn close(&mut self, outputs: &mut Vec<Output>) -> Loss<P> {
        if matches!(self.state, State::Dialing { .. } | State::Up) {
            outputs.push(Output::LinkClose { link: self.id });
        }
        self.state = State::Idle;
        (self.was_left, self.has_answered) = (false, false);
        Loss { loss: LinkLoss::Closed, is_gone: false, in_a_row: 0, unanswered: self.take_unanswered() }
    }

    /// Sends one request; `frame` is given its correlation id. Only where [`Link::may_send`] says so.
    pub fn send(
        &mut self,
        now: Now,
        purpose: P,
        timeout_ms: u64,
        frame: impl FnOnce(i32) -> Bytes,
        outputs: &mut Vec<Output>,
    ) {
        assert!(self.may_send(), "a request goes on a link that is up and has room");
        let correlation_id = self.correlation_next;
        self.correlation_next = self.correlation_next.checked_add(1).unwrap_or(0);
        let until_ms = now.mono_ms + timeout_ms;
        self.waiting.push_back(Waiting { correlation_id, purpose, until_ms });
        outputs.push(Output::LinkSend { link: self.id, bytes: frame(correlation_id) });
    }

    /// A frame has come in, without its prefix. One that answers nothing ends the connection.
    pub fn frame(&mut self, now: Now, frame: &Bytes, outputs: &mut Vec<Output>) -> Answered<P> {
        let awaited = self.waiting.front().map(|waiting| waiting.correlation_id);
        match outbound::answer(frame) {
            Ok((correlation_id, body)) if Some(correlation_id) == awaited => {
                if let Some(waiting) = self.waiting.pop_front() {
                    self.has_answered = true;
                    self.failures = 0;
                    return Answered::Body(waiting.purpose, body);
                }
                Answered::Lost(self.distrust(now, outputs))
            }
            _ => Answered::Lost(self.distrust(now, outputs)),
        }
    }

    /// What came makes no sense, also to whoever asked: the connection is ended, and dialled again later.
    pub fn distrust(&mut self, now: Now, outputs: &mut Vec<Output>) -> Loss<P> {
        outputs.push(Output::LinkClose { link: self.id });
        self.has_answered = false;
        // What speaks another language is not dialled in a loop.
        self.failures = self.failures.max(1);
        self.down(now, LinkLoss::Closed)
    }

    /// When [`Link::wake`] wants to be called, in monotonic milliseconds.
    pub fn next_wake_ms(&self) -> Option<u64> {
        match self.state {
            State::Idle => None,
            State::Dialing { until_ms } | State::Resting { until_ms } => Some(until_ms),
            State::Up => self.waiting.iter().map(|waiting| waiting.until_ms).min(),
        }
    }

    /// Time has passed: what takes too long is given up, and what has rested is dialled again.
    pub fn wake(&mut self, now: Now, outputs: &mut Vec<Output>) -> Option<Loss<P>> {
        if self.next_wake_ms().is_none_or(|at_ms| at_ms > now.mono_ms) {
            return None;
        }
        if matches!(self.state, State::Resting { .. }) {
            self.dial(now, outputs);
            return None;
        }
        outputs.push(Output::LinkClose { link: self.id });
        Some(self.down(now, LinkLoss::Timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    fn link() -> Link<&'static str> {
        Link::new(LinkId(7), Arc::from("host"), 9092, LinkRules::new(2), 1)
    }

    fn answer(correlation_id: i32) -> Bytes {
        [&correlation_id.to_be_bytes()[..], &[0], b"body"].concat().into()
    }

    fn send(link: &mut Link<&'static str>, now: u64, purpose: &'static str, outputs: &mut Vec<Output>) {
        link.send(at(now), purpose, 100, |id| Bytes::copy_from_slice(&id.to_be_bytes()), outputs);
    }

    fn dials(outputs: &mut Vec<Output>) -> usize {
        let dials = outputs.iter().filter(|output| matches!(output, Output::Dial { .. })).count();
        outputs.clear();
        dials
    }

    #[test]
    fn requests_are_answered_in_their_order() {
        let (mut link, mut outputs) = (link(), Vec::new());
        link.want(at(0), &mut outputs);
        link.want(at(0), &mut outputs);
        assert_eq!(dials(&mut outputs), 1);
        assert!(!link.may_send(), "it is not up yet");
        link.up();
        send(&mut link, 1, "one", &mut outputs);
        send(&mut link, 2, "two", &mut outputs);
        assert!(!link.may_send() && link.in_flight() == 2, "two are all it takes");
        assert_eq!(link.next_wake_ms(), Some(101));
        for purpose in ["one", "two"] {
            let id = if purpose == "one" { 0 } else { 1 };
            match link.frame(at(3), &answer(id), &mut outputs) {
                Answered::Body(answered, body) => assert_eq!((answered, &body[..]), (purpose, &b"body"[..])),
                Answered::Lost(loss) => panic!("{loss:?}"),
            }
        }
        assert_eq!(link.next_wake_ms(), None);
    }

    #[test]
    fn an_answer_to_nothing_ends_the_connection_and_gives_everything_back() {
        for wrong in [answer(1), answer(-1), Bytes::from_static(b"xy")] {
            let (mut link, mut outputs) = (link(), Vec::new());
            link.want(at(0), &mut outputs);
            link.up();
            send(&mut link, 0, "one", &mut outputs);
            outputs.clear();
            let Answered::Lost(loss) = link.frame(at(1), &wrong, &mut outputs) else { panic!("trusted") };
            assert_eq!((loss.unanswered, loss.is_gone), (vec!["one"], false));
            assert!(matches!(outputs[..], [Output::LinkClose { link: LinkId(7) }]));
            assert!(link.next_wake_ms().is_some_and(|at_ms| at_ms >= 17), "it rests first");
        }
    }

    #[test]
    fn what_is_not_answered_in_time_ends_the_connection() {
        let (mut link, mut outputs) = (link(), Vec::new());
        link.want(at(0), &mut outputs);
        link.up();
        send(&mut link, 50, "one", &mut outputs);
        assert!(link.wake(at(149), &mut outputs).is_none());
        let loss = link.wake(at(150), &mut outputs).unwrap();
        assert_eq!((loss.loss, loss.unanswered), (LinkLoss::Timeout, vec!["one"]));
        assert!(matches!(outputs.last(), Some(Output::LinkClose { .. })));
        outputs.clear();
        assert!(link.wake(at(150), &mut outputs).is_none());
        assert_eq!(dials(&mut outputs), 1, "the first dial after it is made at once");
        let loss = link.wake(at(2_150), &mut outputs).unwrap();
        assert_eq!(loss.loss, LinkLoss::Timeout, "nor does a dial take for ever");
    }

    #[test]
    fn rests_double_up_to_a_second_and_an_answer_ends_them() {
        let (mut link, mut outputs) = (link(), Vec::new());
        link.want(at(0), &mut outputs);
        let (mut now_ms, mut rests) = (0, Vec::new());
        for _ in 0..12 {
            link.down(at(now_ms), LinkLoss::Refused);
            let next_ms = link.next_wake_ms().unwrap();
            rests.push(next_ms - now_ms);
            now_ms = next_ms;
            link.wake(at(now_ms), &mut outputs);
        }
        assert_eq!(rests[0], 0);
        let bases = [20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000, 1_000, 1_000];
        for (rest, base) in rests[1..].iter().zip(bases) {
            assert!((base - base / 5..=base + base / 5).contains(rest), "{rest} for {base}");
        }
        assert!(rests[7..].windows(2).any(|pair| pair[0] != pair[1]), "chance has its part");
        link.up();
        send(&mut link, now_ms, "one", &mut outputs);
        link.frame(at(now_ms), &answer(0), &mut outputs);
        link.down(at(now_ms), LinkLoss::Closed);
        assert_eq!(link.next_wake_ms(), Some(now_ms));
    }

    #[test]
    fn a_process_is_gone_when_it_closed_and_nobody_listens_any_more() {
        for (first, second, is_gone) in [
            (LinkLoss::Closed, LinkLoss::Refused, true),
            (LinkLoss::Reset, LinkLoss::Refused, true),
            (LinkLoss::Timeout, LinkLoss::Refused, false),
            (LinkLoss::Closed, LinkLoss::Timeout, false),
        ] {
            let (mut link, mut outputs) = (link(), Vec::new());
            link.want(at(0), &mut outputs);
            assert!(!link.down(at(0), LinkLoss::Refused).is_gone, "it was never there");
            link.wake(at(0), &mut outputs);
            link.up();
            send(&mut link, 0, "one", &mut outputs);
            link.frame(at(1), &answer(0), &mut outputs);
            assert!(!link.down(at(2), first).is_gone);
            link.wake(at(2), &mut outputs);
            assert_eq!(link.down(at(3), second).is_gone, is_gone, "{first:?}, {second:?}");
            link.wake(at(1_000), &mut outputs);
            assert!(!link.down(at(1_001), LinkLoss::Refused).is_gone, "that is told once");
        }
    }

    #[test]
    fn a_connection_to_the_listener_of_a_process_that_is_being_killed_says_nothing() {
        let (mut link, mut outputs) = (link(), Vec::new());
        link.want(at(0), &mut outputs);
        link.up();
        send(&mut link, 0, "one", &mut outputs);
        link.frame(at(1), &answer(0), &mut outputs);
        link.down(at(2), LinkLoss::Closed);
        link.wake(at(2), &mut outputs);
        link.up();
        assert!(!link.down(at(3), LinkLoss::Reset).is_gone);
        link.wake(at(1_000), &mut outputs);
        assert!(link.down(at(1_001), LinkLoss::Refused).is_gone);
    }

    #[test]
    fn a_node_that_moved_is_dialled_where_it_is() {
        let (mut link, mut outputs) = (link(), Vec::new());
        link.want(at(0), &mut outputs);
        link.up();
        send(&mut link, 0, "one", &mut outputs);
        assert!(link.retarget(&Arc::from("host"), 9092, &mut outputs).is_none());
        outputs.clear();
        let loss = link.retarget(&Arc::from("host"), 9093, &mut outputs).unwrap();
        assert_eq!(loss.unanswered, ["one"]);
        link.want(at(1), &mut outputs);
        let [Output::LinkClose { .. }, Output::Dial { port: 9093, .. }] = outputs[..] else {
            panic!("{outputs:?}")
        };
    }
}
