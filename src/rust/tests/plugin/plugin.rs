//! A shared object whose Rust code has byssal as its global allocator, for `tests/plugin.rs`. It
//! uses nothing else of Rust's library that would keep it loaded.

#[global_allocator]
static GLOBAL: byssal::Byssal = byssal::Byssal;

/// The sum of the numbers below `n`, by way of the heap.
#[no_mangle]
pub extern "C" fn plugin_sum(n: u64) -> u64 {
    let numbers: Vec<Box<u64>> = (0..n).map(Box::new).collect();
    numbers.iter().map(|number| **number).sum()
}
