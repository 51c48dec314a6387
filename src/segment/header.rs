//! The first page of a segment: its format and its size. It is checked once at attach and never
//! read again.
//!
//! # Layout
//! Native-endian; offsets in bytes from the start of the segment. The creator writes all of it
//! before another process can open the segment. Afterwards only the home changes, see
//! [`home`](crate::segment::home).
//! ```text
//! offset  size  field
//!      0     8  magic            "offsprng"
//!      8     4  format_version   of everything in the segment
//!     12     4  byte_order       0x0102_0304 as the creator's processor stores it
//!     16     8  layout           fingerprint of the layout that this build computes from `budget`
//!     24     8  size             of the file at first, in bytes; it grows with use
//!     32     8  budget           bytes of objects that it may hold
//!     40     8  id               random, never 0
//!     48     8  home             boot and pid namespace of the peer table's pids; 0 if unknown
//!     56     4  fences           0 symmetric, 1 asymmetric (each process registers for membarrier)
//!     60     4  residence        how memory is kept, see `residence`
//!     64     -  zero up to the end of the page
//! ```

use bytemuck::{Pod, Zeroable};

use crate::segment::error::SegmentError;
use crate::segment::home::Home;
use crate::segment::layout::Layout;
use crate::segment::residence::Residence;
use crate::sys::barrier::Fences;

/// "offsprng", read in this machine's byte order.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"offsprng");
/// Version of every shared structure together. Any change of a layout or a protocol raises it.
pub(crate) const FORMAT_VERSION: u32 = 10;
/// Offset of the home.
pub(crate) const HOME_OFFSET: u64 = 48;
const BYTE_ORDER: u32 = 0x0102_0304;

/// The header as it stands in the segment. See the module for each field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: u64,
    pub(crate) format_version: u32,
    pub(crate) byte_order: u32,
    pub(crate) layout: u64,
    pub(crate) size: u64,
    pub(crate) budget: u64,
    pub(crate) id: u64,
    pub(crate) home: u64,
    pub(crate) fences: u32,
    pub(crate) residence: u32,
}

const _: () = {
    assert!(core::mem::offset_of!(Header, magic) == 0);
    assert!(core::mem::offset_of!(Header, format_version) == 8);
    assert!(core::mem::offset_of!(Header, byte_order) == 12);
    assert!(core::mem::offset_of!(Header, layout) == 16);
    assert!(core::mem::offset_of!(Header, size) == 24);
    assert!(core::mem::offset_of!(Header, budget) == 32);
    assert!(core::mem::offset_of!(Header, id) == 40);
    assert!(core::mem::offset_of!(Header, home) as u64 == HOME_OFFSET);
    assert!(HOME_OFFSET == 48);
    assert!(core::mem::offset_of!(Header, fences) == 56);
    assert!(core::mem::offset_of!(Header, residence) == 60);
    assert!(size_of::<Header>() == 64);
};

impl Header {
    /// The header of a new segment.
    pub(crate) fn new(
        layout: &Layout,
        id: u64,
        home: Home,
        fences: Fences,
        residence: Residence,
    ) -> Header {
        Header {
            magic: MAGIC,
            format_version: FORMAT_VERSION,
            byte_order: BYTE_ORDER,
            layout: layout.fingerprint(),
            size: layout.first_len(),
            budget: layout.budget(),
            id,
            home: home.to_bits(),
            fences: u32::from(fences.are_asymmetric()),
            residence: residence.to_bits(),
        }
    }

    /// Checks every field against what this build would have written for a file of `file_size`
    /// bytes.
    pub(crate) fn validate(
        &self,
        file_size: u64,
    ) -> Result<(Layout, Fences, Residence), SegmentError> {
        if self.magic == MAGIC.swap_bytes()
            || (self.magic == MAGIC && self.byte_order != BYTE_ORDER)
        {
            return Err(SegmentError::ByteOrder);
        }
        if self.magic != MAGIC {
            return Err(SegmentError::Foreign);
        }
        if self.format_version != FORMAT_VERSION {
            return Err(SegmentError::Version {
                found: self.format_version,
                expected: FORMAT_VERSION,
            });
        }
        if self.size > file_size {
            return Err(SegmentError::WrongSize { header: self.size, file: file_size });
        }
        let layout =
            Layout::for_budget(self.budget).ok_or(SegmentError::Corrupt { field: "budget" })?;
        if layout.fingerprint() != self.layout {
            return Err(SegmentError::Layout {
                found: self.layout,
                expected: layout.fingerprint(),
            });
        }
        if layout.first_len() != self.size {
            return Err(SegmentError::Corrupt { field: "size" });
        }
        if self.id == 0 {
            return Err(SegmentError::Corrupt { field: "id" });
        }
        let fences = match self.fences {
            0 => Fences::Symmetric,
            1 => Fences::Asymmetric,
            _ => return Err(SegmentError::Corrupt { field: "fences" }),
        };
        let residence = Residence::from_bits(self.residence)
            .ok_or(SegmentError::Corrupt { field: "residence" })?;
        Ok((layout, fences, residence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> (Header, u64) {
        let layout = Layout::for_budget(1 << 20).expect("a layout");
        let residence = Residence { is_prefaulted: true, ..Residence::default() };
        let header = Header::new(&layout, 7, Home::from_bits(9), Fences::Asymmetric, residence);
        (header, layout.first_len())
    }

    #[test]
    fn what_we_write_we_accept() {
        for agreed in [Fences::Asymmetric, Fences::Symmetric] {
            let layout = Layout::for_budget(1 << 20).expect("a layout");
            let residence = Residence { is_locked: true, ..Residence::default() };
            let header = Header::new(&layout, 7, Home::from_bits(9), agreed, residence);
            let valid = header.validate(layout.first_len()).expect("valid");
            assert_eq!(valid, (layout, agreed, residence));
        }
    }

    #[test]
    fn each_wrong_field_is_its_own_error() {
        let (header, size) = good();
        let check = |header: Header| header.validate(size).expect_err("must be refused");
        assert!(matches!(check(Header { magic: 0, ..header }), SegmentError::Foreign));
        assert!(matches!(
            check(Header { magic: MAGIC.swap_bytes(), ..header }),
            SegmentError::ByteOrder
        ));
        assert!(matches!(
            check(Header { byte_order: 0x0403_0201, ..header }),
            SegmentError::ByteOrder
        ));
        for version in [0, FORMAT_VERSION - 1, FORMAT_VERSION + 1] {
            let error = check(Header { format_version: version, ..header });
            assert!(matches!(error, SegmentError::Version { found, expected: FORMAT_VERSION }
                    if found == version));
        }
        assert!(matches!(check(Header { layout: 1, ..header }), SegmentError::Layout { .. }));
        let longer = Header { size: size + 1, ..header };
        assert!(matches!(check(longer), SegmentError::WrongSize { header, file }
                if (header, file) == (size + 1, size)));
        assert!(matches!(
            check(Header { size: 1, ..header }),
            SegmentError::Corrupt { field: "size" }
        ));
        assert!(matches!(
            check(Header { budget: 0, ..header }),
            SegmentError::Corrupt { field: "budget" }
        ));
        assert!(matches!(
            check(Header { budget: u64::MAX, ..header }),
            SegmentError::Corrupt { field: "budget" }
        ));
        assert!(matches!(check(Header { id: 0, ..header }), SegmentError::Corrupt { field: "id" }));
        assert!(matches!(
            check(Header { fences: 2, ..header }),
            SegmentError::Corrupt { field: "fences" }
        ));
        assert!(matches!(
            check(Header { residence: 8, ..header }),
            SegmentError::Corrupt { field: "residence" }
        ));
        assert!(matches!(header.validate(size - 1), Err(SegmentError::WrongSize { .. })));
        assert!(header.validate(size + 1).is_ok(), "a file grows");
    }
}
