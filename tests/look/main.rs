//! `byssal look` from outside: on programs in every way byssal reaches them, at rest and at work, on
//! cores of misuses, on damaged memory.
//!
//! Environment: `BYSSAL_TOOLCHAIN`, `BYSSAL_EMULATOR`, `BYSSAL_LIB` and `BYSSAL_HARDENED` as for the
//! programs' tests. Of an emulator's programs only a core is looked at.

mod damaged;
mod programs;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use byssal_heap::inspect::description::{Numbers, MAGIC, NUMBERS};
use byssal_tool::look;
use byssal_tool::look::descriptor::Found;
use byssal_tool::look::report;
use byssal_tool::look::view::View;
use programs::{compiled, refuse, tool, Mode, Running, MODES};

/// A program in a mode, or None if the mode cannot be had here, which is printed.
fn built(name: &str, mode: Mode) -> Option<programs::Built> {
    compiled(name, mode)
        .map_err(|why| println!("skipped: {}: {why}", mode.name()))
        .ok()
}

/// One look at a process that runs.
fn view(running: &Running) -> View {
    look::once(running.name().as_ref(), false).unwrap().view
}

#[test]
fn what_is_seen_is_what_the_program_has() {
    for mode in MODES {
        for threads in ["1", "5", "64"] {
            let Some(program) = built("holds", mode) else {
                continue;
            };
            let dump = program.folder.path().join("dump");
            let running = Running::start(&program, &[threads, dump.to_str().unwrap()]);
            let told: Vec<u64> = running.numbers();
            let look = look::once(running.name().as_ref(), false).unwrap();
            let what = format!("{}, {threads} threads", mode.name());
            assert_eq!(look.view.problems, [""; 0], "{what}");
            assert_eq!(look.view.totals.unclear, 0, "{what}");
            if let Ok(dump) = fs::read_to_string(&dump) {
                if mode.has_dump() {
                    assert_eq!(first_difference(&dump, &look.dump()), None, "{what}");
                }
            }
            if mode.is_musl() {
                // Nothing else in the program allocates there but threads' own state, by mmap, and
                // the stream, which has no file.
                let totals = look.view.totals;
                assert_eq!([totals.blocks, totals.live], told[..2], "{what}");
            }
            let named = |heap: &&look::view::Heap| {
                heap.life == "active"
                    && heap
                        .thread_name
                        .as_deref()
                        .is_some_and(|name| name.starts_with("worker "))
            };
            let workers = look.view.heaps.iter().filter(named).count();
            assert_eq!(workers.to_string(), *threads, "{what}");
            consistent(&look.view);
        }
    }
}

/// The first lines of two texts that differ.
fn first_difference<'a>(one: &'a str, other: &'a str) -> Option<(&'a str, &'a str)> {
    let longest = one.lines().count().max(other.lines().count());
    let mut lines = one
        .lines()
        .chain([""])
        .zip(other.lines().chain([""]))
        .take(longest);
    lines.find(|(a, b)| a != b)
}

/// Sums agree with each other.
fn consistent(view: &View) {
    let totals = &view.totals;
    let classes: u64 = view.classes.iter().map(|class| class.live).sum();
    let heaps: u64 = view.heaps.iter().map(|heap| heap.live).sum();
    assert_eq!(classes, totals.small_live);
    assert_eq!(heaps, totals.small_live);
    let slots: u64 = view
        .classes
        .iter()
        .map(|class| class.slots * class.stride)
        .sum();
    let free = view.retained;
    let parts = free.ready
        + free.freed
        + free.unused
        + free.empty_groups
        + free.remote
        + free.deferred
        + free.quarantine;
    if totals.unclear == 0 {
        assert_eq!(parts + totals.live_slots, slots);
    } else {
        assert!(parts + totals.live_slots < slots);
    }
    let largest = view
        .largest
        .windows(2)
        .all(|pair| pair[0].bytes >= pair[1].bytes);
    assert!(largest && view.largest.len() <= 10);
}

#[test]
fn a_process_at_work_is_seen_whole_and_goes_on() {
    for mode in MODES {
        let Some(program) = built("busy", mode) else {
            continue;
        };
        let running = Running::start(&program, &["4"]);
        for _ in 0..20 {
            let view = view(&running);
            assert_eq!(view.problems, [""; 0], "{}", mode.name());
            consistent(&view);
        }
        assert!(running.is_running(), "{}", mode.name());
        let unstopped = look::once(running.name().as_ref(), true).unwrap();
        assert!(!unstopped.view.at_rest);
    }
}

#[test]
fn a_process_that_forks_and_its_children_are_seen() {
    for mode in MODES {
        let Some(program) = built("busy", mode) else {
            continue;
        };
        let running = Running::start(&program, &["2", "fork"]);
        let mut children = 0;
        for _ in 0..60 {
            assert_eq!(view(&running).problems, [""; 0], "{}", mode.name());
            for child in running.children() {
                // It may be gone by now.
                if let Ok(look) = look::once(child.to_string().as_ref(), false) {
                    children += 1;
                    assert_eq!(look.view.problems, [""; 0], "{}", mode.name());
                }
            }
        }
        assert!(running.is_running());
        println!("{}: {children} children seen", mode.name());
    }
}

/// A thread in vfork does not stop before its child ends. The others are not held up meanwhile, and
/// nobody stays stopped or traced, though this process lives on.
#[test]
fn a_process_that_waits_in_vfork_is_seen_soon_and_goes_on() {
    for mode in [Mode::Preload, Mode::Static] {
        let Some(program) = built("busy", mode) else {
            continue;
        };
        let running = Running::start(&program, &["2", "vfork"]);
        running.wait_for('D');
        for _ in 0..3 {
            let view = view(&running);
            assert_eq!(view.problems, [""; 0], "{}", mode.name());
            assert_eq!(running.tracers(), ["0"; 3]);
        }
        let children = running.children();
        assert_eq!(children.len(), 1, "the looks waited for it");
        for child in children {
            // SAFETY: a signal to a child of a process that has not ended.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        running.wait_for('S');
    }
}

#[test]
fn a_stopped_process_stays_stopped_and_signals_arrive() {
    let Some(program) = built("busy", Mode::Preload) else {
        return;
    };
    let running = Running::start(&program, &["1"]);
    running.signal(libc::SIGSTOP);
    running.wait_for('T');
    view(&running);
    running.wait_for('T');
    running.signal(libc::SIGCONT);
    view(&running);
    running.signal(libc::SIGTERM);
    running.wait_for('Z');
}

#[test]
fn a_process_whose_first_thread_has_ended_is_seen_and_watched() {
    for mode in MODES {
        let Some(program) = built("alone", mode) else {
            continue;
        };
        let running = Running::start(&program, &["60000"]);
        running.wait_for('Z');
        let look = look::once(running.name().as_ref(), false).unwrap();
        let what = mode.name();
        assert_eq!(look.view.problems, [""; 0], "{what}");
        consistent(&look.view);
        let threads = look.view.heaps.iter().filter_map(|heap| heap.thread);
        // That of the first one was parked as it ended.
        assert_eq!(threads.count(), 1, "{what}");
        let unstopped = look::once(running.name().as_ref(), true).unwrap();
        assert!(
            unstopped.view.totals.blocks >= look.view.totals.blocks,
            "{what}"
        );
    }
    let Some(program) = built("alone", Mode::Preload) else {
        return;
    };
    let running = Running::start(&program, &["1500"]);
    running.wait_for('Z');
    let (code, text) = tool(&["look", "--watch", "0.2", &running.name()]);
    assert_eq!(code, 0, "{text}");
    let grew = |line: &&str| line.trim_start().starts_with("112 ") && line.contains('+');
    assert!(text.lines().filter(grew).count() >= 2, "{text}");
}

#[test]
fn cores_tell_the_fault_and_its_neighbours() {
    if let Err(why) = programs::cores() {
        println!("skipped: {why}");
        return;
    }
    // Arguments, number, whether damage is seen, bytes behind the block that it reaches at least.
    let cases: [(&[&str], u64, Option<u64>); 7] = [
        (&["overflow", "1"], 3, Some(0)),
        (&["overflow", "12"], 3, Some(11)),
        (&["overflow", "300"], 3, Some(200)),
        (&["large", "20"], 3, Some(15)),
        (&["twice"], 1, None),
        (&["inside"], 2, None),
        (&["wild"], 2, None),
    ];
    for mode in MODES {
        let Some(program) = built("harm", mode) else {
            continue;
        };
        for (arguments, number, reach) in cases {
            let what = format!("{} {arguments:?}", mode.name());
            let (output, core) = programs::core_of(&program, arguments);
            let block = u64::from_str_radix(output.trim().trim_start_matches("at 0x"), 16).unwrap();
            let look = look::once(&core, false).unwrap();
            let fault = look
                .view
                .fault
                .as_ref()
                .unwrap_or_else(|| panic!("{what}: no fault"));
            assert_eq!(fault.number, number, "{what}");
            assert!(look.view.signal.is_some(), "{what}");
            assert_eq!(look.view.problems, [""; 0], "{what}");
            if arguments[0] != "wild" {
                let size = if arguments[0] == "large" {
                    300_000
                } else {
                    100
                };
                let behind = fault.address.wrapping_sub(block);
                assert!(
                    behind <= size + 16,
                    "{what}: {:#x} of {block:#x}",
                    fault.address
                );
                assert_ne!(fault.place, "in no memory of the heap", "{what}");
            }
            assert_eq!(fault.damage.is_some(), reach.is_some(), "{what}: {fault:?}");
            if let Some(reach) = reach {
                let size = if arguments[0] == "large" {
                    300_000
                } else {
                    100
                };
                let damage = fault.damage.as_ref().unwrap();
                let last = damage
                    .rsplit("0x")
                    .next()
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap();
                let last = u64::from_str_radix(last, 16).unwrap();
                assert!(
                    last >= block + size + reach,
                    "{what}: {damage}, block at {block:#x}"
                );
            }
            let (code, text) = tool(&["look", core.to_str().unwrap()]);
            assert_eq!(code, 0, "{what}: {text}");
            assert!(
                text.contains(&format!("fault {number}: {}", fault.name)),
                "{what}: {text}"
            );
        }
    }
}

/// Another width of addresses, another order of bytes, another layout of what the kernel notes.
#[test]
fn a_core_of_another_machine_is_read() {
    let program = match programs::of_machine("harm") {
        Ok(program) => program,
        Err(why) => return println!("skipped: {why}"),
    };
    let (output, core) = programs::core_if_any(&program, &["overflow", "12"]);
    let block = u64::from_str_radix(output.trim().trim_start_matches("at 0x"), 16).unwrap();
    let Some(core) = core else {
        return println!("skipped: the emulator writes no core");
    };
    let (code, text) = tool(&["look", core.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    // The first words of damage lie right behind the block, which is 100 bytes long.
    let (from, slot) = (
        format!("bytes from {:#x}", block + 100),
        format!("at {block:#x}"),
    );
    refuse(
        &text,
        &[
            "(program)",
            "fault 3: overflow",
            "63 in slots",
            &from,
            &slot,
        ],
    );
    assert_eq!(look::once(&core, false).unwrap().view.problems, [""; 0]);
}

#[test]
fn a_core_of_every_misuse_is_read() {
    if let Err(why) = programs::cores() {
        println!("skipped: {why}");
        return;
    }
    let misuses = programs::root().join("tests/misuse");
    let mut read = 0;
    for mode in [Mode::Preload, Mode::Static, Mode::HardenedStatic] {
        for entry in fs::read_dir(&misuses).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.extension().is_none_or(|end| end != "c") || name.starts_with("cxx") {
                continue;
            }
            let Some(program) = built(&format!("../misuse/{name}"), mode) else {
                break;
            };
            // Some misuses are found by chance only, and then the program ends well.
            let (_, Some(core)) = programs::core_if_any(&program, &["100"]) else {
                continue;
            };
            let look = look::once(&core, false).unwrap();
            assert!(look.view.totals.blocks < 1 << 20, "{name}");
            read += 1;
        }
    }
    println!("{read} cores read");
    assert!(read > 20);
}

#[test]
fn json_is_read_back_and_tells_what_grew() {
    let Some(program) = built("leaks", Mode::Preload) else {
        return;
    };
    let running = Running::start(&program, &["100000"]);
    let files = ["before.json", "after.json"].map(|name| program.folder.path().join(name));
    for file in &files {
        let (code, text) = tool(&["look", "--json", &running.name()]);
        assert_eq!(code, 0, "{text}");
        fs::write(file, text).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    let [before, after] = files.map(|file| file.to_str().unwrap().to_owned());
    let (code, text) = tool(&["look", "--diff", &before, &after]);
    assert_eq!(code, 0, "{text}");
    // 100 bytes lie in slots of 112.
    let row = text
        .lines()
        .find(|line| line.trim_start().starts_with("112 "));
    assert!(row.is_some_and(|row| row.contains('+')), "{text}");
    // What is no number of a heap's neither stops nor crashes it.
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&after).unwrap()).unwrap();
    let most = serde_json::json!(u64::MAX);
    for part in ["totals", "retained"] {
        for number in text[part].as_object_mut().unwrap().values_mut() {
            *number = most.clone();
        }
    }
    text["totals"]["live"] = serde_json::json!(0);
    text["classes"][0]["live"] = most.clone();
    fs::write(&after, text.to_string()).unwrap();
    let (code, told) = tool(&["look", "--diff", &before, &after]);
    assert_eq!(code, 0, "{told}");
    text["classes"][0]["class"] = most;
    fs::write(&after, text.to_string()).unwrap();
    let (code, told) = tool(&["look", "--diff", &before, &after]);
    assert_eq!(code, 2, "{told}");
    refuse(&told, &["after.json", "look --json"]);
    let (code, text) = tool(&["look", "--diff", &before, "/dev/null"]);
    assert_eq!(code, 2, "{text}");
    refuse(&text, &["/dev/null", "look --json"]);
}

#[test]
fn watching_ends_with_the_process() {
    let Some(program) = built("leaks", Mode::Preload) else {
        return;
    };
    let running = Running::start(&program, &["1500"]);
    let (code, text) = tool(&["look", "--watch", "0.2", &running.name()]);
    assert_eq!(code, 0, "{text}");
    let grew = |line: &&str| line.trim_start().starts_with("112 ") && line.contains('+');
    assert!(text.lines().filter(grew).count() >= 2, "{text}");
}

#[test]
fn a_map_is_a_picture_of_the_classes_there_are() {
    let Some(program) = built("holds", Mode::Preload) else {
        return;
    };
    let running = Running::start(&program, &["5"]);
    let file = program.folder.path().join("map.svg");
    let (code, text) = tool(&["look", "--svg", file.to_str().unwrap(), &running.name()]);
    assert_eq!(code, 0, "{text}");
    let picture = fs::read_to_string(&file).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for class in view(&running).classes {
        assert!(
            picture.contains(&format!("{} B slots", class.stride)),
            "{}",
            class.stride
        );
    }
    assert!(picture.len() < 1 << 20);
    // What is no plain file stays what it is.
    let link = program.folder.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let (code, text) = tool(&["look", "--svg", link.to_str().unwrap(), &running.name()]);
    assert_eq!(code, 0, "{text}");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let nowhere = program.folder.path().join("nowhere/map.svg");
    let (code, text) = tool(&["look", "--svg", nowhere.to_str().unwrap(), &running.name()]);
    assert_eq!(code, 2, "{text}");
    refuse(&text, &["nowhere", "what to do"]);
    assert!(!nowhere.parent().unwrap().exists());
}

#[test]
fn what_cannot_be_looked_at_is_named() {
    let gone = tool(&["look", "4000000"]);
    assert_eq!(gone.0, 1, "{}", gone.1);
    refuse(&gone.1, &["no process 4000000"]);
    for (path, code, why) in [("/no/such/core", 1, "No such file"), ("/", 2, "directory")] {
        let refused = tool(&["look", path]);
        assert_eq!(refused.0, code, "{}", refused.1);
        refuse(&refused.1, &[path, why, "number of a process"]);
    }
    let mut other = Command::new("sleep").arg("100").spawn().unwrap();
    let (code, text) = tool(&["look", &other.id().to_string()]);
    assert_eq!(code, 2, "{text}");
    refuse(&text, &["no byssal inside"]);
    // SAFETY: only asks.
    if unsafe { libc::geteuid() } == 0 {
        let (code, text) = programs::tool_as_nobody(&["look", &other.id().to_string()]);
        assert_eq!(code, 1, "{text}");
        refuse(&text, &["not permitted", "as root"]);
    } else {
        let (code, text) = tool(&["look", "1"]);
        assert_eq!(code, 1, "{text}");
        refuse(&text, &["not permitted", "as root"]);
    }
    other.kill().unwrap();
    other.wait().unwrap();
    if let Some(program) = built("holds", Mode::Preload) {
        let running = Running::start(&program, &["1"]);
        // SAFETY: traces a child of this test; the child's memory is not used.
        let traced = unsafe { libc::ptrace(libc::PTRACE_SEIZE, running.pid(), 0, 0) };
        assert_eq!(traced, 0, "{}", std::io::Error::last_os_error());
        let (code, text) = tool(&["look", &running.name()]);
        assert_eq!(code, 1, "{text}");
        // SAFETY: only asks. A tracer is a thread.
        let tracer = format!("process {} traces it already", unsafe { libc::gettid() });
        refuse(&text, &[&tracer, "--no-stop"]);
        let (code, text) = tool(&["look", "--no-stop", &running.name()]);
        assert_eq!(code, 0, "{text}");
    }
    let (code, text) = tool(&["look", "/etc/passwd"]);
    assert_eq!(code, 2, "{text}");
    refuse(&text, &["/etc/passwd", "no ELF file"]);
    let (code, text) = tool(&["look", "/bin/sh"]);
    assert_eq!(code, 2, "{text}");
    refuse(&text, &["/bin/sh", "not a core"]);
}

/// The core of a double free, with the program whose folder it is in; None where there are no cores,
/// which is printed.
fn core_of_double_free() -> Option<(programs::Built, PathBuf)> {
    if let Err(why) = programs::cores() {
        println!("skipped: {why}");
        return None;
    }
    let program = built("harm", Mode::Preload)?;
    let (_, core) = programs::core_of(&program, &["twice"]);
    Some((program, core))
}

#[test]
fn a_truncated_core_is_named() {
    let Some((_program, core)) = core_of_double_free() else {
        return;
    };
    let file = fs::OpenOptions::new().write(true).open(&core).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len / 2).unwrap();
    let (code, text) = tool(&["look", core.to_str().unwrap()]);
    assert_eq!(code, 1, "{text}");
    refuse(&text, &["truncated", "ulimit -c"]);
}

/// Numbers near the ends of what 64 bits and addresses have room for.
const EXTREMES: [u64; 8] = [
    0,
    1 << 32,
    (1 << 52) - 1,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX - 15,
    u64::MAX - 7,
    u64::MAX,
];

/// Any number may stand in a core: in its headers, and where a description says that the heap is.
#[test]
fn a_core_of_damaged_numbers_is_read_or_refused() {
    let Some((_program, core)) = core_of_double_free() else {
        return;
    };
    let whole = fs::read(&core).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&core).unwrap();
    let put = |at: usize, number: u64| file.write_all_at(&number.to_ne_bytes(), at as u64).unwrap();
    let half = |at: usize| u16::from_ne_bytes(whole[at..at + 2].try_into().unwrap());
    let word = |at: usize| u64::from_ne_bytes(whole[at..at + 8].try_into().unwrap());
    // Elf64_Ehdr tells place and number of the headers; Elf64_Phdr has flags, then six numbers.
    let (headers, count) = (word(32) as usize, usize::from(half(56)));
    let fields = (0..count).flat_map(|i| (1..7).map(move |j| headers + i * 56 + j * 8));
    let magic = whole.windows(16).position(|bytes| bytes == MAGIC).unwrap();
    let pointers = magic + (16 + NUMBERS * 2).next_multiple_of(8);
    let mut refused = 0;
    for at in fields.chain([pointers, pointers + 8]) {
        for number in EXTREMES {
            put(at, number);
            refused += usize::from(look::once(&core, false).is_err());
        }
        put(at, word(at));
    }
    assert!(refused > 0 && look::once(&core, false).is_ok());
    let of_load = |&i: &usize| word(headers + i * 56) as u32 == 1;
    let load = (0..count).find(of_load).unwrap();
    put(headers + load * 56 + 16, u64::MAX);
    let (code, text) = tool(&["look", core.to_str().unwrap()]);
    assert_eq!(code, 2, "{text}");
    refuse(
        &text,
        &["is damaged", "at 0xffffffffffffffff", "what to do"],
    );
}

#[test]
fn another_layout_is_named() {
    let Some((_program, core)) = core_of_double_free() else {
        return;
    };
    let core = look::core_file::Core::open(&core).unwrap();
    let newer = damaged::Newer(&core);
    let error = look::descriptor::find(&newer).unwrap_err();
    refuse(&error.what, &["version 7", "reads version 2"]);
}

/// A broken heap is what looks are for: any bytes may stand anywhere.
#[test]
fn damaged_memory_neither_stops_nor_crashes_the_reader() {
    let Some(program) = built("holds", Mode::Preload) else {
        return;
    };
    let running = Running::start(&program, &["5"]);
    let process = look::process::Process::find(running.pid()).unwrap();
    let found = look::descriptor::find(&process).unwrap();
    let begin = Instant::now();
    let mut told = 0;
    for seed in 0..400 {
        let damaged = damaged::Damaged::new(&process, seed);
        // All that is writable is read for this.
        if seed % 40 == 0 {
            let found = look::descriptor::find(&damaged).unwrap_or_default();
            told += damaged::look(&damaged, &found);
        }
        told += damaged::look(&damaged, &found);
    }
    // The description itself, each number of it.
    for &here in &found {
        for (index, value) in (0..NUMBERS).flat_map(|i| [(i, 0), (i, u16::MAX)]) {
            // SAFETY: these are as many numbers of 16 bits, one behind the other.
            let mut words: [u16; NUMBERS] = unsafe { std::mem::transmute(here.numbers) };
            words[index] = value;
            let numbers = Numbers::from_words(words);
            if look::descriptor::is_sound(&numbers) {
                told += damaged::look(&process, &[Found { numbers, ..here }]);
            }
        }
    }
    // Each number that is added up, as large as it can be.
    for &here in &found {
        let numbers = here.numbers;
        let state = numbers.memory.iter().chain(&numbers.large);
        let body = numbers
            .body
            .iter()
            .map(|&at| (numbers.heaps[0] + numbers.heap[0], Some(at)));
        for (first, behind) in state.map(|&at| (at, None)).chain(body) {
            let largest = damaged::Largest::new(&process, here.state + u64::from(first), behind);
            told += damaged::look(&largest, &[here]);
        }
    }
    println!("{told} problems told in {} s", begin.elapsed().as_secs());
    assert!(told > 400);
    assert!(report::text(&view(&running)).contains("live"));
}
