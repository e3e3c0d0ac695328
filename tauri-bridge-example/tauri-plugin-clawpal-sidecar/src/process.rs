//! The sidecar as a process of its own, that never outlives the app.

use std::io;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Stdio};

use crate::command::SidecarCommand;

/// A process that runs, or has ended. It is killed with all that it started.
pub struct Process {
    system: system::Process,
    pub id: u32,
}

pub struct Pipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
}

impl Process {
    /// Starts it. On Linux it gets a SIGTERM when the calling *thread* ends, so that has to live as long as the app.
    pub fn start(command: &SidecarCommand) -> io::Result<(Self, Pipes)> {
        let mut command = command.build();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        system::prepare(&mut command);
        let mut child = command.spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let id = child.id();
        let system = system::Process::new(child)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            unreachable!("all three were asked for");
        };
        Ok((Self { system, id }, Pipes { stdin, stdout, stderr }))
    }

    /// Waits for its end, ends what it left running, and says how it ended.
    pub fn wait(&self) -> String {
        self.system.wait()
    }

    pub fn kill(&self) {
        self.system.kill();
    }
}

#[cfg(unix)]
mod system {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::sync::Mutex;

    pub struct Process {
        group: libc::pid_t,
        /// None when it was waited for: from then on its id may be another's.
        child: Mutex<Option<Child>>,
    }

    pub fn prepare(command: &mut Command) {
        command.process_group(0);
        #[cfg(target_os = "linux")]
        {
            let parent = std::process::id() as libc::pid_t;
            let die_with_the_app = move || {
                // SAFETY: both calls are safe between fork and exec.
                unsafe {
                    if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                        return Err(io::Error::last_os_error());
                    }
                    // The app may have ended before it was asked for.
                    if libc::getppid() != parent {
                        return Err(io::Error::from_raw_os_error(libc::ESRCH));
                    }
                }
                Ok(())
            };
            // SAFETY: the closure allocates nothing and takes no lock.
            unsafe { command.pre_exec(die_with_the_app) };
        }
    }

    impl Process {
        pub fn new(child: Child) -> io::Result<Self> {
            let group = child.id() as libc::pid_t;
            Ok(Self { group, child: Mutex::new(Some(child)) })
        }

        pub fn wait(&self) -> String {
            // It stays a zombie for now, so that nothing else can get its id before its group is killed.
            let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
            loop {
                // SAFETY: info is large enough, and not read.
                let waited = unsafe {
                    let options = libc::WEXITED | libc::WNOWAIT;
                    libc::waitid(libc::P_PID, self.group as libc::id_t, info.as_mut_ptr(), options)
                };
                if waited == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                    break;
                }
            }
            let mut child = self.child.lock().unwrap();
            self.kill_group();
            match child.take().map(|mut child| child.wait()) {
                Some(Ok(status)) => status.to_string(),
                Some(Err(error)) => error.to_string(),
                None => "it was waited for before".to_owned(),
            }
        }

        pub fn kill(&self) {
            let child = self.child.lock().unwrap();
            if child.is_some() {
                self.kill_group();
            }
        }

        fn kill_group(&self) {
            // SAFETY: the group is that of a process that was not waited for yet.
            unsafe { libc::kill(-self.group, libc::SIGKILL) };
        }
    }
}

/// Checked by the compiler for Windows (`cargo check --target x86_64-pc-windows-gnu`), and never run.
#[cfg(windows)]
mod system {
    use std::io;
    use std::mem;
    use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
    use std::os::windows::process::CommandExt;
    use std::process::{Child, Command};
    use std::ptr;
    use std::sync::Mutex;

    use windows_sys::Win32::System::JobObjects::{
        AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
        JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation, SetInformationJobObject,
        TerminateJobObject,
    };
    use windows_sys::Win32::System::Threading::{CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW};

    pub struct Process {
        /// Closed with the app, however that ends, and what is in it ends with it.
        job: OwnedHandle,
        child: Mutex<Option<Child>>,
    }

    pub fn prepare(command: &mut Command) {
        command.creation_flags(CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP);
    }

    impl Process {
        pub fn new(mut child: Child) -> io::Result<Self> {
            match job_of(&child) {
                Ok(job) => Ok(Self { job, child: Mutex::new(Some(child)) }),
                Err(error) => {
                    let _ = child.kill();
                    Err(error)
                }
            }
        }

        pub fn wait(&self) -> String {
            let child = self.child.lock().unwrap().take();
            let ended = match child.map(|mut child| child.wait()) {
                Some(Ok(status)) => status.to_string(),
                Some(Err(error)) => error.to_string(),
                None => "it was waited for before".to_owned(),
            };
            self.kill();
            ended
        }

        pub fn kill(&self) {
            // SAFETY: the job is open.
            unsafe { TerminateJobObject(self.job.as_raw_handle(), 1) };
        }
    }

    fn job_of(child: &Child) -> io::Result<OwnedHandle> {
        // SAFETY: the pointers are to what the calls take, and each handle is open.
        unsafe {
            let job = CreateJobObjectW(ptr::null(), ptr::null());
            if job.is_null() {
                return Err(io::Error::last_os_error());
            }
            let job = OwnedHandle::from_raw_handle(job);
            let mut limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = mem::zeroed();
            limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
            let set = SetInformationJobObject(
                job.as_raw_handle(),
                JobObjectExtendedLimitInformation,
                ptr::from_ref(&limits).cast(),
                mem::size_of_val(&limits) as u32,
            );
            if set == 0 || AssignProcessToJobObject(job.as_raw_handle(), child.as_raw_handle()) == 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(job)
        }
    }
}
