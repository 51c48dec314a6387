//! What a child gets from its parent: an entry in the peer table of every segment, and, if it is a
//! copy of its parent, a hold on everything that the parent holds.
//!
//! The parent does both before there is a child, so that nothing the child inherits can vanish
//! between the fork and its first use. After the fork it writes into the entries who the child is.
//!
//! # Peer death
//! If the parent is killed before the fork, its reservations are cleared up with it. If it is
//! killed after the fork, the child dies with it. If the child is killed before its first use, the
//! parent clears up when it learns of the child's end; until then, a process that needs the memory
//! or the entry finds that its owner is dead.

use std::sync::Arc;

use crate::heap::block::Carrier;
use crate::object::{holding, reap};
use crate::peer::{Fault, PeerId, attach, identity, reaper};
use crate::segment::region::Mapping;
use crate::segment::{Segment, SegmentError, registry};
use crate::sys::descriptor::FileId;
use crate::sys::error::OsError;
use crate::sys::pidfd::Identity;

/// What is reserved for one coming child.
#[derive(Debug)]
pub(crate) struct Lineage {
    promises: Vec<Promise>,
}

#[derive(Debug)]
struct Promise {
    mapping: Arc<Mapping>,
    parent: PeerId,
    child: PeerId,
}

impl Lineage {
    /// Reserves an entry in every segment that this process has open, the commons among them, and
    /// enters the coming child as a holder of all that this process holds. For the parent, before
    /// it forks.
    pub(crate) fn expect_child() -> Result<Lineage, LineageError> {
        Segment::commons().map_err(LineageError::Commons)?;
        let mut lineage = Lineage { promises: Vec::new() };
        // A child that was forked has no part in what its parent could only read.
        for mapping in registry::all().into_iter().filter(|mapping| !mapping.is_read_only()) {
            match promise(&mapping) {
                Ok((parent, child)) => {
                    lineage.promises.push(Promise { mapping, parent, child });
                }
                Err(fault) => {
                    lineage.cancel();
                    return Err(LineageError::Fault(fault));
                }
            }
        }
        Ok(lineage)
    }

    /// Reserves an entry in each of these segments. The coming child holds nothing there, as it has
    /// no copy of this process's memory. For the parent.
    pub(crate) fn expect_stranger(segments: &[Arc<Mapping>]) -> Result<Lineage, LineageError> {
        let mut lineage = Lineage { promises: Vec::with_capacity(segments.len()) };
        for mapping in segments {
            match reserve(mapping) {
                Ok((parent, child)) => {
                    lineage.promises.push(Promise { mapping: Arc::clone(mapping), parent, child });
                }
                Err(fault) => {
                    lineage.cancel();
                    return Err(LineageError::Fault(fault));
                }
            }
        }
        Ok(lineage)
    }

    /// What was reserved, by the parent's words. For a child that has no copy of its parent's
    /// memory. `None` if these are no entries.
    pub(crate) fn as_told(told: impl IntoIterator<Item = (Segment, [u64; 2])>) -> Option<Lineage> {
        let promise = |(segment, [parent, child]): (Segment, [u64; 2])| {
            let (parent, child) = (PeerId::from_bits(parent)?, PeerId::from_bits(child)?);
            Some(Promise { mapping: Arc::clone(segment.mapping()), parent, child })
        };
        Some(Lineage { promises: told.into_iter().map(promise).collect::<Option<_>>()? })
    }

    /// The segments, and what a child without a copy must be told of each.
    pub(crate) fn words(&self) -> impl Iterator<Item = (&Arc<Mapping>, [u64; 2])> {
        self.promises
            .iter()
            .map(|promise| (&promise.mapping, [promise.parent.to_bits(), promise.child.to_bits()]))
    }

    /// For what goes the other way, from the parent to the child: each has the other's place.
    pub(crate) fn downward(&self) -> Lineage {
        let turn = |promise: &Promise| Promise {
            mapping: Arc::clone(&promise.mapping),
            parent: promise.child,
            child: promise.parent,
        };
        Lineage { promises: self.promises.iter().map(turn).collect() }
    }

    /// That of a child which was never expected: nothing is reserved.
    #[cfg(test)]
    pub(crate) fn none() -> Lineage {
        Lineage { promises: Vec::new() }
    }

    /// Maps the segments that this process can only read. For a child that has no copy of its
    /// parent's memory.
    pub(crate) fn read(&self) -> Result<(), OsError> {
        let to_read = |promise: &&Promise| promise.mapping.is_read_only();
        self.promises
            .iter()
            .filter(to_read)
            .try_for_each(|promise| identity::read_as(&promise.mapping, promise.child))
    }

    /// Takes note of what was reserved. For the child, the process `pid`, before it uses anything
    /// of ours. Makes no system call.
    pub(crate) fn adopt(&self, pid: u32) {
        for Promise { mapping, child, .. } in &self.promises {
            identity::keep_reserved(mapping, *child, pid);
        }
    }

    /// Who the child is in the segment with this file.
    pub(crate) fn child_in(&self, file: FileId) -> Option<PeerId> {
        let promise = self.promises.iter().find(|promise| promise.mapping.file_id() == file)?;
        Some(promise.child)
    }

    /// Who the child is in each segment.
    pub(crate) fn children(&self) -> impl Iterator<Item = (FileId, PeerId)> {
        self.promises.iter().map(|promise| (promise.mapping.file_id(), promise.child))
    }

    /// The segments that both processes have, and what carries a block there that the child
    /// returns.
    pub(crate) fn results(&self) -> impl Iterator<Item = (&Arc<Mapping>, Carrier)> {
        self.promises
            .iter()
            .map(|promise| (&promise.mapping, Carrier::of_result(promise.parent, promise.child)))
    }

    /// As [`Lineage::results`], and who the child is there.
    pub(crate) fn remains(&self) -> impl Iterator<Item = (&Arc<Mapping>, Carrier, PeerId)> {
        let children = self.promises.iter().map(|promise| promise.child);
        self.results().zip(children).map(|((mapping, carrier), child)| (mapping, carrier, child))
    }

    /// Says in every segment who the child is. For the parent.
    pub(crate) fn introduce(&self, child: &Identity) {
        for Promise { mapping, child: promised, .. } in &self.promises {
            if let Some(me) = identity::own(mapping)
                && let Ok((_, table)) = attach::view(mapping)
            {
                table.introduce(*promised, me, child);
            }
        }
    }

    /// Takes everything back, as there is no child after all.
    pub(crate) fn cancel(self) {
        self.reap(0);
    }

    /// Gives back what the child, the process `pid`, owned and held. For the parent, which knows
    /// that the child is dead.
    pub(crate) fn reap(&self, pid: u32) {
        for Promise { mapping, child, .. } in &self.promises {
            let Ok(me) = holding::arrive(mapping) else {
                continue;
            };
            let Ok((region, table)) = attach::view(mapping) else {
                continue;
            };
            reaper::reap_child(mapping, table, me, *child, pid, |dead| {
                reap::clear(mapping, region, dead, me)
            });
        }
    }
}

/// Why nothing could be reserved for a child.
#[derive(Debug)]
pub(crate) enum LineageError {
    /// The commons could not be made.
    Commons(SegmentError),
    /// A segment has no place for the child, or this process itself could not attach.
    Fault(Fault),
}

/// The parent, which is this process, and the child, which holds what its parent holds.
fn promise(mapping: &Arc<Mapping>) -> Result<(PeerId, PeerId), Fault> {
    let (me, child) = reserve(mapping)?;
    let (region, _) = attach::view(mapping)?;
    holding::bequeath(mapping, region, child);
    Ok((me, child))
}

/// The parent, which is this process, and an entry for the child.
fn reserve(mapping: &Arc<Mapping>) -> Result<(PeerId, PeerId), Fault> {
    let me = holding::arrive(mapping)?;
    let (_, table) = attach::view(mapping)?;
    let reserve = || table.reserve(me, mapping.home().to_bits());
    let child = reserve().or_else(|| {
        reap::reap_all(mapping, me);
        reserve()
    });
    Ok((me, child.ok_or(Fault::TooManyPeers)?))
}
