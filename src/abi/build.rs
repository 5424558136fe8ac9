//! Compiles the C side of the libraries; the object for libc has none here.

fn main() {
    println!("cargo::rerun-if-changed=library.c");
    println!("cargo::rerun-if-changed=cxx.c");
    println!("cargo::rerun-if-env-changed=BYSSAL_THREAD_OFFSET");
    #[cfg(feature = "library")]
    {
        let mut build = cc::Build::new();
        if cfg!(feature = "count") {
            build.define("BYSSAL_COUNT", None);
        }
        if cfg!(feature = "hardened") {
            build.define("BYSSAL_CHOOSES", None);
            // A member of its own, with no name that others ask for: only the shared library has it.
            build.file("cxx.c");
        }
        // On powerpc of 32 bits such calls find their way from the object's own part of a table, and
        // ld -r, which joins the tables, leaves them as they are: they went to another function.
        let machine = std::env::var("CARGO_CFG_TARGET_ARCH");
        if machine.is_ok_and(|machine| machine != "powerpc") {
            build.flag("-fno-plt");
        }
        build
            .file("library.c")
            .opt_level(2)
            .debug(false)
            .pic(true)
            .flag("-std=gnu11")
            // Exceptions of C++ pass through what hands a call on to the C++ library.
            .flag("-fexceptions")
            // musl-clang hands flags of the linker to every compilation; gcc knows no such warning.
            .flag("-Wno-unused-command-line-argument")
            // On aarch64 gcc else calls libgcc for an atomic operation, and that asks the libc for
            // __getauxval, which musl before 1.2.6 hides.
            .flag_if_supported("-mno-outline-atomics")
            .warnings_into_errors(true)
            .compile("byssal_library");
    }
}
