//! Who is asking: principals. Pure.
//!
//! There is no authentication yet, so everyone is [`Principal::Anonymous`]; requests carry their
//! principal all the same, so that authorization finds it where it belongs.

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody has said who they are (`User:ANONYMOUS`).
    #[default]
    Anonymous,
}
