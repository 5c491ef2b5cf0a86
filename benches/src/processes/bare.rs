//! Processes by bare system calls, and as the standard library starts them.
#![expect(unsafe_code, reason = "fork and posix_spawn are libc calls")]

use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};
use std::ptr;

use crate::failure::{Failure, Outcome};
use crate::peer::{NOTHING, ROLE};
use crate::processes::starts::Starter;

/// `fork(2)`, `_exit(2)` and `waitpid(2)`.
#[derive(Debug)]
pub(crate) struct Fork;

impl Starter for Fork {
    fn new() -> Outcome<Self> {
        Ok(Self)
    }

    fn start_and_join(&mut self) -> Outcome<()> {
        // SAFETY: the child makes a single call, which is async-signal-safe.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error().into()),
            // SAFETY: ends this process, runs nothing of it.
            0 => unsafe { libc::_exit(0) },
            child => wait_for(child),
        }
    }
}

/// `posix_spawn(3)` of this very program, which returns from `main` at once, and `waitpid(2)`.
#[derive(Debug)]
pub(crate) struct PosixSpawn {
    program: CString,
    role: CString,
}

impl Starter for PosixSpawn {
    fn new() -> Outcome<Self> {
        let program = OsString::from(env::current_exe()?).into_vec();
        Ok(Self {
            program: CString::new(program)?,
            role: CString::new(format!("{ROLE}={NOTHING}"))?,
        })
    }

    fn start_and_join(&mut self) -> Outcome<()> {
        let arguments = [self.program.as_ptr().cast_mut(), ptr::null_mut()];
        let environment = [self.role.as_ptr().cast_mut(), ptr::null_mut()];
        let mut child = 0;
        // SAFETY: all pointers are to live, terminated strings and arrays; the call only reads them
        // and writes `child`.
        let error = unsafe {
            libc::posix_spawn(
                &raw mut child,
                self.program.as_ptr(),
                ptr::null(),
                ptr::null(),
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        };
        match error {
            0 => wait_for(child),
            error => Err(io::Error::from_raw_os_error(error).into()),
        }
    }
}

fn wait_for(child: libc::pid_t) -> Outcome<()> {
    let mut status = 0;
    // SAFETY: `status` is a live integer.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    match (waited, status) {
        (-1, _) => Err(io::Error::last_os_error().into()),
        (_, 0) => Ok(()),
        (_, status) => Err(Failure::Failed(format!("the child ended with {status:#x}"))),
    }
}

/// `std::process::Command` with this very program.
#[derive(Debug)]
pub(crate) struct StdCommand(Command);

impl Starter for StdCommand {
    fn new() -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.env_clear().env(ROLE, NOTHING).stdin(Stdio::null());
        Ok(Self(command))
    }

    fn start_and_join(&mut self) -> Outcome<()> {
        let status = self.0.status()?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::Failed(format!("the child ended with {status}")))
        }
    }
}
