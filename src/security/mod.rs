//! Who is asking: principals. Pure.
