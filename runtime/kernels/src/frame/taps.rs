//! Weights in fixed point.

/// The samples that contribute to one output along an axis: adjacent samples starting at `first`, each with a weight.
/// Weights are not negative and sum to 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Tap {
    /// Index of the first sample.
    pub first: usize,
    /// At least one weight.
    pub weights: Vec<f64>,
}

/// A sample in a row of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SampleWidth {
    /// One byte: a level.
    Byte,
    /// Two bytes, the lower first, of which the higher is a level and the lower is 256ths of one (P010, P016): rows are
    /// summed byte by byte, and the two sums of a sample are added across, so that no instruction set needs more code.
    Word,
}

impl SampleWidth {
    /// Bytes of a sample.
    pub fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
        }
    }
}

/// Most fraction bits of a complete sum of samples, which are below 256 levels: it is below 2^30.
const SUM_BITS: u32 = 22;
/// Most fraction bits of a line: 255 times 2^7 fits in 16 bits.
const LINE_BITS: u32 = 7;
/// Most fraction bits of a weight in `across`, so that at least three are left for a line.
const ACROSS_BITS: u32 = 19;

/// The fraction bits available next to the largest weight in 16 bits, at most `most` and at least 14.
fn bits(taps: &[Tap], most: u32) -> u32 {
    let largest = taps.iter().flat_map(|tap| &tap.weights).fold(0.0f64, |a, &b| a.max(b));
    // Rounding adds at most one.
    (14..=most).rev().find(|&bits| largest * f64::from(1u32 << bits) <= 32766.0).unwrap_or(14)
}

/// Weights with `bits` fraction bits. The running sum is rounded, not each weight, so that they sum to one exactly and
/// white stays white.
fn fixed(weights: &[f64], bits: u32) -> impl Iterator<Item = i16> {
    let one = f64::from(1u32 << bits);
    let total: f64 = weights.iter().sum();
    let (mut sum, mut before) = (0.0, 0.0);
    weights.iter().map(move |weight| {
        sum += weight;
        let here = (sum / total * one).round();
        let weight = here - before;
        before = here;
        weight as i16
    })
}

/// The packed taps of rows: see [`down`](super::down).
#[derive(Clone, Debug)]
pub struct Down {
    /// For each output: first row, and the start and end of its weights.
    taps: Vec<(usize, usize, usize)>,
    weights: Vec<i16>,
    bits: u32,
}

impl Down {
    /// Packs taps.
    pub fn pack(taps: &[Tap]) -> Self {
        let bits = bits(taps, SUM_BITS);
        let mut packed = Self { taps: Vec::with_capacity(taps.len()), weights: Vec::new(), bits };
        for tap in taps {
            let start = packed.weights.len();
            packed.weights.extend(fixed(&tap.weights, bits));
            packed.taps.push((tap.first, start, packed.weights.len()));
        }
        packed
    }

    /// First row and weights of an output.
    pub fn row(&self, output: usize) -> (usize, &[i16]) {
        let (first, start, end) = self.taps[output];
        (first, &self.weights[start..end])
    }

    /// The shift that leaves `line_bits` fraction bits, at most seven.
    pub fn shift(&self, line_bits: u32) -> u32 {
        self.bits - line_bits
    }
}

/// The packed taps of the columns of one component: see [`across`](super::across).
#[derive(Clone, Debug)]
pub struct Across {
    outputs: usize,
    /// First element of the line for each output; the last one is repeated to fill a group.
    first: Vec<usize>,
    /// `padded` weights for each element of `first`.
    weights: Vec<i16>,
    padded: usize,
    bits: u32,
    reach: usize,
}

impl Across {
    /// The weight count of an output is a multiple of this, so that every instruction set loads whole blocks.
    pub(super) const BLOCK: usize = 16;
    /// The count of stored outputs is a multiple of this.
    const GROUP: usize = 16;

    /// Packs taps for a component whose samples are `step` elements apart.
    ///
    /// # Panics
    /// If samples overlap.
    pub fn pack(taps: &[Tap], step: usize, sample: SampleWidth) -> Self {
        assert!(step >= sample.bytes(), "samples {step} bytes apart");
        let bits = bits(taps, ACROSS_BITS);
        let longest = taps.iter().map(|tap| tap.weights.len()).max().unwrap_or(1);
        let padded = ((longest - 1) * step + sample.bytes()).next_multiple_of(Self::BLOCK);
        let stored = taps.len().next_multiple_of(Self::GROUP);
        let mut weights = vec![0; stored * padded];
        let all = taps.iter().chain(std::iter::repeat(taps.last()).flatten());
        let mut first = Vec::with_capacity(stored);
        for (tap, packed) in all.zip(weights.chunks_exact_mut(padded)) {
            first.push(tap.first * step);
            let whole = sample.bytes() - 1;
            for (to, weight) in packed[whole..].iter_mut().step_by(step).zip(fixed(&tap.weights, bits)) {
                *to = weight;
            }
            if sample == SampleWidth::Word {
                // Rounding these on their own errs by a small part of a 256th.
                for (to, weight) in packed.iter_mut().step_by(step).zip(fixed(&tap.weights, bits - 8)) {
                    *to = weight;
                }
            }
        }
        let reach = first.iter().max().map_or(0, |first| first + padded);
        Self { outputs: taps.len(), first, weights, padded, bits, reach }
    }

    /// Count of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Elements of a line that are read.
    pub fn reach(&self) -> usize {
        self.reach
    }

    /// Fraction bits that a line may have.
    pub fn line_bits(&self) -> u32 {
        (SUM_BITS - self.bits).min(LINE_BITS)
    }

    /// The value in a sum that corresponds to one level.
    pub fn unit(&self) -> f32 {
        (1u32 << (self.bits + self.line_bits())) as f32
    }

    /// First element of the line for an output, and its weights.
    pub(super) fn output(&self, output: usize) -> (usize, &[i16]) {
        (self.first[output], &self.weights[output * self.padded..][..self.padded])
    }

    /// Weights of an output, padding included.
    pub(super) fn padded(&self) -> usize {
        self.padded
    }

    /// First element of the line for each output, padded to whole groups.
    pub(super) fn first(&self) -> &[usize] {
        &self.first
    }

    /// The weights, `padded` for each of `first`.
    pub(super) fn weights(&self) -> &[i16] {
        &self.weights
    }
}
