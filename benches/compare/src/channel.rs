//! What a way for messages must be able to do to be measured.
//!
//! A message is an array of words, filled by the sender and read by the receiver. Both get the
//! runner's buffer at hand: who copies fills it and sends a copy, who works in place leaves it
//! alone.

/// The end where messages are sent.
pub(crate) trait Sender<const N: usize> {
    /// Sends the message that `fill` writes; begins with whatever the buffer or the slot holds.
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N]));

    /// Sends what was held back to be sent in a batch.
    fn flush(&mut self) {}
}

/// The end where messages arrive.
pub(crate) trait Receiver<const N: usize> {
    /// Receives a message and has it read.
    fn recv<R>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> R) -> R;
}

/// A way there and another back, for one end.
#[derive(Clone, Debug)]
pub(crate) struct Duplex<S, R>(pub(crate) S, pub(crate) R);

impl<const N: usize, S: Sender<N>, R> Sender<N> for Duplex<S, R> {
    #[inline]
    fn send(&mut self, buffer: &mut [u64; N], fill: impl FnOnce(&mut [u64; N])) {
        self.0.send(buffer, fill);
    }
}

impl<const N: usize, S, R: Receiver<N>> Receiver<N> for Duplex<S, R> {
    #[inline]
    fn recv<T>(&mut self, buffer: &mut [u64; N], read: impl FnOnce(&[u64; N]) -> T) -> T {
        self.1.recv(buffer, read)
    }
}

/// A message's buffer, on the heap as the large ones need much of a stack.
pub(crate) fn buffer<const N: usize>() -> Box<[u64; N]> {
    let words = vec![0; N].into_boxed_slice();
    words.try_into().expect("so many words")
}

/// Waits without sleeping, but gives way to others now and then: for peers that leave waiting to
/// their users.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spinner(u32);

impl Spinner {
    /// About 20 to 50 microseconds, much longer than an answer from another core takes.
    const ROUNDS: u32 = 1024;

    #[inline]
    pub(crate) fn wait(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(Spinner::ROUNDS) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Tries again and again, as [`Spinner`] waits.
#[inline]
pub(crate) fn spin_until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut spinner = Spinner::default();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        spinner.wait();
    }
}
