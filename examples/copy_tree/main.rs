//! Copies a folder tree with several processes:
//! `cargo run --release --example copy_tree -- SRC DST`.
//!
//! The parent lists the tree, starts the workers and sends them what to copy. Two channels in
//! shared memory connect them:
//!
//! ```text
//!             jobs: the paths of some entries
//!   parent ----------------------------------------------> workers
//!          <----------------------------------------------
//!             notes: taken, so far, failed, done
//! ```
//!
//! # Peer death
//! A worker writes each file under a temporary name beside its target and renames it when it is
//! complete. The parent counts a job as done only when its `Done` note has arrived. So any worker
//! may be killed at any instruction: the parent reports it, removes its temporary file, gives its
//! job to the others and starts a replacement. On Ctrl-C the parent kills all workers and cleans up
//! after each in the same way. If the disk is full, no later file would fit either: the parent does
//! the same, but first gives the workers time to finish their current files.
//!
//! | file | what it holds |
//! |---|---|
//! | `tree.rs` | the list: folders, entries, jobs |
//! | `folder.rs` | from a folder's path to an open descriptor |
//! | `message.rs` | what travels through the two channels |
//! | `crew.rs` | the parent: workers, their jobs, their deaths |
//! | `worker.rs`, `copy.rs` | a worker; the copying of one entry |
//! | `holes.rs` | where a file has data |
//! | `attributes.rs` | owner, permissions and times |
//! | `extended.rs` | extended attributes, and what happens where they are not supported |
//! | `target.rs` | before and after the workers: folders, hard links, temporary names |
//! | `stop.rs` | Ctrl-C |
//! | `bar.rs` | the progress bar |

mod attributes;
mod bar;
mod copy;
mod crew;
mod extended;
mod folder;
mod holes;
mod message;
mod stop;
mod target;
mod tree;
mod worker;

use crate::crew::{Copied, Crew, End};
use crate::extended::Losses;
use crate::folder::Root;
use crate::message::Trouble;
use crate::stop::Stop;
use crate::target::{Run, Target};
use crate::tree::{Entry, Link, Tree};
use clap::Parser;
use indicatif::BinaryBytes;
use offspring::Failure;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Copies the folder SRC to DST with several processes.
///
/// Keeps permissions, times, owners (where permitted), extended attributes and ACLs, symbolic and
/// hard links, holes, empty folders, and special files such as FIFOs. DST becomes the copy of SRC
/// itself; files that are there already under the same names are replaced, others stay.
///
/// Extended attributes that the filesystem of DST does not take, or that you may not set, are
/// counted and reported at the end; the rest is copied all the same. A full disk ends the run;
/// every file that is there then is whole.
///
/// Exit status: 0 if everything was copied, but for such attributes, 1 if something was not, 2 for
/// wrong arguments, 130 after Ctrl-C.
#[derive(Parser)]
#[command(name = "copy_tree", version)]
struct Options {
    /// The folder to copy.
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Where the copy goes; its parent folder must exist.
    #[arg(value_name = "DST")]
    target: PathBuf,
    /// How many worker processes copy [default: one for each processor].
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Reads every copied file again and compares its hash with that of the bytes read from the
    /// source.
    #[arg(long)]
    verify: bool,
}

/// The two trees, open.
struct Plan {
    source: OwnedFd,
    target: Target,
    verify: bool,
}

/// The same, as a worker gets it. The entries to copy are sent later.
#[derive(Clone, Serialize, Deserialize)]
struct Order {
    source: Root,
    target: Root,
    run: Run,
    verify: bool,
}

impl Order {
    /// Opens the two trees, in a worker.
    fn carry_out(&self) -> Result<Plan, Failure> {
        let target = Target::of_run(self.target.open()?, self.run);
        Ok(Plan { source: self.source.open()?, target, verify: self.verify })
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("copy_tree: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let start = Instant::now();
    let stop = Stop::on_signals()?;
    let source_path =
        options.source.canonicalize().map_err(|error| format!("{:?}: {error}", options.source))?;
    let target_path = place_of(&options.target)?;
    if target_path.starts_with(&source_path) || source_path.starts_with(&target_path) {
        return Err(format!(
            "{:?} and {:?} lie one inside the other",
            options.source, options.target
        )
        .into());
    }

    let source = folder::open_root(&source_path)
        .map_err(|error| format!("{:?}: {error}", options.source))?;
    let Some(tree) = Tree::list(&source, &stop)? else {
        return Ok(stopped(&stop, "nothing was copied"));
    };
    let target =
        Target::create(&target_path).map_err(|error| format!("{:?}: {error}", options.target))?;
    let order = Order {
        source: Root::new(source_path.clone(), &source)?,
        target: Root::new(target_path, target.root())?,
        run: target.run(),
        verify: options.verify,
    };
    let plan = Arc::new(Plan { source, target, verify: options.verify });
    let tree = &Arc::new(tree);

    let workers = options
        .workers
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    let mut crew = Crew::new(Arc::clone(&plan), order, Arc::clone(tree), workers)?;
    let (end, copied) = crew.run(&stop)?;
    let so_far = || {
        let Copied { files, bytes } = copied;
        format!(
            "at least {files} of {} files were copied, {}, each of them wholly",
            tree.entries.len(),
            BinaryBytes(bytes)
        )
    };
    match end {
        End::Finished => {}
        End::Stopped => return Ok(stopped(&stop, &so_far())),
        End::Full(path, trouble) => return Ok(full(&source_path.join(path), &trouble, &so_far())),
    }

    let missing = crew.into_missing();
    let unlinked = plan.target.make_links(tree, &missing.entries);
    if let Some((Link { folder, name, .. }, trouble)) =
        unlinked.iter().find(|(_, trouble)| trouble.is_full())
    {
        return Ok(full(&source_path.join(tree.path_of(*folder, name)), trouble, &so_far()));
    }
    let (unfinished, losses_of_folders) = plan.target.finish_folders(tree);
    if let Some((folder, trouble)) = unfinished.iter().find(|(_, trouble)| trouble.is_full()) {
        return Ok(full(&source_path.join(tree.path_of_folder(*folder)), trouble, &so_far()));
    }

    let mut troubles = 0;
    let mut report = |path: PathBuf, what: &dyn Display| {
        troubles += 1;
        eprintln!("copy_tree: {:?}: {what}", source_path.join(path));
    };
    for (folder, error) in &tree.unreadable {
        report(tree.path_of_folder(*folder), &format_args!("cannot be read: {error}"));
    }
    for (folder, trouble) in missing.folders.iter().chain(&unfinished) {
        report(tree.path_of_folder(*folder), trouble);
    }
    let path_of = |entry: u32| {
        let Entry { folder, name, .. } = &tree.entries[entry as usize];
        tree.path_of(*folder, name)
    };
    for (entry, trouble) in &missing.entries {
        report(path_of(*entry), trouble);
    }
    for (Link { folder, name, .. }, trouble) in &unlinked {
        report(tree.path_of(*folder, name), trouble);
    }
    let mut losses = Losses::default();
    for (entry, lost) in &missing.extended {
        losses.add(lost, || source_path.join(path_of(*entry)));
    }
    for (folder, lost) in &losses_of_folders {
        losses.add(lost, || source_path.join(tree.path_of_folder(*folder)));
    }
    eprint!("{losses}");

    let Copied { files, bytes } = copied;
    let files = files + (tree.links.len() - unlinked.len()) as u64;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "copied {files} files in {} folders, {}{}, in {seconds:.2} s with {workers} worker(s): {:.0} files/s, {}/s",
        tree.folders.len() - missing.folders.len(),
        BinaryBytes(bytes),
        if options.verify { ", verified" } else { "" },
        files as f64 / seconds,
        BinaryBytes((bytes as f64 / seconds) as u64),
    );
    if troubles == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("copy_tree: {troubles} thing(s) could not be copied; see above");
    Ok(ExitCode::FAILURE)
}

/// Returns the absolute path, free of links, of a folder that need not exist yet.
fn place_of(path: &Path) -> Result<PathBuf, String> {
    if let Ok(there) = path.canonicalize() {
        return Ok(there);
    }
    let name = path.file_name().ok_or_else(|| format!("{path:?} cannot be made"))?;
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(parent.canonicalize().map_err(|error| format!("{parent:?}: {error}"))?.join(name))
}

/// Reports that a signal ended the run; the exit status is the one a shell gives to a command ended
/// by that signal.
fn stopped(stop: &Stop, said: &str) -> ExitCode {
    let signal = stop.signal();
    eprintln!("copy_tree: stopped by signal {signal}; {said}");
    ExitCode::from(128 + u8::try_from(signal).unwrap_or(2))
}

/// Reports that the disk is full, once: whatever else did not get there failed for the same reason.
fn full(path: &Path, trouble: &Trouble, said: &str) -> ExitCode {
    eprintln!("copy_tree: {path:?}: {trouble}; stopped there; {said}");
    ExitCode::FAILURE
}
