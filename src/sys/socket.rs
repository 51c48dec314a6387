//! Messages with descriptors over a pair of connected sockets.
//!
//! # Source
//! unix(7), `SCM_RIGHTS` and `SO_PEERCRED`.
#![expect(unsafe_code, reason = "asks for the peer of a socket that may have none")]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::sys::descriptor::{beyond_stdio, duplicate};
use crate::sys::error::OsError;

/// Most descriptors that a message can have (`SCM_MAX_FD` of the kernel).
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// Two stream sockets that are connected with each other.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), OsError> {
    /// A pair, whose number is the smaller of its two.
    struct Pair(OwnedFd, OwnedFd);
    impl AsRawFd for Pair {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd().min(self.1.as_raw_fd())
        }
    }
    let make = || {
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map(|(ours, theirs)| Pair(ours, theirs))
    };
    let Pair(ours, theirs) = beyond_stdio(make).map_err(OsError::in_call("socketpair"))?;
    Ok((ours, theirs))
}

/// Sends all bytes, of which there is at least one, and copies of the descriptors with the first.
///
/// # Blocking
/// Blocks while the socket's buffer is full and the other side lives.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), OsError> {
    let socket = socket.as_fd();
    let mut space =
        vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len().max(1)))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(OsError { call: "sendmsg", errno: Errno::TOOMANYREFS });
    }
    let mut sent = 0;
    while sent < bytes.len() {
        let rest = [IoSlice::new(&bytes[sent..])];
        let result = rustix::io::retry_on_intr(|| {
            sendmsg(socket, &rest, &mut ancillary, SendFlags::NOSIGNAL)
        });
        sent += result.map_err(OsError::in_call("sendmsg"))?;
        // They went with the first byte.
        ancillary.clear();
    }
    Ok(())
}

/// Fills `bytes`, and gives the descriptors that came with them. False if the other side has closed
/// its end before.
///
/// # Blocking
/// Until enough bytes have arrived, or the other side has closed its end.
pub(crate) fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<bool, OsError> {
    let socket = socket.as_fd();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut received = 0;
    while received < bytes.len() {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut rest = [IoSliceMut::new(&mut bytes[received..])];
        let message = rustix::io::retry_on_intr(|| {
            recvmsg(socket, &mut rest, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let message = match message {
            // A peer that was killed with unread bytes in its buffer.
            Err(Errno::CONNRESET) => return Ok(false),
            other => other.map_err(OsError::in_call("recvmsg"))?,
        };
        for item in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = item {
                for descriptor in received {
                    // It has the lowest free number, which must not be that of a standard stream.
                    let is_beyond = descriptor.as_raw_fd() > 2;
                    descriptors.push(if is_beyond { descriptor } else { duplicate(descriptor)? });
                }
            }
        }
        if message.bytes == 0 {
            return Ok(false);
        }
        received += message.bytes;
    }
    Ok(true)
}

/// Sends a few bytes to a peer that waits for them, if need be by another call than [`send`].
/// Without that peer the signal `SIGPIPE` may come.
pub(crate) fn tell(socket: impl AsFd, bytes: &[u8]) -> Result<(), OsError> {
    let refused = match send(&socket, bytes, &[]) {
        Err(refused) if !matches!(refused.errno, Errno::PIPE | Errno::CONNRESET) => refused,
        sent => return sent,
    };
    // So few are sent as one, or not at all.
    match rustix::io::retry_on_intr(|| rustix::io::write(&socket, bytes)) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        _ => Err(refused),
    }
}

/// As [`receive`] without descriptors, if need be by another call.
pub(crate) fn hear(socket: impl AsFd, bytes: &mut [u8]) -> Result<bool, OsError> {
    let refused = match receive(&socket, bytes, &mut Vec::new()) {
        Err(refused) => refused,
        received => return received,
    };
    // They were sent as one.
    match rustix::io::retry_on_intr(|| rustix::io::read(&socket, &mut *bytes)) {
        Ok(0) | Err(Errno::CONNRESET) => Ok(false),
        Ok(len) if len == bytes.len() => Ok(true),
        _ => Err(refused),
    }
}

/// The process that made the pair of sockets, and its user; `None` if this is no such socket. The
/// process is 0 if it is in no pid namespace that this one sees. An error if the kernel does not
/// tell.
pub(crate) fn maker(socket: impl AsFd) -> Result<Option<(u32, u32)>, OsError> {
    // Not by rustix, whose pids are never 0. That of a socket which nobody has made as a pair is.
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, all of which any number may have.
    let told = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len,
        )
    };
    if told == 0 {
        // A socket that nobody has made as a pair has nobody's user, too.
        let is_pair = found.pid > 0 || found.uid != libc::uid_t::MAX;
        return Ok(is_pair.then_some((found.pid.cast_unsigned(), found.uid)));
    }
    let refused = OsError::in_call("getsockopt")(std::io::Error::last_os_error());
    match refused.errno {
        Errno::BADF | Errno::NOTSOCK | Errno::NOPROTOOPT => Ok(None),
        _ => Err(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor::FileId;

    #[test]
    fn bytes_arrive_whole_and_with_their_descriptors() {
        let (ours, theirs) = pair().expect("a pair");
        let file = tempfile::tempfile().expect("a file");
        let long: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let sender = std::thread::spawn({
            let (file, long) = (file.try_clone().expect("dup"), long.clone());
            move || send(&ours, &long, &[file.as_fd(), file.as_fd()])
        });
        let (mut bytes, mut descriptors) = (vec![0; long.len()], Vec::new());
        assert_eq!(receive(&theirs, &mut bytes, &mut descriptors), Ok(true));
        assert_eq!(sender.join().expect("no panic"), Ok(()));
        assert!(bytes == long);
        assert_eq!(descriptors.len(), 2);
        assert!(descriptors.iter().all(|fd| FileId::of(fd) == FileId::of(&file)));
        // The sender's end is closed by now.
        assert_eq!(receive(&theirs, &mut bytes, &mut descriptors), Ok(false));
        let broken = send(&theirs, b"x", &[]).expect_err("nobody there");
        assert_eq!((broken.call, broken.errno), ("sendmsg", Errno::PIPE));
    }

    #[test]
    fn a_socket_knows_who_made_it_and_a_file_does_not() {
        let (ours, _theirs) = pair().expect("a pair");
        let user = crate::sys::process::user().expect("a user");
        assert_eq!(maker(&ours), Ok(Some((std::process::id(), user))));
        assert_eq!(maker(tempfile::tempfile().expect("a file")), Ok(None));
        // A socket of another kind, which has no maker.
        assert_eq!(maker(std::net::TcpListener::bind("127.0.0.1:0").expect("a port")), Ok(None));
    }
}
