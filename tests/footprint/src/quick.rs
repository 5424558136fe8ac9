//! The short form: every workload at an eighth, byssal alone, against the bound.

use byssal_footprint::allocator::{own, Way};
use byssal_footprint::table::{failures, Column};
use byssal_footprint::workload::{run, WORKLOADS};

/// Runs all workloads and panics when the bound does not hold.
fn check(wanted: fn(&Way) -> bool) {
    for allocator in own().iter().filter(|allocator| wanted(&allocator.way)) {
        let runs = WORKLOADS
            .iter()
            .map(|(workload, _)| (*workload, run(workload, allocator, true)))
            .collect();
        let column = Column {
            name: allocator.name,
            ours: true,
            runs,
        };
        let failures = failures(&[column]);
        assert!(failures.is_empty(), "{failures:#?}");
    }
}

#[test]
fn inside_musl_the_bound_holds() {
    check(|way| matches!(way, Way::Static(_)));
}

#[test]
fn as_a_library_the_bound_holds_class_by_class() {
    check(|way| matches!(way, Way::Preload(_)));
}
