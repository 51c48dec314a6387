//! Any error, as text that a child can send.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// An error as text: a message and its causes.
///
/// Use it as the error type of a child's closure: `?` converts every error into it, and unlike most
/// errors it can be sent to the parent. In the parent `?` works too, in a function that returns
/// `Result<_, Failure>` or `Result<_, Box<dyn Error>>`.
///
/// `Display` prints one line: the message, then the causes, each after a colon. `Debug` prints the
/// same, so a `main` that returns it ends with a readable line.
///
/// Like `anyhow::Error`, it does not implement [`Error`], because otherwise not every error could
/// be converted into it. [`into_error`](Failure::into_error) turns it into an [`Error`].
///
/// # Examples
/// ```
/// use offspring::Failure;
///
/// fn parse(bytes: Vec<u8>) -> Result<u64, Failure> {
///     let text = String::from_utf8(bytes)?;
///     Ok(text.parse()?)
/// }
///
/// fn read(path: String) -> Result<String, Failure> {
///     Ok(std::fs::read_to_string(path)?)
/// }
///
/// fn main() -> Result<(), Failure> {
///     let child = offspring::spawn(parse, vec![b'4', b'2'])?;
///     // The first `?` is for a child that was killed or panicked, the second for its own errors.
///     assert_eq!(child.join()??, 42);
///
///     let child = offspring::spawn(read, "/no/such/file".to_owned())?;
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
    /// Makes a failure from text, without a cause.
    ///
    /// # Examples
    /// ```
    /// use offspring::Failure;
    ///
    /// fn work((): ()) -> Result<(), Failure> {
    ///     Err(Failure::new("no work"))
    /// }
    ///
    /// let child = offspring::spawn(work, ())?;
    /// assert_eq!(child.join()?.unwrap_err().message(), "no work");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(message: impl fmt::Display) -> Failure {
        Failure { message: message.to_string(), causes: Vec::new() }
    }

    /// Makes a failure from a borrowed or boxed error. Needed because `Box<dyn Error>` does not
    /// implement [`Error`], so `?` does not convert it.
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

    /// Adds what was being done as the new message. The old message becomes the first cause.
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

    /// Returns the message, without the causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the causes; each is the cause of the one before it.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        self.causes.iter().map(String::as_str)
    }

    /// Converts into an [`Error`], for code that needs one. Its text is the
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
            .fold(None, |cause, message| Some(Box::new(ErrorChain { message, cause })));
        Box::new(ErrorChain { message: self.message, cause })
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

/// Prints the same as `Display`, because a `main` that returns the failure prints this.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A failure or one of its causes, as an error.
struct ErrorChain {
    message: String,
    cause: Option<Box<ErrorChain>>,
}

impl Error for ErrorChain {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl fmt::Display for ErrorChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for ErrorChain {
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
