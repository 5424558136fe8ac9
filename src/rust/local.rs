//! Two words that each thread has for the allocator. Rust has no thread-local variables without
//! `std` on stable: the variable is assembly, and so is the way to it. Each way is one that may
//! stand in a program and in what dlopen loads, beside glibc and beside musl; a linker that makes a
//! program replaces it by the variable's place itself.

use core::ffi::c_void;

#[cfg(not(target_os = "linux"))]
compile_error!("byssal runs on Linux only");
#[cfg(not(any(
    all(target_arch = "x86_64", target_pointer_width = "64"),
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "arm",
    target_arch = "riscv64",
    target_arch = "s390x"
)))]
compile_error!(
    "byssal does not know thread-local variables of this architecture: \
    x86_64, x86, aarch64, arm, riscv64 and s390x it knows"
);

// The name is the version's: of two versions in one program each has its own.
const _: () = assert!(
    matches!(
        env!("CARGO_PKG_VERSION").as_bytes(),
        [b'0', b'.', b'1', b'.', ..]
    ),
    "the names byssal_0_1_ in this crate's assembly are those of version 0.1"
);

core::arch::global_asm!(
    ".pushsection .tbss.byssal_0_1_thread,\"awT\",%nobits",
    ".p2align 4",
    ".globl byssal_0_1_thread",
    ".hidden byssal_0_1_thread",
    ".type byssal_0_1_thread, %object",
    ".size byssal_0_1_thread, 16",
    "byssal_0_1_thread:",
    ".zero 16",
    ".popsection"
);

extern "C" {
    /// The first of the two words, of 8 bytes each; zero in a new thread. For assembly alone.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "s390x"))]
    #[link_name = "byssal_0_1_thread"]
    pub static byssal_thread_heap: usize;
}

/// The address of this thread's word for the allocator, the first of two.
///
/// # Safety
/// None: only an address.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[inline]
pub unsafe fn byssal_thread_field() -> *mut *mut c_void {
    let address: *mut *mut c_void;
    // SAFETY: the initial-exec model, for which glibc keeps room where dlopen loads: the table has
    // the offset from the thread pointer, and fs:0 that pointer itself.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + {1}@GOTTPOFF]",
            "add {0}, fs:[0]",
            out(reg) address, sym byssal_thread_heap, options(pure, nostack, readonly));
    }
    address
}

/// The address of this thread's word for the allocator, the first of two.
///
/// # Safety
/// None: only an address.
#[cfg(all(target_arch = "x86_64", not(target_env = "gnu")))]
#[inline]
pub unsafe fn byssal_thread_field() -> *mut *mut c_void {
    let address: *mut *mut c_void;
    // SAFETY: a descriptor of the variable gives its offset from fs:0 in rax, and changes no other
    // register.
    unsafe {
        core::arch::asm!(
            "lea rax, [rip + {0}@TLSDESC]",
            "call qword ptr [rax + {0}@TLSCALL]",
            "add rax, fs:[0]",
            sym byssal_thread_heap, out("rax") address);
    }
    address
}

/// The address of this thread's word for the allocator, the first of two.
///
/// # Safety
/// None: only an address.
#[cfg(target_arch = "aarch64")]
#[inline]
pub unsafe fn byssal_thread_field() -> *mut *mut c_void {
    let address: *mut *mut c_void;
    // SAFETY: a descriptor of the variable gives its offset from the thread pointer in x0, and
    // changes x1, the link register and the flags besides.
    unsafe {
        core::arch::asm!(
            "adrp x0, :tlsdesc:{0}",
            "ldr x1, [x0, #:tlsdesc_lo12:{0}]",
            "add x0, x0, #:tlsdesc_lo12:{0}",
            ".tlsdesccall {0}",
            "blr x1",
            "mrs x1, tpidr_el0",
            "add x0, x0, x1",
            sym byssal_thread_heap, out("x0") address, out("x1") _, out("x30") _);
    }
    address
}

/// The address of this thread's word for the allocator, the first of two.
///
/// # Safety
/// None: only an address.
#[cfg(target_arch = "s390x")]
#[inline]
pub unsafe fn byssal_thread_field() -> *mut *mut c_void {
    let address: *mut *mut c_void;
    // SAFETY: the initial-exec model: the table has the offset from the thread pointer, whose
    // halves lie in two access registers.
    unsafe {
        core::arch::asm!(
            "larl {0}, {2}@INDNTPOFF",
            "lg {0}, 0({0})",
            "ear {1}, %a0",
            "sllg {1}, {1}, 32",
            "ear {1}, %a1",
            "la {0}, 0({0}, {1})",
            out(reg_addr) address, out(reg_addr) _, sym byssal_thread_heap,
            options(pure, nostack, readonly));
    }
    address
}

#[cfg(any(target_arch = "x86", target_arch = "arm", target_arch = "riscv64"))]
extern "C" {
    /// The address of this thread's word for the allocator, the first of two.
    #[link_name = "byssal_0_1_thread_field"]
    pub fn byssal_thread_field() -> *mut *mut c_void;
}

/// That function, of these instructions: the general way, by libc's `__tls_get_addr`.
#[cfg(any(target_arch = "x86", target_arch = "arm", target_arch = "riscv64"))]
macro_rules! field {
    ([$($line:literal),+] $(, options($options:ident))?) => {
        core::arch::global_asm!(
            ".pushsection .text.byssal_0_1_thread_field,\"ax\",%progbits",
            ".p2align 4",
            ".globl byssal_0_1_thread_field",
            ".hidden byssal_0_1_thread_field",
            ".type byssal_0_1_thread_field, %function",
            $($line,)+
            ".size byssal_0_1_thread_field, . - byssal_0_1_thread_field",
            ".popsection"
            $(, options($options))?
        );
    };
}

#[cfg(target_arch = "x86")]
field!(
    [
        "byssal_0_1_thread_field:",
        "pushl %ebx",
        "subl $8, %esp",
        "call .Lbyssal_0_1_here",
        ".Lbyssal_0_1_here:",
        "popl %ebx",
        "addl $_GLOBAL_OFFSET_TABLE_+(.-.Lbyssal_0_1_here), %ebx",
        "leal byssal_0_1_thread@tlsgd(,%ebx,1), %eax",
        "call ___tls_get_addr@PLT",
        "addl $8, %esp",
        "popl %ebx",
        "ret"
    ],
    options(att_syntax)
);

#[cfg(target_arch = "arm")]
field!([
    ".arm",
    "byssal_0_1_thread_field:",
    "push {{r4, lr}}",
    "ldr r0, .Lbyssal_0_1_offset",
    ".Lbyssal_0_1_here:",
    "add r0, pc, r0",
    "bl __tls_get_addr",
    "pop {{r4, pc}}",
    ".p2align 2",
    ".Lbyssal_0_1_offset:",
    ".long byssal_0_1_thread(TLSGD)-((.Lbyssal_0_1_here+8)-.Lbyssal_0_1_offset)"
]);

#[cfg(target_arch = "riscv64")]
field!([
    "byssal_0_1_thread_field:",
    "addi sp, sp, -16",
    "sd ra, 8(sp)",
    "la.tls.gd a0, byssal_0_1_thread",
    "call __tls_get_addr@plt",
    "ld ra, 8(sp)",
    "addi sp, sp, 16",
    "ret"
]);
