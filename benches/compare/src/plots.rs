//! Charts of what was measured, as SVG: how latencies are distributed, and how costs change with
//! size and number, with bars for the middle half of the rounds.
//!
//! Everything is placed by hand, as the axes are logarithmic in several ways and the names of the
//! lines stand beside them.

use std::fs;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figures::{Case, Chart, Plot, Role};
use crate::{Failure, Measured};

/// Draws all charts that the measured cases contribute to, and gives their files.
pub(crate) fn draw(
    directory: &Path,
    measured: &[Measured],
    machine: &str,
) -> Result<Vec<PathBuf>, Failure> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let cases: Vec<&Case> = measured.iter().flat_map(|group| &group.cases).collect();
    let mut pictures: Vec<Picture> = cases.iter().filter_map(|case| latencies(case)).collect();
    let mut charts: Vec<&Chart> = Vec::new();
    for case in &cases {
        if let Plot::Over { chart, .. } = case.plot
            && !charts.contains(&chart)
        {
            charts.push(chart);
        }
    }
    pictures.extend(charts.into_iter().map(|chart| over(chart, &cases)));
    let mut files = Vec::new();
    for picture in pictures.iter().filter(|picture| !picture.lines.is_empty()) {
        let file = directory.join(format!("{}.svg", picture.file));
        picture.draw(&file, machine).map_err(|error| format!("{}: {error}", file.display()))?;
        files.push(file);
    }
    Ok(files)
}

/// One line of a chart, in the order of x.
struct Line {
    name: String,
    role: Role,
    points: Vec<(f64, f64)>,
    /// From where to where the middle half of the rounds reaches at a point's x.
    bars: Vec<(f64, f64, f64)>,
}

/// What stands on an axis. Places are logarithms.
struct Axis {
    label: String,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

struct Picture {
    file: String,
    title: String,
    x: Axis,
    y: Axis,
    lines: Vec<Line>,
}

/// How many of 10, 100, 1000 are slower; the least share that is drawn is one in 10,000.
const MOST_NINES: f64 = 4.0;

fn latencies(case: &Case) -> Option<Picture> {
    if case.plot != Plot::Latencies {
        return None;
    }
    let mut lines = Vec::new();
    for entry in &case.entries {
        let counted = entry.latencies();
        let all: u64 = counted.iter().map(|(_, count)| count).sum();
        let mut points: Vec<(f64, f64)> = Vec::new();
        let mut seen = 0;
        for (nanoseconds, count) in counted {
            // From where the share of those not seen yet says how rare this one is.
            let nines = -(1.0 - seen as f64 / all as f64).log10();
            seen += count;
            let latency = (nanoseconds as f64 / 1e3).log10();
            // The last few say nothing about a share, and thousands of points nothing more than
            // some hundreds.
            let is_new = points.last().is_none_or(|(x, y)| nines - x > 0.01 || latency - y > 0.01);
            if nines <= MOST_NINES && all - seen >= 2 && is_new {
                points.push((nines, latency));
            }
        }
        if points.len() > 1 {
            lines.push(Line {
                name: entry.name.clone(),
                role: entry.role,
                points,
                bars: Vec::new(),
            });
        }
    }
    let ticks = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"];
    let ticks =
        ticks.iter().enumerate().map(|(nines, text)| (nines as f64, (*text).to_owned())).collect();
    let label = "share of round trips that took no longer".to_owned();
    let words: Vec<&str> = case
        .name
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    Some(Picture {
        file: format!("latency_{}", words.join("_").to_lowercase()),
        title: format!("Round trip between two cores: {}", case.name),
        x: Axis { label, low: 0.0, high: MOST_NINES, ticks },
        y: Axis::of_values("microseconds".to_owned(), &lines),
        lines,
    })
}

fn over(chart: &Chart, cases: &[&Case]) -> Picture {
    let mut lines: Vec<Line> = Vec::new();
    let mut ticks: Vec<(f64, String)> = Vec::new();
    for case in cases {
        let Plot::Over { chart: its, x } = case.plot else { continue };
        if its != chart {
            continue;
        }
        ticks.push((x.log10(), if chart.x.contains("bytes") { bytes(x) } else { thousands(x) }));
        for entry in &case.entries {
            let Some(own) = entry.quartiles(chart.metric) else { continue };
            let point = (x.log10(), own.median.log10());
            let bar = (x.log10(), own.low.log10(), own.high.log10());
            match lines.iter_mut().find(|line| line.name == entry.name) {
                Some(line) => {
                    line.points.push(point);
                    line.bars.push(bar);
                }
                None => lines.push(Line {
                    name: entry.name.clone(),
                    role: entry.role,
                    points: vec![point],
                    bars: vec![bar],
                }),
            }
        }
    }
    lines.retain(|line| line.points.iter().all(|(_, y)| y.is_finite()));
    let (low, high) = span(ticks.iter().map(|(place, _)| *place));
    let margin = (high - low).max(1.0) * 0.03;
    Picture {
        file: chart.file.to_owned(),
        title: chart.title.to_owned(),
        x: Axis { label: chart.x.to_owned(), low: low - margin, high: high + margin, ticks },
        y: Axis::of_values(chart.y.to_owned(), &lines),
        lines,
    }
}

fn bytes(count: f64) -> String {
    match count as u64 {
        few @ 0..1024 => format!("{few} B"),
        some @ 1024..1_048_576 => format!("{} KiB", some >> 10),
        many => format!("{} MiB", many >> 20),
    }
}

/// With a space between thousands.
fn thousands(count: f64) -> String {
    let digits = format!("{count:.0}");
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(" ")
}

fn span(places: impl Iterator<Item = f64>) -> (f64, f64) {
    places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), place| {
        (low.min(place), high.max(place))
    })
}

impl Axis {
    /// Of the lines' y, with a tick at every power of ten, or at 1, 2 and 5 if there are few of
    /// these.
    fn of_values(label: String, lines: &[Line]) -> Axis {
        let (low, high) = span(lines.iter().flat_map(|line| {
            let bars = line.bars.iter().flat_map(|&(_, low, high)| [low, high]);
            line.points.iter().map(|(_, y)| *y).chain(bars)
        }));
        let margin = (high - low).max(0.3) * 0.04;
        let (low, high) = (low - margin, high + margin);
        let steps: &[f64] = if high - low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let mut ticks = Vec::new();
        if low.is_finite() && high.is_finite() {
            for decade in low.floor() as i32..=high.ceil() as i32 {
                for step in steps {
                    let value = step * 10_f64.powi(decade);
                    if (low..=high).contains(&value.log10()) {
                        let digits = decade.min(0).unsigned_abs() as usize;
                        let text = if value < 1000.0 {
                            format!("{value:.digits$}")
                        } else {
                            thousands(value)
                        };
                        ticks.push((value.log10(), text));
                    }
                }
            }
        }
        Axis { label, low, high, ticks }
    }

    /// Where between 0 and 1.
    fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

const SIZE: (u32, u32) = (1080, 620);
/// The corners of the plane of the lines; to its right stand their names.
const LEFT: i32 = 92;
const RIGHT: i32 = 730;
const TOP: i32 = 62;
const BOTTOM: i32 = 500;
/// Where names begin, and how far one is from the next at least.
const NAMES: i32 = RIGHT + 84;
const NAME_HEIGHT: i32 = 20;

const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(110, 116, 126);
const GRID: RGBColor = RGBColor(226, 229, 234);
/// Ours stand out, and are told from each other.
const OURS: [RGBColor; 3] = [RGBColor(208, 40, 30), RGBColor(240, 130, 20), RGBColor(150, 20, 80)];
/// Peers, told from each other also by those who see colours in another way: hues and lightnesses
/// alternate.
const PEERS: [RGBColor; 12] = [
    RGBColor(31, 119, 180),
    RGBColor(44, 140, 60),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(23, 170, 190),
    RGBColor(110, 150, 20),
    RGBColor(70, 70, 140),
    RGBColor(190, 160, 40),
    RGBColor(200, 110, 190),
    RGBColor(90, 130, 160),
    RGBColor(20, 110, 90),
    RGBColor(150, 150, 150),
];

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Failure>;

impl Picture {
    fn draw(&self, file: &Path, machine: &str) -> Drawn {
        let root = SVGBackend::new(file, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        text(&root, &self.title, (LEFT, 26), 21, INK, HPos::Left)?;
        for (line, words) in machine.lines().enumerate() {
            text(
                &root,
                words,
                (LEFT, SIZE.1 as i32 - 32 + 17 * line as i32),
                12,
                FAINT,
                HPos::Left,
            )?;
        }
        self.draw_axes(&root)?;
        let (mut ours, mut limits) = (OURS.into_iter().cycle(), [INK, FAINT].into_iter().cycle());
        // Solid lines and dashed ones are told apart by that.
        let (mut processes, mut threads) =
            (PEERS.into_iter().cycle(), PEERS.into_iter().rev().cycle());
        let mut names: Vec<((i32, i32), &Line, Stroke)> = Vec::new();
        for line in &self.lines {
            let (colors, width, dash): (&mut dyn Iterator<Item = RGBColor>, u32, i32) =
                match line.role {
                    Role::Ours => (&mut ours, 4, 0),
                    Role::Limit => (&mut limits, 2, 3),
                    Role::Peer if line.name.ends_with("threads") => (&mut threads, 2, 7),
                    Role::Peer => (&mut processes, 2, 0),
                };
            let stroke = Stroke { color: colors.next().unwrap_or(INK), width, dash };
            let points: Vec<(i32, i32)> =
                line.points.iter().map(|&point| self.pixel(point)).collect();
            stroke.draw(&root, &points)?;
            for &(x, low, high) in &line.bars {
                let bar = [self.pixel((x, low)), self.pixel((x, high))];
                root.draw(&PathElement::new(bar, stroke.color.stroke_width(1)))?;
            }
            // Where there are few points, it matters where they are.
            if points.len() <= self.x.ticks.len() {
                for &point in &points {
                    root.draw(&Circle::new(point, 3, stroke.color.filled()))?;
                }
            }
            names.push((points.last().copied().unwrap_or((LEFT, BOTTOM)), line, stroke));
        }
        draw_names(&root, names)?;
        root.present()?;
        Ok(())
    }

    fn pixel(&self, (x, y): (f64, f64)) -> (i32, i32) {
        let x = f64::from(LEFT) + self.x.place(x) * f64::from(RIGHT - LEFT);
        let y = f64::from(BOTTOM) - self.y.place(y) * f64::from(BOTTOM - TOP);
        (x.round() as i32, y.round() as i32)
    }

    fn draw_axes(&self, root: &Root<'_>) -> Drawn {
        for (place, label) in &self.x.ticks {
            let (x, _) = self.pixel((*place, self.y.low));
            root.draw(&PathElement::new([(x, TOP), (x, BOTTOM)], GRID))?;
            text(root, label, (x, BOTTOM + 18), 14, INK, HPos::Center)?;
        }
        for (place, label) in &self.y.ticks {
            let (_, y) = self.pixel((self.x.low, *place));
            root.draw(&PathElement::new([(LEFT, y), (RIGHT, y)], GRID))?;
            text(root, label, (LEFT - 10, y), 14, INK, HPos::Right)?;
        }
        root.draw(&PathElement::new([(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], FAINT))?;
        text(root, &self.x.label, ((LEFT + RIGHT) / 2, BOTTOM + 46), 15, INK, HPos::Center)?;
        let style = style(15, INK, HPos::Center).transform(FontTransform::Rotate270);
        root.draw(&Text::new(self.y.label.clone(), (26, i32::midpoint(TOP, BOTTOM)), style))?;
        Ok(())
    }
}

/// The names, each as near to the end of its line as the others let it be, and joined to it.
fn draw_names(root: &Root<'_>, mut names: Vec<((i32, i32), &Line, Stroke)>) -> Drawn {
    names.sort_by_key(|(end, _, _)| end.1);
    let mut places: Vec<i32> = names.iter().map(|(end, _, _)| end.1).collect();
    for index in 1..places.len() {
        places[index] = places[index].max(places[index - 1] + NAME_HEIGHT);
    }
    // What was pushed out below pushes the others up again.
    let mut lowest = BOTTOM;
    for place in places.iter_mut().rev() {
        *place = (*place).min(lowest);
        lowest = *place - NAME_HEIGHT;
    }
    for ((end, line, stroke), place) in names.into_iter().zip(places) {
        // From far away the way to the name would cross other lines.
        if RIGHT - end.0 < 20 {
            root.draw(&PathElement::new(
                [(end.0 + 6, end.1), (NAMES - 38, place)],
                stroke.color.mix(0.5),
            ))?;
        }
        stroke.draw(root, &[(NAMES - 34, place), (NAMES - 8, place)])?;
        let color = if line.role == Role::Ours { stroke.color } else { INK };
        text(root, &line.name, (NAMES, place), 14, color, HPos::Left)?;
    }
    Ok(())
}

fn style(size: u32, color: RGBColor, anchor: HPos) -> TextStyle<'static> {
    let mut style =
        TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(anchor, VPos::Center));
    style.color = color.to_backend_color();
    style
}

fn text(
    root: &Root<'_>,
    words: &str,
    place: (i32, i32),
    size: u32,
    color: RGBColor,
    anchor: HPos,
) -> Drawn {
    root.draw(&Text::new(words.to_owned(), place, style(size, color, anchor)))?;
    Ok(())
}

/// How a line is drawn.
#[derive(Clone, Copy)]
struct Stroke {
    color: RGBColor,
    width: u32,
    /// Length of dashes and gaps; 0 for a solid line.
    dash: i32,
}

impl Stroke {
    fn draw(self, root: &Root<'_>, points: &[(i32, i32)]) -> Drawn {
        let style = self.color.stroke_width(self.width);
        if self.dash == 0 {
            root.draw(&PathElement::new(points.to_vec(), style))?;
            return Ok(());
        }
        // Dashes go on round the corners.
        let dash = f64::from(self.dash);
        let mut walked = 0.0;
        for pair in points.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let (wide, high) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
            let length = wide.hypot(high);
            let mut at = 0.0;
            while at < length {
                let step = (dash - walked % dash).min(length - at);
                if ((walked / dash) as u64).is_multiple_of(2) {
                    let point = |way: f64| {
                        let share = way / length;
                        (
                            from.0 + (wide * share).round() as i32,
                            from.1 + (high * share).round() as i32,
                        )
                    };
                    root.draw(&PathElement::new([point(at), point(at + step)], style))?;
                }
                at += step;
                walked += step;
            }
        }
        Ok(())
    }
}
