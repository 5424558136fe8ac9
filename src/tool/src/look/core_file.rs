//! The core of a process that ended: an ELF file, of any machine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use object::elf::{FileHeader32, FileHeader64, ET_CORE, NT_PRPSINFO, NT_PRSTATUS, PF_W, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::ReadCache;
use object::Endianness;

use crate::error::{At, Error, Kind, Result};
use crate::look::memory::{Memory, Region, Thread};

/// What can be looked at.
const REMEDY: &str = "give the file of a core, or the number of a process";

/// Bytes behind a segment that are still addresses: who searches it goes on by the page.
const BEHIND: u64 = 4096;

/// A piece of memory that the file holds.
struct Segment {
    start: u64,
    /// Bytes in the file.
    len: u64,
    offset: u64,
    writable: bool,
}

/// A core.
pub struct Core {
    path: PathBuf,
    file: File,
    segments: Vec<Segment>,
    threads: Vec<Thread>,
    signal: Option<i32>,
    program: String,
    process: Option<u32>,
}

impl Core {
    /// Opens it.
    ///
    /// # Errors
    /// When it is no core, or its end is missing.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = File::open(path).at("opening", path);
        let file = opened.map_err(|e| e.remedy(REMEDY))?;
        if file.metadata().at("reading", path)?.is_dir() {
            return Err(no_core(path, "it is a directory"));
        }
        let cache = ReadCache::new(&file);
        let mut core = Core {
            path: path.to_owned(),
            file: file.try_clone().at("opening", path)?,
            segments: Vec::new(),
            threads: Vec::new(),
            signal: None,
            program: String::new(),
            process: None,
        };
        let mut ident = [0; 5];
        let read = file.read_at(&mut ident, 0).at("reading", path)?;
        if read < 5 || ident[..4] != *b"\x7fELF" {
            return Err(no_core(path, "it is no ELF file"));
        }
        if ident[4] == object::elf::ELFCLASS64 {
            core.read_headers::<FileHeader64<Endianness>>(&cache)?;
        } else {
            core.read_headers::<FileHeader32<Endianness>>(&cache)?;
        }
        Ok(core)
    }

    fn read_headers<H: FileHeader<Endian = Endianness>>(
        &mut self,
        data: &ReadCache<&File>,
    ) -> Result<()> {
        let path = self.path.clone();
        let wrong = |e: object::Error| no_core(&path, &e.to_string());
        let header = H::parse(data).map_err(wrong)?;
        let endian = header.endian().map_err(wrong)?;
        if header.e_type(endian) != ET_CORE {
            return Err(no_core(&path, "it is a program or a library, not a core"));
        }
        let there = self.file.metadata().at("reading", &path)?.len();
        for segment in header.program_headers(endian, data).map_err(wrong)? {
            let (offset, len) = segment.file_range(endian);
            if offset.checked_add(len).is_none_or(|end| end > there) {
                return Err(Error::new(
                    Kind::System,
                    format!("{}: the core is truncated at {there} bytes", path.display()),
                )
                .remedy(
                    "raise `ulimit -c`, or make room on the disk, and let the program fail again",
                ));
            }
            if segment.p_type(endian) == PT_LOAD {
                let start: u64 = segment.p_vaddr(endian).into();
                if start
                    .checked_add(len)
                    .is_none_or(|end| end > u64::MAX - BEHIND)
                {
                    let what = format!(
                        "it is damaged: {len} bytes of memory at {start:#x}, where addresses end"
                    );
                    return Err(no_core(&path, &what));
                }
                self.segments.push(Segment {
                    start,
                    len,
                    offset,
                    writable: segment.p_flags(endian) & PF_W != 0,
                });
            }
            if let Some(mut notes) = segment.notes(endian, data).map_err(wrong)? {
                while let Some(note) = notes.next().map_err(wrong)? {
                    if note.name() == b"CORE" {
                        self.read_note(
                            note.n_type(endian),
                            note.desc(),
                            endian,
                            header.is_class_64(),
                        );
                    }
                }
            }
        }
        self.segments.sort_by_key(|segment| segment.start);
        for thread in &mut self.threads {
            thread.is_first = Some(thread.number) == self.process;
        }
        Ok(())
    }

    /// What a note of the kernel's tells of a thread, or of the process.
    fn read_note(&mut self, kind: u32, desc: &[u8], endian: Endianness, wide: bool) {
        let number = |at: usize| {
            let bytes: [u8; 4] = desc.get(at..at + 4)?.try_into().ok()?;
            Some(match endian {
                Endianness::Little => u32::from_le_bytes(bytes),
                Endianness::Big => u32::from_be_bytes(bytes),
            })
        };
        // struct elf_prstatus: signal, code, errno, signal's number of 16 bits, two words of signals,
        // the thread. struct elf_prpsinfo: a word of flags, six numbers, of which machines differ in the
        // width of the first two; then the name, and 80 bytes of arguments.
        match kind {
            NT_PRSTATUS => {
                if self.threads.is_empty() {
                    self.signal = number(0).map(|signal| signal as i32);
                }
                if let Some(number) = number(if wide { 32 } else { 24 }) {
                    self.threads.push(Thread {
                        number,
                        name: String::new(),
                        is_first: false,
                    });
                }
            }
            NT_PRPSINFO => {
                let Some(at) = desc.len().checked_sub(16 + 80) else {
                    return;
                };
                let name = desc[at..at + 16].split(|&byte| byte == 0).next();
                self.program = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                // The process's number is the first of four of 32 bits before the name.
                self.process = at.checked_sub(16).and_then(number);
            }
            _ => {}
        }
    }
}

fn no_core(path: &Path, why: &str) -> Error {
    Error::new(Kind::Usage, format!("{}: {why}", path.display())).remedy(REMEDY)
}

impl Memory for Core {
    fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() {
            let at = at.wrapping_add(done as u64);
            let behind = self.segments.partition_point(|segment| segment.start <= at);
            let Some(segment) = behind.checked_sub(1).map(|i| &self.segments[i]) else {
                break;
            };
            let skip = at - segment.start;
            let len = segment
                .len
                .saturating_sub(skip)
                .min((into.len() - done) as u64) as usize;
            let part = &mut into[done..done + len];
            if len == 0
                || self
                    .file
                    .read_exact_at(part, segment.offset + skip)
                    .is_err()
            {
                break;
            }
            done += len;
        }
        done
    }

    fn regions(&self) -> Result<Vec<Region>> {
        let writable = self.segments.iter().filter(|segment| segment.writable);
        Ok(writable
            .map(|segment| Region {
                start: segment.start,
                end: segment.start + segment.len,
                is_file: true,
            })
            .collect())
    }

    fn threads(&self) -> Vec<Thread> {
        self.threads.clone()
    }

    fn name(&self) -> String {
        format!("core {} ({})", self.path.display(), self.program)
    }

    fn signal(&self) -> Option<i32> {
        self.signal
    }
}
