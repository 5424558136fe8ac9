//! A process that runs: read by `process_vm_readv`, stopped by ptrace meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{channel, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::look::memory::{Memory, Region, Thread};

/// How long a thread may take to stop that waits in the kernel, for the child of a vfork, say. Then
/// it counts as stopped: it stops before it runs any code of the program's.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long any other may take: where much else runs, it waits for a processor first.
const LIMIT: Duration = Duration::from_secs(2);

/// Between two questions whether it has stopped.
const STEP: Duration = Duration::from_micros(20);

/// A process by its number.
pub struct Process {
    pid: i32,
    name: String,
    /// The thread by which its memory was read last: by one that has ended there is none, and the
    /// first one may have ended while others live.
    reader: AtomicI32,
}

/// Numbers of a process's threads here, those that have ended and are still listed among them.
fn tasks(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let names = tasks.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The letter of a thread's state; None if there is no such thread.
fn state(pid: i32, thread: i32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).ok()?;
    // Behind the name, which may have brackets of its own.
    status.rsplit(')').next()?.trim_start().chars().next()
}

/// Whether a thread has not ended. The first one stays listed as long as others live.
fn lives(pid: i32, thread: i32) -> bool {
    !matches!(state(pid, thread), None | Some('Z' | 'X'))
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
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else {
            return Err(gone(pid));
        };
        let process = Process {
            pid,
            name: name.trim_end().to_owned(),
            reader: AtomicI32::new(pid),
        };
        process.maps()?;
        Ok(process)
    }

    /// Whether it is there, and is not dead already.
    pub fn is_alive(&self) -> bool {
        self.living().next().is_some()
    }

    /// Its threads that have not ended.
    fn living(&self) -> impl Iterator<Item = i32> {
        let pid = self.pid;
        let tasks = tasks(pid).into_iter();
        tasks.filter(move |&thread| lives(pid, thread))
    }

    fn maps(&self) -> Result<String> {
        let mut found = None;
        for thread in self.living() {
            match fs::read_to_string(format!("/proc/{}/task/{thread}/maps", self.pid)) {
                Ok(maps) if !maps.is_empty() => return Ok(maps),
                // One of the system's own has none, and one that has just ended.
                Ok(maps) => found = Some(maps),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(refused(self.pid, "to read its memory"));
                }
                Err(_) => {}
            }
        }
        found
            .filter(|_| self.is_alive())
            .ok_or_else(|| gone(self.pid))
    }

    /// Reads what can be read at once, by a thread that lives.
    fn read_some(&self, at: usize, into: &mut [u8]) -> usize {
        match read_by(self.reader.load(Ordering::Relaxed), at, into) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            read => return read.unwrap_or(0),
        }
        for thread in self.living() {
            if let Ok(read) = read_by(thread, at, into) {
                self.reader.store(thread, Ordering::Relaxed);
                return read;
            }
        }
        0
    }

    /// Stops all of its threads until the result is dropped.
    ///
    /// # Errors
    /// When that is not permitted, or one does not stop.
    pub fn stop(&self) -> Result<Stopped> {
        let (go, gone) = channel();
        let (tell, told) = channel();
        let mut tracer = Tracer {
            pid: self.pid,
            threads: BTreeMap::new(),
        };
        let trace = move || {
            // SAFETY: asks for a number.
            let number = unsafe { libc::gettid() };
            let _ = tell.send((number, tracer.stop()));
            // Nothing is sent: it ends when the other side is dropped.
            let _ = gone.recv();
        };
        let failed = |e: &dyn std::fmt::Display| {
            let what = format!("process {}: the thread that stops it: {e}", self.pid);
            Error::new(Kind::System, what)
        };
        let thread = thread::Builder::new().spawn(trace);
        let thread = thread.map_err(|e| failed(&e))?;
        let (number, outcome) = told.recv().map_err(|e| failed(&e))?;
        let stopped = Stopped {
            go: Some(go),
            tracer: Some(thread),
            number,
        };
        outcome.map(|()| stopped)
    }
}

/// A process whose threads are stopped; they go on when this is dropped.
pub struct Stopped {
    go: Option<Sender<()>>,
    /// A thread that traces them, with its number. The kernel lets go a tracee that has not stopped
    /// yet only when its tracer ends.
    tracer: Option<JoinHandle<()>>,
    number: i32,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.go.take());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
        // It is joined a little before the kernel lets go what it traced, which a next one cannot
        // trace until then.
        let listed = format!("/proc/self/task/{}", self.number);
        while Path::new(&listed).exists() {
            thread::sleep(STEP);
        }
    }
}

/// What stops the threads of a process, all from one thread, and lets them go when it is dropped.
struct Tracer {
    pid: i32,
    /// Each thread with the signal that it is to get as it goes on, or 0; None if it has ended or
    /// not stopped.
    threads: BTreeMap<i32, Option<i32>>,
}

impl Tracer {
    fn stop(&mut self) -> Result<()> {
        // A thread that runs may start others: until there is none that is new.
        loop {
            let mut new = tasks(self.pid);
            new.retain(|thread| !self.threads.contains_key(thread));
            if new.is_empty() {
                return Ok(());
            }
            let mut asked = Vec::new();
            for thread in new {
                self.threads.insert(thread, None);
                match seize(thread) {
                    Ok(()) => asked.push(thread),
                    // It has ended: it is no thread any more, or the first one, which stays listed.
                    Err(_) if !lives(self.pid, thread) => {}
                    Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                        return Err(self.cannot_stop(thread));
                    }
                    Err(e) => {
                        let what = format!("process {}: cannot stop it: {e}", self.pid);
                        return Err(Error::new(Kind::System, what));
                    }
                }
            }
            self.wait_for(asked)?;
        }
    }

    /// Waits until threads have stopped, or count as stopped.
    fn wait_for(&mut self, mut asked: Vec<i32>) -> Result<()> {
        let begin = Instant::now();
        loop {
            let waited = begin.elapsed();
            asked.retain(|&thread| match stop_of(thread) {
                Some(signal) => {
                    self.threads.insert(thread, signal);
                    false
                }
                None => match state(self.pid, thread) {
                    // The end of the first thread is told only when all others have ended, too.
                    None | Some('Z' | 'X') => false,
                    Some('D') => waited < PATIENCE,
                    Some(_) => true,
                },
            });
            let Some(thread) = asked.first() else {
                return Ok(());
            };
            if waited > LIMIT {
                let what = format!(
                    "process {}: its thread {thread} did not stop within {} s",
                    self.pid,
                    LIMIT.as_secs()
                );
                return Err(Error::new(Kind::System, what)
                    .remedy("look again when less runs on the machine, or with --no-stop"));
            }
            thread::sleep(STEP);
        }
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

impl Drop for Tracer {
    fn drop(&mut self) {
        for (&thread, &signal) in &self.threads {
            if let Some(signal) = signal {
                // SAFETY: lets a thread go that this one has stopped.
                unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, 0, signal as usize) };
            }
        }
    }
}

/// Asks a thread to stop.
fn seize(thread: i32) -> io::Result<()> {
    for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
        // SAFETY: asks the kernel to attach to a thread and to stop it: no memory of ours is used.
        if unsafe { libc::ptrace(request, thread, 0, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// How a thread stopped that was asked to: with the signal that it was about to have, or 0. None
/// within if it has ended, None if neither was told yet.
fn stop_of(thread: i32) -> Option<Option<i32>> {
    let mut status = 0;
    // SAFETY: a variable of our own.
    let waited = unsafe { libc::waitpid(thread, &mut status, libc::__WALL | libc::WNOHANG) };
    if waited != thread {
        return None;
    }
    let by_us = status >> 16 == libc::PTRACE_EVENT_STOP;
    let signal = if by_us { 0 } else { libc::WSTOPSIG(status) };
    Some(libc::WIFSTOPPED(status).then_some(signal))
}

impl Memory for Process {
    fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() {
            match self.read_some((at as usize).wrapping_add(done), &mut into[done..]) {
                0 => break,
                read => done += read,
            }
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
        for task in self.living() {
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

/// Reads the memory of the process that a thread is of, from `at` on: how many bytes.
fn read_by(thread: i32, at: usize, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = libc::iovec {
        iov_base: at as *mut libc::c_void,
        iov_len: into.len(),
    };
    // SAFETY: writes into `into` only; the other address is the process's.
    let read = unsafe { libc::process_vm_readv(thread, &local, 1, &remote, 1, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
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
