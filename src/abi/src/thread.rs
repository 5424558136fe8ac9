//! The word that each thread keeps for the allocator inside musl: a field of struct pthread.

/// Distance in bytes from the thread pointer to the field in musl's struct pthread. The tool
/// compiles for two made-up ones, to find where they stand in the assembly: musl's build puts the
/// right one there. So it must be an operand of an instruction, alone.
pub const OFFSET: isize = match option_env!("BYSSAL_THREAD_OFFSET") {
    Some(text) => parse(text.as_bytes()),
    None => panic!("BYSSAL_THREAD_OFFSET is not set: build with `byssal patch`"),
};

/// A decimal number with an optional minus sign.
const fn parse(text: &[u8]) -> isize {
    let negative = !text.is_empty() && text[0] == b'-';
    let mut at = negative as usize;
    assert!(at < text.len(), "BYSSAL_THREAD_OFFSET is empty");
    let mut value = 0;
    while at < text.len() {
        assert!(
            text[at].is_ascii_digit(),
            "BYSSAL_THREAD_OFFSET is no number"
        );
        value = value * 10 + (text[at] - b'0') as isize;
        at += 1;
    }
    if negative {
        -value
    } else {
        value
    }
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod access {
    use super::OFFSET;

    /// Reads the word.
    #[inline(always)]
    pub fn get() -> usize {
        let value;
        // SAFETY: fs:0 is the thread's struct pthread; the field is a pointer at OFFSET. Pure: what is
        // read changes by `set` only, which writes memory.
        unsafe {
            core::arch::asm!("mov {}, fs:[{}]", out(reg) value, const OFFSET,
                options(pure, nostack, preserves_flags, readonly));
        }
        value
    }

    /// `base` and the word, in one instruction.
    #[inline(always)]
    pub fn add_to(base: usize) -> usize {
        let mut sum = base;
        // SAFETY: see `get`.
        unsafe {
            core::arch::asm!("add {}, fs:[{}]", inout(reg) sum, const OFFSET,
                options(pure, nostack, readonly));
        }
        sum
    }

    /// Writes the word.
    #[inline(always)]
    pub fn set(value: usize) {
        // SAFETY: fs:0 is the thread's struct pthread, whose field at OFFSET is the heap's alone.
        unsafe {
            core::arch::asm!("mov fs:[{}], {}", const OFFSET, in(reg) value,
                options(nostack, preserves_flags));
        }
    }
}

/// Reading and writing the word: `{0}` is its value, `{1}` the offset, `{2}` a register to spare.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
macro_rules! access {
    ($class:ident, [$($read:literal),+], [$($write:literal),+]) => {
        mod access {
            use super::OFFSET;

            /// Reads the word.
            #[inline(always)]
            pub fn get() -> usize {
                let value;
                // SAFETY: the thread pointer and OFFSET lead to the thread's own field.
                unsafe {
                    core::arch::asm!($($read),+, out($class) value, const OFFSET,
                        options(pure, nostack, preserves_flags, readonly));
                }
                value
            }

            /// Writes the word.
            #[inline(always)]
            pub fn set(value: usize) {
                // SAFETY: see `get`; the field is the heap's alone.
                unsafe {
                    core::arch::asm!($($write),+, "/* {2} */", in($class) value, const OFFSET,
                        out($class) _, options(nostack, preserves_flags));
                }
            }
        }
    };
}

// Of x32, too, only half a register is the word.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "32"))]
access!(reg, ["mov {0:e}, fs:[{1}]"], ["mov fs:[{1}], {0:e}"]);

#[cfg(target_arch = "x86")]
access!(reg, ["mov {0}, gs:[{1}]"], ["mov gs:[{1}], {0}"]);

#[cfg(target_arch = "aarch64")]
access!(
    reg,
    ["mrs {0}, tpidr_el0", "ldur {0}, [{0}, {1}]"],
    ["mrs {2}, tpidr_el0", "stur {0}, [{2}, {1}]"]
);

#[cfg(target_arch = "arm")]
access!(
    reg,
    ["mrc p15, 0, {0}, c13, c0, 3", "ldr {0}, [{0}, #{1}]"],
    ["mrc p15, 0, {2}, c13, c0, 3", "str {0}, [{2}, #{1}]"]
);

#[cfg(target_arch = "riscv64")]
access!(reg, ["ld {0}, {1}(tp)"], ["sd {0}, {1}(tp)"]);

#[cfg(target_arch = "riscv32")]
access!(reg, ["lw {0}, {1}(tp)"], ["sw {0}, {1}(tp)"]);

#[cfg(target_arch = "loongarch64")]
access!(reg, ["ld.d {0}, $tp, {1}"], ["st.d {0}, $tp, {1}"]);

// The halves of the thread pointer lie in two access registers.
#[cfg(target_arch = "s390x")]
access!(
    reg_addr,
    [
        "ear {0}, %a0",
        "sllg {0}, {0}, 32",
        "ear {0}, %a1",
        "lg {0}, {1}({0})"
    ],
    [
        "ear {2}, %a0",
        "sllg {2}, {2}, 32",
        "ear {2}, %a1",
        "stg {0}, {1}({2})"
    ]
);

#[cfg(target_arch = "powerpc64")]
access!(reg, ["ld {0}, {1}(13)"], ["std {0}, {1}(13)"]);

#[cfg(target_arch = "powerpc")]
access!(reg, ["lwz {0}, {1}(2)"], ["stw {0}, {1}(2)"]);

// Where the instruction is too new for the processor, the kernel does its work.
#[cfg(target_arch = "mips64")]
access!(
    reg,
    [
        ".set push",
        ".set mips64r2",
        "rdhwr {0}, $29",
        ".set pop",
        "ld {0}, {1}({0})"
    ],
    [
        ".set push",
        ".set mips64r2",
        "rdhwr {2}, $29",
        ".set pop",
        "sd {0}, {1}({2})"
    ]
);

#[cfg(target_arch = "mips")]
access!(
    reg,
    [
        ".set push",
        ".set mips32r2",
        "rdhwr {0}, $29",
        ".set pop",
        "lw {0}, {1}({0})"
    ],
    [
        ".set push",
        ".set mips32r2",
        "rdhwr {2}, $29",
        ".set pop",
        "sw {0}, {1}({2})"
    ]
);

/// `base` and the word.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
#[inline(always)]
pub fn add_to(base: usize) -> usize {
    base.wrapping_add(get())
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
pub use access::add_to;
pub use access::{get, set};
