//! A closure runs in a child of its own, and its value, its panic or its way of ending comes back.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::iter;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use offspring::{Child, ForkError, JoinError, PanicInfo, Queue, Segment};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::common::{self, fork, sandbox, sleep_for_ever};
use crate::harness::{apply, test};
use crate::role::{self, role};

#[apply(test)]
fn value_comes_back() {
    let child = fork(|| (std::process::id(), String::from("seven"), vec![7_u64; 7])).expect("fork");
    let id = child.id();
    assert_ne!(id, std::process::id());
    assert_eq!(child.join().expect("a value"), (id, String::from("seven"), vec![7; 7]));
}

#[apply(test)]
fn value_of_any_small_length_comes_back() {
    fork(|| ()).expect("fork").join().expect("a value");
    for len in 0..100_usize {
        let bytes = move || (0..len).map(|i| 0xff - i as u8).collect::<Vec<u8>>();
        assert_eq!(fork(bytes).expect("fork").join().expect("a value"), bytes());
    }
    for shift in 0..64 {
        assert_eq!(
            fork(move || u64::MAX >> shift).expect("fork").join().expect("a value"),
            u64::MAX >> shift
        );
    }
}

#[apply(test)]
fn long_value_comes_back_whole() {
    let long = || {
        (0..10_000_000_u32)
            .map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3])
            .collect::<Vec<u8>>()
    };
    let child = fork(long).expect("fork");
    assert!(child.join().expect("a value") == long(), "the bytes differ");
}

#[apply(test)]
fn closure_sees_what_the_parent_had_and_changes_only_its_own_copy() {
    let mut numbers = vec![1, 2, 3];
    let mut copy = numbers.clone();
    let child = fork(move || {
        copy.push(4);
        copy
    });
    numbers.push(5);
    assert_eq!(child.expect("fork").join().expect("a value"), [1, 2, 3, 4]);
    assert_eq!(numbers, [1, 2, 3, 5]);
}

/// Forks a child that ends by a panic. The message does not go to the test's standard error.
fn panic_of(closure: impl FnOnce() + Send + 'static) -> PanicInfo {
    let child = fork(|| {
        sandbox::silence();
        closure();
    });
    told_panic(child.expect("fork").join())
}

fn told_panic<T>(ending: Result<T, JoinError>) -> PanicInfo {
    match ending {
        Err(JoinError::Panicked(panic)) => panic,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a value"),
    }
}

const LINE_OF_THE_PANIC: u32 = line!() + 4;

#[inline(never)]
fn a_function_that_panics(number: u32) -> u32 {
    panic!("number {number} is too large")
}

#[apply(test)]
fn panic_comes_back_with_message_place_and_backtrace() {
    ask_for_backtraces(true);
    let panic = panic_of(|| assert_eq!(a_function_that_panics(12), 0));
    assert_eq!(panic.message, "number 12 is too large");
    let location = panic.location.as_ref().expect("a place");
    assert!(location.file.ends_with("fork.rs"), "{location}");
    assert_eq!((location.line, location.column), (LINE_OF_THE_PANIC, 5));
    assert!(panic.backtrace.contains("a_function_that_panics"), "{}", panic.backtrace);
    assert_eq!(panic.to_string(), format!("number 12 is too large at {location}"));
}

/// Says by the environment whether panics note where they came from. Only before the first one,
/// which looks.
#[expect(unsafe_code, reason = "changes the environment")]
fn ask_for_backtraces(yes: bool) {
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", if yes { "1" } else { "0" }) };
}

#[apply(test)]
fn panic_brings_no_backtrace_unless_the_environment_asks_for_it() {
    ask_for_backtraces(false);
    let panic = panic_of(|| panic!("no {}", 7));
    assert_eq!(panic.message, "no 7");
    assert!(panic.location.is_some());
    assert_eq!(panic.backtrace, "");
}

#[apply(test)]
fn panic_with_a_payload_that_is_not_text_comes_back() {
    let panic = panic_of(|| std::panic::panic_any(vec![1_u8]));
    assert_eq!(panic.message, "Box<dyn Any>");
    assert!(panic.location.is_some());
}

#[apply(test)]
fn caught_panic_is_not_taken_for_the_one_that_ended_the_closure() {
    ask_for_backtraces(true);
    let panic = panic_of(|| {
        std::panic::catch_unwind(|| panic!("a slip")).expect_err("it panics");
        std::panic::resume_unwind(Box::new("from elsewhere"))
    });
    assert_eq!(panic.message, "from elsewhere");
    assert_eq!(panic.location, None);
    assert_eq!(panic.backtrace, "");
}

#[apply(test)]
fn panic_of_a_thread_of_the_child_comes_back_without_a_place() {
    let panic = panic_of(|| match std::thread::spawn(|| panic!("in a thread")).join() {
        Ok(()) => (),
        Err(payload) => std::panic::resume_unwind(payload),
    });
    assert_eq!(panic.message, "in a thread");
    assert_eq!(panic.location, None);
}

#[apply(test)]
fn panics_of_child_and_grandchild_come_back_each_with_its_place() {
    ask_for_backtraces(true);
    let child = fork(|| -> () {
        sandbox::silence();
        for _ in 0..2 {
            let grandchild = fork(|| assert_eq!(a_function_that_panics(13), 0));
            let panic = told_panic(grandchild.expect("fork").join());
            assert_eq!(panic.message, "number 13 is too large");
            assert_eq!(panic.location.as_ref().expect("a place").line, LINE_OF_THE_PANIC);
            assert!(panic.backtrace.contains("a_function_that_panics"), "{}", panic.backtrace);
        }
        panic!("the child's own");
    });
    let panic = told_panic(child.expect("fork").join());
    assert_eq!(panic.message, "the child's own");
    assert!(
        panic.location.is_some() && !panic.backtrace.contains("a_function_that_panics"),
        "{}",
        panic.backtrace
    );
}

#[apply(test)]
fn payload_whose_drop_panics_does_not_keep_the_child_alive() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    assert_eq!(panic_of(|| std::panic::panic_any(Bomb)).message, "Box<dyn Any>");
}

#[apply(test)]
fn panic_hook_of_the_parent_stays() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| std::process::exit(33)));
    let child = fork(|| panic!("seen by the program's own hook"));
    std::panic::set_hook(before);
    let ending: Result<(), JoinError> = child.expect("fork").join();
    assert!(matches!(ending, Err(JoinError::Exited(33))), "{ending:?}");
}

#[apply(test)]
fn exit_code_is_told() {
    for code in [1, 7, 101, 255] {
        let ending = fork(move || -> u8 { std::process::exit(code) }).expect("fork").join();
        assert!(matches!(ending, Err(JoinError::Exited(told)) if told == code), "{ending:?}");
    }
}

#[apply(test)]
fn exit_with_code_0_is_not_a_value() {
    let ending = fork(|| -> () { std::process::exit(0) }).expect("fork").join();
    assert!(matches!(ending, Err(JoinError::Exited(0))), "{ending:?}");
}

/// A value whose encoding and decoding can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Awkward {
    FailsToEncode,
    PanicsWhenEncoded,
    FailsToDecode,
}

impl Serialize for Awkward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Awkward::FailsToEncode => Err(serde::ser::Error::custom("never")),
            Awkward::PanicsWhenEncoded => panic!("in the encoder"),
            Awkward::FailsToDecode => serializer.serialize_u8(7),
        }
    }
}

impl<'de> Deserialize<'de> for Awkward {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Awkward, D::Error> {
        Err(serde::de::Error::custom("never"))
    }
}

#[apply(test)]
fn value_that_cannot_be_encoded_is_told() {
    let ending = fork(|| Awkward::FailsToEncode).expect("fork").join();
    assert!(
        matches!(&ending, Err(JoinError::Unsendable(reason)) if reason.starts_with("cannot be encoded")),
        "{ending:?}"
    );
}

#[apply(test)]
fn value_whose_encoding_panics_is_a_panic() {
    let child = fork(|| {
        sandbox::silence();
        Awkward::PanicsWhenEncoded
    });
    assert_eq!(told_panic(child.expect("fork").join()).message, "in the encoder");
}

#[apply(test)]
fn value_that_cannot_be_decoded_is_told() {
    let ending = fork(|| Awkward::FailsToDecode).expect("fork").join();
    assert!(matches!(ending, Err(JoinError::Undecodable(_))), "{ending:?}");
}

#[apply(test)]
fn value_that_does_not_fit_is_told() {
    does_not_fit(|| vec![1_u8; 100_000]);
    does_not_fit(|| (1_u8, vec![1_u8; 1_000_000]));
    does_not_fit(|| (1_u8, vec!["text".repeat(100_000)]));
    does_not_fit(|| (1_u8, vec![1_u8; 10_000]));
}

fn does_not_fit<T: Serialize + serde::de::DeserializeOwned + std::fmt::Debug + 'static>(
    make: fn() -> T,
) {
    let child = fork(move || {
        // The outcome may not grow beyond a page. The signal that comes with it is ignored, so that
        // the write fails instead.
        ignore_sigxfsz();
        let page = rustix::process::Rlimit { current: Some(4096), maximum: Some(4096) };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, page).expect("setrlimit");
        make()
    });
    let ending = child.expect("fork").join();
    assert!(
        matches!(&ending, Err(JoinError::Unsendable(reason)) if reason.contains("write failed")),
        "{ending:?}"
    );
}

#[expect(unsafe_code, reason = "the disposition of a signal is set")]
fn ignore_sigxfsz() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Starts this program again, in a role, and gives what it printed.
fn output_of(role: &str) -> String {
    let output = role::command(role).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[apply(role)]
fn printer(_: &str) {
    print!("<parent>");
    print_by_c("<parent in C>");
    let child = fork(|| {
        print!("<child>");
        print_by_c("<child in C>");
    });
    child.expect("fork").join().expect("it returns");
    let panicking = fork(|| {
        sandbox::silence();
        print!("<panicking>");
        panic!("after printing");
    });
    let ending: Result<(), JoinError> = panicking.expect("fork").join();
    assert!(ending.is_err());
    print!("<end>");
}

#[apply(role)]
fn owner_of_destructors(_: &str) {
    struct Loud(&'static str);
    impl Drop for Loud {
        fn drop(&mut self) {
            println!(
                "<{} dropped in {}>",
                self.0,
                if std::process::id() == parent() { "parent" } else { "child" }
            );
        }
    }
    thread_local! {
        static LOCAL: Loud = const { Loud("thread-local") };
    }
    parent();
    LOCAL.with(|_| ());
    at_exit();
    let _frame = Loud("frame");
    fork(|| ()).expect("fork").join().expect("it returns");
    let panicking: Result<(), JoinError> = fork(|| {
        sandbox::silence();
        panic!("unwinding stops at the closure")
    })
    .expect("fork")
    .join();
    assert!(panicking.is_err());
}

/// The process that asked first.
fn parent() -> u32 {
    static PARENT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *PARENT.get_or_init(std::process::id)
}

#[expect(unsafe_code, reason = "C's standard output and exit functions")]
fn print_by_c(text: &str) {
    let text = std::ffi::CString::new(text).expect("no zero byte");
    // SAFETY: both are strings that end in a zero byte, and the format takes one string.
    unsafe { libc::printf(c"%s".as_ptr(), text.as_ptr()) };
}

#[expect(unsafe_code, reason = "C's standard output and exit functions")]
fn at_exit() {
    extern "C" fn say() {
        print_by_c("<atexit>\n");
    }
    // SAFETY: the function is a plain one that may run at exit.
    unsafe { libc::atexit(say) };
}

#[apply(test)]
fn buffered_output_is_printed_once() {
    let printed = output_of("fork::printer");
    for mark in ["<parent>", "<parent in C>", "<child>", "<child in C>", "<panicking>", "<end>"] {
        assert_eq!(printed.matches(mark).count(), 1, "{mark} in {printed}");
    }
}

#[apply(test)]
fn nothing_of_the_parents_frames_runs_in_the_child() {
    let printed = output_of("fork::owner_of_destructors");
    assert_eq!(printed.matches("<frame dropped in parent>").count(), 1, "{printed}");
    assert_eq!(printed.matches("<atexit>").count(), 1, "{printed}");
    assert!(!printed.contains("dropped in child"), "{printed}");
}

#[apply(test)]
fn captured_value_is_dropped_in_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    assert!(path.exists());
    let seen = path.clone();
    let child = fork(move || {
        // The parent drops its copy right after the fork, whether or not the closure has run.
        common::wait_until("the parent removes the folder", || !seen.exists());
        std::fs::create_dir(&seen).expect("it is gone");
        drop(folder);
        seen.exists()
    });
    let there_after_both = child.expect("fork").join().expect("a value");
    assert!(!there_after_both);
    assert!(!path.exists());
}

/// Does something when it is dropped, but only in the process that made it.
struct WhenDropped(u32, fn());

impl WhenDropped {
    fn new(act: fn()) -> WhenDropped {
        WhenDropped(std::process::id(), act)
    }
}

impl Drop for WhenDropped {
    fn drop(&mut self) {
        if std::process::id() == self.0 {
            (self.1)();
        }
    }
}

#[apply(test)]
fn captured_value_that_panics_when_it_is_dropped_leaves_an_ordinary_child() {
    let commons = Segment::commons().expect("the commons");
    let done = Queue::<u64>::with_capacity(1).expect("a queue");
    let go = Queue::<u64>::with_capacity(1).expect("a queue");
    // All that there is to be left.
    assert_eq!(commons.reap(), Ok(0));
    for _ in 0..3 {
        let (theirs, their_go) = (done.clone(), go.clone());
        let bomb = WhenDropped::new(|| {
            std::panic::resume_unwind(Box::new("in the captured value's drop"))
        });
        let forked = catch_unwind(AssertUnwindSafe(|| {
            fork(move || {
                let _bomb = bomb;
                their_go.recv().expect("open");
                theirs.send(7).expect("open");
            })
        }));
        assert!(forked.is_err(), "the panic goes on");
        // The handle is lost, and that is all: the child works on as any other whose handle was
        // dropped,
        let [(child, _)] = common::children()[..] else { panic!("{:?}", common::children()) };
        go.send(0).expect("room");
        assert_eq!(done.recv_timeout(common::PATIENCE), Ok(7), "the child is not alive");
        common::wait_until_dead(child);
        // and is waited for at the next fork, when everything of it is given back.
        fork(|| ()).expect("fork").join().expect("it returns");
        assert_eq!(common::state(child), None, "a zombie");
        assert_eq!(commons.reap(), Ok(0), "its place in the commons");
    }
}

#[apply(test)]
fn captured_value_that_takes_every_descriptor_when_it_is_dropped_comes_too_late() {
    // In a child, which may use up all descriptors that it has.
    let child = fork(|| {
        let limit = rustix::process::Rlimit { current: Some(40), maximum: Some(40) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("setrlimit");
        thread_local! {
            static TAKEN: RefCell<Vec<File>> = const { RefCell::new(Vec::new()) };
        }
        let greedy = WhenDropped::new(|| {
            TAKEN.with_borrow_mut(|taken| {
                taken.extend(iter::from_fn(|| File::open("/dev/null").ok()))
            })
        });
        let forked = fork(move || {
            let _greedy = greedy;
            7
        });
        let full = File::open("/dev/null").is_err();
        TAKEN.take();
        (full, forked.map(|child| child.join().ok()).map_err(|error| error.to_string()))
    });
    assert_eq!(child.expect("fork").join().expect("a value"), (true, Ok(Some(7))));
}

#[apply(test)]
fn captured_value_that_waits_for_every_child_when_it_is_dropped_does_not_lose_this_one() {
    for _ in 0..3 {
        let thief = WhenDropped::new(|| {
            assert!(nix::sys::wait::waitpid(None, None).is_ok(), "there is a child")
        });
        let child = fork(move || {
            let _thief = thief;
            7
        });
        let child = child.expect("fork");
        // The descriptor was opened before, so it says of this child that it has ended, and of no
        // later one with its pid that it lives.
        assert!(!child.is_alive());
        let refused = child.signal(0).expect_err("it was waited for");
        assert_eq!(refused.raw_os_error(), Some(libc::ESRCH));
        let pidfd = std::fs::read_link(format!("/proc/self/fd/{}", child.as_fd().as_raw_fd()))
            .expect("a descriptor");
        assert!(pidfd.to_string_lossy().contains("pidfd"), "{}", pidfd.display());
        assert_eq!(child.join().expect("the value was sent"), 7);
    }
}

#[apply(test)]
fn process_with_threads_is_refused() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let refused = fork(|| ()).expect_err("there are two threads");
    assert!(matches!(refused, ForkError::Multithreaded { threads: 2 }), "{refused:?}");
    assert!(refused.to_string().contains("start children before the first thread"), "{refused}");
    drop(stop);
    thread.join().expect("it ends").expect_err("nothing was sent");
}

#[apply(test)]
fn joined_thread_does_not_get_in_the_way() {
    for _ in 0..200 {
        std::thread::spawn(|| ()).join().expect("it ends");
        let child = fork(|| 7).expect("a thread that was joined is not there any more");
        assert_eq!(child.join().expect("a value"), 7);
    }
}

#[apply(test)]
fn child_in_another_pid_namespace_is_refused() {
    let child = fork(|| {
        // Where the system does not let its users have namespaces, there is nothing to refuse.
        !leave_pid_namespace() || matches!(fork(|| ()), Err(ForkError::PidNamespace))
    });
    assert!(child.expect("fork").join().expect("a value"));
}

/// Has the coming children of this process born into a new pid namespace.
#[expect(unsafe_code, reason = "unshare has no safe wrapper here")]
fn leave_pid_namespace() -> bool {
    // The right to make one comes with a user namespace. SAFETY: takes no pointer, and this process
    // has one thread and shares nothing with others that the flags speak of.
    unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) == 0 }
}

#[apply(test)]
fn thousand_forks_leave_nothing() {
    let before = common::descriptors();
    for i in 0..1_000_u32 {
        assert_eq!(fork(move || i * 2).expect("fork").join().expect("a value"), i * 2);
    }
    assert_eq!(common::descriptors(), before);
    assert_eq!(common::children(), []);
}

#[apply(test)]
fn full_descriptor_table_is_an_error() {
    let child = fork(|| {
        let limit = rustix::process::Rlimit { current: Some(40), maximum: Some(40) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("setrlimit");
        let mut children: Vec<Child<u64>> = Vec::new();
        let refused = loop {
            match fork(|| 7) {
                Ok(child) => children.push(child),
                Err(refused) => break refused,
            }
        };
        let many = children.len();
        let values = children.into_iter().map(|child| child.join().expect("a value")).sum::<u64>();
        (many as u64, values, refused.to_string(), common::children().len())
    });
    let (many, values, refused, left) = child.expect("fork").join().expect("a value");
    assert!(many > 0);
    assert_eq!(values, 7 * many);
    assert!(refused.ends_with("failed"), "{refused}");
    assert_eq!(left, 0);
}

#[apply(test)]
fn children_of_children_of_children_pass_values_up() {
    fn descend(depth: u32) -> Vec<u32> {
        let mut pids = vec![std::process::id()];
        if depth > 0 {
            pids.extend(fork(move || descend(depth - 1)).expect("fork").join().expect("a value"));
        }
        pids
    }
    let mut pids = descend(5);
    assert_eq!(pids.len(), 6);
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 6, "every one is a process of its own");
}

#[apply(test)]
fn join_timeout_gives_up_no_sooner_and_loses_nothing() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut child =
        fork(move || std::io::read_to_string(&mut reader).expect("the pipe ends")).expect("fork");
    let start = Instant::now();
    assert!(child.join_timeout(Duration::from_millis(50)).is_none());
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(child.join_deadline(start).is_none(), "a deadline in the past");
    assert!(child.is_alive());

    (&writer).write_all(b"go on").expect("it reads");
    drop(writer);
    // The child holds the writing end too, for it was open at the fork.
    assert!(child.join_timeout(Duration::from_millis(20)).is_none());
    child.kill().expect("it lives");
    let deadline = Instant::now() + Duration::from_secs(3600);
    assert!(matches!(child.join_deadline(deadline), Some(Err(JoinError::Killed(9)))));
    assert!(matches!(child.join_timeout(Duration::MAX), Some(Err(JoinError::AlreadyJoined))));
    assert!(matches!(child.join(), Err(JoinError::AlreadyJoined)));
}

#[apply(test)]
fn try_join_says_none_then_the_value_then_that_it_was_taken() {
    let mut child = fork(|| {
        std::thread::sleep(Duration::from_millis(20));
        7
    })
    .expect("fork");
    let mut tries = 0_u64;
    let value = loop {
        match child.try_join() {
            Some(value) => break value,
            None => tries += 1,
        }
    };
    assert_eq!(value.expect("a value"), 7);
    assert!(tries > 0);
    assert!(!child.is_alive());
    assert!(matches!(child.try_join(), Some(Err(JoinError::AlreadyJoined))));
    assert_eq!(child.kill().expect_err("nobody there").raw_os_error(), Some(libc::ESRCH));
}

#[apply(test)]
fn descriptor_becomes_readable_when_the_child_ends() {
    fn readable(child: &impl AsFd, timeout: i64) -> bool {
        let mut fds = [rustix::event::PollFd::new(child, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: timeout, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&timeout)).expect("poll") == 1
    }
    let child = fork(|| -> () { sleep_for_ever() }).expect("fork");
    assert!(!readable(&child, 0));
    child.terminate().expect("it lives");
    assert!(readable(&child, 3600));
    assert!(!child.is_alive());
    child.kill().expect("a dead child takes every signal until it is joined");
    assert!(matches!(child.join(), Err(JoinError::Killed(15))));
}

#[apply(test)]
fn inherited_handle_is_inert() {
    let mut elder = fork(|| -> u32 { sleep_for_ever() }).expect("fork");
    let id = elder.id();
    // The handle is given away: in this process it is dropped with the closure, so the elder runs
    // on by itself.
    let younger = fork(move || {
        let before = common::descriptors();
        let refused = matches!(elder.try_join(), Some(Err(JoinError::NotOurChild)))
            && matches!(
                elder.join_timeout(Duration::from_secs(1)),
                Some(Err(JoinError::NotOurChild))
            )
            && elder.kill().is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
            && !elder.is_alive()
            && matches!(elder.join(), Err(JoinError::NotOurChild));
        // Nothing was closed that is not the handle's any more.
        (refused, before == common::descriptors())
    });
    assert_eq!(younger.expect("fork").join().expect("a value"), (true, true));
    assert!(common::state(id).is_some_and(|state| state != 'Z'), "the elder still runs");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(id as i32).expect("a pid"),
        rustix::process::Signal::KILL,
    )
    .expect("it is ours");
    common::wait_until_dead(id);
    fork(|| ()).expect("fork").join().expect("it returns");
    assert_eq!(common::state(id), None, "it was waited for");
}

#[apply(test)]
fn dropped_child_is_waited_for_at_the_next_fork() {
    let child = fork(|| -> () { sleep_for_ever() }).expect("fork");
    let id = child.id();
    drop(child);
    assert_eq!(common::children().len(), 1, "it runs on");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(id as i32).expect("a pid"),
        rustix::process::Signal::KILL,
    )
    .expect("it is ours");
    common::wait_until_dead(id);
    let next = fork(|| ()).expect("fork");
    assert_eq!(common::state(id), None);
    next.join().expect("it returns");
}

#[apply(test)]
fn dead_child_is_waited_for_when_it_is_dropped() {
    let child = fork(|| 7).expect("fork");
    let id = child.id();
    common::wait_until("the child ends", || !child.is_alive());
    assert_eq!(common::state(id), Some('Z'));
    drop(child);
    assert_eq!(common::state(id), None);
}

#[apply(test)]
fn joining_works_from_another_thread() {
    let child = fork(|| 7).expect("fork");
    let dropped = fork(|| ()).expect("fork");
    common::wait_until("the child ends", || !dropped.is_alive());
    let value = std::thread::spawn(move || {
        drop(dropped);
        child.join()
    });
    assert_eq!(value.join().expect("no panic").expect("a value"), 7);
}

#[apply(test)]
fn child_holds_no_descriptor_of_its_siblings() {
    let own = fork(common::descriptors).expect("fork").join().expect("a value");
    let (first, second) =
        (fork(|| -> () { sleep_for_ever() }), fork(|| -> () { sleep_for_ever() }));
    let siblings = [first.expect("fork"), second.expect("fork")];
    let beside = fork(common::descriptors).expect("fork").join().expect("a value");
    let of_child = |fds: &std::collections::BTreeMap<i32, String>| fds.len();
    assert_eq!(of_child(&own), of_child(&beside), "alone: {own:?}\nbeside two: {beside:?}");

    // Nor has a grandchild those of the child, which are an outcome and a lifeline of its own.
    let grandchild = fork(|| fork(common::descriptors).expect("fork").join().expect("a value"))
        .expect("fork")
        .join()
        .expect("a value");
    assert_eq!(of_child(&own), of_child(&grandchild), "child: {own:?}\ngrandchild: {grandchild:?}");

    for fd in siblings.iter().map(|child| child.as_fd().as_raw_fd()) {
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("it is open");
        let flags =
            flags.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags").trim();
        let flags = i32::from_str_radix(flags, 8).expect("octal");
        assert_ne!(flags & libc::O_CLOEXEC, 0);
    }
    for child in siblings {
        child.kill().expect("it lives");
        assert!(child.join().is_err());
    }
}

#[apply(test)]
fn debug_needs_nothing_of_the_value() {
    #[derive(Serialize, Deserialize)]
    struct Plain;
    let child = fork(|| Plain).expect("fork");
    assert_eq!(format!("{child:?}"), format!("Child {{ id: {}, joined: false, .. }}", child.id()));
    assert!(child.join().is_ok());
}
