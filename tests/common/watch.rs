//! The bytes of a segment: what an instruction changed, and how to bring back what they were.
//!
//! Only pages that exist are looked at, as a look at a hole would fill it. Which there are is asked
//! after every system call; pages that the victim has just backed, and not touched yet, are known
//! from the arguments of its call.
#![expect(unsafe_code, reason = "a mapping of the segment's descriptor and views of its pages")]

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use nix::unistd::Pid;
use xxhash_rust::xxh3::xxh3_64;

use super::trace::{Call, Next, Tracee};

const PAGE: usize = 4096;

/// A page as it was at some moment.
#[derive(Clone)]
struct Page {
    bytes: Rc<[u8; PAGE]>,
    hash: u64,
}

/// All pages of a segment at some moment.
#[derive(Clone)]
pub struct Snapshot {
    pages: BTreeMap<u64, Page>,
}

impl Snapshot {
    fn key(&self) -> Vec<(u64, u64)> {
        self.pages.iter().map(|(&number, page)| (number, page.hash)).collect()
    }
}

/// Every state that a segment went through, each kept once.
#[derive(Default)]
pub struct Album {
    pub states: Vec<Snapshot>,
    index: HashMap<Vec<(u64, u64)>, usize>,
}

impl Album {
    /// Keeps the state unless it is there already, and gives its number.
    pub fn add(&mut self, snapshot: Snapshot) -> usize {
        let next = self.states.len();
        let number = *self.index.entry(snapshot.key()).or_insert(next);
        if number == next {
            self.states.push(snapshot);
        }
        number
    }
}

/// Where a process has mapped a file.
fn ranges(process: Pid, inode: u64) -> impl Iterator<Item = Range<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("alive");
    let range = move |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let [start, end] = [start, end].map(|end| u64::from_str_radix(end, 16).ok());
        (fields.nth(3)?.parse() == Ok(inode)).then_some(start?..end?)
    };
    maps.lines().filter_map(range).collect::<Vec<_>>().into_iter()
}

/// A segment under observation.
pub struct Watch {
    file: OwnedFd,
    inode: u64,
    map: *mut u8,
    len: usize,
    pages: BTreeMap<u64, Page>,
}

impl Watch {
    /// Begins to watch the segment and notes how it is now.
    pub fn new(segment: BorrowedFd<'_>) -> Watch {
        let file = segment.try_clone_to_owned().expect("a descriptor");
        let stat = std::fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("open");
        // The file grows, as far as processes have mapped it.
        let own = Pid::from_raw(std::process::id().cast_signed());
        let mapped = ranges(own, stat.ino()).map(|range| range.end - range.start).max();
        let len = usize::try_from(mapped.unwrap_or(0).max(stat.size())).expect("64 bits");
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let map = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(map, libc::MAP_FAILED, "mmap");
        let mut watch =
            Watch { file, inode: stat.ino(), map: map.cast(), len, pages: BTreeMap::new() };
        watch.look_for_pages();
        watch
    }

    fn page(&self, number: u64) -> *mut [u8; PAGE] {
        assert!((number as usize) < self.len / PAGE);
        // SAFETY: the page lies within the mapping, which stays to the end of the process.
        unsafe { self.map.add(number as usize * PAGE).cast() }
    }

    fn read(&self, number: u64) -> &[u8; PAGE] {
        // SAFETY: in bounds; every process that may write is stopped, asleep or dead while the test
        // looks.
        unsafe { &*self.page(number) }
    }

    fn take(&mut self, number: u64) {
        let bytes = *self.read(number);
        self.pages.insert(number, Page { bytes: Rc::new(bytes), hash: xxh3_64(&bytes) });
    }

    /// Numbers of the pages that hold data.
    fn existing(&self) -> Vec<u64> {
        let mut found = Vec::new();
        let mut at: libc::off_t = 0;
        loop {
            // SAFETY: takes a descriptor and integers.
            let data = unsafe { libc::lseek(self.file.as_raw_fd(), at, libc::SEEK_DATA) };
            if data < 0 {
                return found;
            }
            // SAFETY: as above.
            let hole = unsafe { libc::lseek(self.file.as_raw_fd(), data, libc::SEEK_HOLE) };
            found.extend(data as u64 / PAGE as u64..(hole as u64).div_ceil(PAGE as u64));
            at = hole;
        }
    }

    /// Asks which pages exist; true if that has changed.
    pub fn look_for_pages(&mut self) -> bool {
        let existing = self.existing();
        let gone: Vec<u64> = self
            .pages
            .keys()
            .copied()
            .filter(|number| existing.binary_search(number).is_err())
            .collect();
        let mut changed = !gone.is_empty();
        for number in gone {
            self.pages.remove(&number);
        }
        for number in existing {
            if !self.pages.contains_key(&number) {
                self.take(number);
                changed = true;
            }
        }
        changed
    }

    /// As [`Watch::look_for_pages`], after a system call of the victim's.
    pub fn after_call(&mut self, victim: Pid, call: &Call) -> bool {
        let [fd, mode, offset, len, ..] = call.arguments;
        let ours = || {
            std::fs::metadata(format!("/proc/{victim}/fd/{fd}"))
                .is_ok_and(|stat| stat.ino() == self.inode)
        };
        let backs = mode & !(libc::FALLOC_FL_KEEP_SIZE as u64) == 0;
        if call.number == libc::SYS_fallocate && backs && ours() {
            let end = (offset + len).div_ceil(PAGE as u64).min((self.len / PAGE) as u64);
            for number in offset / PAGE as u64..end {
                if !self.pages.contains_key(&number) {
                    self.take(number);
                }
            }
        }
        self.look_for_pages()
    }

    /// Compares with what was noted last and notes what is now; true if that differs.
    pub fn has_changed(&mut self) -> bool {
        let changed: Vec<u64> = self
            .pages
            .iter()
            .filter(|(number, page)| *self.read(**number) != *page.bytes)
            .map(|(&number, _)| number)
            .collect();
        for &number in &changed {
            self.take(number);
        }
        !changed.is_empty()
    }

    /// Lets a victim go on until it has changed the segment so often; true if it came to its next
    /// mark, or its end, before.
    pub fn follow(&mut self, victim: &mut Tracee, changes: u64) -> bool {
        let mut seen = 0;
        while seen < changes {
            let call = match victim.next() {
                Next::Mark => return true,
                Next::Plain | Next::Clock => None,
                Next::Call(call) => Some(call),
            };
            if !victim.step() {
                return true;
            }
            let pages = call.is_some_and(|call| self.after_call(victim.pid(), &call));
            seen += u64::from(self.has_changed() || pages);
        }
        false
    }

    /// What was noted last.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { pages: self.pages.clone() }
    }

    /// Brings the segment back to what it was, and goes on from there.
    pub fn restore(&mut self, snapshot: &Snapshot) {
        for number in self.existing() {
            if !snapshot.pages.contains_key(&number) {
                self.punch(number);
            }
        }
        for (&number, page) in &snapshot.pages {
            if *self.read(number) != *page.bytes {
                // SAFETY: in bounds; nobody else looks at the segment while the test changes it.
                unsafe { *self.page(number) = *page.bytes };
            }
        }
        self.pages.clone_from(&snapshot.pages);
    }

    /// Where another process has the segment mapped.
    pub fn address_in(&self, process: Pid) -> u64 {
        // A raw fork has inherited this watch's mapping, too.
        let mut starts = ranges(process, self.inode).map(|range| range.start);
        starts.find(|&start| start != self.map as u64).expect("it has the segment")
    }

    /// Whether the address lies within the segment that is mapped at `base`.
    pub fn contains(&self, base: u64, address: u64) -> bool {
        (base..base + self.len as u64).contains(&address)
    }

    /// The four bytes at an offset.
    pub fn word(&self, offset: u64) -> u32 {
        let at = offset as usize % PAGE;
        let page = self.read(offset / PAGE as u64);
        u32::from_ne_bytes(page[at..at + 4].try_into().expect("four bytes"))
    }

    fn punch(&self, number: u64) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let offset = (number as usize * PAGE) as libc::off_t;
        // SAFETY: takes a descriptor and integers.
        let done =
            unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, PAGE as libc::off_t) };
        assert_eq!(done, 0, "fallocate");
    }

    /// Copies `len` bytes at `from` to `to`: for states that would take thousands of processes to
    /// bring about.
    pub fn copy_within(&mut self, from: usize, to: usize, len: usize) {
        assert!(from.max(to) + len <= self.len && from.abs_diff(to) >= len);
        // SAFETY: in bounds, and so are the `len` bytes from there; nobody else looks at the
        // segment now.
        let source = unsafe { self.map.add(from) };
        // SAFETY: as above.
        let target = unsafe { self.map.add(to) };
        // SAFETY: both ranges lie within the mapping and do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(source, target, len) };
        self.look_for_pages();
        self.has_changed();
    }
}
