//! What a child tells of a panic.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A panic that ended a child's closure.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PanicInfo {
    /// What `panic!` was given; `Box<dyn Any>` for a payload that is not text.
    pub message: String,
    /// Where the panic began. `None` if it began in another thread of the child and was resumed by
    /// the closure's.
    pub location: Option<Location>,
    /// The stack at that place, one frame after the other, if the environment asks for it
    /// (`RUST_BACKTRACE=1`, see [`std::backtrace`]); else empty, and also where `location` is
    /// `None`. To find the names of the frames takes a tenth of a second.
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

/// Message and place as `Display` prints them, then the backtrace if there is one.
impl fmt::Debug for PanicInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        if self.backtrace.is_empty() { Ok(()) } else { write!(f, "\n{}", self.backtrace) }
    }
}

/// A place in the source, as [`std::panic::Location`] has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Location {
    /// Source file, as the compiler was given it.
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
