//! Names that a libc may have or not. Rust has no weak names on stable: a table in assembly has
//! them, which the linker fills, with null for what is not there.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::AtomicU8;

/// A function without arguments.
type Plain = unsafe extern "C" fn();

/// The table. Its order is that of the assembly below.
#[repr(C)]
pub struct Weak {
    /// glibc's own word on whether there is a single thread.
    pub single_threaded: Option<&'static AtomicU8>,
    /// glibc's lock of the list of streams.
    pub io_list_lock: Option<Plain>,
    pub io_list_unlock: Option<Plain>,
    pub io_list_resetlock: Option<Plain>,
    /// The dynamic linker's; none of them in static programs.
    pub dlopen: Option<unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void>,
    pub dlerror: Option<unsafe extern "C" fn() -> *mut c_char>,
    pub dladdr: Option<unsafe extern "C" fn(*const c_void, *mut libc::Dl_info) -> c_int>,
    /// byssal inside musl, see `libcs.rs`: hidden names, in static programs alone. The last one is
    /// its own, the others every musl may have.
    pub malloc: Option<unsafe extern "C" fn(usize) -> *mut c_void>,
    pub free: Option<unsafe extern "C" fn(*mut c_void)>,
    pub realloc: Option<unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void>,
    pub is_zero: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    pub aligned_alloc: Option<unsafe extern "C" fn(usize, usize) -> *mut c_void>,
}

extern "C" {
    /// Filled by the linker, and fixed before the program's first instruction.
    #[link_name = "byssal_0_1_weak"]
    pub static WEAK: Weak;
}

/// A word of the machine.
#[cfg(target_pointer_width = "64")]
macro_rules! word {
    () => {
        ".8byte "
    };
}
#[cfg(target_pointer_width = "32")]
macro_rules! word {
    () => {
        ".4byte "
    };
}

/// The table's assembly: names, in its order.
macro_rules! table {
    ($($name:literal),+) => {
        core::arch::global_asm!(
            ".pushsection .data.rel.ro.byssal_0_1_weak,\"aw\",%progbits",
            ".p2align 3",
            ".globl byssal_0_1_weak",
            ".hidden byssal_0_1_weak",
            "byssal_0_1_weak:",
            $(concat!(".weak ", $name), concat!(word!(), $name),)+
            ".popsection"
        );
    };
}

table!(
    "__libc_single_threaded",
    "_IO_list_lock",
    "_IO_list_unlock",
    "_IO_list_resetlock",
    "dlopen",
    "dlerror",
    "dladdr",
    "__libc_malloc_impl",
    "__libc_free",
    "__libc_realloc",
    "__malloc_allzerop",
    "__byssal_aligned_alloc"
);
