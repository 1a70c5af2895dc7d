//! The pixels along one axis that belong to the window of an output.

/// The windows of all outputs along one axis: equally large, at constant distances.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    /// Pixels of the image.
    pub(super) len: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    /// Padding before the first pixel.
    pub(super) before: usize,
    /// Padding after the last pixel.
    pub(super) after: usize,
}

/// The pixels of one window that exist: `first`, `first + step`, ...; `count` of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taps {
    pub(super) first: usize,
    pub(super) step: usize,
    pub(super) count: usize,
    /// The count if the padding consisted of pixels.
    pub(super) padded_count: usize,
}

impl Windows {
    /// The window of output `o`. Not inlined: its variables would take the registers of the loop over channels.
    #[inline(never)]
    pub(super) fn at(&self, o: usize) -> Taps {
        let Self { len, kernel, stride, dilation, before, after } = *self;
        // Positions are counted from the first pixel of the padding: position `k` of the window is at
        // `start + k * dilation`, the image at `before..before + len`.
        let start = o * stride;
        // Most windows lie inside the image.
        if start >= before && start + kernel * dilation < before + len + dilation {
            return Taps { first: start - before, step: dilation, count: kernel, padded_count: kernel };
        }
        let places_below = |end: usize| end.saturating_sub(start).div_ceil(dilation).min(kernel);
        let skipped = places_below(before);
        let count = places_below(before + len) - skipped;
        let first = match count {
            0 => 0,
            _ => start + skipped * dilation - before,
        };
        let padded_count = places_below(before + len + after);
        Taps { first, step: dilation, count, padded_count }
    }
}

impl Taps {
    /// The pixels.
    #[inline]
    pub(super) fn pixels(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |k| self.first + k * self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_contains_only_pixels_inside_the_image() {
        for len in 0..6usize {
            for kernel in 1..5 {
                for stride in 1..4 {
                    for dilation in 1..4 {
                        for (before, after) in [(0, 0), (1, 0), (2, 3)] {
                            let windows = Windows { len, kernel, stride, dilation, before, after };
                            for o in 0..6 {
                                let place = |k: usize| (o * stride + k * dilation) as isize - before as isize;
                                let exists = |p: &isize| (0..len as isize).contains(p);
                                let padded = |p: &isize| *p < (len + after) as isize;
                                let expected: Vec<isize> = (0..kernel).map(place).filter(exists).collect();
                                let taps = windows.at(o);
                                let actual: Vec<isize> = taps.pixels().map(|p| p as isize).collect();
                                assert_eq!(actual, expected, "{o} {stride} {dilation}");
                                let places = (0..kernel).map(place).filter(padded).count();
                                assert_eq!(taps.padded_count, places);
                            }
                        }
                    }
                }
            }
        }
    }
}
