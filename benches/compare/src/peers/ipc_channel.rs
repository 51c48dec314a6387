//! `ipc-channel`: its channels of bytes and of objects, which have one receiver.

use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender, bytes_channel, channel,
};

use crate::Failure;
use crate::channel::{Receiver, Sender};
use crate::peers::{Ends, Waiting, Way};
use crate::stage::Place;

/// The channel.
#[derive(Debug)]
pub(crate) struct Bytes;

impl Way for Bytes {
    const NAME: &'static str = "ipc-channel, bytes";
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = Waiting::Sleeps;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = IpcBytesSender;
    type Receiver<const N: usize> = IpcBytesReceiver;

    fn open<const N: usize>(
        _: usize,
        _: usize,
    ) -> Result<Ends<IpcBytesSender, IpcBytesReceiver>, Failure> {
        let (sender, receiver) = bytes_channel()?;
        Ok(Ends::pair(sender, receiver))
    }
}

impl<const N: usize> Sender<N> for IpcBytesSender {
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        IpcBytesSender::send(self, bytemuck::bytes_of(buffer)).expect("the receiver is there");
    }
}

impl<const N: usize> Receiver<N> for IpcBytesReceiver {
    fn recv<R>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let bytes = IpcBytesReceiver::recv(self).expect("the sender is there");
        // Into the buffer, as the bytes may lie unaligned.
        bytemuck::bytes_of_mut(buffer).copy_from_slice(&bytes);
        read(buffer)
    }
}

/// The channel of values that serde encodes; a value is a vector of bytes, made for each message.
#[derive(Debug)]
pub(crate) struct Objects;

impl Way for Objects {
    const NAME: &'static str = "ipc-channel, objects";
    const PLACE: Place = Place::Processes;
    const WAITING: Waiting = Waiting::Sleeps;
    const MOST_ENDS: usize = 1;
    type Sender<const N: usize> = IpcSender<Vec<u8>>;
    type Receiver<const N: usize> = IpcReceiver<Vec<u8>>;

    fn open<const N: usize>(
        _: usize,
        _: usize,
    ) -> Result<Ends<IpcSender<Vec<u8>>, IpcReceiver<Vec<u8>>>, Failure> {
        let (sender, receiver) = channel()?;
        Ok(Ends::pair(sender, receiver))
    }
}

impl<const N: usize> Sender<N> for IpcSender<Vec<u8>> {
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        fill(buffer);
        let object = bytemuck::bytes_of(buffer).to_vec();
        IpcSender::send(self, object).expect("the receiver is there");
    }
}

impl<const N: usize> Receiver<N> for IpcReceiver<Vec<u8>> {
    fn recv<R>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R {
        let object = IpcReceiver::recv(self).expect("the sender is there");
        bytemuck::bytes_of_mut(buffer).copy_from_slice(&object);
        read(buffer)
    }
}
