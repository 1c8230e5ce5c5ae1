//! Measures producers and consumers.

fn main() {}
