//! What the parent learns of a panic in a child.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A panic that ended a child's closure.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PanicInfo {
    /// The message of the panic; `Box<dyn Any>` if the payload is not text.
    pub message: String,
    /// Where the panic began. `None` if it began in another thread of the child and the closure's
    /// thread resumed it.
    pub location: Option<Location>,
    /// The stack at that place, if the environment asks for it (`RUST_BACKTRACE=1`, see
    /// [`std::backtrace`]). Otherwise empty, and also empty if `location` is `None`, or if the
    /// child may not have enough memory for the names of the frames. Resolving them takes a tenth
    /// of a second.
    pub backtrace: String,
}

impl fmt::Display for PanicInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{} at {location}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Prints message and place as `Display` does, then the backtrace if there is one.
impl fmt::Debug for PanicInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        if self.backtrace.is_empty() { Ok(()) } else { write!(f, "\n{}", self.backtrace) }
    }
}

/// A place in the source, like [`std::panic::Location`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Location {
    /// Source file, as it was given to the compiler.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column, counted from 1.
    pub column: u32,
}

impl From<&std::panic::Location<'_>> for Location {
    fn from(location: &std::panic::Location<'_>) -> Location {
        Location {
            file: location.file().to_owned(),
            line: location.line(),
            column: location.column(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}
