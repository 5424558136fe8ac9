//! Compiles the C side of the library; for tests there is none.

fn main() {
    for file in ["profile.c", "file.c", "frames.c", "signals.c", "library.h"] {
        println!("cargo::rerun-if-changed={file}");
    }
    #[cfg(feature = "library")]
    cc::Build::new()
        .files(["profile.c", "file.c", "frames.c", "signals.c"])
        .opt_level(2)
        .debug(false)
        .pic(true)
        .flag("-std=gnu11")
        .flag("-fno-plt")
        // The unwinder walks from here to the program.
        .flag("-fexceptions")
        .flag("-fasynchronous-unwind-tables")
        .flag("-Wno-unused-command-line-argument")
        .warnings_into_errors(true)
        .compile("byssal_profile_c");
}
