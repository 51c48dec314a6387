//! `parking_lot::Mutex`.

use std::sync::Arc;

use crate::Failure;
use crate::acts::locking::{self, Protected};
use crate::peers::Door;
use crate::stage::Place;

/// `parking_lot::Mutex`.
#[derive(Debug)]
pub(crate) struct Mutex;

impl Door for Mutex {
    const NAME: &'static str = "parking_lot::Mutex, threads";
    const PLACE: Place = Place::Threads;
    type Mutex = Arc<::parking_lot::Mutex<Protected>>;

    fn create() -> Result<Self::Mutex, Failure> {
        Ok(Arc::default())
    }
}

impl locking::Mutex for Arc<::parking_lot::Mutex<Protected>> {
    #[inline]
    fn with<R>(&mut self, act: impl FnOnce(&mut Protected) -> R) -> R {
        act(&mut self.lock())
    }

    #[inline]
    fn is_held(&mut self) -> bool {
        self.try_lock().is_none()
    }
}
