//! Video frames through a chain of processes, and no frame is ever copied:
//! `cargo run --release --example video_frames -- --png DIR`.
//!
//! ```text
//! camera ---> invert ---> mirror ---> writer (this process)
//! ```
//! A frame has 3840 x 2160 pixels of 4 bytes, 32 MiB. Each stage reads it where the stage before
//! has written it, and writes its own into memory that the next channel lends. If a stage panics or
//! is killed, those before and after it learn that it is gone, and the program ends.

use std::error::Error;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use offspring::Failure;
use offspring::bytes::{self, Receiver, Sender};

const WIDTH: usize = 3840;
const HEIGHT: usize = 2160;
const ROW: usize = WIDTH * 4;
const FRAME: usize = ROW * HEIGHT;
/// Frames that may wait between two stages.
const WAITING: usize = 2;

/// Sends 4K frames through two filters, each in a process of its own.
#[derive(Parser)]
struct Options {
    /// How many frames.
    #[arg(long, value_name = "N", default_value_t = 240)]
    frames: usize,
    /// Writes one frame in a hundred into this folder.
    #[arg(long, value_name = "DIR")]
    png: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Options { frames, png } = Options::parse();
    if let Some(folder) = &png {
        fs::create_dir_all(folder)?;
    }

    let (camera, filmed) = bytes::channel(WAITING)?;
    let (inverter, inverted) = bytes::channel(WAITING)?;
    let (mirrorer, mirrored) = bytes::channel(WAITING)?;
    let stages = [
        ("camera", offspring::spawn(film, (frames, camera))?),
        ("invert", offspring::spawn(|ends| filter(ends, invert), (filmed, inverter))?),
        ("mirror", offspring::spawn(|ends| filter(ends, mirror), (inverted, mirrorer))?),
    ];

    let (begin, mut shown, mut count) = (Instant::now(), Instant::now(), 0);
    for frame in &mirrored {
        check(&frame, count)?;
        if let Some(folder) = &png
            && count % 100 == 0
        {
            write(&folder.join(format!("{count:05}.png")), &frame)?;
        }
        count += 1;
        if shown.elapsed() > Duration::from_secs(1) {
            println!("{count} frames");
            shown = Instant::now();
        }
    }
    let speed = count as f64 / begin.elapsed().as_secs_f64();
    println!("{count} frames of {WIDTH} x {HEIGHT}: {speed:.1} frames/s");

    for (name, stage) in stages {
        let ended = || -> Result<(), Failure> { stage.join()? };
        if let Err(error) = ended() {
            println!("{name}: {error}");
        }
    }
    if count == frames { Ok(()) } else { Err(format!("{frames} frames were wanted").into()) }
}

/// Makes the frames.
fn film((frames, to): (usize, Sender)) -> Result<(), Failure> {
    for number in 0..frames {
        let mut frame = to.loan(FRAME)?;
        for (y, row) in frame.chunks_exact_mut(ROW).enumerate() {
            for (x, pixel) in row.chunks_exact_mut(4).enumerate() {
                pixel.copy_from_slice(&scene(number, x, y));
            }
        }
        frame.send()?;
    }
    Ok(())
}

/// Receives frames and sends each one changed.
fn filter((from, to): (Receiver, Sender), change: fn(&[u8], &mut [u8])) -> Result<(), Failure> {
    for frame in &from {
        let mut changed = to.loan(frame.len())?;
        change(&frame, &mut changed);
        // Its memory is needed for a later frame, and sending may take a while.
        drop(frame);
        changed.send()?;
    }
    Ok(())
}

/// What the camera sees: a pattern that moves by four pixels from frame to frame.
fn scene(number: usize, x: usize, y: usize) -> [u8; 4] {
    let x = x + 4 * number;
    [(x >> 3) as u8, (y >> 3) as u8, ((x ^ y) >> 2) as u8, 255]
}

/// The negative.
fn invert(from: &[u8], to: &mut [u8]) {
    for (from, to) in from.chunks_exact(4).zip(to.chunks_exact_mut(4)) {
        to.copy_from_slice(&[!from[0], !from[1], !from[2], from[3]]);
    }
}

/// Swaps left and right.
fn mirror(from: &[u8], to: &mut [u8]) {
    for (from, to) in from.chunks_exact(ROW).zip(to.chunks_exact_mut(ROW)) {
        for (from, to) in from.rchunks_exact(4).zip(to.chunks_exact_mut(4)) {
            to.copy_from_slice(from);
        }
    }
}

/// Compares some pixels with what the filters must have made of the scene.
fn check(frame: &[u8], number: usize) -> Result<(), String> {
    for (x, y) in [(0, 0), (WIDTH - 1, 1), (WIDTH / 3, HEIGHT / 2), (WIDTH - 1, HEIGHT - 1)] {
        let [red, green, blue, alpha] = scene(number, WIDTH - 1 - x, y);
        let (at, expected) = (y * ROW + x * 4, [!red, !green, !blue, alpha]);
        if frame.get(at..at + 4) != Some(&expected) {
            return Err(format!("frame {number} is wrong at {x}, {y}"));
        }
    }
    Ok(())
}

fn write(path: &Path, frame: &[u8]) -> Result<(), Box<dyn Error>> {
    let file = BufWriter::new(File::create(path)?);
    let mut encoder = png::Encoder::new(file, WIDTH as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_compression(png::Compression::Fastest);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(frame)?;
    writer.finish()?;
    println!("wrote {}", path.display());
    Ok(())
}
