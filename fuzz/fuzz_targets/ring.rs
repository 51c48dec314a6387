//! Operations of one process on a queue, against a naive twin: every position there ever was, in a
//! vector.
//!
//! `cargo +nightly fuzz run ring fuzz/seeds/ring -- -max_total_time=60`
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use offspring::{
    OnReceiverDeath, Queue, QueueOptions, Received, Reservation, TryRecvError, TrySendError, Wait,
};

#[derive(Arbitrary, Debug)]
struct Input {
    capacity: u8,
    redeliver: bool,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Send(u64),
    TrySend(u64),
    SendMany(Vec<u64>),
    Reserve,
    Commit { which: u8, value: u64 },
    Abort { which: u8 },
    Recv,
    TryRecv,
    RecvMany { most: u8 },
    RecvRef,
    Release { which: u8 },
    OtherHandle,
    Close,
}

/// What has become of one position.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Reserved,
    Message(u64),
    /// Being read.
    Taken,
    /// Read or aborted: the slot is free for the position one lap on.
    Done,
}

#[derive(Debug, PartialEq)]
enum Refusal {
    NotNow,
    Closed,
}

struct Twin {
    capacity: usize,
    fates: Vec<Fate>,
    closed: bool,
    /// Somebody was told that nothing more comes.
    ended: bool,
}

impl Twin {
    /// The first position that nobody has taken.
    fn front(&self) -> usize {
        let waits = |fate: &Fate| matches!(fate, Fate::Reserved | Fate::Message(_));
        self.fates.iter().position(waits).unwrap_or(self.fates.len())
    }

    fn next_slot_is_free(&self) -> bool {
        self.fates
            .len()
            .checked_sub(self.capacity)
            .is_none_or(|last_lap| self.fates[last_lap] == Fate::Done)
    }

    fn send(&mut self, fate: Fate) -> Result<usize, Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        if !self.next_slot_is_free() {
            return Err(Refusal::NotNow);
        }
        self.fates.push(fate);
        Ok(self.fates.len() - 1)
    }

    fn recv(&mut self, then: Fate) -> Result<(usize, u64), Refusal> {
        let front = self.front();
        match self.fates.get(front) {
            Some(&Fate::Message(value)) => {
                self.fates[front] = then;
                Ok((front, value))
            }
            None if self.closed && self.next_slot_is_free() => {
                self.ended = true;
                Err(Refusal::Closed)
            }
            _ => Err(Refusal::NotNow),
        }
    }
}

fn send_refusal<T>(error: TrySendError<T>) -> Refusal {
    match error {
        TrySendError::Full(_) => Refusal::NotNow,
        TrySendError::Closed(_) => Refusal::Closed,
        TrySendError::Disconnected(_) => panic!("a queue is no channel"),
        TrySendError::Broken(_, fault) => panic!("broken: {fault}"),
    }
}

fn recv_refusal(error: TryRecvError) -> Refusal {
    match error {
        TryRecvError::Empty => Refusal::NotNow,
        TryRecvError::Closed => Refusal::Closed,
        TryRecvError::Disconnected => panic!("a queue is no channel"),
        TryRecvError::Broken(fault) => panic!("broken: {fault}"),
    }
}

/// Takes one of what is open, if anything is.
fn pick<T>(open: &mut Vec<T>, which: u8) -> Option<T> {
    if open.is_empty() { None } else { Some(open.swap_remove(usize::from(which) % open.len())) }
}

fuzz_target!(|input: Input| {
    let capacity = 1 + usize::from(input.capacity % 8);
    let policy = if input.redeliver { OnReceiverDeath::Redeliver } else { OnReceiverDeath::Drop };
    let mut options = QueueOptions::new();
    options.capacity(capacity).on_receiver_death(policy).wait(Wait::Sleep);
    let queue: Queue<u64> = options.create().expect("room for a small queue");
    let mut other = queue.clone();
    let mut twin = Twin { capacity, fates: Vec::new(), closed: false, ended: false };
    let mut reserved: Vec<(usize, Reservation<'_, u64>)> = Vec::new();
    let mut received: Vec<(usize, u64, Received<'_, u64>)> = Vec::new();

    for operation in input.operations {
        match operation {
            // Waits for ever if there is no room, so it is asked only when there is an answer.
            Operation::Send(value) if twin.closed || twin.next_slot_is_free() => {
                assert_eq!(other.send(value).is_ok(), twin.send(Fate::Message(value)).is_ok());
            }
            Operation::Send(value) | Operation::TrySend(value) => {
                let sent = other.try_send(value).map_err(|error| {
                    assert_eq!(error.into_inner(), value);
                    send_refusal(error)
                });
                assert_eq!(sent, twin.send(Fate::Message(value)).map(drop));
            }
            Operation::SendMany(values) => {
                let refused = values.iter().enumerate().find_map(|(sent, &value)| {
                    let refusal = twin.send(Fate::Message(value)).err()?;
                    Some((sent, refusal))
                });
                let result = other.try_send_many(&values);
                assert_eq!(
                    result.err().map(|error| (error.sent, send_refusal(error.error))),
                    refused
                );
            }
            Operation::Reserve => match (queue.try_reserve(), twin.send(Fate::Reserved)) {
                (Ok(reservation), Ok(position)) => reserved.push((position, reservation)),
                (Err(error), Err(refusal)) => assert_eq!(send_refusal(error), refusal),
                (ours, twins) => panic!("{ours:?}, but the twin {twins:?}"),
            },
            Operation::Commit { which, value } => {
                if let Some((position, mut reservation)) = pick(&mut reserved, which) {
                    if which % 2 == 0 {
                        reservation.write(value);
                    } else {
                        *reservation = value;
                    }
                    assert_eq!(*reservation, value);
                    reservation.commit();
                    twin.fates[position] = Fate::Message(value);
                }
            }
            Operation::Abort { which } => {
                if let Some((position, reservation)) = pick(&mut reserved, which) {
                    drop(reservation);
                    twin.fates[position] = Fate::Done;
                }
            }
            Operation::Recv if matches!(twin.fates.get(twin.front()), Some(Fate::Message(_))) => {
                assert_eq!(other.recv().ok(), twin.recv(Fate::Done).ok().map(|(_, value)| value));
            }
            Operation::Recv | Operation::TryRecv => {
                let ours = other.try_recv().map_err(recv_refusal);
                assert_eq!(ours, twin.recv(Fate::Done).map(|(_, value)| value));
            }
            Operation::RecvMany { most } => {
                let mut values = vec![77];
                let ours =
                    other.try_recv_many(&mut values, usize::from(most)).map_err(recv_refusal);
                let most = usize::from(most).min(capacity);
                let mut expected = vec![77];
                let mut refusal = None;
                while expected.len() <= most && refusal.is_none() {
                    match twin.recv(Fate::Done) {
                        Ok((_, value)) => expected.push(value),
                        Err(refused) => refusal = Some(refused),
                    }
                }
                assert_eq!(values, expected);
                match ours {
                    Ok(count) => assert_eq!(count, expected.len() - 1),
                    Err(ours) => assert_eq!((Some(ours), expected.len()), (refusal, 1)),
                }
            }
            Operation::RecvRef => match (queue.try_recv_ref(), twin.recv(Fate::Taken)) {
                (Ok(message), Ok((position, value))) => {
                    assert!(!message.redelivered());
                    received.push((position, value, message));
                }
                (Err(error), Err(refusal)) => assert_eq!(recv_refusal(error), refusal),
                (ours, twins) => panic!("{ours:?}, but the twin {twins:?}"),
            },
            Operation::Release { which } => {
                if let Some((position, value, message)) = pick(&mut received, which) {
                    assert_eq!(*message, value);
                    twin.fates[position] = Fate::Done;
                }
            }
            Operation::OtherHandle => other = queue.clone(),
            Operation::Close => {
                other.close();
                twin.closed = true;
            }
        }
        // Whatever happened, nobody wrote into a message that is being read.
        for (_, value, message) in &received {
            assert_eq!(**message, *value);
        }
        assert_eq!(queue.len(), twin.fates.len() - twin.front());
        assert_eq!(
            queue.is_empty(),
            !matches!(twin.fates.get(twin.front()), Some(Fate::Message(_)))
        );
        assert_eq!(queue.is_full(), twin.ended || !twin.next_slot_is_free());
        assert_eq!((queue.is_closed(), queue.capacity(), queue.lost()), (twin.closed, capacity, 0));
    }
});
