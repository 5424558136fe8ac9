//! The committed Rust view of the C header is the one that bindgen makes today.
#![cfg(feature = "bindings")]

use std::path::Path;

use byssal_tool::bindings;

#[test]
fn committed_bindings_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let committed = std::fs::read_to_string(root.join("src/abi/src/glue_bindings.rs")).unwrap();
    let made = bindings::generate(&root).unwrap();
    assert!(
        committed == made,
        "src/abi/src/glue_bindings.rs is not what glue.h gives; run: cargo run -p byssal --features bindings -- bindings"
    );
}
