//! Counts the words of a text with several processes:
//! `cargo run --release --example word_count -- FILE..`.
//!
//! ```text
//! reader --- parts of the text ---> workers --- their words ---> this process
//! ```
//! Nobody says that the text has ended. When the reader returns, the workers find their channel
//! disconnected and return too, and then this process finds the same. The program also ends if a
//! worker is killed, and says what was lost: `--kill` kills one half-way.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Parser;
use offspring::{Failure, Receiver, Sender};
use serde::{Deserialize, Serialize};

/// Lines that are counted together.
const LINES: usize = 20;

/// Counts the words of a text with several processes, and prints the most frequent ones.
#[derive(Parser)]
struct Options {
    /// The text; the documentation of this crate if no file is named.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How many workers count.
    #[arg(long, value_name = "N", default_value_t = 4)]
    workers: usize,
    /// How many words to print.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Kills one worker half-way.
    #[arg(long)]
    kill: bool,
}

/// A part of the text.
#[derive(Serialize, Deserialize)]
struct Part {
    number: usize,
    text: String,
}

/// How often each word comes in a part.
#[derive(Serialize, Deserialize)]
struct Counted {
    number: usize,
    bytes: u64,
    words: BTreeMap<String, u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Options { mut files, workers, top, kill } = Options::parse();
    if files.is_empty() {
        files = documentation()?;
    }
    let mut size = 0;
    for file in &files {
        size += fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len();
    }

    let (sender, parts) = offspring::channel::<Part>(16)?;
    let (counter, counted) = offspring::channel::<Counted>(16)?;
    let reader = offspring::spawn(read, (files, sender))?;
    let mut children = Vec::new();
    for _ in 0..workers {
        children.push(offspring::spawn(count, (parts.clone(), counter.clone()))?);
    }
    // While this process has a sender of its own, its receiver never finds the channel
    // disconnected.
    drop((parts, counter));

    let (mut bytes, mut numbers) = (0, BTreeSet::new());
    let mut words = BTreeMap::<String, u64>::new();
    for part in &counted {
        for (word, count) in part.words {
            *words.entry(word).or_default() += count;
        }
        numbers.insert(part.number);
        if kill && bytes < size / 2 && bytes + part.bytes >= size / 2 {
            children[0].kill()?;
        }
        bytes += part.bytes;
    }

    for (number, child) in children.into_iter().enumerate() {
        match child.join() {
            Ok(ended) => ended?,
            Err(died) => println!("worker {number}: {died}"),
        }
    }
    let parts = reader.join()??;
    for lost in (0..parts).filter(|number| !numbers.contains(number)) {
        println!("lost: lines {} to {}", lost * LINES + 1, (lost + 1) * LINES);
    }

    let mut frequent: Vec<(u64, String)> = words.into_iter().map(|(word, n)| (n, word)).collect();
    frequent.sort_by(|(one, _), (other, _)| other.cmp(one));
    println!("{} of {parts} parts counted, {bytes} of {size} bytes", numbers.len());
    for (count, word) in frequent.iter().take(top) {
        println!("{count:8} {word}");
    }
    if numbers.len() == parts || kill { Ok(()) } else { Err("some parts were lost".into()) }
}

/// Sends the files in parts, and returns how many there are.
fn read((files, parts): (Vec<PathBuf>, Sender<Part>)) -> Result<usize, Failure> {
    let (mut number, mut lines, mut text) = (0, 0, String::new());
    for file in &files {
        let mut from = BufReader::new(File::open(file)?);
        while from.read_line(&mut text)? > 0 {
            lines += 1;
            if lines % LINES == 0 {
                parts.send(Part { number, text: std::mem::take(&mut text) })?;
                number += 1;
            }
        }
    }
    if !text.is_empty() {
        parts.send(Part { number, text })?;
        number += 1;
    }
    Ok(number)
}

/// Counts the words of one part after the other, as long as some come.
fn count((parts, counts): (Receiver<Part>, Sender<Counted>)) -> Result<(), Failure> {
    for Part { number, text } in &parts {
        let mut words = BTreeMap::new();
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            *words.entry(word.to_lowercase()).or_default() += 1;
        }
        counts.send(Counted { number, bytes: text.len() as u64, words })?;
    }
    Ok(())
}

/// The README and the documents of this crate.
fn documentation() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md")];
    for entry in root.join("docs").read_dir()? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    Ok(files)
}
