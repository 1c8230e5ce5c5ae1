//! Scenarios of the whole controller, on a simulated directory.
