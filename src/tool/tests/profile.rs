//! `byssal profile` tells what a program allocated that is known to the byte, and refuses what it
//! cannot profile.

mod common;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use byssal_tool::build::{self, Settings};
use byssal_tool::core::Preset;
use byssal_tool::profile::pprof::proto;
use byssal_tool::run;
use common::{outcome, project, root, succeed};
use prost::Message;

/// Where the tool keeps the library from one run of these tests to the next.
fn out() -> PathBuf {
    let own = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("profile/out");
    env::var_os("BYSSAL_OUT").map_or_else(own, PathBuf::from)
}

/// The program, profile.c, compiled with more flags.
fn compiled(name: &str, flags: &[&str]) -> PathBuf {
    compiled_by(Path::new("gcc"), name, flags)
}

fn compiled_by(gcc: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("profile/programs");
    fs::create_dir_all(&dir).unwrap();
    let program = dir.join(name);
    let mut cc = Command::new(gcc);
    cc.args(["-O1", "-g", "-fno-builtin", "-pthread"])
        .args(flags);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profile.c");
    succeed(cc.arg(source).arg("-o").arg(&program));
    program
}

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compiled("allocates", &[]))
}

/// Runs the tool with these options on a program with an argument; the seed is fixed.
fn profile(options: &[&str], program: &Path, argument: &str, dest: &Path) -> Output {
    command(options, program, argument, dest).output().unwrap()
}

fn command(options: &[&str], program: &Path, argument: &str, dest: &Path) -> Command {
    let mut cmd = Command::new(env!("CARGO_BIN_EXE_byssal"));
    cmd.arg("--root").arg(root()).arg("--out").arg(out());
    cmd.arg("profile").args(options).arg("--dest").arg(dest);
    cmd.arg("--").arg(program).arg(argument);
    let dir = dest.parent().unwrap();
    let dir = if dir.is_dir() { dir } else { Path::new("/") };
    // What a shell starts in the background has SIGINT ignored, and so would the program.
    // SAFETY: signal may be called between fork and exec.
    unsafe {
        cmd.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        })
    };
    cmd.current_dir(dir).env("BYSSAL_PROFILE_SEED", "1");
    cmd
}

/// The results in a directory.
struct Results {
    live: Vec<(String, u64)>,
    all: Vec<(String, u64)>,
    pprof: proto::Profile,
}

impl Results {
    fn read(dir: &Path) -> Self {
        let folded = |file: &str| {
            let text = fs::read_to_string(dir.join(file)).unwrap();
            let line = |line: &str| {
                let (stack, bytes) = line.rsplit_once(' ').unwrap();
                (stack.to_owned(), bytes.parse().unwrap())
            };
            text.lines().map(line).collect()
        };
        for file in ["live.svg", "all.svg"] {
            let svg = fs::read_to_string(dir.join(file)).unwrap();
            assert!(svg.trim_end().ends_with("</svg>"), "{file} is not whole");
        }
        let file = fs::File::open(dir.join("heap.pb.gz")).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(file)
            .read_to_end(&mut bytes)
            .unwrap();
        let results = Results {
            live: folded("live.folded"),
            all: folded("all.folded"),
            pprof: proto::Profile::decode(&*bytes).unwrap(),
        };
        results.agree();
        results
    }

    /// Objects and bytes, of all and of live blocks whose innermost function is this one, as
    /// pprof's file tells.
    fn pprof(&self, function: &str) -> [i64; 4] {
        let text = |number: i64| self.pprof.string_table[number as usize].as_str();
        let mut sums = [0; 4];
        for sample in &self.pprof.sample {
            let innermost = sample.location_id.first().map_or("", |id| {
                let location = &self.pprof.location[*id as usize - 1];
                let function = location.line[0].function_id;
                text(self.pprof.function[function as usize - 1].name)
            });
            if function.is_empty() || innermost == function {
                (0..4).for_each(|i| sums[i] += sample.value[i]);
            }
        }
        sums
    }

    /// Both formats tell the same, but for rounding each stack to a whole byte.
    fn agree(&self) {
        let sum = |lines: &[(String, u64)]| lines.iter().map(|l| l.1).sum::<u64>() as i64;
        let [_, all, _, live] = self.pprof("");
        let rounding = self.pprof.sample.len() as i64;
        assert!((sum(&self.all) - all).abs() <= rounding);
        assert!((sum(&self.live) - live).abs() <= rounding);
    }
}

/// Bytes of the lines whose innermost function is this one.
fn of(lines: &[(String, u64)], function: &str) -> u64 {
    let innermost = |stack: &str| stack.rsplit(';').next() == Some(function);
    lines.iter().filter(|l| innermost(&l.0)).map(|l| l.1).sum()
}

#[test]
fn with_a_mean_of_1_all_is_told_to_the_byte() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let (code, text) = outcome(&profile(&["--mean=1"], program(), "known", &dest));
    assert_eq!(code, 7, "{text}");
    assert!(text.contains("1 process,"), "{text}");
    let results = Results::read(&dest);
    assert_eq!(results.pprof("keeps"), [1000, 64_000, 1000, 64_000]);
    assert_eq!(results.pprof("drops"), [5000, 240_000, 0, 0]);
    assert_eq!(results.pprof("grows"), [3, 6000, 1, 3000]);
    let each = 300 + 301 + 302 + 303 + 310 + 320;
    assert_eq!(results.pprof("each"), [6, each, 6, each]);
    assert_eq!(of(&results.live, "keeps"), 64_000);
    assert_eq!(
        (of(&results.all, "drops"), of(&results.live, "drops")),
        (240_000, 0)
    );
    let stack = &results
        .live
        .iter()
        .find(|l| l.0.ends_with(";keeps"))
        .unwrap()
        .0;
    assert!(stack.ends_with(";main;known;keeps"), "{stack}");
    let keeps = |line: &str| line.contains("keeps < known < main") && line.contains("62.5 KiB");
    assert_eq!(text.lines().filter(|l| keeps(l)).count(), 2, "{text}");
}

/// That of n blocks, each a sample with probability p, the estimate is within 5.5 standard errors:
/// it is not in 4 of 100 million runs. A block's variance is 1/p - 1.
fn check_estimate(estimate: i64, n: f64, size: f64, mean: f64) {
    let p = 1.0 - (-size / mean).exp();
    let error = (n * (1.0 / p - 1.0)).sqrt();
    let off = (estimate as f64 - n).abs();
    assert!(
        off < 5.5 * error + 1.0,
        "{estimate} for {n}: {:.1} errors",
        off / error
    );
}

#[test]
fn estimates_are_right_but_for_chance() {
    for (mean, argument) in [(512, "many"), (4096, "many"), (4096, "threads")] {
        let temp = tempfile::tempdir().unwrap();
        let dest = temp.path().join("made");
        let option = format!("--mean={mean}");
        let (code, text) = outcome(&profile(&[&option], program(), argument, &dest));
        assert_eq!(code, 0, "{text}");
        let results = Results::read(&dest);
        let mean = f64::from(mean);
        let [objects, bytes, live, live_bytes] = results.pprof("keeps");
        check_estimate(objects, 200_000.0, 64.0, mean);
        let kept = if argument == "threads" {
            100_000.0
        } else {
            200_000.0
        };
        check_estimate(live, kept, 64.0, mean);
        let rounding = results.pprof.sample.len() as i64 * 64;
        assert!((bytes - 64 * objects).abs() <= rounding);
        assert!((live_bytes - 64 * live).abs() <= rounding);
        let [objects, _, live, _] = results.pprof("drops");
        check_estimate(objects, 400_000.0, 48.0, mean);
        assert_eq!(live, 0);
        if argument == "many" {
            let [_, _, live, bytes] = results.pprof("regrows");
            check_estimate(live, 20_000.0, 1000.0, mean);
            assert!((bytes - 1000 * live).abs() <= 1000 * rounding);
        }
    }
}

/// The results of each process.
fn by_process(argument: &str) -> (i32, String, Vec<Results>) {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let options = ["--mean=1", "--each"];
    let (code, text) = outcome(&profile(&options, program(), argument, &dest));
    let all = fs::read_dir(&dest).unwrap().map(|e| e.unwrap().path());
    // Beside them lies the mark by which the tool knows the directory.
    let dirs = all.filter(|path| path.is_dir());
    (code, text, dirs.map(|dir| Results::read(&dir)).collect())
}

#[test]
fn each_process_tells_what_it_allocated_itself() {
    let (code, text, all) = by_process("forks");
    assert_eq!((code, all.len()), (0, 3), "{text}");
    let of = |name: &str| {
        let mut sums: Vec<_> = all.iter().map(|results| results.pprof(name)).collect();
        sums.sort_unstable();
        sums
    };
    assert_eq!(of("keeps"), [[0; 4], [0; 4], [10, 640, 10, 640]]);
    assert_eq!(
        of("child_keeps"),
        [[0; 4], [1, 500, 1, 500], [1, 500, 1, 500]]
    );
}

#[test]
fn forks_while_threads_allocate() {
    let (code, text, all) = by_process("restless_forks");
    assert_eq!(code, 0, "{text}");
    // sh, too, where system() starts one that the library is loaded before.
    assert!(all.len() >= 101, "{}", all.len());
    let mut counts = BTreeMap::new();
    for results in &all {
        let key = (results.pprof("keeps"), results.pprof("child_keeps"));
        *counts.entry(key).or_insert(0) += 1;
    }
    assert_eq!(counts[&([0; 4], [1, 500, 1, 500])], 100);
    assert_eq!(counts[&([10, 640, 10, 640], [0; 4])], 1);
}

#[test]
fn all_processes_count_together() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let (code, text) = outcome(&profile(&["--mean=1"], program(), "forks", &dest));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("3 processes"), "{text}");
    let results = Results::read(&dest);
    assert_eq!(results.pprof("keeps"), [10, 640, 10, 640]);
    assert_eq!(results.pprof("child_keeps"), [2, 1000, 2, 1000]);
}

#[test]
fn a_killed_program_leaves_what_it_wrote_last() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let (code, text) = outcome(&profile(&["--mean=100"], program(), "killed", &dest));
    assert_eq!(code, 128 + libc::SIGKILL, "{text}");
    assert!(
        text.contains("was killed or became another program"),
        "{text}"
    );
    let keeps = Results::read(&dest).pprof("keeps");
    check_estimate(keeps[2], 1000.0, 64.0, 100.0);
}

#[test]
fn a_process_that_becomes_a_program_anew_keeps_both_results() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let (code, text) = outcome(&profile(&["--mean=1"], program(), "becomes", &dest));
    assert_eq!(code, 7, "{text}");
    let keeps = [1000, 64_000, 1000, 64_000];
    assert_eq!(Results::read(&dest).pprof("keeps"), keeps.map(|n| 2 * n));
    let (code, text, all) = by_process("becomes");
    assert_eq!((code, all.len()), (7, 2), "{text}");
    assert!(all.iter().all(|results| results.pprof("keeps") == keeps));
}

#[test]
fn a_file_that_cannot_be_written_is_no_trouble_to_the_program() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let (code, text) = outcome(&profile(&["--mean=1"], program(), "no_room", &dest));
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("ended with exit status: 0, and left no profile"),
        "{text}"
    );
    assert!(!dest.exists());
}

#[test]
fn a_program_that_fails_without_a_profile_keeps_its_code() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let killed = 128 + libc::SIGKILL;
    for (argument, own) in [("no_room_and_fails", 5), ("killed_early", killed)] {
        let (code, text) = outcome(&profile(&["--mean=1"], program(), argument, &dest));
        assert_eq!(code, own, "{text}");
        assert!(text.contains("and left no profile"), "{text}");
        assert!(text.contains("what to do:"), "{text}");
        assert!(!dest.exists());
    }
}

#[test]
fn what_the_program_opens_gets_no_word_of_ours() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let (code, text) = outcome(&profile(&["--mean=1"], program(), "closes", &dest));
    assert_eq!(code, 0, "{text}");
    assert_eq!(fs::read(temp.path().join("victim")).unwrap(), b"");
    assert_eq!(
        Results::read(&dest).pprof("keeps"),
        [1000, 64_000, 1000, 64_000]
    );
}

#[test]
fn a_signal_that_ends_the_program_lets_it_tell_all() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let (code, text) = outcome(&profile(&["--mean=1"], program(), "terminated", &dest));
    assert_eq!(code, 128 + libc::SIGTERM, "{text}");
    assert!(!text.contains("was killed"), "{text}");
    assert_eq!(
        Results::read(&dest).pprof("keeps"),
        [1000, 64_000, 1000, 64_000]
    );
}

#[test]
fn a_handler_that_is_taken_back_leaves_the_end_to_the_profile() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let (code, text) = outcome(&profile(&["--mean=1"], program(), "defaulted", &dest));
    assert_eq!(code, 0, "{text}");
    // Seven functions of glibc.
    let blocks = Results::read(&dest).pprof("keeps");
    assert_eq!(blocks, [70, 4480, 70, 4480], "{text}");
}

#[test]
fn a_signal_to_the_tool_ends_the_program_and_leaves_the_profile() {
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        let temp = tempfile::tempdir().unwrap();
        let dest = temp.path().join("made");
        let mut tool = command(&["--mean=1"], program(), "waits", &dest);
        tool.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tool = tool.spawn().unwrap();
        let mut word = [0; 6];
        let stdout = tool.stdout.as_mut().unwrap();
        stdout.read_exact(&mut word).unwrap();
        // SAFETY: it touches no memory; the tool runs, or is not waited for.
        unsafe { libc::kill(tool.id() as libc::pid_t, signal) };
        let (code, text) = outcome(&tool.wait_with_output().unwrap());
        assert_eq!(code, 128 + signal, "{text}");
        assert_eq!(
            Results::read(&dest).pprof("keeps"),
            [1000, 64_000, 1000, 64_000]
        );
        // The directory in which it was made is gone.
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}

#[test]
fn where_stderr_takes_nothing_the_code_is_the_programs() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let full = fs::File::create("/dev/full").unwrap();
    let mut tool = command(&["--mean=1"], program(), "known", &dest);
    let status = tool.stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(Results::read(&dest).pprof("grows"), [3, 6000, 1, 3000]);
}

#[test]
fn a_quick_exit_is_an_end_as_well() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let (code, text) = outcome(&profile(&["--mean=1"], program(), "quickly", &dest));
    assert_eq!(code, 3, "{text}");
    assert_eq!(
        Results::read(&dest).pprof("keeps"),
        [1000, 64_000, 1000, 64_000]
    );
}

/// The program linked with musl-gcc, with and without what the unwinder needs.
#[test]
fn beside_musl_as_well() {
    if let Err(why) = common::musl("1.2.6") {
        println!("skipped: needs musl 1.2.6: {why}");
        return;
    }
    let settings = Settings {
        musl: None,
        cc: None,
        target: None,
        jobs: None,
        preset: Preset::Default,
        workspace: None,
    };
    let project = project(&out()).staged();
    // Other tests have the tool build there, too.
    let lock = project.lock().unwrap();
    let built = build::build(&project, &settings).unwrap();
    drop(lock);
    let gcc = built.byssal.prefix.join(built.compiler.wrapper());
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let plain = compiled_by(&gcc, "musl", &[]);
    let (code, text) = outcome(&profile(&["--mean=1"], &plain, "known", &dest));
    assert_eq!(code, 7, "{text}");
    assert!(text.contains("link it with -Wl,--eh-frame-hdr"), "{text}");
    assert_eq!(
        Results::read(&dest).pprof("keeps"),
        [1000, 64_000, 1000, 64_000]
    );
    let walkable = compiled_by(&gcc, "musl-walkable", &["-Wl,--eh-frame-hdr"]);
    let (code, text) = outcome(&profile(&["--mean=1"], &walkable, "forks", &dest));
    assert_eq!(code, 0, "{text}");
    let results = Results::read(&dest);
    assert_eq!(results.pprof("child_keeps"), [2, 1000, 2, 1000]);
    let keeps = |line: &str| line.contains(" child_keeps < forks < main");
    assert!(text.lines().any(keeps), "{text}");
    let (code, text) = outcome(&profile(&["--mean=1"], &walkable, "defaulted", &dest));
    assert_eq!(code, 0, "{text}");
    // Five functions of musl.
    let blocks = Results::read(&dest).pprof("keeps");
    assert_eq!(blocks, [50, 3200, 50, 3200], "{text}");
}

/// That the tool refuses, with this word, before it runs anything.
fn refuses(options: &[&str], program: &Path, dest: &Path, code: i32, word: &str) {
    let output = profile(options, program, "known", dest);
    let (found, text) = outcome(&output);
    assert_eq!(found, code, "{text}");
    assert!(text.contains(word), "{text}");
    assert!(
        text.contains("what to do:") || code == 1 || options.len() > 1,
        "{text}"
    );
}

#[test]
fn what_cannot_be_profiled_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    let fixed = compiled("static", &["-static"]);
    refuses(&[], &fixed, &dest, 2, "is linked statically");
    refuses(
        &[],
        Path::new("/no/such/program"),
        &dest,
        2,
        "there is no program /no/such/program",
    );
    let text = temp.path().join("text");
    fs::write(&text, "what is this?\n").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    refuses(&[], &text, &dest, 2, "is neither an ELF file nor a script");
    let script = temp.path().join("script");
    fs::write(&script, format!("#! {} x\n", fixed.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    refuses(&[], &script, &dest, 2, "is linked statically");
    refuses(&["--mean=0", "--each"], program(), &dest, 2, "--mean");
    refuses(&[], program(), Path::new("/dev/null/made"), 2, "/dev/null");
    refuses(&[], temp.path(), &dest, 2, "is a directory");
    fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).unwrap();
    refuses(&[], &text, &dest, 2, "is not executable");
    assert!(!dest.exists());
}

#[test]
fn a_program_with_rights_of_its_own_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let copy = temp.path().join("setuid");
    fs::copy(program(), &copy).unwrap();
    if std::os::unix::fs::chown(&copy, Some(12345), None).is_err() {
        println!("skipped: only root can make a program another user's");
        return;
    }
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).unwrap();
    refuses(&[], &copy, &temp.path().join("made"), 2, "setuid");
}

#[test]
fn pprof_itself_reads_the_file() {
    if !run::exists("go") {
        println!("skipped: needs go, whose tool pprof reads the file");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("made");
    assert_eq!(
        outcome(&profile(&["--mean=1"], program(), "known", &dest)).0,
        7
    );
    let mut pprof = Command::new("go");
    pprof.args(["tool", "pprof", "-top", "-unit=bytes", "-nodecount=50"]);
    pprof.arg(dest.join("heap.pb.gz")).env("HOME", temp.path());
    let (code, text) = outcome(&pprof.output().unwrap());
    assert_eq!(code, 0, "{text}");
    let flat = |name: &str| {
        let line = text
            .lines()
            .find(|l| l.split_whitespace().last() == Some(name));
        line.and_then(|l| l.split_whitespace().next())
            .unwrap_or("")
            .to_owned()
    };
    assert!(text.contains("Type: inuse_space"), "{text}");
    assert_eq!(
        (flat("keeps"), flat("grows")),
        ("64000B".into(), "3000B".into()),
        "{text}"
    );
}
