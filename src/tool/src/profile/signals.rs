//! Signals while the program runs: none ends the tool before it has written the profile.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::ptr;

use crate::error::{At, Result};

/// What the terminal sends to both, so that the program has it; and that children are to be waited
/// for, which whoever started the tool may have ruled out.
const DISPOSITIONS: [(c_int, libc::sighandler_t); 3] = [
    (libc::SIGINT, libc::SIG_IGN),
    (libc::SIGQUIT, libc::SIG_IGN),
    (libc::SIGCHLD, libc::SIG_DFL),
];
/// What the tool waits for: the first two are sent to it alone, and meant for the program.
const AWAITED: [c_int; 3] = [libc::SIGTERM, libc::SIGHUP, libc::SIGCHLD];

/// Runs a program to its end, and passes on to it what is sent to the tool to end it. That stays
/// blocked in the tool, which has the profile to write then; SIGINT ends it as before.
///
/// # Errors
/// When the program cannot be started, or waited for.
pub fn run(command: &mut Command) -> Result<ExitStatus> {
    let program = PathBuf::from(command.get_program());
    // Before there is the program: what comes earlier is passed on later.
    let before = Before::take();
    let restore = move || {
        before.restore_dispositions();
        before.restore_mask();
        Ok(())
    };
    // SAFETY: both make system calls alone, which are allowed between fork and exec.
    unsafe { command.pre_exec(restore) };
    let child = command.spawn();
    let status = child.and_then(|mut child| wait(&mut child));
    before.restore_dispositions();
    status.at("running", &program)
}

/// Passes signals on until the program has ended.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let awaited = awaited();
    loop {
        let mut signal = 0;
        // SAFETY: both are valid.
        match unsafe { libc::sigwait(&awaited, &mut signal) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        if signal != libc::SIGCHLD {
            // SAFETY: it touches no memory. The number is the child's as long as nobody has waited
            // for it, which only the line below does.
            unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        } else if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
    }
}

/// How the tool was started, and the program is to be.
#[derive(Clone, Copy)]
struct Before {
    dispositions: [libc::sighandler_t; DISPOSITIONS.len()],
    mask: libc::sigset_t,
}

impl Before {
    /// Sets what holds while the program runs.
    fn take() -> Self {
        let mut mask = awaited();
        // SAFETY: the set is valid, and may be read and written by one call.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &awaited(), &mut mask) };
        // SAFETY: no handler is set.
        let set = |(signal, new)| unsafe { libc::signal(signal, new) };
        Before {
            dispositions: DISPOSITIONS.map(set),
            mask,
        }
    }

    fn restore_dispositions(&self) {
        for ((signal, _), before) in DISPOSITIONS.into_iter().zip(self.dispositions) {
            // SAFETY: what was there.
            unsafe { libc::signal(signal, before) };
        }
    }

    fn restore_mask(&self) {
        // SAFETY: the mask is valid, and the old one is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.mask, ptr::null_mut()) };
    }
}

fn awaited() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset makes the set whole, and sigaddset has whole ones only.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in AWAITED {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}
