//! Every program: where it runs and what it must end in. To add one, write the source, then a
//! line here.

use crate::mode::{Mode, ALL, LIBRARY, MUSL};

/// How a run must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Exit code 0 (or 77 with a reason: skipped).
    Success,
    /// Death by SIGILL, SIGTRAP, SIGSEGV or SIGABRT after it printed "armed".
    Trap,
}

/// What a shared object built beside a program is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// Linked at build time.
    WithProgram,
    /// Opened by dlopen.
    AtRunTime,
}

/// A shared object that belongs to a program: `lib<name>.so` beside it.
#[derive(Clone, Debug)]
pub struct Companion {
    pub name: &'static str,
    pub source: &'static str,
    pub flags: &'static [&'static str],
    pub link: Link,
    /// Whether libbyssal.a is linked into it.
    pub archive: bool,
}

/// One C (or C++) program.
#[derive(Clone, Debug)]
pub struct Program {
    name: &'static str,
    modes: &'static [Mode],
    unfit: Vec<(Mode, &'static str)>,
    runs: &'static [&'static [&'static str]],
    companions: &'static [Companion],
    flags: &'static [&'static str],
    limit: u64,
    expect: Expect,
    must_say: Option<&'static str>,
    faults: &'static [u32],
    cxx: bool,
    stress: bool,
    alone: bool,
    remaps: bool,
}

/// The modes in which everything runs; the others are for a chosen few ([`ALL`]).
const USUAL: &[Mode] = &[
    Mode::MuslStatic,
    Mode::MuslDynamic,
    Mode::Preload,
    Mode::Archive,
];
const DYNAMIC: &[Mode] = &[Mode::MuslDynamic, Mode::Preload, Mode::Archive];
const SHARED_HOST: &[Mode] = &[Mode::Preload, Mode::Archive];
/// Both ends: our libc, and the library on the host.
const MISUSE: &[Mode] = &[Mode::MuslStatic, Mode::MuslDynamic, Mode::Preload];

/// Faults by number, as `src/heap/base/fault.rs` defines them.
const DOUBLE_FREE: u32 = 1;
const INVALID_POINTER: u32 = 2;
const OVERFLOW: u32 = 3;
const SIZE_MISMATCH: u32 = 5;

impl Program {
    fn new(name: &'static str) -> Self {
        Program {
            name,
            modes: USUAL,
            unfit: Vec::new(),
            runs: &[&[]],
            companions: &[],
            flags: &[],
            limit: 60,
            expect: Expect::Success,
            must_say: None,
            faults: &[],
            cxx: false,
            stress: false,
            alone: false,
            remaps: false,
        }
    }

    /// The only modes in which the program means something.
    fn only(mut self, modes: &'static [Mode]) -> Self {
        self.modes = modes;
        self
    }

    /// It looks at the memory of the process, or limits it: under an emulator that is the emulator's,
    /// too.
    fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// It needs a mapping that the system refuses to move to stay where it is.
    fn remaps(mut self) -> Self {
        self.remaps = true;
        self
    }

    /// A mode in which it would mean something but cannot run: counted as skipped.
    fn skip(mut self, mode: Mode, why: &'static str) -> Self {
        self.unfit.push((mode, why));
        self
    }

    /// Argument lists; the program runs once for each.
    fn with(mut self, runs: &'static [&'static [&'static str]]) -> Self {
        self.runs = runs;
        self
    }

    fn beside(mut self, companions: &'static [Companion]) -> Self {
        self.companions = companions;
        self
    }

    /// Seconds before a run counts as hung.
    fn within(mut self, seconds: u64) -> Self {
        self.limit = seconds;
        self
    }

    fn says(mut self, text: &'static str) -> Self {
        self.must_say = Some(text);
        self
    }

    /// A program in C++, which only the host has.
    fn cxx(name: &'static str) -> Self {
        Program {
            cxx: true,
            modes: SHARED_HOST,
            flags: &["-std=c++17", "-fsized-deallocation"],
            ..Program::new(name)
        }
    }

    /// A misuse and the faults that may be named for it. (A block whose group or mapping has been
    /// given back is no longer known: then its double free is an invalid pointer.)
    fn misuse(name: &'static str, faults: &'static [u32]) -> Self {
        Program {
            expect: Expect::Trap,
            limit: 20,
            modes: MISUSE,
            faults,
            ..Program::new(name)
        }
    }

    /// Threads without mercy. The programs print what they did and take their sizes as arguments:
    /// a short form for every day, a long one for `make stress`.
    fn stress(
        name: &'static str,
        short: &'static [&'static [&'static str]],
        long: &'static [&'static [&'static str]],
    ) -> Self {
        let long_form = long_stress();
        Program {
            stress: true,
            alone: true,
            modes: MISUSE,
            runs: if long_form { long } else { short },
            limit: if long_form { 300 } else { 60 },
            ..Program::new(name)
        }
    }

    pub fn name(&self) -> String {
        match (self.expect, self.stress) {
            (Expect::Success, false) => self.name.to_owned(),
            (Expect::Success, true) => format!("stress/{}", self.name),
            (Expect::Trap, _) => format!("misuse/{}", self.name),
        }
    }

    /// Whether what a good run prints is to be shown.
    pub fn is_told(&self) -> bool {
        self.stress && long_stress()
    }

    /// Name without the folder.
    pub fn short_name(&self) -> &'static str {
        self.name
    }

    /// Path below this package.
    pub fn source(&self) -> String {
        match (self.expect, self.cxx) {
            (Expect::Success, false) if self.stress => format!("stress/{}.c", self.name),
            (Expect::Success, false) => format!("programs/{}.c", self.name),
            (Expect::Success, true) => format!("programs/{}.cc", self.name),
            (Expect::Trap, _) => format!("misuse/{}.c", self.name),
        }
    }

    /// Modes, each with the reason why it cannot run there.
    pub fn modes(&self) -> Vec<(Mode, Result<(), &'static str>)> {
        let unfit = |mode| self.unfit.iter().find(|(unfit, _)| *unfit == mode);
        let fit = self.modes.iter().filter(|mode| unfit(**mode).is_none());
        let mut all: Vec<_> = fit.map(|mode| (*mode, Ok(()))).collect();
        all.extend(self.unfit.iter().map(|(mode, why)| (*mode, Err(*why))));
        all
    }

    pub fn runs(&self) -> &'static [&'static [&'static str]] {
        self.runs
    }

    pub fn companions(&self) -> &'static [Companion] {
        self.companions
    }

    pub fn flags(&self) -> &'static [&'static str] {
        self.flags
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn expect(&self) -> Expect {
        self.expect
    }

    pub fn must_say(&self) -> Option<&'static str> {
        self.must_say
    }

    /// Numbers of the faults that a misuse may end in.
    pub fn faults(&self) -> &'static [u32] {
        self.faults
    }

    /// Whether it means nothing under an emulator.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whether a refused mremap must leave the mapping.
    pub fn does_remap(&self) -> bool {
        self.remaps
    }

    pub fn is_cxx(&self) -> bool {
        self.cxx
    }
}

const PLUGIN: &[Companion] = &[Companion {
    name: "plugin",
    source: "dlopen_plugin.c",
    flags: &[],
    link: Link::AtRunTime,
    archive: false,
}];

/// A plugin that brings its own allocator.
const UNLOADED: &[Companion] = &[Companion {
    name: "unloaded",
    source: "unload_plugin.c",
    flags: &["-Wl,--exclude-libs,ALL"],
    link: Link::AtRunTime,
    archive: true,
}];

const FORK_LIBRARY: &[Companion] = &[Companion {
    name: "forking",
    source: "fork_handlers_library.c",
    flags: &[],
    link: Link::WithProgram,
    archive: false,
}];

const TLS_LIBRARIES: &[Companion] = &[
    Companion {
        name: "tlsone",
        source: "tls_library.c",
        flags: &["-DNUMBER=1", "-DTLS_BYTES=300000", "-DTLS_ALIGN=64"],
        link: Link::WithProgram,
        archive: false,
    },
    Companion {
        name: "tlstwo",
        source: "tls_library.c",
        flags: &["-DNUMBER=2", "-DTLS_BYTES=1000", "-DTLS_ALIGN=4096"],
        link: Link::WithProgram,
        archive: false,
    },
    Companion {
        name: "tlsthree",
        source: "tls_library.c",
        flags: &["-DNUMBER=3", "-DTLS_BYTES=2000000", "-DTLS_ALIGN=32"],
        link: Link::WithProgram,
        archive: false,
    },
];

/// All programs, in the order in which they are listed.
pub fn programs() -> Vec<Program> {
    let mut all = semantics();
    all.extend(threads());
    all.extend(stress());
    all.extend(process());
    all.extend(footprint());
    all.extend(misuse());
    all
}

fn semantics() -> Vec<Program> {
    vec![
        Program::new("empty").only(ALL),
        Program::new("one_malloc").only(ALL),
        Program::new("which_malloc").only(&[
            Mode::MuslDynamic,
            Mode::Preload,
            Mode::Archive,
            Mode::MuslPreload,
        ]),
        Program::new("api_basics").only(ALL),
        Program::new("api_errno"),
        Program::new("api_limits").only(ALL),
        Program::new("api_calloc").remaps(),
        Program::new("api_realloc").remaps(),
        Program::new("api_usable_size"),
        Program::new("api_aligned").only(ALL),
        Program::new("api_host").only(ALL),
        Program::new("api_aligned_huge").alone(),
        Program::new("api_aligned_footprint").alone(),
        Program::new("api_every_size"),
        Program::new("api_valloc"),
        Program::new("api_posix").only(ALL),
        Program::new("api_posix_errno")
            .only(LIBRARY)
            .skip(
                Mode::MuslStatic,
                "posix_memalign is musl's own and sets errno",
            )
            .skip(
                Mode::MuslDynamic,
                "posix_memalign is musl's own and sets errno",
            ),
        Program::new("c23_sized")
            .only(LIBRARY)
            .skip(Mode::MuslStatic, "musl's libc exports no C23 sized free")
            .skip(Mode::MuslDynamic, "musl's libc exports no C23 sized free"),
        Program::new("libc_users").only(ALL),
        Program::new("random_live_set")
            .only(ALL)
            .with(&[&["1"], &["2"]]),
        Program::new("many_classes"),
        Program::new("reuse_delay"),
        Program::cxx("exceptions_threads"),
        Program::cxx("new_delete"),
        Program::cxx("new_delete_sizes"),
        Program::cxx("new_delete_replaced"),
        Program::cxx("new_replaced"),
    ]
}

fn threads() -> Vec<Program> {
    vec![
        Program::new("threads_hundreds").alone().only(ALL),
        Program::new("threads_thousand").alone(),
        Program::new("thread_exits").alone().only(ALL),
        Program::new("exit_at_work")
            .only(ALL)
            .with(&[&["sound"], &["damaged"]]),
        Program::new("thread_late").alone().only(ALL).with(&[
            &["strerror"],
            &["dlerror"],
            &["rounds"],
            &["keys"],
        ]),
        Program::new("remote_free").with(&[&["pipe"], &["all"], &["lifo"]]),
        Program::new("remote_large").remaps(),
        // In musl's own loader a byssal of libc's was at work before, which leaves less.
        Program::new("break_room").only(&[
            Mode::Preload,
            Mode::Archive,
            Mode::HostStatic,
            Mode::MuslArchive,
        ]),
        Program::new("exchange"),
        Program::new("tsd_destructors").only(ALL),
        Program::new("signals"),
        Program::new("exit_in_handler"),
        Program::new("signals_threads"),
    ]
}

/// Whether the long form of the stress programs is asked for.
fn long_stress() -> bool {
    std::env::var_os("BYSSAL_STRESS").is_some_and(|form| form == "long")
}

fn stress() -> Vec<Program> {
    vec![
        Program::stress(
            "hand_off",
            &[
                &["1", "20", "all"],
                &["2", "60", "all"],
                &["16", "60", "all"],
                &["256", "60", "all"],
                &["2", "30", "pipe"],
                &["16", "30", "pipe"],
            ],
            &[
                &["1", "300", "all"],
                &["2", "600", "all"],
                &["16", "600", "all"],
                &["256", "600", "all"],
                &["2", "300", "pipe"],
                &["16", "300", "pipe"],
                &["256", "300", "pipe"],
            ],
        ),
        Program::stress(
            "deaths",
            &[&["1", "20"], &["2", "20"], &["16", "5"], &["256", "2"]],
            &[&["1", "500"], &["2", "300"], &["16", "60"], &["256", "8"]],
        ),
        Program::stress(
            "fork_busy",
            &[&["1", "6"], &["2", "6"], &["16", "4"], &["256", "2"]],
            &[&["1", "60"], &["2", "60"], &["16", "40"], &["256", "8"]],
        ),
        Program::stress(
            "signals_spawn",
            &[&["1", "4"], &["2", "10"], &["16", "20"], &["256", "20"]],
            &[&["1", "50"], &["2", "100"], &["16", "200"], &["256", "200"]],
        ),
    ]
}

fn process() -> Vec<Program> {
    vec![
        Program::new("fork_single"),
        Program::new("fork_threads").only(ALL).within(45),
        Program::new("fork_from_thread").within(45),
        Program::new("fork_handlers")
            .only(&[Mode::MuslDynamic, Mode::Preload])
            .within(45)
            .beside(FORK_LIBRARY)
            .skip(
                Mode::Archive,
                "libraries' constructors register their handlers of fork before the archive's",
            ),
        Program::new("spawn_threads").within(45),
        Program::new("dlopen")
            .only(DYNAMIC)
            .beside(PLUGIN)
            .skip(Mode::MuslStatic, "a static program has no dlopen"),
        Program::new("unload")
            .only(&[Mode::Plain, Mode::MuslDynamic])
            .with(&[&["plugin"], &["library"]])
            .beside(UNLOADED),
        Program::new("startup_large_tls").beside(TLS_LIBRARIES),
        Program::new("atexit_handlers")
            .only(ALL)
            .with(&[&["return"], &["thread"], &["last"], &["detached"]])
            .says("handlers ran"),
        Program::new("atexit_many")
            .only(ALL)
            .with(&[&["single"], &["thread"]])
            .within(20)
            .says("handlers ran"),
        Program::new("fault_handlers").only(ALL),
        Program::new("replaced_malloc").only(MUSL),
        Program::new("malloc_wrapper").only(&[Mode::Preload]),
        Program::new("freelocale_link").only(&[Mode::MuslStatic]),
        Program::new("own_libc_names").only(&[Mode::MuslStatic]),
        Program::new("own_atexit")
            .only(&[Mode::MuslStatic])
            .says("handlers ran"),
        Program::new("oom").alone().with(&[
            &["as"],
            &["data"],
            &["large"],
            &["threads"],
            &["realloc"],
        ]),
        Program::new("sandbox").only(ALL).with(&[
            &["malloc"],
            &["realloc"],
            &["mremap", "EPERM"],
            &["mremap", "ENOSYS"],
            &["madvise", "EPERM"],
            &["madvise", "ENOSYS"],
            &["clock_gettime", "EPERM"],
            &["clock_gettime", "ENOSYS"],
            &["mprotect", "EPERM"],
            &["mprotect", "ENOSYS"],
            &["getrandom", "EPERM"],
            &["getrandom", "ENOSYS"],
            &["all", "EPERM"],
            &["all", "ENOSYS"],
            &["clock"],
        ]),
        Program::new("no_growth")
            .alone()
            .with(&[&["brk"], &["mmap"], &["both"]]),
    ]
}

fn footprint() -> Vec<Program> {
    vec![
        Program::new("memory_return")
            .alone()
            .with(&[&["fifo"], &["random"], &["thread"]]),
        Program::new("map_count")
            .alone()
            .only(&[Mode::MuslStatic, Mode::Preload]),
        Program::new("large_realloc").remaps(),
        Program::new("large_churn").alone(),
        Program::new("large_reach").alone(),
        Program::new("calloc_sparse").alone(),
        Program::new("small_process").alone(),
    ]
}

fn misuse() -> Vec<Program> {
    const FREED: &[u32] = &[DOUBLE_FREE, INVALID_POINTER];
    const INVALID: &[u32] = &[INVALID_POINTER];
    const OVER: &[u32] = &[OVERFLOW];
    const LIBRARY_ONLY: &[Mode] = &[Mode::Preload];
    // byssal-misuse has every misuse, size and heap; here stand the ones that the tests of the
    // tests need, and the endings of programs run by hand.
    const SIZES: &[&[&str]] = &[&["100"], &["300000", "cold"]];
    const SMALL: &[&[&str]] = &[&["100"]];
    vec![
        Program::misuse("double_free", FREED).with(SIZES),
        Program::misuse("double_free_later", FREED).with(SIZES),
        Program::misuse("double_free_remote", FREED).with(SIZES),
        Program::misuse("double_free_two_threads", FREED).with(SIZES),
        Program::misuse("free_interior", INVALID).with(SIZES),
        Program::misuse("free_misaligned", INVALID).with(SIZES),
        Program::misuse("free_odd", INVALID).with(SIZES),
        Program::misuse("free_wild", INVALID).with(SMALL),
        Program::misuse("free_stack", INVALID),
        Program::misuse("free_global", INVALID),
        Program::misuse("free_unmapped", INVALID),
        Program::misuse("free_mapped", INVALID),
        Program::misuse("overflow_byte", OVER).with(SIZES),
        Program::misuse("overflow_tail", OVER).with(SIZES),
        Program::misuse("overflow_at_exit", OVER).with(SMALL),
        Program::misuse("overflow_remote", OVER).with(SIZES),
        Program::misuse("realloc_freed", FREED).with(SIZES),
        Program::misuse("realloc_interior", INVALID).with(SIZES),
        Program::misuse("realloc_overflowed", OVER).with(SIZES),
        Program::misuse("usable_size_freed", FREED).with(SIZES),
        Program::misuse("free_aligned_raw", INVALID).with(SMALL),
        Program::misuse("free_sized_wrong", &[SIZE_MISMATCH])
            .only(LIBRARY_ONLY)
            .with(SIZES),
    ]
}
