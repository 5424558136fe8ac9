//! The assembly of the core, as rustc wrote it before, through rustc's own assembler.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
core::arch::global_asm!(
    include_str!(env!("BYSSAL_ASSEMBLY")),
    options(att_syntax, raw)
);
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
core::arch::global_asm!(include_str!(env!("BYSSAL_ASSEMBLY")), options(raw));
