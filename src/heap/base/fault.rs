//! Every detected misuse has a name and a number; there is one way to stop.
//!
//! The number and the address lie in `FAULT` (gdb: `info variables fault::FAULT`, as its symbol
//! ends in a hash) and, where `trap` has an instruction for it, in the first two argument registers
//! at the trapping one. Nothing is printed here: output machinery is not part of libc's core.

/// A detected misuse. The numbers are stable: documentation and tests name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// free or realloc of a block that is already free.
    DoubleFree = 1,
    /// A pointer that is no block's start: foreign, interior or misaligned.
    InvalidPointer = 2,
    /// A canary behind a block was written (hardened: or before it).
    Overflow = 3,
    /// A freed block was written.
    WriteAfterFree = 4,
    /// `free_sized` or `free_aligned_sized` with another size or alignment than the block's.
    SizeMismatch = 5,
    /// Out-of-band state contradicts itself.
    Corruption = 6,
}

impl Fault {
    /// The name that documentation uses.
    pub fn name(self) -> &'static str {
        match self {
            Fault::DoubleFree => "double free",
            Fault::InvalidPointer => "invalid pointer",
            Fault::Overflow => "overflow",
            Fault::WriteAfterFree => "write after free",
            Fault::SizeMismatch => "size mismatch",
            Fault::Corruption => "corruption",
        }
    }
}

/// A fault that was found, and the address that it names. It is for whoever can stop: while the
/// lock is held nobody may, as a handler of the signal then waits for that lock when it
/// allocates, prints or forks.
#[derive(Debug)]
pub struct Found(pub Fault, pub usize);

/// The result of a check, raised where no lock is held: stops the process if a fault was found.
#[inline(always)]
pub fn raise<T>(checked: Result<T, Found>) -> T {
    match checked {
        Ok(result) => result,
        Err(Found(fault, address)) => stop(fault, address),
    }
}

/// The fault that stopped the process: number, then address. Zero while all is well.
pub static mut FAULT: [usize; 2] = [0; 2];

/// Whether a fault was found before: the process stops, and this is a handler of the signal, or
/// another thread.
#[cold]
pub fn was_found() -> bool {
    #[cfg(any(test, feature = "model"))]
    return crate::mock::is_handler();
    // SAFETY: a word that is written once, see `stop`; volatile, as another thread may write it.
    #[cfg(not(any(test, feature = "model")))]
    unsafe {
        (&raw const FAULT).read_volatile()[0] != 0
    }
}

/// Called with the fault before the process stops, when a library wants to print it.
pub static mut REPORT: Option<fn(Fault, usize)> = None;

/// Stops the process. `address` is the pointer or the clobbered byte. The caller holds no lock, and
/// left its heap as another call of the same thread may find it: a handler of the signal may
/// allocate. What was damaged is out of reach then: a block that still lives, or a slot in no reuse
/// queue and no mask. (Trap and report are opaque to the compiler: all writes before them are
/// done.)
#[cold]
#[inline(never)]
pub fn stop(fault: Fault, address: usize) -> ! {
    #[cfg(any(test, feature = "model"))]
    crate::mock::fault(fault, address);
    #[cfg(not(any(test, feature = "model")))]
    {
        // SAFETY: the process stops here; a race between two faulting threads can only mix two
        // true reports. REPORT is written once, before any thread exists.
        unsafe {
            (&raw mut FAULT).write_volatile([fault as usize, address]);
            if let Some(report) = (&raw const REPORT).read() {
                report(fault, address);
            }
        }
        loop {
            trap(fault as usize, address);
            core::hint::spin_loop();
        }
    }
}

/// An instruction that raises SIGILL or SIGTRAP, with both words in registers: the first two of a
/// call's arguments, but on x86, which has none. Elsewhere a store that raises SIGSEGV.
#[cfg(not(any(test, feature = "model")))]
#[inline(always)]
fn trap(fault: usize, address: usize) {
    // SAFETY: these instructions only raise a signal. They are undefined for ever, or what
    // debuggers set as breakpoints.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!("ud2", in("rdi") fault, in("rsi") address);
        #[cfg(target_arch = "x86")]
        core::arch::asm!("ud2", in("eax") fault, in("edx") address);
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("brk #1", in("x0") fault, in("x1") address);
        #[cfg(target_arch = "arm")]
        core::arch::asm!("udf #0", in("r0") fault, in("r1") address);
        #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
        core::arch::asm!("unimp", in("a0") fault, in("a1") address);
        #[cfg(target_arch = "loongarch64")]
        core::arch::asm!("break 0", in("$a0") fault, in("$a1") address);
        #[cfg(target_arch = "s390x")]
        core::arch::asm!(".short 0", in("r2") fault, in("r3") address);
        // The null page is nobody's. A byte, as a misaligned word may raise another signal, or be
        // stored in parts; at the number, which the signal's handler then finds in `si_addr`.
        #[cfg(not(any(
            target_arch = "x86_64",
            target_arch = "x86",
            target_arch = "aarch64",
            target_arch = "arm",
            target_arch = "riscv32",
            target_arch = "riscv64",
            target_arch = "loongarch64",
            target_arch = "s390x",
        )))]
        {
            let _ = address;
            core::ptr::without_provenance_mut::<u8>(fault).write_volatile(0);
        }
    }
}
