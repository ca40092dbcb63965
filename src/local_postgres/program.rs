//! Running one of Postgres' programs: environment, account, deadline.

use std::{
    env,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::account::Account;

/// Pause between two looks at a child. Programs here run for tenths of seconds.
const POLL: Duration = Duration::from_millis(10);

/// What a program inherits. Everything else stays out: `PG*` would redirect it, and our secrets are none of its business.
const INHERITED: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"];

/// A command under `account` that reads nothing, works in `folder` and prints its messages in English.
pub fn command(program: &Path, account: Option<&Account>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").current_dir(folder).stdin(Stdio::null());
    command.envs(INHERITED.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    if let Some(account) = account {
        account.run(&mut command);
    }
    command
}

/// Starts `command`; the error names the program and, when it is not ours, the account that may be unable to reach it.
pub fn spawn(command: &mut Command, account: Option<&Account>) -> Result<Child, String> {
    command.spawn().map_err(|e| {
        let account = account.map(|account| format!(" as user {}", account.name)).unwrap_or_default();
        format!("{} cannot be run{account}: {e}", Path::new(command.get_program()).display())
    })
}

/// Waits until `child` ends, at most `limit`: then `None`, and it is still running.
pub fn ended_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>, String> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            Ok(ended) => return Ok(ended),
            Err(e) => return Err(format!("process {} cannot be waited for: {e}", child.id())),
        }
    }
}

/// Runs `command` to its end, which must be a success within `limit`. Returns its output when that is a pipe, which must be large
/// enough for all of it.
pub fn succeed(command: &mut Command, account: Option<&Account>, limit: Duration) -> Result<Option<ChildStdout>, String> {
    let mut child = spawn(command, account)?;
    let problem = match ended_within(&mut child, limit)? {
        Some(status) if status.success() => return Ok(child.stdout.take()),
        Some(status) => format!("failed ({status})"),
        None => {
            // It cannot be gone: it has not been waited for. So killing works, and the wait is short.
            let _ = child.kill();
            let _ = child.wait();
            format!("did not end within {} s", limit.as_secs())
        }
    };
    Err(format!("{} {problem}", Path::new(command.get_program()).display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = command(Path::new("/bin/sh"), None, Path::new("/"));
        command.arg("-c").arg(script).stdout(Stdio::piped());
        command
    }

    #[test]
    fn a_program_sees_little_of_our_environment() {
        let stdout = succeed(&mut shell("echo $LC_ALL $CARGO_MANIFEST_DIR; pwd"), None, Duration::from_secs(10)).unwrap();
        let mut said = String::new();
        stdout.unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "C\n/\n");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let started = Instant::now();
        let error = succeed(&mut shell("exec sleep 60"), None, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error, "/bin/sh did not end within 0 s");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn failure_and_absence_are_told_apart() {
        let failed = succeed(&mut shell("exit 3"), None, Duration::from_secs(10)).unwrap_err();
        assert_eq!(failed, "/bin/sh failed (exit status: 3)");
        let absent = command(Path::new("/nonexistent/initdb"), None, Path::new("/"));
        let error = spawn(&mut { absent }, None).unwrap_err();
        assert!(error.starts_with("/nonexistent/initdb cannot be run: No such file"), "{error}");
    }
}
