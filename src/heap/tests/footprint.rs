//! What is freed goes back.

use super::*;

#[test]
fn memory_goes_back_after_a_peak() {
    let process = Boxed::new(false);
    let live: Vec<_> = (0..200_000).map(|i| process.malloc(16 + i % 900)).collect();
    let peak = process.verify();
    for block in live {
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    let end = process.verify();
    assert!(
        end.used_bytes < peak.used_bytes / 50,
        "{end:?} after {peak:?}"
    );
    assert!(end.dirty_bytes <= 2 << 20, "{end:?}");
    // Address space goes back too, but for a chunk or two.
    let mapped = process.platform.mapped();
    assert!(mapped <= 16 << 20, "{mapped} bytes stay mapped");
}
