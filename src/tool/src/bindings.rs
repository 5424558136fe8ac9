//! The Rust view of `musl-glue/glue.h`, made by bindgen. Only built with the feature `bindings`:
//! it needs libclang, and its result is committed so that users do not.

use std::path::Path;
use std::process::Command;

use bindgen::{Builder, Formatter, MacroTypeVariation, RustTarget};

use crate::error::{Error, Kind, Result};
use crate::run;

const NAMES: &str = "__libc_.*|__malloc_.*|__byssal_.*|BYSSAL_.*";

const HEAD: &str = "\
// Made from musl-glue/glue.h by bindgen: `cargo run -p byssal-tool --features bindings -- bindings`.
// `make check` proves it current. Do not edit.";

/// The text of `src/abi/src/glue_bindings.rs`.
///
/// # Errors
/// `Missing` when libclang or cc is not there, `Step` when bindgen fails.
pub fn generate(root: &Path) -> Result<String> {
    // bindgen panics without it.
    clang_sys::load().map_err(|why| {
        Error::new(Kind::Missing, format!("bindgen needs libclang: {why}"))
            .remedy("run: sudo apt-get install --no-install-recommends libclang1")
    })?;
    let header = root.join("musl-glue/glue.h");
    // libclang comes without headers of its own; stddef.h of gcc says the same.
    let include = run::output(Command::new("cc").arg("-print-file-name=include"))?;
    let target = RustTarget::stable(85, 0)
        .map_err(|_| Error::new(Kind::System, "bindgen knows no Rust 1.85"))?;
    let builder = Builder::default()
        .header(header.to_string_lossy())
        .clang_args(["-DBYSSAL_BINDGEN", "-ffreestanding", "-nostdinc"])
        .clang_arg(format!("-isystem{}", include.trim()))
        .allowlist_function(NAMES)
        .allowlist_var(NAMES)
        .allowlist_recursively(false)
        .use_core()
        .ctypes_prefix("core::ffi")
        .layout_tests(false)
        .merge_extern_blocks(true)
        .default_macro_constant_type(MacroTypeVariation::Signed)
        .rust_target(target)
        // Not rustfmt: that is a program, which Debian's rustc does not bring.
        .formatter(Formatter::Prettyplease)
        .disable_header_comment()
        .raw_line(HEAD);
    let bindings = builder
        .generate()
        .map_err(|e| Error::new(Kind::Step, format!("bindgen: {e}")))?;
    Ok(bindings.to_string())
}
