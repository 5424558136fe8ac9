//! The committed Rust view of the C header is the one that bindgen makes today.
#![cfg(feature = "bindings")]

use std::path::Path;

use byssal_tool::bindings;
use byssal_tool::error::Kind;

/// The text without what formatters choose between: blanks, line ends, a comma after the last
/// parameter. `cargo fmt` may lay the committed file out as it likes.
fn bare(text: &str) -> String {
    let text: String = text.split_whitespace().collect();
    text.replace(",)", ")")
}

#[test]
fn committed_bindings_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let committed = std::fs::read_to_string(root.join("src/abi/src/glue_bindings.rs")).unwrap();
    let made = match bindings::generate(&root) {
        Err(why) if why.kind == Kind::Missing => {
            return println!("skipped: {}", why.to_string().replace('\n', " "));
        }
        made => made.unwrap(),
    };
    assert!(
        bare(&committed) == bare(&made),
        "src/abi/src/glue_bindings.rs is not what glue.h gives; run: cargo run -p byssal-tool --features bindings -- bindings"
    );
}

#[test]
fn only_the_layout_may_differ() {
    let text = "fn a(\n    b: u32,\n) -> u32;";
    assert_eq!(bare(text), bare("fn a(b: u32) -> u32;"));
    assert_ne!(bare(text), bare("fn a(b: u64) -> u32;"));
}
