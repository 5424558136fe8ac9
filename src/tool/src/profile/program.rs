//! The program that is to be profiled: found, and fit for a library that is loaded before it.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::elf::{FileHeader32, FileHeader64, PT_GNU_EH_FRAME};
use object::read::elf::{FileHeader, ProgramHeader};
use object::Endianness;

use crate::error::{At, Error, Kind, Result};

/// Interpreters of scripts that are scripts themselves: the kernel goes no deeper.
const DEPTH: usize = 4;

/// A program that a library can be loaded before.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    /// Whether its libc is musl: then the library must be of musl, too.
    pub is_musl: bool,
    /// Whether it has the index of its stack frames, without which nobody can walk through it.
    pub is_walkable: bool,
}

impl Program {
    /// Finds a program as a shell does.
    ///
    /// # Errors
    /// When there is none of that name, or it is none that a library can be loaded before.
    pub fn find(name: &OsStr) -> Result<Self> {
        let path = search(name)?;
        let headers = look(&path, DEPTH)?;
        let interpreter = headers.interpreter.unwrap_or_default();
        Ok(Program {
            path,
            is_musl: interpreter.windows(7).any(|w| w == b"ld-musl"),
            is_walkable: headers.is_walkable,
        })
    }
}

fn search(name: &OsStr) -> Result<PathBuf> {
    let runs = |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0);
    let given = PathBuf::from(name);
    let dirs = env::var_os("PATH").unwrap_or_default();
    let found = if name.as_bytes().contains(&b'/') {
        Some(given).filter(|path| runs(path))
    } else {
        let all = env::split_paths(&dirs).map(|dir| dir.join(name));
        all.into_iter().find(|path| runs(path))
    };
    found.ok_or_else(|| {
        let path = Path::new(name);
        let (why, remedy) = match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => ("is a directory", "give a program"),
            Ok(_) => ("is not executable", "run chmod +x, if it is a program"),
            Err(_) => {
                let what = format!("there is no program {}", path.display());
                return Error::new(Kind::Usage, what).remedy("give its path, or a name in PATH");
            }
        };
        refused(path, why, remedy)
    })
}

/// The headers of a program, or of the interpreter of a script, that a library can be loaded
/// before.
fn look(path: &Path, depth: usize) -> Result<Headers> {
    let mut head = Vec::new();
    let open = File::open(path).at("opening", path)?;
    open.take(256).read_to_end(&mut head).at("reading", path)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
        let word = line
            .split(|&b| b == b' ' || b == b'\t')
            .find(|w| !w.is_empty());
        let interpreter = Path::new(OsStr::from_bytes(word.unwrap_or_default()));
        if depth == 0 {
            return Err(refused(
                path,
                "is a script of scripts of scripts",
                "name its interpreter",
            ));
        }
        return look(interpreter, depth - 1);
    }
    keeps_rights(path)?;
    let data = fs::read(path).at("reading", path)?;
    let headers = match (head.first_chunk(), head.get(4)) {
        (Some(b"\x7fELF"), Some(1)) => headers::<FileHeader32<Endianness>>(&data),
        (Some(b"\x7fELF"), Some(2)) => headers::<FileHeader64<Endianness>>(&data),
        _ => {
            let why = "is neither an ELF file nor a script";
            return Err(refused(path, why, "name a program"));
        }
    };
    let headers =
        headers.map_err(|e| refused(path, &format!("is broken: {e}"), "build it anew"))?;
    if headers.interpreter.is_none() {
        let why = "is linked statically: no library can be loaded before it";
        return Err(refused(path, why, "link it without -static"));
    }
    if headers.machine != own_machine()? {
        let why = "is for another machine than this tool";
        return Err(refused(
            path,
            why,
            "build program and tool for the same machine",
        ));
    }
    Ok(headers)
}

/// What the headers of an ELF file tell.
struct Headers {
    /// Whether of 64 bits, and the machine.
    machine: (bool, u16),
    /// The path of the dynamic linker.
    interpreter: Option<Vec<u8>>,
    is_walkable: bool,
}

fn headers<H: FileHeader<Endian = Endianness>>(data: &[u8]) -> object::read::Result<Headers> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let mut found = Headers {
        machine: (header.is_class_64(), header.e_machine(endian)),
        interpreter: None,
        is_walkable: false,
    };
    for segment in header.program_headers(endian, data)? {
        if let Some(path) = segment.interpreter(endian, data)? {
            found.interpreter = Some(path.to_vec());
        }
        found.is_walkable |= segment.p_type(endian) == PT_GNU_EH_FRAME;
    }
    Ok(found)
}

/// Class and machine of this tool.
fn own_machine() -> Result<(bool, u16)> {
    let path = Path::new("/proc/self/exe");
    let data = fs::read(path).at("reading", path)?;
    let own = if cfg!(target_pointer_width = "64") {
        headers::<FileHeader64<Endianness>>(&data)
    } else {
        headers::<FileHeader32<Endianness>>(&data)
    };
    own.map(|headers| headers.machine).at("reading", path)
}

/// The kernel gives a program rights of its own only without libraries of its caller's.
fn keeps_rights(path: &Path) -> Result<()> {
    let file = fs::metadata(path).at("reading", path)?;
    // SAFETY: both only ask.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let gains = file.mode() & libc::S_ISUID != 0 && file.uid() != user
        || file.mode() & libc::S_ISGID != 0 && file.gid() != group;
    if !gains {
        return Ok(());
    }
    let why = "runs with the rights of its owner (setuid): no library can be loaded before it";
    Err(refused(
        path,
        why,
        "profile a copy of it that has no such rights",
    ))
}

fn refused(path: &Path, why: &str, remedy: &str) -> Error {
    Error::new(Kind::Usage, format!("{} {why}", path.display())).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_shell_would() {
        let sh = Program::find(OsStr::new("sh")).unwrap();
        assert!(sh.path.is_absolute());
        assert_eq!(Program::find(sh.path.as_os_str()).unwrap(), sh);
        let none = Program::find(OsStr::new("no-such-program-here")).unwrap_err();
        assert!(none.what.contains("no-such-program-here"));
        // A directory is none, nor is a file without the right.
        assert!(Program::find(OsStr::new("/")).is_err());
        assert!(Program::find(OsStr::new("/etc/passwd")).is_err());
    }
}
