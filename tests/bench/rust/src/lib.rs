//! The allocator of the programs, by this package's features; none of them: the system's malloc.

#[cfg(any(
    all(feature = "byssal", any(feature = "mimalloc", feature = "jemalloc")),
    all(feature = "mimalloc", feature = "jemalloc")
))]
compile_error!("choose one allocator");

#[cfg(any(feature = "byssal", feature = "byssal-hardened"))]
#[global_allocator]
static GLOBAL: byssal::Byssal = byssal::Byssal;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// FNV-1a, for checksums.
pub fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(sum, step)
}
