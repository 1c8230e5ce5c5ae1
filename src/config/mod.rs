//! Every configuration key in one table, and the typed configuration made from it.
