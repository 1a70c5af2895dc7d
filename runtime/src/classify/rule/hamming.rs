//! The class whose binary code differs in the fewest bits.
//!
//! Models such as Binary Paragraph Vector (<https://arxiv.org/abs/1611.01116>) give a code instead of scores: every
//! output is a bit, 1 if its probability is above one half. A code of 128 bits is 16 bytes, and two are compared by a few
//! instructions.

use std::fmt;

use super::refused;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Bits of a word.
const WORD: usize = 64;

/// The number of bits in which the output differs from each class's code.
#[derive(Clone, Debug, PartialEq)]
pub struct Hamming {
    /// The codes by rows, each filled up with zeros to whole words.
    words: Vec<u64>,
    classes: usize,
    /// Bits of a code; if they were stored as bytes, the last 7 may be missing.
    bits: usize,
    packed: bool,
}

impl Hamming {
    /// A rule for codes, one row for each class: booleans, or bytes of eight bits with the first in the highest, as of
    /// NumPy's `packbits`.
    ///
    /// # Errors
    /// `input.table` for anything else.
    pub fn new(codes: &Tensor) -> Result<Self> {
        let fact = codes.fact();
        let (classes, columns, packed) = match (fact.dtype, fact.shape.dims()) {
            (DType::Bool, &[rows, columns]) if rows > 0 && columns > 0 => (rows, columns, false),
            (DType::U8, &[rows, columns]) if rows > 0 && columns > 0 => (rows, columns, true),
            _ => return Err(refused(format!("the codes are {fact}, expected a matrix of bool or u8"))),
        };
        let row = |bytes: &[u8]| {
            if packed {
                words((0..columns * 8).map(|bit| bytes[bit / 8] >> (7 - bit % 8) & 1 == 1))
            } else {
                words(bytes.iter().map(|&byte| byte != 0))
            }
        };
        let words = codes.bytes().chunks_exact(columns).flat_map(row).collect();
        Ok(Self { words, classes, bits: if packed { columns * 8 } else { columns }, packed })
    }

    pub(super) fn classes(&self) -> usize {
        self.classes
    }

    /// Whether it fits an output of so many elements. In packed codes, up to seven bits at the end may be missing, and
    /// are then zero.
    pub(super) fn takes(&self, outputs: usize) -> bool {
        let unused = self.bits.checked_sub(outputs);
        let zero = |unused| self.rows().all(|row| (self.bits - unused..self.bits).all(|bit| !is_set(row, bit)));
        unused.is_some_and(|unused| unused == 0 || (self.packed && unused < 8 && zero(unused)))
    }

    fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.words.chunks_exact(self.bits.div_ceil(WORD))
    }

    /// Minus the number of bits that differ, if those outputs are 1 that are above `bound`.
    pub(super) fn scores(&self, output: &[f32], bound: f32) -> Vec<f32> {
        let missing = std::iter::repeat_n(false, self.bits.saturating_sub(output.len()));
        let own = words(output.iter().map(|&value| value > bound).chain(missing));
        let distance = |row: &[u64]| row.iter().zip(&own).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        self.rows().map(|row| -(distance(row) as f32)).collect()
    }
}

/// Bits as words, the first in the lowest bit.
fn words(bits: impl Iterator<Item = bool>) -> Vec<u64> {
    let mut words = Vec::new();
    for (at, bit) in bits.enumerate() {
        if at % WORD == 0 {
            words.push(0);
        }
        words[at / WORD] |= u64::from(bit) << (at % WORD);
    }
    words
}

fn is_set(words: &[u64], bit: usize) -> bool {
    words[bit / WORD] >> (bit % WORD) & 1 == 1
}

impl fmt::Display for Hamming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hamming distance to {} codes of {} bits", self.classes, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::top_k;
    use super::*;

    fn packed(shape: [usize; 2], bytes: &[u8]) -> Hamming {
        Hamming::new(&Tensor::from_slice(&shape, bytes).unwrap()).unwrap()
    }

    #[test]
    fn bits_are_compared_in_the_order_of_packbits() {
        // numpy.packbits([1, 0, 1, 0, 0, 0, 0, 0, 1]) is [0b1010_0000, 0b1000_0000].
        let rule = packed([2, 2], &[0b1010_0000, 0b1000_0000, 0, 0]);
        let output = [1.0, -1.0, 2.0, -1.0, 0.0, -2.0, -1.0, -1.0, 0.1];
        assert!(rule.takes(9) && rule.takes(16) && !rule.takes(8) && !rule.takes(17));
        assert_eq!(rule.scores(&output, 0.0), [0.0, -3.0]);
        // A bit that is set has an output.
        assert!(!packed([1, 1], &[1]).takes(7));
    }

    #[test]
    fn booleans_are_bits() {
        let codes = Tensor::from_bytes(
            crate::tensor::Fact::new(DType::Bool, crate::tensor::Shape::new(&[2, 3]).unwrap()),
            &[1, 0, 1, 0, 0, 0],
        );
        let rule = Hamming::new(&codes.unwrap()).unwrap();
        assert!(rule.takes(3) && !rule.takes(2));
        assert_eq!(rule.scores(&[0.9, 0.5, 0.6], 0.5), [0.0, -2.0]);
    }

    #[test]
    fn distances_are_counted_bit_by_bit() {
        let mut state = 3u32;
        let mut bit = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 31 == 1
        };
        for bits in [1usize, 7, 8, 63, 64, 65, 128, 200] {
            let codes: Vec<Vec<bool>> = (0..20).map(|_| (0..bits).map(|_| bit()).collect()).collect();
            let bytes: Vec<u8> = codes
                .iter()
                .flat_map(|code| code.chunks(8))
                .map(|chunk| chunk.iter().enumerate().map(|(at, &bit)| u8::from(bit) << (7 - at)).sum())
                .collect();
            let rule = packed([20, bits.div_ceil(8)], &bytes);
            assert!(rule.takes(bits), "{bits}");
            let own: Vec<bool> = (0..bits).map(|_| bit()).collect();
            let output: Vec<f32> = own.iter().map(|&bit| if bit { 0.75 } else { 0.25 }).collect();
            let want = codes.iter().map(|code| -(code.iter().zip(&own).filter(|(a, b)| a != b).count() as f32));
            assert_eq!(rule.scores(&output, 0.5), want.collect::<Vec<_>>(), "{bits}");
        }
    }

    #[test]
    fn ties_go_to_the_first_and_many_codes_are_few() {
        let mut bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_be_bytes).collect();
        bytes.extend(7u32.to_be_bytes());
        let rule = packed([100_001, 4], &bytes);
        let output: Vec<f32> = (0..32).map(|bit| if bit >= 29 { 1.0 } else { -1.0 }).collect();
        let best: Vec<_> = top_k(&rule.scores(&output, 0.0), 3).iter().map(|it| (it.index, it.score)).collect();
        assert_eq!(best, [(7, 0.0), (100_000, 0.0), (3, -1.0)]);
    }

    #[test]
    fn other_tables_are_refused() {
        for codes in [Tensor::from_slice(&[2], &[1u8, 2]), Tensor::from_slice(&[1, 2], &[1.0f32, 0.0])] {
            assert_eq!(Hamming::new(&codes.unwrap()).unwrap_err().code(), "input.table");
        }
    }
}
