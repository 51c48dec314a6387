//! What a segment holds, in numbers, for people and for programs that watch over others.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::heap::Pool;
use crate::heap::block::State;
use crate::object::kind::Kind;
use crate::peer::id;
use crate::peer::table::{EntryWord, State as Entry};
use crate::peer::{Fault, attach};
use crate::segment::Segment;

/// A number of blocks, and the bytes that they take of the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Number of blocks. Each object has one, and so has each message that does not fit into a
    /// slot.
    pub blocks: u64,
    /// Bytes that they take of the budget.
    pub bytes: u64,
}

impl Usage {
    fn add(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// A process that is attached to a segment, and the blocks that belong to it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerStats {
    /// Its number in the segment's table of processes.
    pub index: u32,
    /// The process; `None` if the table does not say that: it has not begun to use the segment, or
    /// it is dead and somebody is clearing up after it.
    pub pid: Option<u32>,
    /// Blocks that it builds up, fills or tears down, such as those of loans.
    pub owned: Usage,
}

/// What a segment holds. Made by [`Segment::stats`].
///
/// `Display` prints a table.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SegmentStats {
    /// Bytes of objects and messages that the segment may hold, as [`Segment::len`].
    pub budget: u64,
    /// Bytes that count against the budget, as the segment itself keeps count. While
    /// nobody makes or frees objects, it is not less than is in use. It may be more if processes
    /// were killed, or if the bytes were counted while others made objects; then they are counted
    /// again when memory runs short.
    pub charged: u64,
    /// Free blocks that processes keep at hand for their next objects, at most 33 for each of 14
    /// threads of a process. Their bytes are not among the `charged` ones: all of them go back when
    /// an object does not find room.
    pub cached: Usage,
    /// Bytes of free blocks whose memory was not given back to the system: the next large messages
    /// use it, and it goes back when the system has no other.
    pub kept: u64,
    /// All blocks that are in use.
    pub in_use: Usage,
    /// Blocks in use by their size in bytes, which is that of the smallest block with enough room.
    pub sizes: BTreeMap<u64, Usage>,
    /// Blocks in use by what lies in them: `"queue"`, `"lock"`, `"message"` and others.
    pub kinds: BTreeMap<String, Usage>,
    /// Of these, blocks of objects, which belong to all processes that have a handle.
    pub shared: Usage,
    /// Of these, blocks of messages on their way, which belong to a slot of a queue.
    pub in_messages: Usage,
    /// The attached processes, and what belongs to each alone. The dead are among them until
    /// somebody has cleared up after them.
    pub peers: Vec<PeerStats>,
}

impl Segment {
    /// Counts what is in the segment.
    ///
    /// This is for people who look for a leak, and for programs that show how full a segment is.
    /// It looks at every block that was ever used, while other processes go on. Nothing stops them,
    /// so the numbers belong to slightly different times: a block that passes from one owner to
    /// another may be counted for either, with the length of either, and sums of different tables
    /// may differ. They are exact if nobody uses the segment meanwhile.
    ///
    /// What the dead have left counts until somebody clears up; call [`Segment::reap`] before to
    /// leave it out. A process that only counts is not one of the segment's `peers`.
    ///
    /// # Blocking
    /// Never waits. Reads the header of each block that was ever used, so it takes longer the more
    /// there were.
    ///
    /// # Fork
    /// Works in a child, which maps the segment if it has not yet used it.
    ///
    /// # Errors
    /// [`Fault`] if the segment cannot be mapped, in whole.
    ///
    /// # Examples
    /// ```
    /// use offspring::{ByteQueue, Segment};
    ///
    /// let segment = Segment::create(1 << 20)?;
    /// let queue = ByteQueue::with_capacity_in(&segment, 4)?;
    /// queue.send(&[7; 5000])?;
    ///
    /// let stats = segment.stats()?;
    /// assert_eq!(stats.in_use.blocks, 2);
    /// assert_eq!(stats.kinds["queue of bytes"].blocks, 1);
    /// assert_eq!(stats.in_messages.bytes, 5000);
    /// println!("{stats}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Result<SegmentStats, Fault> {
        let mapping = self.mapping();
        let (region, table) = attach::view(mapping)?;
        mapping.see_all()?;
        let pool = Pool::new(mapping, region);
        let mut peers: BTreeMap<u32, PeerStats> = table
            .indices()
            .filter_map(|index| Some((index, table.load(index)?)))
            .filter(|(_, word)| word.state() != Entry::Free)
            .map(|(index, word)| (index, PeerStats::new(index, pid(word))))
            .collect();
        let mut stats = SegmentStats {
            budget: self.len(),
            charged: pool.charged(),
            cached: Usage::default(),
            kept: 0,
            in_use: Usage::default(),
            sizes: BTreeMap::new(),
            kinds: BTreeMap::new(),
            shared: Usage::default(),
            in_messages: Usage::default(),
            peers: Vec::new(),
        };
        pool.survey(|seen| {
            stats.kept = stats.kept.saturating_add(seen.kept);
            let of_owner = match seen.state {
                State::Free | State::Unknown => return,
                State::Cached(_) => return stats.cached.add(seen.len),
                State::Shared => &mut stats.shared,
                State::Carried => &mut stats.in_messages,
                State::Owned(owner) => {
                    let index = id::index_of(owner);
                    // It may have come after the look at the table.
                    let peer = peers.entry(index).or_insert_with(|| PeerStats::new(index, None));
                    &mut peer.owned
                }
            };
            of_owner.add(seen.len);
            stats.in_use.add(seen.len);
            stats.sizes.entry(seen.block_size).or_default().add(seen.len);
            stats.kinds.entry(name(Kind::of(seen.kind)).to_owned()).or_default().add(seen.len);
        });
        stats.charged = stats.charged.saturating_sub(stats.cached.bytes);
        stats.peers = peers.into_values().collect();
        Ok(stats)
    }
}

impl PeerStats {
    fn new(index: u32, pid: Option<u32>) -> PeerStats {
        PeerStats { index, pid, owned: Usage::default() }
    }
}

/// The process that an entry names.
fn pid(word: EntryWord) -> Option<u32> {
    match word.state() {
        Entry::Joining(who) | Entry::Live(who) | Entry::Taken(who) => Some(who.pid),
        Entry::Free | Entry::Reserved(_) | Entry::Reaping(_) | Entry::Dead | Entry::Unknown => None,
    }
}

fn name(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Queue) => "queue",
        Some(Kind::Lock) => "lock",
        Some(Kind::Spsc) => "spsc ring",
        Some(Kind::Value) => "value",
        Some(Kind::Event) => "event",
        Some(Kind::Bytes) => "queue of bytes",
        Some(Kind::Objects) => "queue of objects",
        Some(Kind::Parcel) => "message",
        Some(Kind::PlainChannel) => "plain channel",
        Some(Kind::BytesChannel) => "channel of bytes",
        Some(Kind::ObjectsChannel) => "channel",
        Some(Kind::Boxed) => "box",
        Some(Kind::Slice) => "box of a slice, vector",
        Some(Kind::Text) => "text",
        Some(Kind::Owners) => "queue of boxes",
        Some(Kind::OwnersChannel) => "channel of boxes",
        Some(Kind::Flight) => "handles in a message",
        Some(Kind::Arc) => "shared value",
        Some(Kind::ArcSlice) => "shared slice",
        None => "unknown",
    }
}

/// A table: the sums, and a line for each size, kind and process.
impl fmt::Display for SegmentStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {:>8} {:>16}", "", "blocks", "bytes")?;
        row(f, "in use", self.in_use)?;
        for (size, usage) in &self.sizes {
            row(f, format_args!("  {size} bytes long"), *usage)?;
        }
        for (kind, usage) in &self.kinds {
            row(f, format_args!("  {kind}"), *usage)?;
        }
        row(f, "  shared", self.shared)?;
        row(f, "  in messages", self.in_messages)?;
        for peer in &self.peers {
            match peer.pid {
                Some(pid) => row(f, format_args!("  of process {pid}"), peer.owned)?,
                None => row(f, format_args!("  of peer {}", peer.index), peer.owned)?,
            }
        }
        row(f, "cached", self.cached)?;
        let sums = [("charged", self.charged), ("budget", self.budget), ("kept", self.kept)];
        sums.iter().try_for_each(|(name, bytes)| write!(f, "\n{name:<24} {:>8} {bytes:>16}", ""))
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: impl fmt::Display, usage: Usage) -> fmt::Result {
    write!(f, "\n{:<24} {:>8} {:>16}", name.to_string(), usage.blocks, usage.bytes)
}

/// One line, also with `{:#?}`.
impl fmt::Debug for SegmentStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { blocks, bytes } = self.in_use;
        write!(f, "SegmentStats({blocks} blocks, {bytes} of {} bytes)", self.budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ByteQueue, Lock, Queue};

    fn usage(blocks: u64, bytes: u64) -> Usage {
        Usage { blocks, bytes }
    }

    #[test]
    fn nothing_is_counted_in_an_empty_segment() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let stats = segment.stats().expect("mapped");
        assert_eq!((stats.budget, stats.in_use), (1 << 16, usage(0, 0)));
        assert!(stats.sizes.is_empty() && stats.kinds.is_empty() && stats.peers.is_empty());
        assert_eq!(segment.stats(), Ok(stats), "to look changes nothing");
    }

    #[test]
    fn every_block_is_counted_by_size_kind_and_owner() {
        let segment = Segment::create(1 << 20).expect("a segment");
        let locks = [0, 1].map(|value: u64| Lock::new_in(&segment, value).expect("a lock"));
        let lock = segment.stats().expect("mapped").kinds["lock"].bytes / 2;
        let queue = ByteQueue::with_capacity_in(&segment, 4).expect("a queue");
        queue.send(&[7; 5000]).expect("room");
        queue.send(&[7; 300]).expect("room");
        let loan = queue.loan(6000).expect("room");
        let stats = segment.stats().expect("mapped");
        let of_queue = stats.kinds["queue of bytes"];
        let all = usage(6, 2 * lock + of_queue.bytes + 11_300);
        assert_eq!(stats.in_use, all);
        assert_eq!(stats.charged, all.bytes);
        assert_eq!(stats.kinds["lock"], usage(2, 2 * lock));
        assert_eq!((of_queue.blocks, stats.kinds["message"]), (1, usage(3, 11_300)));
        let me = PeerStats { index: 0, pid: Some(std::process::id()), owned: usage(1, 6000) };
        assert_eq!(stats.peers, [me], "the loan");
        assert_eq!(stats.in_messages, usage(2, 5300));
        assert_eq!(stats.shared, usage(3, 2 * lock + of_queue.bytes));
        assert_eq!(stats.sizes[&384], usage(1, 300));
        assert_eq!(stats.sizes[&8192], usage(2, 11_000));
        drop((loan, locks));
        drop(queue);
        assert_eq!(segment.stats().expect("mapped").in_use, usage(0, 0));
    }

    #[test]
    fn the_words_of_an_event_count_against_the_budget() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let _event = crate::Event::new_in(&segment).expect("an event");
        let bytes = segment.stats().expect("mapped").kinds["event"].bytes;
        assert!(bytes >= 8, "{bytes} bytes");
    }

    #[test]
    fn what_a_process_owns_has_a_name() {
        use crate::{ShmArc, ShmBox, ShmStr, ShmVec};

        let segment = Segment::create(1 << 16).expect("a segment");
        let _owned = (
            ShmBox::new_in(&segment, 1_u8).expect("room"),
            ShmBox::from_slice_in(&segment, &[1_u8]).expect("room"),
            ShmVec::<u8>::with_capacity_in(&segment, 1).expect("room"),
            ShmStr::new_in(&segment, "text").expect("room"),
            ShmArc::new_in(&segment, 1_u8).expect("room"),
            ShmArc::from_slice_in(&segment, &[1_u8]).expect("room"),
        );
        let kinds = segment.stats().expect("mapped").kinds;
        let named: Vec<(&str, u64)> =
            kinds.iter().map(|(name, usage)| (name.as_str(), usage.blocks)).collect();
        assert_eq!(
            named,
            [
                ("box", 1),
                ("box of a slice, vector", 2),
                ("shared slice", 1),
                ("shared value", 1),
                ("text", 1)
            ]
        );
    }

    #[test]
    fn pages_of_large_free_blocks_are_counted() {
        let segment = Segment::create(1 << 22).expect("a segment");
        let queue = ByteQueue::with_capacity_in(&segment, 1).expect("a queue");
        let [free, small, used] = [100_000, 300, 100_000].map(|len| queue.loan(len).expect("room"));
        assert_eq!(format!("{used:?}"), "Loan { len: 100000, .. }");
        drop((free, small));
        assert_eq!(segment.stats().expect("mapped").kept, 102_400);
    }

    #[test]
    fn the_table_has_a_line_for_each() {
        let segment = Segment::create(1 << 16).expect("a segment");
        let queue = Queue::<u64>::with_capacity_in(&segment, 4).expect("a queue");
        let stats = segment.stats().expect("mapped");
        let text = stats.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 11, "{text}");
        for (line, begins) in lines.iter().zip([
            "   ",
            "in use",
            "  768 bytes long",
            "  queue",
            "  shared",
            "  in messages",
            "  of process",
            "cached",
            "charged",
            "budget",
            "kept",
        ]) {
            assert!(line.starts_with(begins), "{text}");
        }
        let bytes = stats.in_use.bytes;
        let short = format!("SegmentStats(1 blocks, {bytes} of 65536 bytes)");
        assert_eq!(format!("{stats:#?}"), short);
        drop(queue);
    }
}
