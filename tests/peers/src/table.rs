//! The list: every allocator, what it is, and the flags that it is built with.

/// How a peer gets into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// LD_PRELOAD on a program of the host's libc.
    Preload,
    /// A static program of a musl toolchain.
    Static,
    /// A program that has the allocator linked in, by a crate of Rust; not in this table.
    Linked,
}

/// How a peer is made.
#[derive(Clone, Copy, Debug)]
pub enum Make {
    /// The host's own libc.
    Host,
    /// A library of the distribution, found by the beginning of its file name.
    Package {
        package: &'static str,
        file: &'static str,
    },
    /// The sources of a crate, compiled at once to a shared library.
    Sources(Sources),
    /// jemalloc's own configure and make, as it generates half of its sources.
    Jemalloc,
    /// byssal itself.
    Byssal {
        hardened: bool,
    },
    /// Part of a program; perhaps byssal.
    Linked {
        ours: bool,
    },
    /// The pinned musl with one of its own.
    Mallocng,
    Oldmalloc,
    /// The pinned musl with mimalloc before its own malloc in libc.a.
    MuslMimalloc(Sources),
}

/// A crate's sources and how they become one library.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    pub package: &'static str,
    /// What is compiled, and where headers are, from the crate's directory.
    pub files: &'static [&'static str],
    pub include: &'static [&'static str],
    pub flags: &'static [&'static str],
    /// A file of `NAME=VALUE` lines, each of which is defined.
    pub config: Option<&'static str>,
    pub cpp: bool,
}

pub struct Row {
    pub name: &'static str,
    /// `None` if only the machine can tell.
    pub version: Option<&'static str>,
    pub kind: Kind,
    /// Made to withstand misuse, not only fast.
    pub hardened: bool,
    pub make: Make,
}

const MIMALLOC: &str = "libmimalloc-sys";
/// What mimalloc's own build does for a release that overrides malloc.
macro_rules! mimalloc_flags {
    ($($more:literal),*) => {
        &[
            "-std=gnu11", "-DNDEBUG", "-DMI_BUILD_RELEASE", "-DMI_MALLOC_OVERRIDE",
            "-fvisibility=hidden", "-ftls-model=initial-exec", "-fno-builtin-malloc" $(, $more)*
        ]
    };
}
const MIMALLOC2: Sources = Sources {
    package: MIMALLOC,
    files: &["c_src/mimalloc/v2/src/static.c"],
    include: &["c_src/mimalloc/v2/include"],
    flags: mimalloc_flags!["-DMI_SHARED_LIB", "-DMI_SHARED_LIB_EXPORT"],
    config: None,
    cpp: false,
};
const MIMALLOC2_SECURE: Sources = Sources {
    flags: mimalloc_flags!["-DMI_SECURE=4", "-DMI_SHARED_LIB", "-DMI_SHARED_LIB_EXPORT"],
    ..MIMALLOC2
};
const MIMALLOC2_MUSL: Sources = Sources {
    flags: mimalloc_flags!["-DMI_SECURE=4", "-DMI_LIBC_MUSL=1"],
    ..MIMALLOC2
};
const MIMALLOC3: Sources = Sources {
    files: &["c_src/mimalloc/v3/src/static.c"],
    include: &["c_src/mimalloc/v3/include"],
    ..MIMALLOC2
};

/// What snmalloc's CMakeLists.txt finds on Linux with gcc, for its targets snmallocshim and
/// snmallocshim-checks.
macro_rules! snmalloc_flags {
    ($($more:literal),*) => {
        &[
            "-std=c++20", "-DNDEBUG", "-DSNMALLOC_USE_CXX11_DESTRUCTORS",
            "-DSNMALLOC_USE_WAIT_ON_ADDRESS=1", "-DSNMALLOC_CHECK_LOADS=false",
            "-DSNMALLOC_PAGEID=false", "-DSNMALLOC_HAS_LINUX_RANDOM_H",
            "-DSNMALLOC_HAS_LINUX_FUTEX_H",
            "-DSNMALLOC_EXPORT=__attribute__((visibility(\"default\")))",
            "-mcx16", "-mprfchw", "-fvisibility=hidden", "-ftls-model=initial-exec",
            "-fomit-frame-pointer", "-ffunction-sections", "-static-libstdc++" $(, $more)*
        ]
    };
}
const SNMALLOC: Sources = Sources {
    package: "snmalloc-sys",
    files: &[
        "upstream/src/snmalloc/override/malloc.cc",
        "upstream/src/snmalloc/override/new.cc",
    ],
    include: &["upstream/src"],
    flags: snmalloc_flags![],
    config: None,
    cpp: true,
};
const SNMALLOC_CHECKS: Sources = Sources {
    flags: snmalloc_flags!["-DSNMALLOC_CHECK_CLIENT"],
    ..SNMALLOC
};

const RPMALLOC: Sources = Sources {
    package: "rpmalloc-sys",
    files: &["rpmalloc/rpmalloc/rpmalloc.c"],
    include: &[],
    flags: &[
        "-std=gnu11",
        "-DNDEBUG",
        "-D_GNU_SOURCE",
        "-DENABLE_PRELOAD=1",
        "-DENABLE_OVERRIDE=1",
        "-fvisibility=hidden",
        "-ftls-model=initial-exec",
    ],
    config: None,
    cpp: false,
};

const HARDENED: Sources = Sources {
    package: "hardened-malloc-sys",
    files: &[
        "vendor/hardened-malloc/chacha.c",
        "vendor/hardened-malloc/h_malloc.c",
        "vendor/hardened-malloc/memory.c",
        "vendor/hardened-malloc/pages.c",
        "vendor/hardened-malloc/random.c",
        "vendor/hardened-malloc/util.c",
    ],
    include: &["vendor/hardened-malloc", "vendor/hardened-malloc/include"],
    // gcc 12's c2x knows alignas only from its header.
    flags: &[
        "-std=c2x",
        "-include",
        "stdalign.h",
        "-D_GNU_SOURCE",
        "-DNDEBUG",
        "-fvisibility=hidden",
        "-fno-plt",
    ],
    config: Some("config-default.conf"),
    cpp: false,
};
const HARDENED_LIGHT: Sources = Sources {
    config: Some("config-light.conf"),
    ..HARDENED
};

const SCUDO: Sources = Sources {
    package: "scudo-sys",
    files: &[
        "scudo-standalone/checksum.cpp",
        "scudo-standalone/common.cpp",
        "scudo-standalone/crc32_hw.cpp",
        "scudo-standalone/flags.cpp",
        "scudo-standalone/flags_parser.cpp",
        "scudo-standalone/linux.cpp",
        "scudo-standalone/release.cpp",
        "scudo-standalone/report.cpp",
        "scudo-standalone/string_utils.cpp",
        "scudo-standalone/wrappers_c.cpp",
        "scudo-standalone/wrappers_cpp.cpp",
    ],
    include: &["scudo-standalone", "scudo-standalone/include"],
    flags: &[
        "-std=c++17",
        "-msse4.2",
        "-DNDEBUG",
        "-fno-exceptions",
        "-fno-rtti",
        "-fvisibility=hidden",
        "-ftls-model=initial-exec",
    ],
    config: None,
    cpp: true,
};

const fn preload(
    name: &'static str,
    version: &'static str,
    hardened: bool,
    sources: Sources,
) -> Row {
    Row {
        name,
        version: Some(version),
        kind: Kind::Preload,
        hardened,
        make: Make::Sources(sources),
    }
}

const fn other(
    name: &'static str,
    version: Option<&'static str>,
    kind: Kind,
    hardened: bool,
    make: Make,
) -> Row {
    Row {
        name,
        version,
        kind,
        hardened,
        make,
    }
}

const OURS: Option<&str> = Some(env!("CARGO_PKG_VERSION"));

/// Every allocator, byssal first in each of the two kinds.
pub const ROWS: &[Row] = &[
    other(
        "byssal",
        OURS,
        Kind::Preload,
        true,
        Make::Byssal { hardened: false },
    ),
    other(
        "byssal-hardened",
        OURS,
        Kind::Preload,
        true,
        Make::Byssal { hardened: true },
    ),
    other("glibc", None, Kind::Preload, false, Make::Host),
    preload("mimalloc2", "2.3.2", false, MIMALLOC2),
    preload("mimalloc2-secure", "2.3.2", true, MIMALLOC2_SECURE),
    preload("mimalloc3", "3.3.2", false, MIMALLOC3),
    other(
        "jemalloc",
        Some(JEMALLOC_VERSION),
        Kind::Preload,
        false,
        Make::Jemalloc,
    ),
    preload("snmalloc", "0.7.6", false, SNMALLOC),
    preload("snmalloc-checks", "0.7.6", true, SNMALLOC_CHECKS),
    preload("rpmalloc", "1.4.3+b097fd0", false, RPMALLOC),
    preload("hardened_malloc", "2026071503", true, HARDENED),
    preload("hardened_malloc-light", "2026071503", true, HARDENED_LIGHT),
    preload("scudo", "crate 0.2.2, LLVM of 2021", true, SCUDO),
    other("tcmalloc", None, Kind::Preload, false, TCMALLOC),
    other(
        "musl-byssal",
        OURS,
        Kind::Static,
        true,
        Make::Byssal { hardened: false },
    ),
    other(
        "musl-byssal-hardened",
        OURS,
        Kind::Static,
        true,
        Make::Byssal { hardened: true },
    ),
    other("musl-mallocng", None, Kind::Static, true, Make::Mallocng),
    other("musl-oldmalloc", None, Kind::Static, false, Make::Oldmalloc),
    other(
        "musl-mimalloc2-secure",
        Some("2.3.2"),
        Kind::Static,
        true,
        Make::MuslMimalloc(MIMALLOC2_MUSL),
    ),
];

const TCMALLOC: Make = Make::Package {
    package: "libtcmalloc-minimal4",
    file: "libtcmalloc_minimal.so.4",
};
pub const JEMALLOC_CRATE: &str = "tikv-jemalloc-sys";
pub const JEMALLOC_VERSION: &str = "5.3.1";
