//! Keeps the table of `docs/PROTOCOL.md` equal to the API table of the code.
//!
//! `UPDATE_DOCS=1 cargo test --test protocol_doc` rewrites it.

use std::fs;
use std::path::Path;

use tidemill::wire::api;

const BEGIN: &str = "<!-- API table: begin -->\n";
const END: &str = "<!-- API table: end -->\n";

#[test]
fn the_protocol_document_shows_the_api_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PROTOCOL.md");
    let text = fs::read_to_string(&path).expect("docs/PROTOCOL.md can be read");
    let (head, rest) = text.split_once(BEGIN).expect("the table's begin mark is there");
    let (table, tail) = rest.split_once(END).expect("the table's end mark is there");
    let generated = api::markdown();
    if table == generated {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_DOCS").is_some(),
        "docs/PROTOCOL.md is behind the API table; run with UPDATE_DOCS=1 to rewrite it. Expected:\n{generated}"
    );
    fs::write(&path, [head, BEGIN, &generated, END, tail].concat()).expect("docs/PROTOCOL.md can be written");
}
