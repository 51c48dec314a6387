//! What children return: values of any length, errors of this crate, and failures with their
//! causes.

use std::error::Error;
use std::fmt::Debug;
use std::process::Termination;

use offspring::{
    CreateError, Failure, Fault, ForkError, JoinError, LockError, LockTimeoutError, PanicInfo,
    Queue, RecvError, RecvTimeoutError, Segment, SegmentError, SendError, SendTimeoutError,
    TryLockError, TryRecvError, TrySendError, TryUpdateError, UpdateError, UpdateTimeoutError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::{fork, sandbox};
use crate::harness::{apply, test};
use crate::role::{self, role};

/// What a child makes of it when it returns this value.
#[track_caller]
fn returned<T: Serialize + DeserializeOwned + Send + 'static>(
    make: impl FnOnce() -> T + Send + 'static,
) -> T {
    fork(make).expect("fork").join().expect("a value")
}

#[apply(test)]
fn long_values_of_all_kinds_come_back() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + Send + 'static>(make: fn() -> T) {
        assert!(returned(make) == make(), "{} differs", std::any::type_name::<T>());
    }
    const LEN: u32 = 3_000_000;
    check(|| (0..LEN).map(|i| i.wrapping_mul(0x9e37_79b9) as u8).collect::<Vec<_>>());
    check(|| (0..LEN).map(|i| u64::from(i) << 40 | 7).collect::<Vec<_>>());
    check(|| (0..LEN).map(|i| f64::from(i) * 0.1).collect::<Vec<_>>());
    check(|| (0..LEN).map(|i| char::from(i as u8)).collect::<String>());
    check(|| Ok::<Vec<u16>, Failure>((0..LEN).map(|i| i as u16).collect()));
    check(|| Ok::<Vec<u16>, String>((0..LEN).map(|i| i as u16).collect()));
    check(|| (7, (0..LEN).map(|i| i as u8).collect::<Vec<_>>(), String::from("eight")));
    check(|| (0..LEN / 10).map(|i| (i, i.to_string())).collect::<Vec<_>>());
    check(|| vec!["long text. ".repeat(50_000); 20]);
}

/// Forks by a bare call in the encoder. The copy goes on encoding.
#[derive(PartialEq)]
struct Forks(usize);

impl Serialize for Forks {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[expect(unsafe_code, reason = "a fork that the crate does not know of")]
        // SAFETY: both processes have one thread.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        let byte = if pid == 0 {
            0xbb
        } else {
            // After the copy has done all that it does.
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).expect("it ends");
            0xaa_u8
        };
        vec![byte; self.0].serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Forks {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Forks, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        assert!(bytes.iter().all(|&byte| byte == 0xaa), "the copy's");
        Ok(Forks(bytes.len()))
    }
}

#[apply(test)]
fn copy_of_the_child_that_comes_back_sends_nothing() {
    for len in [1, 1000, 200_000] {
        assert!(returned(move || Forks(len)) == Forks(len), "{len} bytes");
    }
}

#[apply(test)]
fn question_mark_works_in_a_child() {
    let work = |text: &'static str| {
        returned(move || -> Result<i32, Failure> {
            let queue = Queue::<i32>::with_capacity(1)?;
            queue.send(text.parse()?)?;
            let number = queue.recv()?;
            if number < 0 { Err(Failure::new("a negative number")) } else { Ok(number) }
        })
    };
    assert_eq!(work("7"), Ok(7));
    assert_eq!(work("-7"), Err(Failure::new("a negative number")));
    assert_eq!(work("x").unwrap_err().to_string(), "invalid digit found in string");
}

#[apply(test)]
fn failure_comes_back_with_its_causes() {
    let failure = returned(|| -> Result<(), Failure> {
        Segment::open_file("/no/such/file")?;
        Ok(())
    })
    .unwrap_err()
    .context("looking for jobs");
    assert_eq!(failure.message(), "looking for jobs");
    let causes: Vec<&str> = failure.causes().collect();
    assert_eq!(
        causes,
        [
            "no segment in the file \"/no/such/file\"",
            "open failed",
            "No such file or directory (os error 2)"
        ]
    );
}

#[apply(test)]
fn failure_passes_on_by_a_second_question_mark() {
    fn child(fails: bool) -> Result<offspring::Child<Result<u8, Failure>>, ForkError> {
        fork(move || if fails { Err(Failure::new("inner").context("outer")) } else { Ok(7) })
    }
    fn to_failure(fails: bool) -> Result<u8, Failure> {
        child(fails)?.join()?
    }
    fn to_boxed(fails: bool) -> Result<u8, Box<dyn Error>> {
        Ok(child(fails)?.join()??)
    }
    fn to_sendable(fails: bool) -> Result<u8, Box<dyn Error + Send + Sync>> {
        Ok(child(fails)?.join()??)
    }
    assert_eq!(to_failure(false), Ok(7));
    assert_eq!(to_boxed(false).expect("a value"), 7);
    assert_eq!(to_sendable(false).expect("a value"), 7);
    assert_eq!(format!("{:?}", to_failure(true).unwrap_err()), "outer: inner");
    assert_eq!(format!("{:?}", to_boxed(true).unwrap_err()), "outer: inner");
    assert_eq!(format!("{:?}", to_sendable(true).unwrap_err()), "outer: inner");
}

#[apply(test)]
fn errors_of_this_crate_come_back_as_they_were() {
    /// The child's error must print as the same error that was made here.
    #[track_caller]
    fn check<E: Error + Serialize + DeserializeOwned + Debug + Send + 'static>(make: fn() -> E) {
        let error = returned(make);
        let own = make();
        assert_eq!(
            (error.to_string(), format!("{error:?}")),
            (own.to_string(), format!("{own:?}"))
        );
        assert!(!own.to_string().is_empty(), "{own:?} says nothing");
        // Everything that `main` may return prints its text there.
        assert!(format!("{own:?}").starts_with(&own.to_string()), "{own:?}");
        assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&own));
    }
    fn not_found() -> std::io::Error {
        std::io::Error::from_raw_os_error(libc::ENOENT)
    }
    check(|| Queue::<u8>::with_capacity(0).unwrap_err());
    check(|| Queue::<u8>::with_capacity_in(&Segment::create(1).unwrap(), 1 << 24).unwrap_err());
    check(|| Segment::create(0).unwrap_err());
    check(|| Segment::open_file("/no/such/file").unwrap_err());
    check(|| CreateError::Segment(Segment::open_file("/").unwrap_err()));
    check(|| CreateError::Fault(Fault::TooManyPeers));
    check(|| Fault::Os { call: "mmap", errno: libc::ENOMEM });
    check(|| Fault::Os { call: "open /proc/self/fd", errno: libc::ENOENT });
    check(|| SegmentError::Corrupt { field: "budget" });
    check(|| ForkError::Multithreaded { threads: 2 });
    check(|| ForkError::ThreadsUnknown { call: "unshare", source: not_found() });
    check(|| ForkError::Commons(Segment::create(0).unwrap_err()));
    check(|| ForkError::Os { call: "pidfd_open", source: not_found() });
    check(|| LockError::OwnerDied);
    check(|| TryLockError::WouldBlock);
    check(|| LockTimeoutError::Timeout);
    check(|| UpdateError::WouldDeadlock);
    check(|| TryUpdateError::WouldBlock);
    check(|| UpdateTimeoutError::Timeout);
    check(|| LockTimeoutError::Broken(Fault::Stale));
    check(|| SendError::<_>::Closed(7));
    check(|| TrySendError::<_>::Full(String::from("the value")));
    check(|| SendTimeoutError::<_>::Broken(7, Fault::Corrupt));
    check(|| RecvError::<offspring::DecodeError>::Closed);
    check(|| TryRecvError::<offspring::DecodeError>::Empty);
    check(|| RecvTimeoutError::<offspring::DecodeError>::Timeout);
    check(|| JoinError::Killed(9));
    check(|| JoinError::Os { call: "waitid", source: not_found() });
    check(|| fork(|| std::process::exit(3)).unwrap().join().map(|(): ()| ()).unwrap_err());
    // With everything that `match` sees.
    let error = returned(|| ForkError::Os { call: "pidfd_open", source: not_found() });
    assert!(
        matches!(error, ForkError::Os { call: "pidfd_open", source } if source.kind() == std::io::ErrorKind::NotFound)
    );
    // A grandchild's panic, told by the child.
    let panic: Result<(), JoinError> = returned(|| {
        fork(|| {
            sandbox::silence();
            panic!("no")
        })
        .expect("fork")
        .join()
    });
    assert!(
        matches!(panic, Err(JoinError::Panicked(PanicInfo { message, .. })) if message == "no")
    );
}

#[apply(test)]
fn path_that_is_no_text_comes_back() {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::OsStr::from_bytes(b"/no/\xff/file");
    let error = returned(move || Segment::open_file(path).unwrap_err());
    assert!(matches!(error, SegmentError::File { path: told, .. } if told == path));
}

/// Starts this program again with a `main` that returns an error, and gives what it printed.
fn printed_by(way: &str) -> String {
    let main = format!("values::main_that_fails {way}");
    let output = role::command(&main).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[apply(role)]
fn main_that_fails(way: &str) {
    fn killed() -> Result<(), Box<dyn Error>> {
        let child = fork(|| nix::sys::signal::raise(nix::sys::signal::SIGKILL).is_ok())?;
        child.join()?;
        Ok(())
    }
    fn panicked() -> Result<(), Failure> {
        fork(|| -> () {
            sandbox::silence();
            panic!("no luck")
        })?
        .join()?;
        Ok(())
    }
    fn no_file() -> Result<(), SegmentError> {
        Segment::open_file("/no/such/file").map(drop)
    }
    fn failed() -> Result<(), Box<dyn Error>> {
        let child = fork(|| -> Result<(), Failure> { Ok(std::fs::remove_file("/no/such/file")?) })?;
        Ok(child.join()?.map_err(|failure| failure.context("clearing up"))?)
    }
    let _code = match way {
        "killed" => killed().report(),
        "panicked" => panicked().report(),
        "no file" => no_file().report(),
        "failed" => failed().report(),
        other => panic!("{other}"),
    };
    std::process::exit(1)
}

#[apply(test)]
fn main_prints_one_line() {
    assert_eq!(printed_by("killed"), "Error: the child was killed by signal 9 (SIGKILL)\n");
    let panicked = printed_by("panicked");
    let line = panicked.strip_prefix("Error: the child panicked: no luck at ").expect(&panicked);
    assert!(line.contains("values.rs:") && line.lines().count() == 1, "{panicked}");
    assert_eq!(
        printed_by("no file"),
        "Error: no segment in the file \"/no/such/file\": open failed: \
         No such file or directory (os error 2)\n"
    );
    assert_eq!(
        printed_by("failed"),
        "Error: clearing up: No such file or directory (os error 2)\n"
    );
}
