//! Converts frames to tensors; everything that depends only on the geometry is prepared once.

use std::ops::Range;

use skipstone_kernels::Isa;
use skipstone_kernels::frame::{
    Across, ChannelOrder, Color, ComponentLines, Course, Down, FrameRows, LINES, Tap, across, down, prefetch,
};

use super::axis::{Filter, Interpolation, PixelWindow, halved, reversed, taps, trimmed};
use super::color::{self, Normal, SampleKind};
use super::frame::{Frame, Orientation, Plane, Region};
use super::source::{Component, SourceRows, SourceShape, sources};

/// The result of a conversion: a tensor of `down.len` by `across.len` pixels.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct TensorSpec {
    /// The columns, in the upright, resized frame.
    pub across: PixelWindow,
    /// The rows.
    pub down: PixelWindow,
    /// How pixels are made, without negative weights.
    pub by: Interpolation,
    /// Position of the channels axis.
    pub layout: ChannelOrder,
    /// Mean and standard deviation.
    pub normal: Normal,
}

/// Converts frames to tensors. Use one for a stream of frames: while size, strides, rotation and crop stay the same, a
/// frame allocates nothing.
#[derive(Debug)]
pub struct Converter {
    isa: Isa,
    plan: Option<Plan>,
    /// Lines of resampled rows: see [`Strand`].
    lines: Vec<i16>,
}

impl Converter {
    /// A converter that computes with `isa`, or with scalar code if this CPU does not have it.
    #[must_use]
    pub fn new(isa: Isa) -> Self {
        let isa = if isa.is_available() { isa } else { Isa::Scalar };
        Self { isa, plan: None, lines: Vec::new() }
    }

    /// Fills `out`, whose length is given by `target`, from the frame.
    pub(crate) fn convert(&mut self, frame: &Frame<'_>, target: &TensorSpec, out: &mut [f32]) {
        let (sources, components) = sources(frame);
        let key = ConversionKey {
            region: frame.region(),
            orientation: frame.orientation(),
            kind: frame.sample_kind(),
            shapes: sources.iter().map(|source| source.shape).collect(),
            components,
            target: *target,
        };
        let plan = match self.plan.take() {
            Some(plan) if plan.key == key => plan,
            _ => Plan::new(key),
        };
        self.lines.resize(plan.lines, 0);
        plan.run(self.isa, &sources, &mut self.lines, out);
        self.plan = Some(plan);
    }
}

/// Everything that a plan depends on.
#[derive(PartialEq, Debug)]
struct ConversionKey {
    region: Region,
    orientation: Orientation,
    kind: SampleKind,
    shapes: heapless::Vec<SourceShape, 3>,
    components: heapless::Vec<Component, 3>,
    target: TensorSpec,
}

/// The taps of a key. Lines are rows of the sensor. If the sensor is mounted sideways, they become columns of the
/// tensor, computed [`LINES`] at a time so that contiguous parts of a tensor's row are written.
#[derive(Debug)]
struct Plan {
    key: ConversionKey,
    color: Color,
    strands: heapless::Vec<Strand, 3>,
    /// Total number of lines.
    rows: usize,
    /// Scratch size in elements.
    lines: usize,
}

/// The part of a source that is read, and its lines in scratch.
#[derive(Debug)]
struct Strand {
    /// First column to read, in samples.
    column: usize,
    /// Number of columns to read.
    columns: usize,
    down: Down,
    across: Across,
    /// Start of its lines in scratch.
    start: usize,
    /// Distance between lines: the samples, and padding for zero weights.
    stride: usize,
}

impl Plan {
    fn new(key: ConversionKey) -> Self {
        let ConversionKey { region, orientation, target, .. } = &key;
        let (columns, rows) =
            if orientation.turned { (target.down, target.across) } else { (target.across, target.down) };
        let columns = sensor_taps(region.x, region.width, columns, target.by, orientation.columns_reversed);
        let rows = sensor_taps(region.y, region.height, rows, target.by, orientation.rows_reversed);
        let at_once = if orientation.turned { LINES } else { 1 };
        let mut lines = 0;
        let strand = |&shape: &SourceShape| {
            let strand = Strand::new(shape, &columns, &rows, lines);
            lines += strand.stride * at_once;
            strand
        };
        let strands: heapless::Vec<Strand, 3> = key.shapes.iter().map(strand).collect();
        let unit = |j: usize| key.components.get(j).map_or(1.0, |&(source, _)| strands[source].across.unit());
        let color = color::map(key.kind, &target.normal, [unit(0), unit(1), unit(2)]);
        Self { color, strands, rows: rows.len(), lines, key }
    }

    fn run(&self, isa: Isa, sources: &[SourceRows<'_>], lines: &mut [i16], out: &mut [f32]) {
        let ConversionKey { orientation, components, target, .. } = &self.key;
        let width = target.across.len;
        let at_once = if orientation.turned { LINES } else { 1 };
        for row in (0..self.rows).step_by(at_once) {
            let count = at_once.min(self.rows - row);
            for (strand, source) in self.strands.iter().zip(sources) {
                let lines = lines[strand.start..].chunks_exact_mut(strand.stride);
                for (line, row) in lines.zip(row..row + count) {
                    strand.fill(isa, source, row, line);
                }
            }
            for (strand, source) in self.strands.iter().zip(sources) {
                strand.prefetch(source, row..row + count, self.rows);
            }
            let (course, at) = if orientation.turned {
                (Course::Beside { lines: count, step: width }, row)
            } else {
                (Course::Along, row * width)
            };
            let inputs: heapless::Vec<ComponentLines<'_>, 3> = components
                .iter()
                .map(|&(source, byte)| {
                    let Strand { start, stride, across, .. } = &self.strands[source];
                    ComponentLines { lines: &lines[start + byte..], stride: *stride, taps: across }
                })
                .collect();
            across(isa, &inputs, &self.color, target.layout, course, at, out);
        }
    }
}

impl Strand {
    fn new(shape: SourceShape, columns: &[Tap], rows: &[Tap], start: usize) -> Self {
        let own = |taps: &[Tap], is_halved| if is_halved { halved(taps) } else { taps.to_vec() };
        let (mut columns, rows) = (own(columns, shape.halved_columns), own(rows, shape.halved_rows));
        let column = columns.iter().map(|tap| tap.first).min().unwrap_or(0);
        let end = columns.iter().map(|tap| tap.first + tap.weights.len()).max().unwrap_or(0);
        columns.iter_mut().for_each(|tap| tap.first -= column);
        let across = Across::pack(&columns, shape.pixel_stride, shape.sample);
        let read = (end - column) * shape.pixel_stride;
        let stride = (across.reach() + shape.span).max(read).next_multiple_of(32);
        Self { column, columns: end - column, down: Down::pack(&rows), across, start, stride }
    }

    /// Prefetches the rows for the lines after `done`, for as many lines.
    fn prefetch(&self, source: &SourceRows<'_>, done: Range<usize>, lines: usize) {
        let rows = |lines: Range<usize>| {
            let all =
                || lines.clone().map(|line| self.down.row(line)).map(|(first, weights)| first..first + weights.len());
            all().map(|rows| rows.start).min().unwrap_or(0)..all().map(|rows| rows.end).max().unwrap_or(0)
        };
        let next = rows(done.end..(done.end + done.len()).min(lines));
        let done = rows(done);
        // Lines overlap, and may run upwards.
        let next = if next.start >= done.start {
            next.start.max(done.end)..next.end
        } else {
            next.start..next.end.min(done.start)
        };
        if next.is_empty() {
            return;
        }
        let SourceShape { pixel_stride, .. } = source.shape;
        let start = next.start * source.plane.row_stride + self.column * pixel_stride;
        let rows = FrameRows { bytes: &source.plane.bytes[start..], stride: source.plane.row_stride };
        prefetch(rows, next.len(), (self.columns - 1) * pixel_stride + 1);
    }

    /// Resamples the rows of one line.
    fn fill<'a>(&self, isa: Isa, source: &SourceRows<'a>, row: usize, line: &mut [i16]) {
        let SourceShape { pixel_stride, span, sample, .. } = source.shape;
        let (first, weights) = self.down.row(row);
        let shift = self.down.shift(self.across.line_bits());
        let last = (self.columns - 1) * pixel_stride;
        let rows = |plane: Plane<'a>, column: usize| {
            let start = first * plane.row_stride + (self.column + column) * pixel_stride;
            FrameRows { bytes: &plane.bytes[start..], stride: plane.row_stride }
        };
        match source.further {
            None => down(isa, rows(source.plane, 0), weights, shift, &mut line[..last + span]),
            Some(further) => {
                let (line, end) = line[..last + span].split_at_mut(last + sample.bytes());
                down(isa, rows(source.plane, 0), weights, shift, line);
                down(isa, rows(further, self.columns - 1), weights, shift, end);
            }
        }
    }
}

/// Taps of one of the sensor's axes, in its own coordinates, in the order of the tensor.
fn sensor_taps(start: usize, len: usize, window: PixelWindow, by: Interpolation, against: bool) -> Vec<Tap> {
    let mut taps = taps(len, window, by, Filter::positive(by));
    trimmed(&mut taps);
    if against {
        reversed(len, &mut taps);
    }
    taps.iter_mut().for_each(|tap| tap.first += start);
    taps
}
