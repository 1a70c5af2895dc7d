//! Which places of two networks correspond.

use crate::cuts::Cut;

/// A value of the small network, and the value of the large one that is computed from it.
#[derive(Clone, Debug)]
pub(super) struct Pair(pub [Cut; 2]);

impl Pair {
    /// The number of channels of both.
    pub fn channels(&self) -> [usize; 2] {
        [0, 1].map(|side| self.0[side].channels())
    }

    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.0[0].places().iter().product()
    }
}

/// Pairs of corresponding places: those that are equally deep among the places of their size.
pub(super) fn pairs(small: &[Cut], large: &[Cut]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut rest = small;
    while let Some(first) = rest.first() {
        let size = (first.places(), first.axis);
        let is_like = |cut: &Cut| (cut.places(), cut.axis) == size;
        let (stage, behind) = rest.split_at(rest.iter().take_while(|cut| is_like(cut)).count());
        rest = behind;
        let others: Vec<&Cut> = large.iter().filter(|cut| is_like(cut)).collect();
        for (at, cut) in stage.iter().enumerate() {
            let like = ((at + 1) * others.len()).div_ceil(stage.len()).checked_sub(1).and_then(|at| others.get(at));
            pairs.extend(like.map(|&other| Pair([cut.clone(), other.clone()])));
        }
    }
    pairs
}

/// No more than `most` pairs, evenly over the depth.
pub(super) fn spread(pairs: &[Pair], most: usize) -> Vec<Pair> {
    let count = pairs.len();
    let most = most.min(count);
    (0..most).map(|k| pairs[(2 * k + 1) * count / (2 * most)].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(sides: &[usize]) -> Vec<Cut> {
        let cut =
            |(at, &side): (usize, &usize)| Cut { value: at.to_string(), at, dims: vec![1, 8, side, side], axis: 1 };
        sides.iter().enumerate().map(cut).collect()
    }

    fn paired(small: &[usize], large: &[usize], most: usize) -> Vec<[usize; 2]> {
        spread(&pairs(&cuts(small), &cuts(large)), most).iter().map(|pair| [0, 1].map(|side| pair.0[side].at)).collect()
    }

    #[test]
    fn places_of_one_size_correspond_by_their_depth() {
        assert_eq!(paired(&[8, 8, 4], &[8, 8, 8, 8, 4, 4], 9), [[0, 1], [1, 3], [2, 5]]);
        assert_eq!(paired(&[8, 8, 8, 4], &[8, 4], 9), [[0, 0], [1, 0], [2, 0], [3, 1]]);
        assert_eq!(paired(&[8, 4], &[16, 2], 9), [[0; 2]; 0]);
    }

    #[test]
    fn few_places_are_spread_over_the_depth() {
        assert_eq!(paired(&[8; 6], &[8; 6], 2), [[1, 1], [4, 4]]);
        assert_eq!(paired(&[8; 6], &[8; 6], 1), [[3, 3]]);
    }
}
