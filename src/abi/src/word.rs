//! The word that each thread keeps for the allocator beside a libc: a thread-local variable,
//! reached without a call where we know how. The libraries and the Rust crate (`src/rust`) share
//! this file. Which way, the libraries are told by their feature `tlsdesc`; in the crate the target
//! tells.

// In a library that dlopen loads, musl refuses the initial-exec model.
#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    any(feature = "tlsdesc", not(any(feature = "library", target_env = "gnu")))
))]
mod access {
    use crate::system::byssal_thread_heap;

    /// Reads the word.
    #[inline(always)]
    pub fn get() -> usize {
        let value;
        // SAFETY: a descriptor of the variable gives its offset from the thread pointer, in rax;
        // what it calls changes no other register and needs no aligned stack. In a program the
        // linker puts the offset itself there.
        unsafe {
            core::arch::asm!(
                "lea rax, [rip + {0}@TLSDESC]",
                "call qword ptr [rax + {0}@TLSCALL]",
                "mov rax, fs:[rax]",
                sym byssal_thread_heap, out("rax") value);
        }
        value
    }

    /// `base` and the word.
    #[inline(always)]
    pub fn add_to(base: usize) -> usize {
        base.wrapping_add(get())
    }

    /// Writes the word.
    #[inline(always)]
    pub fn set(value: usize) {
        // SAFETY: the descriptor's function gives the variable's offset from fs:0 in rax and keeps
        // all other registers.
        unsafe {
            core::arch::asm!(
                "lea rax, [rip + {0}@TLSDESC]",
                "call qword ptr [rax + {0}@TLSCALL]",
                "mov fs:[rax], {1}",
                sym byssal_thread_heap, in(reg) value, out("rax") _);
        }
    }
}

#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(feature = "tlsdesc"),
    any(feature = "library", target_env = "gnu")
))]
mod access {
    use crate::system::byssal_thread_heap;

    /// Reads the word.
    #[inline(always)]
    pub fn get() -> usize {
        let value;
        // SAFETY: the initial-exec model: the offset from the thread pointer stands in the GOT,
        // or in the instruction once the linker relaxed it.
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr [rip + {1}@GOTTPOFF]",
                "mov {0}, fs:[{0}]",
                out(reg) value, sym byssal_thread_heap,
                options(pure, nostack, preserves_flags, readonly));
        }
        value
    }

    /// `base` and the word, without a register for the word.
    #[inline(always)]
    pub fn add_to(base: usize) -> usize {
        let mut sum = base;
        // SAFETY: see `get`.
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr [rip + {1}@GOTTPOFF]",
                "add {2}, fs:[{0}]",
                out(reg) _, sym byssal_thread_heap, inout(reg) sum,
                options(pure, nostack, readonly));
        }
        sum
    }

    /// Writes the word.
    #[inline(always)]
    pub fn set(value: usize) {
        // SAFETY: the table's entry is the variable's offset from fs:0; only the variable is
        // written.
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr [rip + {1}@GOTTPOFF]",
                "mov fs:[{0}], {2}",
                out(reg) _, sym byssal_thread_heap, in(reg) value,
                options(nostack, preserves_flags));
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
mod access {
    use crate::system::byssal_thread_field as field;

    /// Reads the word.
    #[inline(always)]
    pub fn get() -> usize {
        // SAFETY: the thread's own field.
        unsafe { field().cast::<usize>().read_volatile() }
    }

    /// Writes the word.
    #[inline(always)]
    pub fn set(value: usize) {
        // SAFETY: the thread's own field.
        unsafe { field().cast::<usize>().write_volatile(value) }
    }
}

/// `base` and the word.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
#[inline(always)]
pub fn add_to(base: usize) -> usize {
    base.wrapping_add(get())
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
pub use access::add_to;
pub use access::{get, set};
