//! What the models of messages that carry blocks share: where the words lie, how the processes, the
//! blocks and the queue are set up, and who clears up and drains. The queue lies in the first block.

use crate::engine::{Process, Touch, View};
use crate::heap::pool::Owned;
use crate::heap::{BlockId, Pool};
use crate::models::heap::{FREE, OWNED, SHARED, attached, decode, peer, reaper_of, with};
use crate::object::place::{self, HANDLE};
use crate::object::{Handle, block, flight};
use crate::peer::id::index_of;
use crate::peer::table::Table;
use crate::peer::{PeerId, attach, reaper};
use crate::ring::position::{Phase, Position, SlotWord};
use crate::segment::layout::{BLOCK, BLOCK_HEADER_SIZE, BLOCKS, HEADERS};
use crate::segment::region::{self, Mapping};
use crate::world::{self, Fate, Local, read, write};

pub const CARRIED: u64 = 3;

/// Blocks that a model has at most.
const MOST: u64 = 4;

// Where the words lie; `src/object/block/queue.rs` and `src/heap/block.rs` assert it.
const SLOTS: usize = BLOCKS as usize + 640;
const STRIDE: usize = 256;
pub const CARRIER: usize = 32;
pub const MARKS: usize = 56;
pub const HOLDERS: usize = 64;

pub fn header(block: u64) -> usize {
    (HEADERS + block * BLOCK_HEADER_SIZE) as usize
}

/// The word of a slot of the queue. The payload is the next one.
pub fn slot(index: usize) -> usize {
    SLOTS + index * STRIDE
}

/// Bytes of a queue.
pub fn len(capacity: usize) -> u64 {
    640 + (capacity * STRIDE) as u64
}

pub fn is_occupied(word: SlotWord) -> bool {
    matches!(word.phase(), Phase::Writing | Phase::Full | Phase::Reading | Phase::Orphan)
}

/// Which of so many blocks a word belongs to, and where it lies in that: headers or bytes.
fn within(blocks: u64, offset: usize, base: u64, size: u64) -> Option<(u64, usize)> {
    let within = (offset as u64).checked_sub(base)?;
    (within / size < blocks).then_some((within / size, (within % size) as usize))
}

pub fn within_header(blocks: u64, offset: usize) -> Option<(u64, usize)> {
    within(blocks, offset, HEADERS, BLOCK_HEADER_SIZE)
}

pub fn within_block(blocks: u64, offset: usize) -> Option<(u64, usize)> {
    within(blocks, offset, BLOCKS, BLOCK)
}

/// Which slot's word is here.
pub fn slot_at(capacity: usize, offset: usize) -> Option<usize> {
    let within = offset.checked_sub(SLOTS)?;
    (within.is_multiple_of(STRIDE) && within / STRIDE < capacity).then_some(within / STRIDE)
}

/// Whether the first queue is there.
pub fn is_there(read: &dyn Fn(usize) -> u64) -> bool {
    let (generation, state, _) = decode(read(header(HANDLE.block)));
    state == SHARED && generation == HANDLE.generation
}

/// The slot of the first queue that carries a block, by everybody's words.
pub fn carrier(read: &dyn Fn(usize) -> u64, block: u64) -> Option<(usize, SlotWord)> {
    let [queue, generation, position] =
        [0, 8, 16].map(|field| read(header(block) + CARRIER + field));
    if !is_there(read) || queue != HANDLE.block || generation != HANDLE.generation || position == 0
    {
        return None;
    }
    let position = Position::from_bits(!position);
    let index = position.index() as usize;
    let word = SlotWord::from_bits(read(slot(index)));
    (word.lap() == position.lap() && is_occupied(word)).then_some((index, word))
}

/// Whoever changes the bytes of a block has it: owns it, or holds it in its own name, in that of a
/// dead process, or by a flight that it owns. Without a hold it may be another object by now.
pub fn changed_by_a_holder(touch: Touch, view: &View<'_>) -> Result<(), String> {
    let Some((block, field)) = within_block(MOST, touch.offset) else {
        return Ok(());
    };
    let process = touch.process;
    let owned_by = |block, owner| {
        let (_, state, low) = decode(view.read(header(block)));
        state == OWNED && index_of(low) as usize == owner
    };
    let holders = view.read(header(block) + HOLDERS);
    let holds = |peer: usize| holders >> peer & 1 != 0 && (peer == process || view.is_dead(peer));
    let is_held = decode(view.read(header(block))).1 == SHARED
        && ((0..view.fates.len()).any(holds) || (0..MOST).any(|flight| owned_by(flight, process)));
    if touch.before == touch.after || owned_by(block, process) || is_held {
        return Ok(());
    }
    Err(format!("block {block}+{field} is changed by {process}, which does not have it"))
}

/// Attaches so many processes and one more, which makes the last checks, and gives pages to all
/// blocks, and nothing else.
pub fn set_up(processes: usize, blocks: u64, kind: u64) {
    region::lay_out(blocks, processes + 1);
    let mapping = Mapping::new(0);
    let table =
        Table::of(mapping.region().expect("a region"), mapping.layout().peers()).expect("a table");
    for process in 0..=processes {
        table.join(&attached(process)).expect("room");
    }
    with(0, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let all: Vec<_> =
            (0..blocks).map(|_| pool.allocate(me, kind, 1).expect("a block")).collect();
        all.iter().for_each(|owned| pool.give_back(owned));
        (0..blocks).for_each(|block| write(header(block), 0));
    });
}

/// Takes the next block and shares it with these processes and the first one. `build` writes it.
pub fn share(
    kind: u64,
    len: u64,
    holders: impl IntoIterator<Item = usize>,
    build: impl FnOnce(&Owned),
) -> u64 {
    with(0, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let owned = pool.allocate(me, kind, len).expect("a block");
        build(&owned);
        pool.share(&owned, me);
        for process in holders {
            pool.attach(owned.id, owned.generation(), peer(process), |_| {});
        }
        owned.id.to_bits()
    })
}

/// As [`share`], for the queue that all models know.
pub fn share_queue<Q>(
    kind: u64,
    len: u64,
    holders: impl IntoIterator<Item = usize>,
    create: impl FnOnce() -> Q,
) {
    let block = share(kind, len, holders, |_| {
        place::lie_at(BLOCKS, len, HANDLE);
        drop(create());
    });
    assert_eq!(block, HANDLE.block, "the lowest is the next");
}

/// What the name of each configuration ends with.
pub fn limits(reapers: usize, deaths: usize, preemptions: Option<u64>) -> String {
    let reapers = if reapers > 0 { format!(", {reapers} reapers") } else { String::new() };
    let preemptions =
        preemptions.map_or_else(String::new, |bound| format!(", {bound} preemptions"));
    format!("{reapers}, {deaths} die{preemptions}")
}

/// Lets go of an object, as the last handle of a process does.
pub fn leave(process: usize, handle: Handle) {
    with(process, |mapping, region, me| {
        let pool = Pool::new(mapping, region);
        let id = BlockId::from_bits(handle.block).expect("a block");
        if pool.generation(id) == Some(handle.generation as u32) && pool.is_holder(id, me) {
            let recover = |object| block::recover(&pool, object, me.owner());
            flight::settle(&pool, me, |empty| pool.leave(id, me, recover, empty));
        }
    });
}

/// A reaper of our own, for controls. `clear` is given the dead process and the reaper.
pub fn mistaken_reaper(
    process: usize,
    others: usize,
    clear: impl Fn(&Pool<'_>, PeerId, PeerId) + 'static,
) -> Process {
    Process {
        may_run: reaper_of(process, others).may_run,
        ..Process::new("reaper", move |_| {
            with(process, |mapping, region, me| {
                let (_, table) = attach::view(mapping).expect("a table");
                let pool = Pool::new(mapping, region);
                for index in table.indices() {
                    reaper::reap(mapping, table, me, index, |dead| clear(&pool, dead, me));
                }
            });
            None
        })
    }
}

/// Makes room for the senders once all receivers are gone.
pub fn drain(receives: Vec<bool>, receive: impl Fn(Local) -> Option<Local> + 'static) -> Process {
    let may_run = move |fates: &[Fate]| {
        receives.iter().zip(fates).all(|(receives, &fate)| !receives || fate != Fate::Running)
    };
    Process::immortal("drains", may_run, receive)
}

/// What a receiver does that finds nothing: it goes on until all of `senders` have ended, if there
/// are any.
pub fn after_the_last(senders: Option<u64>, ended: u64) -> Option<Local> {
    match senders {
        Some(senders) if ended == 0 => Some([world::have_ended(senders).into(), 0, 0, 0]),
        _ => None,
    }
}

/// A block that is left, and in what state.
pub fn left(blocks: u64) -> Option<String> {
    (0..blocks).find_map(|block| {
        let (_, state, owner) = decode(read(header(block)));
        let holders = read(header(block) + HOLDERS);
        (state != FREE || holders != 0).then(|| {
            format!("block {block} is left in state {state} with {owner}, held by {holders:#b}")
        })
    })
}

/// A word by its name and what it says.
pub fn tell(blocks: u64, capacity: usize, offset: usize, value: u64) -> String {
    if let Some(index) = slot_at(capacity, offset) {
        let word = SlotWord::from_bits(value);
        return format!("slot {index}: {:?}({}, {})", word.phase(), word.lap(), word.owner());
    }
    match (within_header(blocks, offset), within_block(blocks, offset)) {
        (Some((block, 0)), _) => {
            let (generation, state, owner) = decode(value);
            let state =
                ["free", "owned by", "shared", "carried"].get(state as usize).unwrap_or(&"?");
            format!("block {block}: {state} {owner} ({generation})")
        }
        (Some((block, HOLDERS)), _) => format!("holders {block}: {value:#b}"),
        (Some((block, MARKS)), _) => format!("marks {block}: {value:#b}"),
        (Some((block, field)), _) => format!("header {block}+{field}: {value:#x}"),
        (_, Some((block, field))) => format!("block {block}+{field}: {value:#x}"),
        _ => super::peers::tell(offset, value),
    }
}
