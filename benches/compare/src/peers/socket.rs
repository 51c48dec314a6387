//! A stream socket of the Unix domain.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::Failure;
use crate::channel::{Receiver, Sender};
use crate::peers::{Ends, Waiting, Way};
use crate::stage::Place;

/// socketpair(2), with its usual buffers.
#[derive(Debug)]
pub(crate) struct Socket;

impl Way for Socket {
    const NAME: &'static str = "Unix stream socket";
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = Waiting::Sleeps;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = UnixStream;
    type Receiver<const N: usize> = UnixStream;

    fn open<const N: usize>(_: usize, _: usize) -> Result<Ends<UnixStream, UnixStream>, Failure> {
        let (sender, receiver) = UnixStream::pair()?;
        Ok(Ends::pair(sender, receiver))
    }
}

impl<const N: usize> Sender<N> for UnixStream {
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        self.write_all(bytemuck::bytes_of(buffer)).expect("the reader is there");
    }
}

impl<const N: usize> Receiver<N> for UnixStream {
    fn recv<R>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        self.read_exact(bytemuck::bytes_of_mut(buffer)).expect("the writer is there");
        read(buffer)
    }
}
