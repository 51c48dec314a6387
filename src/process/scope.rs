//! Children that are joined at the end of a block.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use crate::process::builder::Builder;
use crate::process::child::{Child, JoinError};
use crate::process::returned::{Argument, Return};
use crate::process::start::SpawnError;

/// A block at whose end all children that were started in it have ended; see [`scope`].
pub struct Scope {
    /// Waits for each child, or kills it and waits.
    children: RefCell<Vec<Join>>,
}

/// Waits for one child.
type Join = Box<dyn FnOnce(End) -> Result<(), JoinError>>;

#[derive(Clone, Copy)]
enum End {
    Wait,
    Kill,
}

impl Scope {
    /// Starts a child as [`spawn`](crate::spawn()) does. Its value is dropped at the end of the
    /// scope; to have it, send it through a queue.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn spawn<A, T>(&self, function: fn(A) -> T, arguments: A) -> Result<(), SpawnError>
    where
        A: Argument,
        T: Return,
    {
        self.spawn_with(Builder::new(), function, arguments)
    }

    /// Starts a child with these settings.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn spawn_with<A, T>(
        &self,
        builder: Builder,
        function: fn(A) -> T,
        arguments: A,
    ) -> Result<(), SpawnError>
    where
        A: Argument,
        T: Return,
    {
        let child: Child<T> = builder.spawn(function, arguments)?;
        self.children.borrow_mut().push(Box::new(move |end| {
            if let End::Kill = end {
                // One that has ended is as good.
                let _ = child.kill();
            }
            child.join().map(drop)
        }));
        Ok(())
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("children", &self.children.borrow().len()).finish()
    }
}

/// Calls `block` with a scope to start children in, and returns its value when all these children
/// have ended.
///
/// # Blocking
/// Until the last child has ended.
///
/// # Errors
/// How the first child, in the order of their start, ended that did not return. All others were
/// waited for, too.
///
/// # Panics
/// If `block` panics. The children are killed and waited for before.
///
/// # Examples
/// ```
/// use offspring::Queue;
///
/// let queue = Queue::<u64>::with_capacity(8)?;
/// let started = offspring::scope(|scope| {
///     for number in 1..=3 {
///         scope.spawn(
///             |(queue, number): (Queue<u64>, u64)| queue.send(number * number).unwrap(),
///             (queue.clone(), number),
///         )?;
///     }
///     Ok::<_, offspring::SpawnError>(3)
/// })??;
/// let sum: u64 = (0..started).map(|_| queue.try_recv().unwrap()).sum();
/// assert_eq!(sum, 14);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn scope<R>(block: impl FnOnce(&Scope) -> R) -> Result<R, JoinError> {
    let scope = Scope { children: RefCell::new(Vec::new()) };
    let done = panic::catch_unwind(AssertUnwindSafe(|| block(&scope)));
    let end = if done.is_ok() { End::Wait } else { End::Kill };
    let mut ended = Ok(());
    for join in scope.children.into_inner() {
        let joined = join(end);
        ended = ended.and(joined);
    }
    match done {
        Ok(value) => ended.map(|()| value),
        Err(payload) => panic::resume_unwind(payload),
    }
}
