//! What a parent tells a child that is no copy of it, and how.
//!
//! Parent and child have one end each of a pair of sockets, the *cord*:
//! ```text
//! parent                                child
//!   request, with descriptors  ------>
//!                              <------  a copy of the zygote: hello, its pid
//!                                       (or the zygote: why there is no child)
//!   make it end with the parent
//!   go                         ------>
//!   close the cord                      run the function
//! ```
//! Before `go` no code of the program runs in the child. If the cord ends first, the parent has
//! given up or is dead, and the child ends.
//!
//! # Layout
//! A request is its length (8 bytes, native-endian) and postcard of [`Request`]. The descriptors
//! come with its first byte: outcome, arguments, the child's end of the lifeline; then, as far as
//! the request says so, the working folder and the three standard streams; last one for each
//! segment.
//!
//! An answer is four bytes of a kind, and four of a number.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::process::setting::Setting;
use crate::segment::Deed;
use crate::sys::error::OsError;
use crate::sys::program::Build;
use crate::sys::socket;

/// The environment variable that makes a program a child: `child:PID` or `zygote:PID`, with the
/// parent's pid. The cord is its standard input.
pub(super) const MARKER: &str = "OFFSPRING_START";
pub(super) const CHILD: &str = "child";
pub(super) const ZYGOTE: &str = "zygote";

/// What a child must know to run a function.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) parent: u32,
    pub(super) build: Build,
    /// The function that calls `function` with arguments of the right types.
    pub(super) enter: u64,
    pub(super) function: u64,
    /// A hash of the types, which `enter` compares with its own.
    pub(super) types: u64,
    /// The segments, and the parent's and the child's entry in the peer table of each. The first is
    /// the commons.
    pub(super) segments: Vec<(Deed, [u64; 2])>,
    pub(super) setting: Setting,
    pub(super) has_folder: bool,
    /// Which of the standard streams are open.
    pub(super) streams: [bool; 3],
}

/// Sends a request over the parent's end of a cord.
pub(super) fn send(
    cord: impl AsFd,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), OsError> {
    let encode = |_| OsError { call: "sendmsg", errno: Errno::INVAL };
    let body = postcard::to_allocvec(request).map_err(encode)?;
    let mut bytes = (body.len() as u64).to_ne_bytes().to_vec();
    bytes.extend(body);
    socket::send(cord, &bytes, descriptors)
}

/// Receives a request; `None` if the parent has gone.
pub(super) fn receive(cord: impl AsFd) -> Result<Option<(Request, Vec<OwnedFd>)>, OsError> {
    let (mut len, mut descriptors) = ([0; 8], Vec::new());
    if !socket::receive(&cord, &mut len, &mut descriptors)? {
        return Ok(None);
    }
    let mut body = vec![0; u64::from_ne_bytes(len) as usize];
    if !socket::receive(&cord, &mut body, &mut descriptors)? {
        return Ok(None);
    }
    let request = postcard::from_bytes(&body)
        .map_err(|_| OsError { call: "recvmsg", errno: Errno::BADMSG })?;
    Ok(Some((request, descriptors)))
}

/// What comes back over a cord before the function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The child is this process.
    Hello(u32),
    /// There is no child, as the zygote has more than one thread.
    NotAlone,
    /// There is no child, as the kernel has refused to make one.
    Refused(Errno),
}

impl Answer {
    fn to_words(self) -> [u32; 2] {
        match self {
            Answer::Hello(pid) => [1, pid],
            Answer::NotAlone => [2, 0],
            Answer::Refused(errno) => [3, errno.raw_os_error().cast_unsigned()],
        }
    }

    fn from_words(words: [u32; 2]) -> Option<Answer> {
        match words {
            [1, pid] => Some(Answer::Hello(pid)),
            [2, _] => Some(Answer::NotAlone),
            [3, number] => Some(Answer::Refused(Errno::from_raw_os_error(number.cast_signed()))),
            _ => None,
        }
    }
}

pub(super) fn answer(cord: impl AsFd, answer: Answer) -> Result<(), OsError> {
    let [kind, number] = answer.to_words().map(u32::to_ne_bytes);
    socket::tell(cord, &[kind, number].concat())
}

/// Waits for the answer; `None` if whoever had the other end is dead.
pub(super) fn await_answer(cord: impl AsFd) -> Result<Option<Answer>, OsError> {
    let mut bytes = [0; 8];
    if !socket::hear(cord, &mut bytes)? {
        return Ok(None);
    }
    let (words, _) = bytes.as_chunks::<4>();
    Ok(Answer::from_words([u32::from_ne_bytes(words[0]), u32::from_ne_bytes(words[1])]))
}

/// Lets the child go. It may be dead by now, which its handle will tell.
pub(super) fn go(cord: impl AsFd) {
    let _ = socket::tell(cord, &[1]);
}

/// Waits for [`go`]; false if the parent has gone.
pub(super) fn await_go(cord: impl AsFd) -> Result<bool, OsError> {
    socket::hear(cord, &mut [0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_were_written() {
        let (ours, theirs) = socket::pair().expect("a pair");
        for sent in [Answer::Hello(77), Answer::NotAlone, Answer::Refused(Errno::AGAIN)] {
            answer(&theirs, sent).expect("room");
            assert_eq!(await_answer(&ours), Ok(Some(sent)));
        }
        go(&ours);
        assert_eq!(await_go(&theirs), Ok(true));
        drop(theirs);
        assert_eq!(await_answer(&ours), Ok(None));
    }

    #[test]
    fn a_request_that_is_cut_short_or_nonsense_is_none() {
        let (ours, theirs) = socket::pair().expect("a pair");
        socket::send(&ours, &8_u64.to_ne_bytes(), &[]).expect("room");
        socket::send(&ours, &[0xff; 8], &[]).expect("room");
        let refused = receive(&theirs).expect_err("nonsense");
        assert_eq!((refused.call, refused.errno), ("recvmsg", Errno::BADMSG));
        socket::send(&ours, &8_u64.to_ne_bytes(), &[]).expect("room");
        drop(ours);
        assert!(receive(&theirs).expect("no error").is_none());
    }
}
