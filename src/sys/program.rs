//! The program that this process runs: its code, and the functions that run before `main`.
//!
//! Processes of one program have its code at different addresses, but everything in it at the same
//! distance from everything else. So a function is told to another process as its distance from a
//! static variable. A *function* would not do as the fixed point: the compiler may make several
//! copies of one.
//!
//! # Source
//! dl_iterate_phdr(3); the System V ABI, chapter 5, "Initialization and Termination Functions".
#![expect(unsafe_code, reason = "asks the dynamic linker, and calls what it would call")]

use core::ffi::{c_char, c_int, c_void};
use core::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD};
use serde::{Deserialize, Serialize};

use crate::sys::error::OsError;
use crate::sys::process as sys;

/// A function that runs before `main`. glibc passes what `main` gets; musl passes nothing.
pub(crate) type Initializer = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Where the program lies in this process.
#[derive(Debug, Default)]
struct Loaded {
    /// All of it.
    all: Vec<Range<usize>>,
    /// Its code.
    code: Vec<Range<usize>>,
    /// Whether it names a dynamic linker.
    has_linker: bool,
}

/// Asks the dynamic linker. The first object that it lists is the program itself.
fn loaded() -> &'static Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    unsafe extern "C" fn note(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        loaded: *mut c_void,
    ) -> c_int {
        // SAFETY: the linker passes a description that is valid during the call.
        let info = unsafe { &*info };
        // SAFETY: this is what `loaded` below has passed, and nobody else has a reference to it.
        let loaded = unsafe { &mut *loaded.cast::<Loaded>() };
        // SAFETY: there are so many program headers, and nobody writes them.
        let headers =
            unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        for header in headers {
            loaded.has_linker |= header.p_type == libc::PT_INTERP;
            if header.p_type == libc::PT_LOAD {
                let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
                let range = start..start.wrapping_add(header.p_memsz as usize);
                if header.p_flags & libc::PF_X != 0 {
                    loaded.code.push(range.clone());
                }
                loaded.all.push(range);
            }
        }
        // Not 0: no further object is listed.
        1
    }
    LOADED.get_or_init(|| {
        let mut loaded = Loaded::default();
        // SAFETY: `note` takes what is passed here for what it is.
        unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut loaded).cast()) };
        loaded
    })
}

fn is_in(ranges: &[Range<usize>], address: usize) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

/// The name of the program, as it was started.
pub(crate) fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let program = std::env::args_os().next().unwrap_or_default();
        let name = Path::new(&program).file_name().unwrap_or("offspring".as_ref());
        name.to_string_lossy().into_owned()
    })
}

/// Whether the address is in the program itself, and not in a library.
pub(crate) fn contains(address: usize) -> bool {
    is_in(&loaded().all, address)
}

/// Whether the address is one of code in the program itself, and not in a library.
pub(crate) fn contains_code(address: usize) -> bool {
    is_in(&loaded().code, address)
}

/// Where the kernel shows the file of the program that this process runs, also if another file has
/// got its name by now.
pub(crate) const EXECUTABLE: &str = "/proc/self/exe";

/// Whether [`EXECUTABLE`] is the dynamic linker, which was told to run the program.
pub(crate) fn is_run_by_linker() -> bool {
    // The kernel says where it has put the linker that a program names. SAFETY: takes no pointer.
    loaded().has_linker && unsafe { libc::getauxval(libc::AT_BASE) == 0 }
}

/// The file of a program, in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Build([u64; 5]);

impl Build {
    /// That of the program which this process runs. Nobody can write it meanwhile.
    pub(crate) fn own() -> Result<Build, OsError> {
        static OWN: OnceLock<Build> = OnceLock::new();
        if let Some(own) = OWN.get() {
            return Ok(*own);
        }
        let stat = rustix::fs::statat(CWD, EXECUTABLE, AtFlags::empty())
            .map_err(OsError::in_call("stat /proc/self/exe"))?;
        Ok(*OWN.get_or_init(|| {
            Build([
                stat.st_dev,
                stat.st_ino,
                stat.st_size.cast_unsigned(),
                stat.st_mtime.cast_unsigned(),
                stat.st_mtime_nsec as u64,
            ])
        }))
    }
}

/// Whether the program was started with rights that its caller has not, as a set-user-id program
/// is. It must not believe its environment. Makes no system call.
#[doc(alias = "AT_SECURE")]
pub(crate) fn has_more_rights() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether the program would have more rights if this process started it: it has now, or this
/// process has borrowed a user (`seteuid`).
pub(crate) fn would_have_more_rights() -> Result<bool, OsError> {
    Ok(has_more_rights() || sys::has_borrowed_rights()?)
}

unsafe extern "C" {
    // By the linker: the program's functions that run before `main`, in this order.
    static __init_array_start: [Initializer; 0];
    static __init_array_end: [Initializer; 0];
}

/// Calls the functions that would run before `main` and after `current`, which is one of them and
/// does not return. They get what `current` got.
pub(crate) fn run_later_initializers(
    current: Initializer,
    count: c_int,
    arguments: *const *const c_char,
    variables: *const *const c_char,
) {
    let start = (&raw const __init_array_start).cast::<Option<Initializer>>();
    let end = (&raw const __init_array_end).cast::<Option<Initializer>>();
    let count_of_all = (end.addr() - start.addr()) / size_of::<Initializer>();
    // SAFETY: the array, by its two ends. Nobody writes it. What is no function is null there.
    let all = unsafe { core::slice::from_raw_parts(start, count_of_all) };
    let is_current = |function: &Option<Initializer>| {
        function.is_some_and(|function| function as usize == current as usize)
    };
    for function in all.iter().skip_while(|function| !is_current(function)).skip(1).flatten() {
        // As the startup code does it, in the same order. Nobody calls them again.
        function(count, arguments, variables);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitive::AtomicU64;

    #[test]
    fn the_program_is_told_from_libraries_and_data_from_code() {
        let own = the_program_is_told_from_libraries_and_data_from_code as fn() as usize;
        assert!(contains(own) && contains_code(own));
        // One that is written: some linkers put constants beside the code.
        static VARIABLE: AtomicU64 = AtomicU64::new(0);
        let variable = (&raw const VARIABLE).addr();
        assert!(contains(variable) && !contains_code(variable));
        let on_the_heap = Box::new(7);
        assert!(!contains((&raw const *on_the_heap).addr()));
        // A test program is linked with the shared libc.
        if cfg!(target_env = "gnu") && !cfg!(target_feature = "crt-static") {
            assert!(!contains(libc::getpid as unsafe extern "C" fn() -> i32 as usize));
        }
    }

    #[test]
    fn a_program_is_the_same_as_itself() {
        assert_eq!(Build::own().expect("/proc is mounted"), Build::own().expect("/proc"));
        assert!(!has_more_rights());
        assert_eq!(would_have_more_rights(), Ok(false));
    }
}
