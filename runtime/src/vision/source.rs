//! Sources: which rows of bytes hold which components of a frame.
//!
//! Interleaved components are read together: one weighted sum of rows computes them all, and they are separated
//! afterwards, when far fewer elements are left.

use skipstone_kernels::frame::SampleWidth;

use super::frame::{ColorOrder, Frame, Pixels, Plane};

/// Rows of bytes that hold one component, or several interleaved.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceRows<'a> {
    /// Its rows.
    pub plane: Plane<'a>,
    /// Their layout.
    pub shape: SourceShape,
    /// The same rows one sample further, because `plane` need not include the last sample of the last pixel.
    pub further: Option<Plane<'a>>,
}

/// The layout of a source, without its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SourceShape {
    /// Bytes from one pixel to the next.
    pub pixel_stride: usize,
    /// Number of bytes of a pixel to use, from its first.
    pub span: usize,
    /// The bytes of a sample.
    pub sample: SampleWidth,
    /// Whether each sample represents two pixels of a row.
    pub halved_columns: bool,
    /// Whether each sample represents two rows.
    pub halved_rows: bool,
}

/// Location of a component: index of the source, and byte of the pixel.
pub(super) type Component = (usize, usize);

/// Sources of a frame, and the components in the order that its colors are computed from.
pub(super) type Sources<'a> = (heapless::Vec<SourceRows<'a>, 3>, heapless::Vec<Component, 3>);

/// The sources of `frame`: luma and chroma, or red, green and blue, or luma only.
pub(super) fn sources<'a>(frame: &Frame<'a>) -> Sources<'a> {
    let one = |plane: Plane<'a>, span, sample| {
        let shape =
            SourceShape { pixel_stride: plane.pixel_stride, span, sample, halved_columns: false, halved_rows: false };
        SourceRows { plane, shape, further: None }
    };
    match *frame.pixels() {
        Pixels::Color { plane, order } => {
            let (span, components): (usize, &[Component]) = match order {
                ColorOrder::Rgba | ColorOrder::Rgb => (3, &[(0, 0), (0, 1), (0, 2)]),
                ColorOrder::Bgra => (3, &[(0, 2), (0, 1), (0, 0)]),
                ColorOrder::Gray => (1, &[(0, 0)]),
            };
            (list(&[one(plane, span, SampleWidth::Byte)]), list(components))
        }
        Pixels::Yuv { y, u, v, format, .. } => {
            let sample = format.sample();
            let bytes = sample.bytes();
            let (first, further, components) = if is_next(u, v, bytes) {
                (u, Some(v), [(0, 0), (1, 0), (1, bytes)])
            } else if is_next(v, u, bytes) {
                (v, Some(u), [(0, 0), (1, bytes), (1, 0)])
            } else {
                (u, None, [(0, 0), (1, 0), (2, 0)])
            };
            let chroma = SourceRows {
                plane: first,
                shape: SourceShape {
                    pixel_stride: first.pixel_stride,
                    span: if further.is_some() { 2 * bytes } else { bytes },
                    sample,
                    halved_columns: true,
                    halved_rows: format.halves_rows(),
                },
                further,
            };
            let shape = SourceShape { pixel_stride: v.pixel_stride, ..chroma.shape };
            let all = [one(y, bytes, sample), chroma, SourceRows { plane: v, shape, further: None }];
            (list(&all[..if further.is_some() { 2 } else { 3 }]), list(&components))
        }
    }
}

fn list<T: Clone>(items: &[T]) -> heapless::Vec<T, 3> {
    items.iter().cloned().collect()
}

/// Whether the samples of `b`, of this many bytes, lie right after those of `a`.
fn is_next(a: Plane<'_>, b: Plane<'_>, bytes: usize) -> bool {
    a.pixel_stride >= 2 * bytes
        && (a.pixel_stride, a.row_stride) == (b.pixel_stride, b.row_stride)
        && b.bytes.as_ptr().addr() == a.bytes.as_ptr().addr().wrapping_add(bytes)
}
