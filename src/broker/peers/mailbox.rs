//! Raft messages on their way: what waits for one member, and the mailboxes of members that nobody can dial.
//!
//! Brokers that are no controllers have no listener for them, and controllers dial no brokers. Such a member asks for
//! its mail: each frame of its own messages, or of none, is answered with what waits for it, at once or as soon as
//! there is something, and after [`HOLD_MS`] in any case.
//!
//! A *guest* is a sender of messages whom this node does not know where to dial: it came into the quorum, or got its
//! vote, with entries that this node lacks. It may be the leader who feeds it these entries, or a candidate who needs
//! its vote. So what is said to a guest goes with the answers to its frames, too.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::effect::Now;
use crate::partition::ReplyTo;

/// Messages that wait for one member, in bytes; what comes beyond is lost.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// What a message takes besides its bytes.
const MESSAGE_BYTES: usize = 64;
/// Messages in one frame, in bytes, but for the first.
const FRAME_BYTES: usize = 1 << 20;
/// How long a member that asks for its mail is kept waiting for it, in milliseconds.
const HOLD_MS: u64 = 500;
/// Guests at the same time.
const GUESTS_MAX: usize = 8;

/// Messages that wait for one member, oldest first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes a message in, if there is room for it.
    pub(super) fn push(&mut self, message: Bytes) -> bool {
        let has_room = self.bytes <= WAITING_BYTES_MAX;
        if has_room {
            self.bytes += message.len() + MESSAGE_BYTES;
            self.messages.push_back(message);
        }
        has_room
    }

    /// The messages of the next frame.
    pub(super) fn take_frame(&mut self) -> Vec<Bytes> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while let Some(message) =
            self.messages.pop_front_if(|next| bytes == 0 || bytes + next.len() <= FRAME_BYTES)
        {
            bytes += message.len().max(1);
            self.bytes -= message.len() + MESSAGE_BYTES;
            messages.push(message);
        }
        messages
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }
}

/// An answer to a member that asked for its mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailDelivery {
    /// Whose request it is.
    pub to: ReplyTo,
    /// What is for it; perhaps nothing.
    pub messages: Vec<Bytes>,
}

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Waiting,
    /// The request that waits for mail, and until when.
    caller: Option<(ReplyTo, u64)>,
}

/// The mailboxes of one controller.
#[derive(Debug, Default)]
pub(super) struct Mailboxes {
    boxes: BTreeMap<u64, Mailbox>,
    guests: BTreeMap<u64, Mailbox>,
}

impl Mailbox {
    /// Answers whoever waits, with what there is.
    fn close(&mut self, deliveries: &mut Vec<MailDelivery>) {
        let caller = self.caller.take();
        deliveries.extend(caller.map(|(to, _)| MailDelivery { to, messages: self.waiting.take_frame() }));
    }
}

impl Mailboxes {
    /// Whose there are, by raft id. Who asks and is none of them any more gets nothing.
    pub(super) fn set_members(&mut self, members: &[u64], deliveries: &mut Vec<MailDelivery>) {
        self.boxes.retain(|raft_id, mailbox| {
            let stays = members.contains(raft_id);
            if !stays && let Some((to, _)) = mailbox.caller {
                deliveries.push(MailDelivery { to, messages: Vec::new() });
            }
            stays
        });
        for raft_id in members {
            self.part_with(*raft_id, deliveries);
            self.boxes.entry(*raft_id).or_default();
        }
    }

    /// Somebody who cannot be dialled has sent messages: there may be something to say to it.
    pub(super) fn expect(&mut self, from: u64, deliveries: &mut Vec<MailDelivery>) {
        if self.boxes.contains_key(&from) || self.guests.contains_key(&from) {
            return;
        }
        while self.guests.len() >= GUESTS_MAX
            && let Some((_, mut earlier)) = self.guests.pop_first()
        {
            earlier.close(deliveries);
        }
        self.guests.insert(from, Mailbox::default());
    }

    /// Whoever was a guest is reached in another way from now on.
    pub(super) fn part_with(&mut self, raft_id: u64, deliveries: &mut Vec<MailDelivery>) {
        if let Some(mut guest) = self.guests.remove(&raft_id) {
            guest.close(deliveries);
        }
    }

    fn mailbox_of(&mut self, raft_id: u64) -> Option<&mut Mailbox> {
        self.boxes.get_mut(&raft_id).or_else(|| self.guests.get_mut(&raft_id))
    }

    /// A message for a member; `None` where it has no mailbox, `Some(false)` where that is full.
    pub(super) fn send(&mut self, to: u64, message: &Bytes) -> Option<bool> {
        self.mailbox_of(to).map(|mailbox| mailbox.waiting.push(message.clone()))
    }

    /// A member asks for its mail. One that has no mailbox is answered at once.
    pub(super) fn call(&mut self, now: Now, from: u64, to: ReplyTo, deliveries: &mut Vec<MailDelivery>) {
        let Some(mailbox) = self.mailbox_of(from) else {
            return deliveries.push(MailDelivery { to, messages: Vec::new() });
        };
        // It has another connection by now.
        if let Some((earlier, _)) = mailbox.caller.replace((to, now.mono_ms + HOLD_MS)) {
            deliveries.push(MailDelivery { to: earlier, messages: Vec::new() });
        }
    }

    /// Answers those for whom there is something.
    pub(super) fn go_on(&mut self, deliveries: &mut Vec<MailDelivery>) {
        let all = self.boxes.values_mut().chain(self.guests.values_mut());
        all.filter(|mailbox| !mailbox.waiting.is_empty()).for_each(|mailbox| mailbox.close(deliveries));
    }

    /// When [`Mailboxes::wake`] wants to be called, in monotonic milliseconds.
    pub(super) fn next_wake_ms(&self) -> Option<u64> {
        let all = self.boxes.values().chain(self.guests.values());
        all.filter_map(|mailbox| mailbox.caller).map(|(_, until_ms)| until_ms).min()
    }

    /// Time has passed: who has waited for long enough is answered.
    pub(super) fn wake(&mut self, now: Now, deliveries: &mut Vec<MailDelivery>) {
        let mut answer = |mailbox: &mut Mailbox| {
            let caller = mailbox.caller.take_if(|(_, until_ms)| *until_ms <= now.mono_ms);
            deliveries.extend(caller.map(|(to, _)| MailDelivery { to, messages: Vec::new() }));
            caller.is_some()
        };
        for mailbox in self.boxes.values_mut() {
            answer(mailbox);
        }
        // A guest that has nothing to say for so long has gone.
        self.guests.retain(|_, guest| !answer(guest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    fn to(request: u32) -> ReplyTo {
        ReplyTo { shard: 0, connection: 0, generation: 1, request, part: 0 }
    }

    fn delivery(request: u32, messages: &[&'static [u8]]) -> MailDelivery {
        MailDelivery {
            to: to(request),
            messages: messages.iter().map(|bytes| Bytes::from_static(bytes)).collect(),
        }
    }

    #[test]
    fn mail_goes_to_who_asks_for_it_at_once_or_when_there_is_some() {
        let (mut mail, mut told) = (Mailboxes::default(), Vec::new());
        mail.set_members(&[5], &mut told);
        assert_eq!(mail.send(6, &Bytes::new()), None);
        assert_eq!(mail.send(5, &Bytes::from_static(b"one")), Some(true));
        mail.go_on(&mut told);
        assert!(told.is_empty(), "nobody asks");
        mail.call(at(0), 5, to(1), &mut told);
        mail.go_on(&mut told);
        assert_eq!(std::mem::take(&mut told), [delivery(1, &[b"one"])]);
        mail.call(at(10), 5, to(2), &mut told);
        mail.go_on(&mut told);
        assert!(told.is_empty());
        assert_eq!(mail.next_wake_ms(), Some(510));
        mail.send(5, &Bytes::from_static(b"two"));
        mail.send(5, &Bytes::from_static(b"three"));
        mail.go_on(&mut told);
        assert_eq!(std::mem::take(&mut told), [delivery(2, &[b"two", b"three"])]);
        assert_eq!(mail.next_wake_ms(), None);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut mail, mut told) = (Mailboxes::default(), Vec::new());
        mail.set_members(&[5, 6], &mut told);
        mail.call(at(0), 5, to(1), &mut told);
        mail.call(at(1), 5, to(2), &mut told);
        assert_eq!(std::mem::take(&mut told), [delivery(1, &[])], "it asks elsewhere now");
        mail.wake(at(500), &mut told);
        assert!(told.is_empty());
        mail.wake(at(501), &mut told);
        assert_eq!(std::mem::take(&mut told), [delivery(2, &[])]);
        mail.call(at(600), 6, to(3), &mut told);
        mail.set_members(&[5], &mut told);
        mail.call(at(600), 7, to(4), &mut told);
        assert_eq!(told, [delivery(3, &[]), delivery(4, &[])], "neither is a member");
    }

    #[test]
    fn a_guest_is_answered_with_its_mail_until_it_is_reached_in_another_way() {
        let (mut mail, mut told) = (Mailboxes::default(), Vec::new());
        mail.expect(5, &mut told);
        mail.send(5, &Bytes::from_static(b"one"));
        mail.call(at(0), 5, to(1), &mut told);
        mail.go_on(&mut told);
        assert_eq!(std::mem::take(&mut told), [delivery(1, &[b"one"])]);
        mail.send(5, &Bytes::from_static(b"when that is on disk"));
        mail.call(at(40), 5, to(2), &mut told);
        mail.part_with(5, &mut told);
        assert_eq!(std::mem::take(&mut told), [delivery(2, &[b"when that is on disk"])]);
        assert_eq!(mail.send(5, &Bytes::new()), None, "it is dialled");

        mail.expect(5, &mut told);
        mail.call(at(100), 5, to(3), &mut told);
        mail.wake(at(600), &mut told);
        assert_eq!(std::mem::take(&mut told), [delivery(3, &[])]);
        assert_eq!(mail.send(5, &Bytes::new()), None, "it was silent for long");

        for guest in 0..20 {
            mail.expect(guest, &mut told);
            mail.call(at(700), guest, to(guest as u32), &mut told);
        }
        assert_eq!((mail.guests.len(), told.len()), (8, 12), "those that came first make room");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = Waiting::default();
        let mut taken = 0;
        while waiting.push(Bytes::from(vec![0; 1 << 20])) {
            taken += 1;
        }
        assert_eq!((taken, waiting.take_frame().len()), (8, 1));
        waiting.clear();
        assert!(waiting.is_empty() && waiting.take_frame().is_empty());
    }
}
