//! The progress bar.

use indicatif::style::TemplateError;
use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// To create, rename and close a file takes about as long as to copy so many bytes. Without that, a
/// tree of small files would stand at 100 % before half of it is done.
const FILE: u64 = 16 << 10;

/// The line at the bottom of the terminal: a bar, per cent, bytes, files, speed and the time left.
/// Nothing where standard error is no terminal.
pub(crate) struct Bar {
    bar: ProgressBar,
    copied: Arc<Copied>,
}

/// What the bar reads whenever it draws itself.
#[derive(Default)]
struct Copied {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Bar {
    pub(crate) fn new(files: u64, bytes: u64) -> Result<Bar, TemplateError> {
        let copied = Arc::<Copied>::default();
        let shown = Arc::clone(&copied);
        let write_copied = move |state: &ProgressState, to: &mut dyn Write| {
            let [done, amount] = [&shown.files, &shown.bytes].map(|count| count.load(Relaxed));
            let speed = amount as f64 / state.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
            let [amount, all, speed] = [amount, bytes, speed as u64].map(BinaryBytes);
            // There is nobody to hear of an error.
            let _ = write!(to, "{amount}/{all}  {done}/{files} files  {speed}/s");
        };
        let style = ProgressStyle::with_template("{wide_bar} {percent:>3}%  {copied}  {left}")?;
        let style = style.with_key("copied", write_copied).with_key("left", write_left);
        Ok(Bar { bar: ProgressBar::new(weight(files, bytes)).with_style(style), copied })
    }

    /// Shows how many files and bytes are copied.
    pub(crate) fn show(&self, files: u64, bytes: u64) {
        self.copied.files.store(files, Relaxed);
        self.copied.bytes.store(bytes, Relaxed);
        self.bar.set_position(weight(files, bytes));
    }

    /// Prints a line above the bar.
    pub(crate) fn print(&self, line: impl Display) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn weight(files: u64, bytes: u64) -> u64 {
    files.saturating_mul(FILE).saturating_add(bytes)
}

/// Before anything is copied there is nothing to reckon with.
fn write_left(state: &ProgressState, to: &mut dyn Write) {
    let _ = match state.pos() {
        0 => to.write_str("? left"),
        _ => write!(to, "{:#} left", HumanDuration(state.eta())),
    };
}
