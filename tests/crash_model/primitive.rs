//! The model's atomics, in place of the crate's: sequentially consistent, and every access to a
//! shared one is a step.

pub(crate) use core::sync::atomic::Ordering;

use crate::world::{self, Access};

macro_rules! atomic {
    ($name:ident, $int:ident) => {
        /// A word. In the arena its contents are known to the explorer; elsewhere it belongs to one
        /// process and is an ordinary one.
        #[derive(Debug)]
        #[repr(transparent)]
        pub(crate) struct $name(core::sync::atomic::$name);

        impl $name {
            const BITS: u64 = $int::MAX as u64;

            pub(crate) const fn new(value: $int) -> $name {
                $name(core::sync::atomic::$name::new(value))
            }

            pub(crate) fn address(&self) -> usize {
                (&raw const *self).addr()
            }

            fn step(&self, access: Access) -> Option<$int> {
                world::access(self.address(), access).map(|value| value as $int)
            }

            pub(crate) fn load(&self, _: Ordering) -> $int {
                self.step(Access::Load).unwrap_or_else(|| self.0.load(Ordering::Relaxed))
            }

            pub(crate) fn store(&self, value: $int, _: Ordering) {
                if self.step(Access::Store(value.into())).is_none() {
                    self.0.store(value, Ordering::Relaxed);
                }
            }

            pub(crate) fn swap(&self, value: $int, _: Ordering) -> $int {
                self.step(Access::Swap(value.into()))
                    .unwrap_or_else(|| self.0.swap(value, Ordering::Relaxed))
            }

            pub(crate) fn compare_exchange(
                &self,
                from: $int,
                to: $int,
                _: Ordering,
                _: Ordering,
            ) -> Result<$int, $int> {
                match self.step(Access::CompareExchange(from.into(), to.into())) {
                    Some(old) => {
                        if old == from {
                            Ok(old)
                        } else {
                            Err(old)
                        }
                    }
                    None => self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed),
                }
            }

            pub(crate) fn fetch_add(&self, value: $int, _: Ordering) -> $int {
                self.step(Access::Add(value.into(), Self::BITS))
                    .unwrap_or_else(|| self.0.fetch_add(value, Ordering::Relaxed))
            }

            pub(crate) fn fetch_sub(&self, value: $int, order: Ordering) -> $int {
                self.fetch_add(value.wrapping_neg(), order)
            }

            pub(crate) fn fetch_or(&self, value: $int, _: Ordering) -> $int {
                self.step(Access::Or(value.into()))
                    .unwrap_or_else(|| self.0.fetch_or(value, Ordering::Relaxed))
            }

            pub(crate) fn fetch_and(&self, value: $int, _: Ordering) -> $int {
                self.step(Access::And(value.into()))
                    .unwrap_or_else(|| self.0.fetch_and(value, Ordering::Relaxed))
            }

            /// A load and compare-and-swaps, as in the standard library.
            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                mut update: impl FnMut($int) -> Option<$int>,
            ) -> Result<$int, $int> {
                let mut old = self.load(fetch);
                while let Some(new) = update(old) {
                    match self.compare_exchange(old, new, set, fetch) {
                        Ok(old) => return Ok(old),
                        Err(now) => old = now,
                    }
                }
                Err(old)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

/// Everything is in one order here.
pub(crate) fn fence(_: Ordering) {}

pub(crate) fn spin_hint() {}
