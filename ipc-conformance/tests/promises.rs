//! The promises on `ipc-core`'s page and the cases of the suite name each other.

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../ipc-core/README.md");
const LIST: &str = include_str!("../src/list.rs");

/// Cases are sentences: at least four words.
fn is_case(word: &str) -> bool {
    word.matches('_').count() >= 3 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

#[test]
fn every_case_stands_on_the_page_of_promises_and_nothing_else_does() {
    let cases: BTreeSet<&str> = LIST.lines().map(str::trim).filter(|l| is_case(l)).collect();
    let named: BTreeSet<&str> = PAGE.split('`').filter(|word| is_case(word)).collect();
    assert!(cases.len() > 50, "the list was not read: {cases:?}");
    let missing: Vec<_> = cases.difference(&named).collect();
    let unknown: Vec<_> = named.difference(&cases).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "cases that the page does not name: {missing:?}; names without a case: {unknown:?}"
    );
}
