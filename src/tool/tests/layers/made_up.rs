//! That the proof can fail, and what it lets through: small crates of two layers.

use std::fs;

use crate::arrows::Verdict;
use crate::{declared, judge};

/// The roots of all of these crates: `low/` is below `high/`.
const LIB: &str = "//! 1. `low/`: a\n//! 2. `high/`: b\n#![no_std]\npub mod low;\npub mod high;\n";

/// A type below, with a method that a module above adds.
const LOW: &str = "pub struct Low(pub u32);\n";
const HIGH: &str = "use crate::low::Low;\n\
                    impl Low { pub fn added(&self) -> u32 { self.0 } }\n\
                    impl Low { pub const fn constant(&self) -> u32 { self.0 } }\n";

/// What is said of a crate with these files, behind each its text. `low.rs` and `high.rs` have a
/// text of their own unless one is given.
fn verdict(files: &[(&str, &str)]) -> Verdict {
    let dir = tempfile::tempdir().unwrap();
    let own = [("lib.rs", LIB), ("low.rs", LOW), ("high.rs", HIGH)];
    for (file, text) in own.iter().chain(files) {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    judge(dir.path())
}

/// The upward calls of a crate whose lower module has this text behind its type.
fn upward_calls(below: &str) -> Vec<String> {
    let verdict = verdict(&[("low.rs", &format!("{LOW}{below}"))]);
    assert_eq!(verdict.unclear, [""; 0], "{below}");
    assert!(verdict.upward_uses.is_empty(), "{}", verdict.report);
    assert_eq!(verdict.is_clean(), verdict.upward_calls.is_empty());
    verdict.upward_calls.into_iter().map(|a| a.text).collect()
}

#[test]
fn a_call_of_a_method_from_above_is_upward() {
    for (from, body) in [
        ("f", "pub fn f(x: &Low) -> u32 { x.added() }"),
        ("f", "pub fn f(x: &Low) -> u32 { (|| x.added())() }"),
        (
            "f",
            "pub fn f(x: Option<&Low>) -> Option<u32> { x.map(Low::added) }",
        ),
        ("f", "pub fn f() -> fn(&Low) -> u32 { Low::added }"),
        (
            "inner",
            "pub fn f(x: &Low) -> u32 { fn inner(x: &Low) -> u32 { x.added() } inner(x) }",
        ),
        ("unused", "fn unused(x: &Low) -> u32 { x.added() }"),
        (
            "Low::f",
            "impl Low { #[inline(always)] pub fn f(&self) -> u32 { self.added() } }",
        ),
        ("SUM", "pub static SUM: u32 = Low(1).constant();"),
    ] {
        let to = if from == "SUM" { "constant" } else { "added" };
        let arrow = format!("low.rs: {from} → high.rs: Low::{to}");
        assert_eq!(upward_calls(body), [arrow], "{body}");
    }
}

#[test]
fn a_method_of_that_name_of_another_type_is_not_taken_for_it() {
    let other = "pub struct Other;\nimpl Other { pub fn added(&self) {} }\n";
    let found = upward_calls(&format!("{other}pub fn f(x: &Other) {{ x.added() }}\n"));
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_generic_body_that_nothing_uses_is_read_too() {
    let found = upward_calls("impl Low { fn f<T: Copy>(&self, _: T) -> u32 { self.added() } }");
    assert_eq!(found, ["low.rs: Low::f → high.rs: Low::added"]);
}

#[test]
fn types_of_one_name_are_told_apart() {
    let below = "#[derive(PartialEq)] pub struct Two(u32);\n\
                 pub fn f(x: &Two, y: &Two) -> bool { x == y }\n";
    let above = "#[derive(PartialEq)] pub struct Two(u32);\n\
                 pub fn f(x: &Two, y: &Two) -> bool { x != y }\n";
    let verdict = verdict(&[("low.rs", below), ("high.rs", above)]);
    assert!(verdict.is_clean(), "{}", verdict.report);
}

#[test]
fn what_is_compiled_for_tests_alone_does_not_count() {
    let found = upward_calls("#[cfg(test)] pub fn f(x: &Low) -> u32 { x.added() }");
    assert_eq!(found, [""; 0]);
}

#[test]
fn what_is_handed_down_is_no_upward_call() {
    let below = "pub trait Way { fn go(&self) -> u32; }\n\
                 pub fn through<W: Way>(way: &W) -> u32 { way.go() }\n\
                 pub fn object(way: &dyn Way) -> u32 { way.go() }\n\
                 pub fn closure(f: impl Fn(u32) -> u32) -> u32 { f(1) }\n\
                 pub fn pointer(f: fn(u32) -> u32) -> u32 { f(1) }\n";
    let above = "use crate::low::{self, Low, Way};\n\
                 pub struct High;\n\
                 impl Way for High { fn go(&self) -> u32 { helper(2) } }\n\
                 fn helper(n: u32) -> u32 { n }\n\
                 pub fn f() -> u32 {\n\
                     low::through(&High) + low::object(&High) + low::closure(|n| helper(n))\n\
                         + low::closure(helper) + low::pointer(helper) + Low(1).0\n\
                 }\n";
    let low = format!("{LOW}{below}");
    let verdict = verdict(&[("low.rs", &low), ("high.rs", above)]);
    assert!(verdict.is_clean(), "{}", verdict.report);
}

#[test]
fn a_trait_of_above_for_a_type_below_is_upward_when_it_is_called_below() {
    let below = "impl Low { pub fn f(&self) -> Low { self.clone() } }\n";
    let above = "use crate::low::Low;\n\
                 impl Clone for Low { fn clone(&self) -> Low { Low(self.0) } }\n\
                 impl Drop for Low { fn drop(&mut self) {} }\n";
    let low = format!("{LOW}{below}");
    let verdict = verdict(&[("low.rs", &low), ("high.rs", above)]);
    let calls = verdict.upward_calls.iter().map(|a| a.text.as_str());
    assert_eq!(
        calls.collect::<Vec<_>>(),
        [
            "low.rs: Low::(end of its life) → high.rs: <Low as Drop>::drop",
            "low.rs: Low::f → high.rs: <Low as Clone>::clone",
        ]
    );
}

#[test]
fn a_path_to_above_is_an_upward_use() {
    for (below, to) in [
        ("use crate::high::NAME;", "high.rs"),
        ("use crate::{high as other, low as _};", "high.rs"),
        ("use super::high::*;", "high.rs"),
        ("pub type Alias = crate::high::High;", "high.rs"),
        ("pub fn f() { assert!(crate::high::NAME > 0); }", "high.rs"),
        ("pub fn f() { loud!(); }", "high.rs"),
        ("pub type Alias = crate::Shown;", "lib.rs"),
    ] {
        let lib = format!(
            "{}pub use high::High as Shown;\n",
            LIB.replace(
                "pub mod low;\npub mod high;",
                "#[macro_use] pub mod high;\npub mod low;",
            )
        );
        let above = "pub const NAME: u32 = 1;\npub struct High;\n\
                     macro_rules! loud { () => {} }\n";
        let verdict = verdict(&[("lib.rs", &lib), ("low.rs", below), ("high.rs", above)]);
        let [use_] = &verdict.upward_uses[..] else {
            panic!("{below}: {}", verdict.report);
        };
        assert!(
            use_.text.starts_with("low.rs:1: ") && use_.text.ends_with(to),
            "{}",
            use_.text
        );
        assert!(!verdict.is_clean());
    }
}

#[test]
fn modules_of_one_layer_that_use_each_other_are_a_cycle() {
    let parent = "pub mod a;\npub mod b;\n";
    let a = "pub struct A;\nimpl A { pub fn f(&self) { self.g() } }\n";
    let b = "use super::a::A;\nimpl A { pub fn g(&self) {} }\n";
    let files = [("high/a.rs", a), ("high/b.rs", b), ("high.rs", parent)];
    let verdict = verdict(&files);
    assert_eq!(
        verdict.cycles,
        [["high::a", "high::b"]],
        "{}",
        verdict.report
    );
    assert!(verdict.upward_calls.is_empty() && !verdict.is_clean());
}

#[test]
fn a_child_that_names_what_its_folder_re_exports_is_a_cycle() {
    let parent = "mod a;\nmod b;\npub use a::A;\npub use b::f;\n";
    let files = |b| {
        [
            ("high/a.rs", "pub struct A;\n"),
            ("high/b.rs", b),
            ("high.rs", parent),
        ]
    };
    let direct = verdict(&files("use super::a::A;\npub fn f(_: A) {}\n"));
    assert!(direct.is_clean(), "{}", direct.report);
    let by_parent = verdict(&files("use super::A;\npub fn f(_: A) {}\n"));
    assert_eq!(
        by_parent.cycles,
        [["high", "high::b"]],
        "{}",
        by_parent.report
    );
}

#[test]
fn what_cannot_be_read_is_said() {
    let made = "macro_rules! make { () => { impl Low { fn made(&self) {} } } }\nmake!();\n";
    let unread = verdict(&[("low.rs", &format!("{LOW}{made}"))]);
    assert_eq!(unread.unclear.len(), 1, "{}", unread.report);
    assert!(unread.unclear[0].contains("made by a macro") && !unread.is_clean());

    let lib = LIB.replace("//! 2. `high/`: b", "//! 2. `other/`: b");
    let homeless = verdict(&[("lib.rs", &lib)]);
    assert_eq!(homeless.homeless, ["high"], "{}", homeless.report);
    assert!(!homeless.is_clean());
}

#[test]
fn a_list_that_is_none_is_refused() {
    let layers = declared::layers("//! 1. `a/` `b`: x\n//! 2. `c/` — y: `d`\n").unwrap();
    assert_eq!((layers["a"], layers["b"], layers["c"]), (1, 1, 2));
    for list in [
        "",
        "//! 1. `a/`: x\n",
        "//! 1. `a/`: x\n//! 3. `b/`: y\n",
        "//! 1. `a/` `a/`: x\n",
    ] {
        declared::layers(list).expect_err(list);
    }
}
