//! `pthread_mutex_t` in shared memory: process-shared, and robust, too.
#![expect(unsafe_code, reason = "calls libc with addresses in shared memory")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapRaw;

use crate::Failure;
use crate::acts::locking::{self, Protected};
use crate::peers::Door;
use crate::shared;
use crate::stage::Place;

/// Process-shared.
#[derive(Debug)]
pub(crate) struct Shared;

/// Process-shared and robust: the next owner is told that the last one died.
#[derive(Debug)]
pub(crate) struct Robust;

/// The mutex and what it protects, as they lie in the shared memory.
#[repr(C)]
struct Words {
    mutex: libc::pthread_mutex_t,
    protected: Protected,
}

/// A handle.
///
/// # Invariants
/// `words` points to an initialised mutex and its words in `_memory`, which only the holder of the
/// mutex looks at.
#[derive(Clone, Debug)]
pub(crate) struct Mutex {
    words: NonNull<Words>,
    _memory: Arc<MmapRaw>,
}

// SAFETY: a process-shared mutex may be used from everywhere, and it guards the words.
unsafe impl Send for Mutex {}

impl Door for Shared {
    const NAME: &'static str = "pthread mutex, shared";
    const PLACE: Place = Place::Processes;
    type Mutex = Mutex;

    fn create() -> Result<Mutex, Failure> {
        Ok(create(false)?)
    }
}

impl Door for Robust {
    const NAME: &'static str = "pthread mutex, shared and robust";
    const PLACE: Place = Place::Processes;
    type Mutex = Mutex;

    fn create() -> Result<Mutex, Failure> {
        Ok(create(true)?)
    }
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

fn create(robust: bool) -> io::Result<Mutex> {
    let memory = shared::memory(size_of::<Words>())?;
    let words =
        NonNull::new(memory.as_mut_ptr().cast::<Words>()).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: `attributes` may be written.
    check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
    // SAFETY: initialised above.
    check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
    if robust {
        // SAFETY: initialised above.
        check(unsafe {
            libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
        })?;
    }
    // The mutex is the first field. SAFETY: page-aligned memory, large enough, which nobody else
    // has yet; the attributes are initialised.
    check(unsafe { libc::pthread_mutex_init(words.cast().as_ptr(), attributes) })?;
    // INVARIANT: initialised, and given to clones of this handle only.
    Ok(Mutex { words, _memory: Arc::new(memory) })
}

impl locking::Mutex for Mutex {
    #[inline]
    fn with<R>(&mut self, act: impl FnOnce(&mut Protected) -> R) -> R {
        let mutex = self.words.cast().as_ptr();
        // SAFETY: by the invariant an initialised mutex.
        let locked = unsafe { libc::pthread_mutex_lock(mutex) };
        assert_eq!(locked, 0, "nobody has died");
        // SAFETY: by the invariant in bounds, aligned, and this thread's as long as it holds the
        // mutex.
        let result = act(unsafe { &mut (*self.words.as_ptr()).protected });
        // SAFETY: this thread holds it.
        let unlocked = unsafe { libc::pthread_mutex_unlock(mutex) };
        assert_eq!(unlocked, 0, "we had it");
        result
    }

    #[inline]
    fn is_held(&mut self) -> bool {
        let mutex = self.words.cast().as_ptr();
        // SAFETY: by the invariant an initialised mutex.
        let locked = unsafe { libc::pthread_mutex_trylock(mutex) };
        if locked == 0 {
            // SAFETY: this thread has just taken it.
            let unlocked = unsafe { libc::pthread_mutex_unlock(mutex) };
            assert_eq!(unlocked, 0, "we had it");
        }
        locked == libc::EBUSY
    }
}
