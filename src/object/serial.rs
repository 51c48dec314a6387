//! Handles of objects as serde values.
//!
//! In a message of this crate, and in what a child returns, a handle is a number: which object in
//! which [flight](super::flight). The flight holds the objects, so the receiver can open them
//! whatever has become of the sender. Everywhere else, and always as text, a handle is the object's
//! name ([`Handle`]), which holds nothing.
//!
//! A message has one flight, in its queue's segment. What a child [returns](super::result) has one
//! for each segment of which it contains objects.
//!
//! A `Serialize` is not told what its value is encoded for. So the caller says it in a variable of
//! the thread:
//! ```text
//! pack(f):    f serializes; each handle that it meets is added to a list and kept
//! unpack(f):  f deserializes; each number is looked up in the lists of the flights and opened
//! ```
//! Both put back what was there before, also if `f` panics. So a `Serialize` that sends or receives
//! another message does no harm, and one that fails halfway has taken nothing: a flight is made
//! when all is encoded.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::heap::BlockId;
use crate::heap::flight::Name;
use crate::object::Handle;
use crate::object::place::{Block, Object};
use crate::peer::Fault;
use crate::segment::Segment;
use crate::sys::descriptor::FileId;

/// What a handle is in formats that are not text.
#[derive(Serialize, Deserialize)]
enum Encoded {
    /// Its name.
    Name(Handle),
    /// Which object in which flight: `flight:32 | object:32`.
    InFlight(u64),
}

/// An object in a message that is being encoded.
pub(crate) struct Passenger {
    pub(crate) name: Name,
    /// Holds the object until the flight does.
    _keep: Arc<dyn Keep>,
}

/// The objects of one segment in a value that is being encoded, in the order of their numbers.
pub(crate) struct Load {
    /// The segment's file.
    pub(crate) file: FileId,
    pub(crate) passengers: Vec<Passenger>,
}

/// A flight of the value that is being decoded: the segment, and the objects in the flight.
pub(crate) type Listed = (Segment, Vec<Name>);

/// Anything, as it is only to be kept.
trait Keep: Send + Sync {}
impl<T: Send + Sync> Keep for T {}

/// What this thread is encoding or decoding.
enum Trip {
    /// `only` is the segment of the message's queue; `None` in what a child returns.
    Packing {
        only: Option<FileId>,
        loads: Vec<Load>,
        refused: Option<String>,
    },
    Unpacking {
        flights: Vec<Listed>,
        refused: Option<String>,
    },
}

thread_local! {
    /// `None` outside of messages and of what a child returns. [`Restore`] drops what it puts here,
    /// so the variable has no destructor. To enter one with the thread takes memory, and a child
    /// would pay for that with a copied page for each value that it returns.
    static TRIP: RefCell<Option<ManuallyDrop<Trip>>> = const { RefCell::new(None) };
}

/// Puts back what was there before, also if there is a panic.
struct Restore {
    /// `None` once it is put back.
    outer: Option<Option<ManuallyDrop<Trip>>>,
}

impl Restore {
    fn replace(trip: Option<Trip>) -> Restore {
        Restore { outer: Some(TRIP.replace(trip.map(ManuallyDrop::new))) }
    }

    /// Gives what was there meanwhile.
    fn end(&mut self) -> Option<Trip> {
        let outer = self.outer.take()?;
        TRIP.replace(outer).map(ManuallyDrop::into_inner)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.end();
    }
}

/// Encodes a value for a message in this queue. Gives what `encode` gives, the objects that it met,
/// and why one of them cannot be in this message.
pub(crate) fn pack<B: Block, T>(
    queue: &Object<B>,
    encode: impl FnOnce() -> T,
) -> (T, Vec<Passenger>, Option<String>) {
    let (file, _, _) = queue.key();
    let (done, mut loads, refused) = pack_loads(Some(file), encode);
    (done, loads.pop().map_or_else(Vec::new, |load| load.passengers), refused)
}

/// Encodes a value that a child returns. Gives what `encode` gives, the objects that it met, and
/// why one of them cannot be returned.
pub(crate) fn pack_result<T>(encode: impl FnOnce() -> T) -> (T, Vec<Load>, Option<String>) {
    pack_loads(None, encode)
}

fn pack_loads<T>(
    only: Option<FileId>,
    encode: impl FnOnce() -> T,
) -> (T, Vec<Load>, Option<String>) {
    let trip = Trip::Packing { only, loads: Vec::new(), refused: None };
    let mut restore = Restore::replace(Some(trip));
    let done = encode();
    match restore.end() {
        Some(Trip::Packing { loads, refused, .. }) => (done, loads, refused),
        _ => (done, Vec::new(), None),
    }
}

/// Decodes a value from a message of this queue that holds these objects. Gives what `decode`
/// gives, and why one of the objects cannot be opened.
pub(crate) fn unpack<B: Block, T>(
    queue: &Object<B>,
    names: &[Name],
    decode: impl FnOnce() -> T,
) -> (T, Option<String>) {
    let flight = (!names.is_empty()).then(|| (queue.segment(), names.to_vec()));
    unpack_result(flight.into_iter().collect(), decode)
}

/// Decodes a value from what a child has returned, which has these flights. Gives what `decode`
/// gives, and why one of the objects cannot be opened.
pub(crate) fn unpack_result<T>(
    flights: Vec<Listed>,
    decode: impl FnOnce() -> T,
) -> (T, Option<String>) {
    let trip = (!flights.is_empty()).then_some(Trip::Unpacking { flights, refused: None });
    let mut restore = Restore::replace(trip);
    let done = decode();
    match restore.end() {
        Some(Trip::Unpacking { refused, .. }) => (done, refused),
        _ => (done, None),
    }
}

/// Encodes a handle of `object`, which `keep` holds. `role` is what a message holds of it.
pub(crate) fn serialize<B: Block, K: Send + Sync + 'static, S: Serializer>(
    object: &Object<B>,
    keep: &Arc<K>,
    role: u32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return object.handle().serialize(serializer);
    }
    match board(object, keep, role) {
        None => Encoded::Name(object.handle()).serialize(serializer),
        Some(Ok(number)) => Encoded::InFlight(number).serialize(serializer),
        Some(Err(why)) => Err(S::Error::custom(why)),
    }
}

/// Adds an object to the value that is being encoded, and gives its number; `None` if there is no
/// such value.
fn board<B: Block, K: Send + Sync + 'static>(
    object: &Object<B>,
    keep: &Arc<K>,
    role: u32,
) -> Option<Result<u64, String>> {
    TRIP.with_borrow_mut(|trip| {
        let Some(Trip::Packing { only, loads, refused }) = trip.as_deref_mut() else { return None };
        let boarded = passenger(object, keep, role, *only).map(|passenger| {
            let (file, _, _) = object.key();
            let flight = loads.iter().position(|load| load.file == file).unwrap_or(loads.len());
            if flight == loads.len() {
                loads.push(Load { file, passengers: Vec::new() });
            }
            let passengers = &mut loads[flight].passengers;
            passengers.push(passenger);
            (flight as u64) << 32 | (passengers.len() as u64 - 1)
        });
        // The encoder forgets the text.
        Some(boarded.inspect_err(|why| *refused = Some(why.clone())))
    })
}

fn passenger<B: Block, K: Send + Sync + 'static>(
    object: &Object<B>,
    keep: &Arc<K>,
    role: u32,
    only: Option<FileId>,
) -> Result<Passenger, String> {
    // After a fork the process may not hold the object yet.
    object.enter().map_err(|fault| fault.to_string())?;
    if only.is_some_and(|only| object.key().0 != only) {
        return Err(
            "a message can hold objects of its queue's segment, and this one lies in another: make \
             both in the same segment, or send the object's `handle()` and keep the object"
                .to_owned(),
        );
    }
    let Handle { block, generation, .. } = object.handle();
    let (Some(id), Ok(generation)) = (BlockId::from_bits(block), u32::try_from(generation)) else {
        return Err(Fault::Corrupt.to_string());
    };
    Ok(Passenger { name: Name { id, generation, role }, _keep: Arc::<K>::clone(keep) })
}

/// Decodes a handle. `open` opens the object, and is given the role in which a message holds it.
pub(crate) fn deserialize<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    open: impl FnOnce(&Segment, Handle, u32) -> Result<T, Fault>,
) -> Result<T, D::Error> {
    let encoded = if deserializer.is_human_readable() {
        Encoded::Name(Handle::deserialize(deserializer)?)
    } else {
        Encoded::deserialize(deserializer)?
    };
    let opened = match encoded {
        Encoded::Name(handle) => by_name(handle)
            .and_then(|segment| open(&segment, handle, 0).map_err(|fault| fault.to_string())),
        Encoded::InFlight(number) => {
            look_up(number).and_then(|(segment, Name { id, generation, role })| {
                let handle = Handle {
                    segment: segment.id(),
                    block: id.to_bits(),
                    generation: generation.into(),
                };
                open(&segment, handle, role).map_err(|fault| fault.to_string())
            })
        }
    };
    opened.map_err(|why| {
        // The decoder forgets the text.
        TRIP.with_borrow_mut(|trip| {
            if let Some(Trip::Unpacking { refused, .. }) = trip.as_deref_mut() {
                *refused = Some(why.clone());
            }
        });
        D::Error::custom(why)
    })
}

fn by_name(handle: Handle) -> Result<Segment, String> {
    handle.find_segment().ok_or_else(|| {
        format!(
            "the object lies in segment {:016x}, which this process does not have open: open its \
             file, or get it by Segment::receive or Segment::inherited before",
            handle.segment
        )
    })
}

/// The object with this number in the value that is being decoded.
fn look_up(number: u64) -> Result<(Segment, Name), String> {
    TRIP.with_borrow(|trip| match trip.as_deref() {
        Some(Trip::Unpacking { flights, .. }) => {
            let (flight, index) = ((number >> 32) as usize, number as u32 as usize);
            let object = flights
                .get(flight)
                .and_then(|(segment, names)| Some((segment.clone(), *names.get(index)?)));
            object.ok_or_else(|| format!("the message holds no object with number {number}"))
        }
        _ => Err("a handle that only its message can hold was taken out of it as bytes".to_owned()),
    })
}
