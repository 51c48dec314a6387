//! The name of an object, as plain bytes that can be sent.

use std::fmt;
use std::str::FromStr;

use bytemuck::{Pod, Zeroable};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names an object: which segment, which block, which generation of it.
///
/// It is plain data: send it to a process that was running before the object was made, write it to
/// a socket, compare it. As text it has the form `segment-block-generation`, in hexadecimal digits,
/// for the arguments of a program and for formats such as JSON.
///
/// A name does not keep the object alive: the sender must keep the object until the receiver has
/// opened it. The objects themselves ([`Queue`](crate::Queue), [`Lock`](crate::Lock) and so on) can
/// also be sent through an [`ObjectQueue`](crate::ObjectQueue) or a [`channel`](crate::channel()),
/// or returned from a child. The message or the child's result keeps them alive.
///
/// # Examples
/// ```
/// use offspring::{Handle, Queue, Segment};
///
/// let names = Queue::<Handle>::with_capacity(4)?;
/// let made = Queue::<u64>::with_capacity(4)?;
/// made.send(7)?;
/// names.send(made.handle())?;
///
/// let opened = Queue::<u64>::open(&Segment::commons()?, names.recv()?)?;
/// assert_eq!(opened.recv()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// As the argument of a program:
/// ```
/// # let made = offspring::Queue::<u64>::with_capacity(4)?;
/// let argument = made.handle().to_string();
/// assert_eq!(argument.parse(), Ok(made.handle()));
/// # Ok::<(), offspring::CreateError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Handle {
    pub(crate) segment: u64,
    pub(crate) block: u64,
    pub(crate) generation: u64,
}

/// `segment-block-generation`, in hexadecimal digits.
impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}-{:x}", self.segment, self.block, self.generation)
    }
}

/// Error of reading a [`Handle`] from text: it is not in the form that `Display` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an object, which looks like 00c0ffee00c0ffee-10000002a-7")]
#[non_exhaustive]
pub struct ParseHandleError {}

/// Reads what `Display` writes, and nothing else.
impl FromStr for Handle {
    type Err = ParseHandleError;

    fn from_str(text: &str) -> Result<Handle, ParseHandleError> {
        let read = || {
            let mut parts = text.split('-').map(|part| u64::from_str_radix(part, 16).ok());
            let mut next = || parts.next()?;
            Some(Handle { segment: next()?, block: next()?, generation: next()? })
        };
        // Written again it is the same text: so it has no more parts, no sign and no other zeros.
        read().filter(|handle| handle.to_string() == text).ok_or(ParseHandleError {})
    }
}

/// Text in formats that are text, and numbers in all others.
impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            (self.segment, self.block, self.generation).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Handle, D::Error> {
        if deserializer.is_human_readable() {
            return String::deserialize(deserializer)?.parse().map_err(D::Error::custom);
        }
        let (segment, block, generation) = Deserialize::deserialize(deserializer)?;
        Ok(Handle { segment, block, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for handle in [
            Handle { segment: 0, block: 0, generation: 0 },
            Handle { segment: 1, block: 3 << 32 | 7, generation: 1 << 29 },
            Handle { segment: u64::MAX, block: u64::MAX, generation: u64::MAX },
        ] {
            assert_eq!(handle.to_string().parse(), Ok(handle));
            let bytes = postcard::to_stdvec(&handle).expect("encoded");
            assert_eq!(postcard::from_bytes(&bytes), Ok(handle));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "-",
            "--",
            "0-0-0",
            "0000000000000000-0",
            "0000000000000000-0-",
            "0000000000000000-0-0-",
            "0000000000000000-0-0-0",
            "0000000000000000-0-00",
            "0000000000000000-+0-0",
            "0000000000000000--0-0",
            " 0000000000000000-0-0",
            "0000000000000000-0-0\n",
            "000000000000000A-0-0",
            "000000000000000g-0-0",
            "00000000000000000-0-0",
            "0000000000000000-10000000000000000-0",
            "0000000000000000-\u{ff10}-0",
        ] {
            assert_eq!(text.parse::<Handle>(), Err(ParseHandleError {}), "{text:?}");
        }
        assert!("0000000000000000-0-0".parse::<Handle>().is_ok());
    }
}
