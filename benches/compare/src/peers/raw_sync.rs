//! `raw_sync`'s mutex in memory of `shared_memory`.
#![expect(unsafe_code, reason = "its functions take bare addresses")]

use std::time::Duration;

use ::raw_sync::Timeout;
use ::raw_sync::locks::{LockImpl, LockInit, Mutex as RawMutex};
use shared_memory::{Shmem, ShmemConf};

use crate::Failure;
use crate::acts::locking::{self, Protected};
use crate::peers::Door;
use crate::stage::Place;

/// The mutex.
#[derive(Debug)]
pub(crate) struct Mutex;

/// A handle, which opens the mutex where it is first used, as another program would.
pub(crate) struct End {
    name: String,
    /// Removes the memory's name when dropped; of the first handle only, which no process but the
    /// first has.
    owner: Option<Shmem>,
    open: Option<(Box<dyn LockImpl>, Shmem)>,
}

// SAFETY: nothing is open before the first use, in the thread that goes on using it, and the owner
// is not used but dropped.
unsafe impl Send for End {}

/// Where the protected words lie.
const PROTECTED: usize = 256;
const BYTES: usize = 4096;

impl Door for Mutex {
    const NAME: &'static str = "raw_sync in shared_memory";
    const PLACE: Place = Place::Processes;
    type Mutex = End;

    fn create() -> Result<End, Failure> {
        let memory = ShmemConf::new().size(BYTES).create()?;
        let start = memory.as_ptr();
        // SAFETY: fresh zeroed memory, page-aligned and large enough for both, which nobody else
        // has yet.
        let created = unsafe { RawMutex::new(start, start.wrapping_add(PROTECTED)) };
        created.map_err(|error| error.to_string())?;
        Ok(End { name: memory.get_os_id().to_owned(), owner: Some(memory), open: None })
    }
}

impl Clone for End {
    fn clone(&self) -> End {
        End { name: self.name.clone(), owner: None, open: None }
    }
}

impl End {
    /// The mutex, opened if it is not yet.
    #[inline]
    fn mutex(&mut self) -> &dyn LockImpl {
        let (mutex, _) = self.open.get_or_insert_with(|| {
            End::open(&self.name).expect("the first handle keeps the memory")
        });
        &**mutex
    }

    #[cold]
    fn open(name: &str) -> Result<(Box<dyn LockImpl>, Shmem), Failure> {
        let memory = ShmemConf::new().os_id(name).open()?;
        let start = memory.as_ptr();
        // SAFETY: `create` has made a mutex there and left zeroed words behind it.
        let opened = unsafe { RawMutex::from_existing(start, start.wrapping_add(PROTECTED)) };
        let (mutex, _) = opened.map_err(|error| error.to_string())?;
        Ok((mutex, memory))
    }
}

impl locking::Mutex for End {
    #[inline]
    fn with<R>(&mut self, act: impl FnOnce(&mut Protected) -> R) -> R {
        let guard = self.mutex().lock().expect("the mutex is initialised");
        // SAFETY: the guard gives the address of zeroed words, aligned to 256, that are this
        // thread's while it has the guard.
        act(unsafe { &mut *(*guard).cast::<Protected>() })
    }

    #[inline]
    fn is_held(&mut self) -> bool {
        self.mutex().try_lock(Timeout::Val(Duration::ZERO)).is_err()
    }
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("End")
            .field("name", &self.name)
            .field("owner", &self.owner.is_some())
            .finish_non_exhaustive()
    }
}
