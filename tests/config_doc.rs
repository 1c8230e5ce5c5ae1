//! `docs/CONFIG.md` is what the tables say. `UPDATE_DOCS=1 cargo test --test config_doc` writes it again.

#[test]
fn the_configuration_document_is_what_the_tables_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIG.md");
    let expected = tidemill::config::document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).expect("docs/CONFIG.md is writable");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    let differs = expected.lines().zip(found.lines().chain(std::iter::repeat(""))).find(|(a, b)| a != b);
    if let Some((expected, found)) = differs {
        panic!("docs/CONFIG.md differs; run with UPDATE_DOCS=1\nexpected: {expected}\nfound:    {found}");
    }
    assert_eq!(expected, found, "docs/CONFIG.md is longer than what the tables say; run with UPDATE_DOCS=1");
}
