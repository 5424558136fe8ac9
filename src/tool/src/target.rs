//! The machines that a core can be made for: what musl, Rust and Debian call each, and how a C
//! compiler is seen to compile for it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::{At, Error, Kind, Result};
use crate::{core, run};

/// One machine; `targets.toml` says what each field is.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub name: String,
    pub arch: String,
    pub rust: String,
    pub condition: String,
    #[serde(default)]
    pub compilers: Vec<String>,
    pub qemu: Option<String>,
    pub flags: Option<String>,
    pub linked: Option<String>,
    pub line: Option<[String; 2]>,
    pub unmeasured: Option<String>,
    #[serde(default)]
    others: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    target: Vec<Target>,
}

/// All machines.
pub static TARGETS: LazyLock<Vec<Target>> = LazyLock::new(|| {
    let list: List = toml::from_str(include_str!("../targets.toml")).expect("a test reads it");
    list.target
});

impl Target {
    /// The one that a triple names, GNU's, Debian's, Rust's or musl's: by its processor, and by
    /// its ending where that makes another machine.
    ///
    /// # Errors
    /// `Usage` for one that is not known.
    pub fn named(triple: &str) -> Result<&'static Target> {
        let processor = triple.split('-').next().unwrap_or_default();
        let is_x32 = triple.ends_with("x32");
        let is_it = |t: &&'static Target| {
            let heads = [&t.name, &t.rust].map(|n| n.split('-').next().unwrap_or_default());
            let named = heads.contains(&processor) || t.others.iter().any(|o| o == processor);
            named && t.name.ends_with("x32") == is_x32
        };
        TARGETS.iter().find(is_it).ok_or_else(|| {
            let names: Vec<&str> = TARGETS.iter().map(|t| &*t.name).collect();
            Error::new(
                Kind::Usage,
                format!("TARGET={triple}: there is no core of byssal for that machine"),
            )
            .remedy(format!(
                "the targets are {}; docs/targets.md says why there is no other",
                names.join(", ")
            ))
        })
    }

    /// The one that a C compiler compiles for.
    ///
    /// # Errors
    /// `Usage` when none fits.
    pub fn of_compiler(cc: &str) -> Result<&'static Target> {
        let mut questions = String::new();
        for (i, target) in TARGETS.iter().enumerate() {
            questions += &format!("#if {}\nfits {i}\n#endif\n", target.condition);
        }
        let answer = preprocessed(cc, &questions)?;
        let fits: Vec<&'static Target> = answer
            .lines()
            .filter_map(|line| TARGETS.get(line.strip_prefix("fits ")?.parse::<usize>().ok()?))
            .collect();
        match fits[..] {
            [target] => Ok(target),
            _ => Err(Error::new(
                Kind::Usage,
                format!("CC={cc} compiles for a machine that there is no core of byssal for"),
            )
            .remedy("docs/targets.md lists the machines, and says why there is no other")),
        }
    }

    /// Whether it is this machine.
    pub fn is_own(&self) -> bool {
        Target::named(std::env::consts::ARCH).is_ok_and(|own| own == self)
    }

    /// What runs its programs here: nothing, or the emulator of that name; `Err` with what to
    /// install when there is none.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn emulator(&self) -> std::result::Result<Option<String>, String> {
        if self.is_own() || std::env::consts::ARCH == "x86_64" && self.arch == "i386" {
            return Ok(None);
        }
        let Some(machine) = &self.qemu else {
            return Err(format!("no emulator runs programs of {}", self.name));
        };
        let names = ["", "-static"].map(|kind| format!("qemu-{machine}{kind}"));
        let found = names.iter().find(|name| run::exists(name));
        found.map(|name| Some(name.clone())).ok_or_else(|| {
            format!(
                "{} is not there (Debian: apt-get install qemu-user)",
                names[0]
            )
        })
    }

    /// A command that runs a program of the target, by an emulator if need be.
    pub fn command(&self, program: &Path) -> Command {
        match self.emulator() {
            Ok(Some(emulator)) => {
                let mut cmd = Command::new(emulator);
                cmd.arg(program);
                cmd
            }
            _ => Command::new(program),
        }
    }

    /// What is behind the version in the names of results: nothing for this machine.
    pub fn suffix(&self) -> String {
        if self.is_own() {
            String::new()
        } else {
            format!("-{}", self.name)
        }
    }

    /// Rust's target: the one that rustc itself runs on, if that is the same machine, as it has a
    /// `core` for that.
    ///
    /// # Errors
    /// When rustc cannot be run.
    pub fn rust(&self) -> Result<String> {
        let host = core::host_target()?;
        let same = Target::named(&host).is_ok_and(|t| t.name == self.name);
        Ok(if same { host } else { self.rust.to_owned() })
    }
}

/// What the preprocessor of a compiler makes of a text.
fn preprocessed(cc: &str, text: &str) -> Result<String> {
    let mut cmd = Command::new(cc);
    cmd.args(["-E", "-P", "-x", "c", "-"]);
    let mut child = run::neutral(&mut cmd)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| Error::new(Kind::Missing, format!("cannot run {cc}: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that dies before it has read all shows that by its exit code.
        let _ = stdin.write_all(text.as_bytes());
    }
    let out = child.wait_with_output().at("running", cc.as_ref())?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(Error::new(
        Kind::Step,
        format!("{cc} -E ended with {}", out.status),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples_of_all_kinds_name_a_target() {
        for (triple, name) in [
            ("x86_64-linux-musl", "x86_64-linux-musl"),
            ("x86_64-unknown-linux-gnu", "x86_64-linux-musl"),
            ("x86_64-linux-gnux32", "x86_64-linux-muslx32"),
            ("i386-linux-musl", "i686-linux-musl"),
            ("aarch64-alpine-linux-musl", "aarch64-linux-musl"),
            ("arm-linux-gnueabihf", "armv7-linux-musleabihf"),
            ("riscv64gc-unknown-linux-musl", "riscv64-linux-musl"),
            ("ppc64le-alpine-linux-musl", "powerpc64le-linux-musl"),
        ] {
            assert_eq!(Target::named(triple).unwrap().name, name, "{triple}");
        }
        let refused = Target::named("sh4-linux-musl").unwrap_err();
        assert!(refused.what.contains("sh4-linux-musl"), "{refused}");
    }

    #[test]
    fn every_target_is_known_by_its_own_names() {
        for target in &*TARGETS {
            for name in [&target.name, &target.rust] {
                assert_eq!(Target::named(name).unwrap(), target, "{name}");
            }
            for name in &target.compilers {
                assert_eq!(Target::named(name).unwrap().arch, target.arch, "{name}");
            }
        }
    }

    #[test]
    fn a_compiler_is_known_by_what_it_defines() {
        let target = Target::of_compiler("cc").unwrap();
        assert!(target.is_own());
        assert_eq!(target.emulator(), Ok(None));
    }
}
