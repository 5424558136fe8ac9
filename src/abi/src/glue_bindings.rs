// Made from musl-glue/glue.h by bindgen: `cargo run -p byssal-tool --features bindings -- bindings`.
// `make check` proves it current. Do not edit.

unsafe extern "C" {
    pub fn __libc_malloc_impl(n: usize) -> *mut core::ffi::c_void;
    pub fn __libc_free(p: *mut core::ffi::c_void);
    pub fn __libc_realloc(p: *mut core::ffi::c_void, n: usize) -> *mut core::ffi::c_void;
    pub fn __malloc_allzerop(p: *mut core::ffi::c_void) -> core::ffi::c_int;
    pub fn __malloc_atfork(who: core::ffi::c_int);
    pub fn __malloc_thread_exit();
    pub fn __malloc_process_exit();
    pub fn __byssal_aligned_alloc(align: usize, n: usize) -> *mut core::ffi::c_void;
    pub fn __byssal_usable_size(p: *mut core::ffi::c_void) -> usize;
    pub fn __byssal_map(hint: *mut core::ffi::c_void, len: usize) -> *mut core::ffi::c_void;
    pub fn __byssal_unmap(addr: *mut core::ffi::c_void, len: usize) -> core::ffi::c_int;
    pub fn __byssal_purge(addr: *mut core::ffi::c_void, len: usize) -> core::ffi::c_int;
    pub fn __byssal_close(addr: *mut core::ffi::c_void, len: usize) -> core::ffi::c_int;
    pub fn __byssal_remap(
        addr: *mut core::ffi::c_void,
        old_len: usize,
        new_len: usize,
    ) -> *mut core::ffi::c_void;
    pub fn __byssal_break(want: usize) -> usize;
    pub fn __byssal_page_size() -> usize;
    pub fn __byssal_random(out: *mut core::ffi::c_uchar) -> core::ffi::c_int;
    pub fn __byssal_entropy(out: *mut core::ffi::c_uchar) -> core::ffi::c_int;
    pub fn __byssal_thread_number() -> core::ffi::c_uint;
    pub fn __byssal_lock();
    pub fn __byssal_try_lock() -> core::ffi::c_int;
    pub fn __byssal_unlock();
    pub fn __byssal_reset_lock();
    pub fn __byssal_threaded() -> core::ffi::c_int;
    pub fn __byssal_clock() -> core::ffi::c_uint;
    pub fn __byssal_errno() -> *mut core::ffi::c_int;
}
