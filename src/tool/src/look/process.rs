//! A process that runs: read by `process_vm_readv`, stopped by ptrace meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::look::memory::{Memory, Region, Thread};

/// A process by its number.
pub struct Process {
    pid: i32,
    name: String,
}

fn gone(pid: i32) -> Error {
    Error::new(Kind::System, format!("there is no process {pid}"))
        .remedy("give the number of a process that runs, or the file of a core")
}

fn refused(pid: i32, what: &str) -> Error {
    Error::new(
        Kind::System,
        format!("process {pid}: {what} is not permitted"),
    )
    .remedy(refusal_remedy())
}

/// What may be in the way of who looks at a process.
fn refusal_remedy() -> String {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let scope = match scope.trim() {
        "" | "0" => String::new(),
        scope => format!(
            "; the kernel's ptrace_scope is {scope}, with which a user may look at children only \
             (/proc/sys/kernel/yama/ptrace_scope)"
        ),
    };
    // SAFETY: asks for a number.
    let who = if unsafe { libc::geteuid() } == 0 {
        "root may not either here: the kernel or a container forbids it (CAP_SYS_PTRACE), or the \
         process is one of the system's own"
    } else {
        "look as the user of the process, or as root"
    };
    format!("{who}{scope}")
}

impl Process {
    /// The process of that number.
    ///
    /// # Errors
    /// When there is none, or it may not be looked at.
    pub fn find(pid: i32) -> Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let Ok(name) = fs::read_to_string(proc.join("comm")) else {
            return Err(gone(pid));
        };
        let process = Process {
            pid,
            name: name.trim_end().to_owned(),
        };
        process.maps()?;
        Ok(process)
    }

    /// Whether it is there, and is not dead already.
    pub fn is_alive(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = status
            .rsplit(')')
            .next()
            .and_then(|rest| rest.trim_start().chars().next());
        !matches!(state, None | Some('Z' | 'X'))
    }

    fn maps(&self) -> Result<String> {
        match fs::read_to_string(format!("/proc/{}/maps", self.pid)) {
            Ok(maps) if maps.is_empty() && !self.is_alive() => Err(gone(self.pid)),
            Ok(maps) => Ok(maps),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(refused(self.pid, "to read its memory"))
            }
            Err(_) => Err(gone(self.pid)),
        }
    }

    /// Its threads' numbers here.
    fn tasks(&self) -> Vec<i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid));
        let names = tasks.into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Stops all of its threads until the result is dropped.
    ///
    /// # Errors
    /// When that is not permitted.
    pub fn stop(&self) -> Result<Stopped> {
        let mut stopped = Stopped {
            threads: BTreeMap::new(),
        };
        // A thread that runs may start others: until there is none that is new.
        loop {
            let new: Vec<i32> = self
                .tasks()
                .into_iter()
                .filter(|thread| !stopped.threads.contains_key(thread))
                .collect();
            if new.is_empty() {
                break;
            }
            for thread in new {
                match seize(thread) {
                    Ok(signal) => _ = stopped.threads.insert(thread, signal),
                    // It has ended meanwhile, and is no thread any more, or will soon be none.
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {
                        stopped.threads.insert(thread, None);
                    }
                    Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                        return Err(self.cannot_stop(thread));
                    }
                    Err(e) => {
                        let what = format!("process {}: cannot stop it: {e}", self.pid);
                        return Err(Error::new(Kind::System, what));
                    }
                }
            }
        }
        Ok(stopped)
    }

    /// Why a thread may not be stopped.
    fn cannot_stop(&self, thread: i32) -> Error {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        match tracer.map(str::trim) {
            Some(tracer) if tracer != "0" => Error::new(
                Kind::System,
                format!("process {}: process {tracer} traces it already", self.pid),
            )
            .remedy("let the debugger go, or look with --no-stop"),
            _ => refused(self.pid, "to stop it"),
        }
    }
}

/// Threads of a process that are stopped; they go on when this is dropped.
pub struct Stopped {
    /// Each thread with the signal that it is to have when it goes on, or 0; None if it has ended.
    threads: BTreeMap<i32, Option<i32>>,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for (&thread, &signal) in &self.threads {
            if let Some(signal) = signal {
                // SAFETY: lets a thread go that this one has stopped.
                unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, 0, signal as usize) };
            }
        }
    }
}

/// Stops a thread. The signal that it was about to have, if one; None if it ended.
fn seize(thread: i32) -> io::Result<Option<i32>> {
    let ask = |request| {
        // SAFETY: asks the kernel to attach to a thread and to stop it: no memory of ours is used.
        match unsafe { libc::ptrace(request, thread, 0, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    ask(libc::PTRACE_SEIZE)?;
    ask(libc::PTRACE_INTERRUPT)?;
    loop {
        let mut status = 0;
        // SAFETY: a variable of our own.
        let waited = unsafe { libc::waitpid(thread, &mut status, libc::__WALL) };
        if waited == -1 {
            let e = io::Error::last_os_error();
            if e.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(e);
        }
        if !libc::WIFSTOPPED(status) {
            return Ok(None);
        }
        let by_us = status >> 16 == libc::PTRACE_EVENT_STOP;
        return Ok(Some(if by_us { 0 } else { libc::WSTOPSIG(status) }));
    }
}

impl Memory for Process {
    fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() {
            let local = libc::iovec {
                iov_base: into[done..].as_mut_ptr().cast(),
                iov_len: into.len() - done,
            };
            let remote = libc::iovec {
                iov_base: (at as usize).wrapping_add(done) as *mut libc::c_void,
                iov_len: into.len() - done,
            };
            // SAFETY: writes into the rest of `into` only; the other address is the process's.
            let read = unsafe { libc::process_vm_readv(self.pid, &local, 1, &remote, 1, 0) };
            if read <= 0 {
                break;
            }
            done += read as usize;
        }
        done
    }

    fn regions(&self) -> Result<Vec<Region>> {
        let maps = self.maps()?;
        let mut regions: Vec<Region> = maps.lines().filter_map(region).collect();
        regions.sort_by_key(|region| !region.is_file);
        Ok(regions)
    }

    fn threads(&self) -> Vec<Thread> {
        let mut threads = Vec::new();
        for task in self.tasks() {
            let dir = format!("/proc/{}/task/{task}", self.pid);
            let status = fs::read_to_string(format!("{dir}/status")).unwrap_or_default();
            let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let inner = inner.and_then(|numbers| numbers.split_whitespace().last()?.parse().ok());
            let name = fs::read_to_string(format!("{dir}/comm")).unwrap_or_default();
            threads.push(Thread {
                number: inner.unwrap_or(task as u32),
                name: name.trim_end().to_owned(),
                is_first: task == self.pid,
            });
        }
        threads
    }

    fn name(&self) -> String {
        format!("process {} ({})", self.pid, self.name)
    }
}

/// A line of `/proc/PID/maps` whose addresses may be written.
fn region(line: &str) -> Option<Region> {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let name = words.nth(3).unwrap_or_default();
    // Devices may mind being read.
    if !rights.starts_with("rw") || name.starts_with("/dev/") {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some(Region {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        is_file: name.starts_with('/'),
    })
}
