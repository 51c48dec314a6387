//! What went wrong in a child, as text that travels.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Any error, as text: what went wrong, and the causes of it.
///
/// For the closures of children: every error converts into it by `?`, and it travels to the parent,
/// which most errors could not. In the parent it is passed on by `?` as well: from a function that
/// returns `Result<_, Failure>` or `Result<_, Box<dyn Error>>`.
///
/// It is printed in one line: the text, then the causes, each after a colon. `Debug` prints the
/// same, so a `main` that returns it ends with a line that people can read.
///
/// It is not itself an [`Error`], for only so can every error convert into it, as with
/// `anyhow::Error`. [`into_error`](Failure::into_error) makes one.
///
/// # Examples
/// ```
/// use offspring::Failure;
///
/// fn main() -> Result<(), Failure> {
///     let child = offspring::fork(|| -> Result<u64, Failure> {
///         let text = String::from_utf8(vec![b'4', b'2'])?;
///         let number: u64 = text.parse()?;
///         Ok(number)
///     })?;
///     // The first `?` is for a child that was killed or panicked, the second for its own errors.
///     assert_eq!(child.join()??, 42);
///
///     let child = offspring::fork(|| -> Result<String, Failure> {
///         Ok(std::fs::read_to_string("/no/such/file")?)
///     })?;
///     let failure = child.join()?.unwrap_err().context("reading the settings");
///     assert_eq!(
///         failure.to_string(),
///         "reading the settings: No such file or directory (os error 2)",
///     );
///     Ok(())
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
}

impl Failure {
    /// Makes a failure of text, without a cause.
    ///
    /// # Examples
    /// ```
    /// use offspring::Failure;
    ///
    /// let child = offspring::fork(|| -> Result<(), Failure> { Err(Failure::new("no work")) })?;
    /// assert_eq!(child.join()?.unwrap_err().message(), "no work");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(message: impl fmt::Display) -> Failure {
        Failure { message: message.to_string(), causes: Vec::new() }
    }

    /// Makes a failure of an error that is borrowed or boxed: a `Box<dyn Error>` is not itself an
    /// [`Error`], so `?` does not convert it.
    ///
    /// # Examples
    /// ```
    /// use offspring::Failure;
    /// use std::error::Error;
    ///
    /// fn work() -> Result<(), Box<dyn Error + Send + Sync>> {
    ///     Err("no work".into())
    /// }
    /// let failure = work().map_err(|error| Failure::of(&*error)).unwrap_err();
    /// assert_eq!(failure.message(), "no work");
    /// ```
    pub fn of(error: &(dyn Error + '_)) -> Failure {
        let message = error.to_string();
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors repeat their cause in their own text.
            if !causes.last().unwrap_or(&message).ends_with(&text) {
                causes.push(text);
            }
            cause = error.source();
        }
        Failure { message, causes }
    }

    /// Says what was being done. What the failure was so far becomes the cause.
    ///
    /// # Examples
    /// ```
    /// let failure = offspring::Failure::new("no such file").context("reading the settings");
    /// assert_eq!(failure.message(), "reading the settings");
    /// assert_eq!(failure.causes().collect::<Vec<_>>(), ["no such file"]);
    /// ```
    #[must_use]
    pub fn context(self, message: impl fmt::Display) -> Failure {
        let mut causes = vec![self.message];
        causes.extend(self.causes);
        Failure { message: message.to_string(), causes }
    }

    /// Returns what went wrong, without the causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the causes, each the cause of the one before it.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        self.causes.iter().map(String::as_str)
    }

    /// Makes an [`Error`] of it, for code that asks for one. Its text is the
    /// [`message`](Failure::message), and its [`source`](Error::source) is the first cause.
    ///
    /// # Examples
    /// ```
    /// let failure = offspring::Failure::new("no such file").context("reading the settings");
    /// let error = failure.into_error();
    /// assert_eq!(error.to_string(), "reading the settings");
    /// assert_eq!(error.source().expect("a cause").to_string(), "no such file");
    /// ```
    pub fn into_error(self) -> Box<dyn Error + Send + Sync> {
        let cause = self
            .causes
            .into_iter()
            .rev()
            .fold(None, |cause, message| Some(Box::new(Told { message, cause })));
        Box::new(Told { message: self.message, cause })
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::of(&error)
    }
}

impl From<Failure> for Box<dyn Error + Send + Sync> {
    fn from(failure: Failure) -> Self {
        failure.into_error()
    }
}

impl From<Failure> for Box<dyn Error + Send> {
    fn from(failure: Failure) -> Self {
        failure.into_error()
    }
}

impl From<Failure> for Box<dyn Error> {
    fn from(failure: Failure) -> Self {
        failure.into_error()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// The same as `Display`: it is what `main` prints.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A failure or one of its causes, as an error.
struct Told {
    message: String,
    cause: Option<Box<Told>>,
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::sys::error::one_line(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        #[source]
        cause: Option<Box<Link>>,
    }

    fn chain(texts: &[&'static str]) -> Link {
        let (text, causes) = texts.split_first().expect("a text");
        let cause = (!causes.is_empty()).then(|| Box::new(chain(causes)));
        Link { text, cause }
    }

    #[test]
    fn a_failure_prints_its_text_and_each_cause_once() {
        let failure = Failure::from(chain(&["a", "b: c", "c", "d"]));
        for printed in [format!("{failure}"), format!("{failure:#}"), format!("{failure:?}")] {
            assert_eq!(printed, "a: b: c: d");
        }
    }

    #[test]
    fn an_error_made_of_a_failure_has_the_same_chain() {
        let failure = Failure::from(chain(&["a", "b", "c"]));
        let error: Box<dyn Error> = failure.clone().into();
        assert_eq!(format!("{error} and {error:?}"), "a and a: b: c");
        assert_eq!(Failure::of(&*error), failure);
    }
}
