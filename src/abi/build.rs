//! Compiles the C side of the libraries; the object for libc has none here.

fn main() {
    println!("cargo::rerun-if-changed=library.c");
    println!("cargo::rerun-if-env-changed=BYSSAL_THREAD_OFFSET");
    #[cfg(feature = "library")]
    {
        let mut build = cc::Build::new();
        if cfg!(feature = "count") {
            build.define("BYSSAL_COUNT", None);
        }
        if cfg!(feature = "hardened") {
            build.define("BYSSAL_CHOOSES", None);
        }
        build
            .file("library.c")
            .opt_level(2)
            .debug(false)
            .pic(true)
            .flag("-std=gnu11")
            .flag("-fno-plt")
            // musl-clang hands flags of the linker to every compilation; gcc knows no such warning.
            .flag("-Wno-unused-command-line-argument")
            .warnings_into_errors(true)
            .compile("byssal_library");
    }
}
