//! A pipe of the operating system.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::Arc;

use crate::Failure;
use crate::channel::{Receiver, Sender};
use crate::peers::{Ends, Waiting, Way};
use crate::stage::Place;

/// pipe(2), with its usual 64 KiB.
#[derive(Debug)]
pub(crate) struct Pipe;

/// Where messages go in.
#[derive(Clone, Debug)]
pub(crate) struct In(Arc<PipeWriter>);

/// Where they come out.
#[derive(Clone, Debug)]
pub(crate) struct Out(Arc<PipeReader>);

impl Way for Pipe {
    const NAME: &'static str = "pipe";
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = Waiting::Sleeps;
    type Sender<const N: usize> = In;
    type Receiver<const N: usize> = Out;

    fn open<const N: usize>(_: usize, count: usize) -> Result<Ends<In, Out>, Failure> {
        let (reader, writer) = io::pipe()?;
        Ok(Ends::cloned(&In(Arc::new(writer)), &Out(Arc::new(reader)), count))
    }
}

impl<const N: usize> Sender<N> for In {
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        (&*self.0).write_all(bytemuck::bytes_of(buffer)).expect("the reader is there");
    }
}

impl<const N: usize> Receiver<N> for Out {
    fn recv<R>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        (&*self.0).read_exact(bytemuck::bytes_of_mut(buffer)).expect("the writer is there");
        read(buffer)
    }
}
