//! Where a network can be cut, and which places of two networks correspond.

use std::collections::{HashMap, HashSet};

use super::Part;
use crate::editor::Node;
use crate::layers::Layer;

/// Most channels at a place: least squares takes the square of that in memory.
const MOST_CHANNELS: usize = 2048;

/// A value that everything behind it is computed from.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub value: String,
    /// Number of nodes before it.
    pub at: usize,
    pub dims: Vec<usize>,
}

impl Cut {
    /// What two values must have in common: rows and columns, or tokens.
    fn places(&self) -> Vec<usize> {
        let mut places = self.dims.clone();
        places.remove(self.axis());
        places
    }

    pub fn channels(&self) -> usize {
        self.dims[self.axis()]
    }

    /// The axis of the channels.
    fn axis(&self) -> usize {
        if self.dims.len() == 4 { 1 } else { self.dims.len() - 1 }
    }
}

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

impl Part {
    /// The places where the network can be cut: between every two layers the last one, none before the first layer or behind
    /// the last.
    pub(super) fn cuts(&self) -> Vec<Cut> {
        let layers: HashSet<String> = Layer::all(&self.editor.graph).into_iter().map(|layer| layer.output).collect();
        let mut reads: HashMap<&str, usize> = HashMap::new();
        for name in self.nodes.iter().flat_map(|node| &node.inputs).filter(|name| !name.is_empty()) {
            *reads.entry(name).or_default() += 1;
        }
        let is_layer = |node: &Node| node.outputs.first().is_some_and(|output| layers.contains(output));
        let all = self.nodes.iter().filter(|node| is_layer(node)).count();
        let mut open: HashMap<&str, usize> = HashMap::new();
        open.insert(&self.input, reads.get(self.input.as_str()).copied().unwrap_or(0));
        let (mut passed, mut cuts) = (0, Vec::<(usize, Cut)>::new());
        for (at, node) in self.nodes.iter().enumerate() {
            for name in &node.inputs {
                if let Some(left) = open.get_mut(name.as_str()) {
                    *left -= 1;
                    if *left == 0 {
                        open.remove(name.as_str());
                    }
                }
            }
            open.extend(node.outputs.iter().filter_map(|name| Some((name.as_str(), *reads.get(name.as_str())?))));
            passed += usize::from(is_layer(node));
            let mut values = open.keys();
            let (Some(&value), None, true) = (values.next(), values.next(), passed > 0 && passed < all) else {
                continue;
            };
            let Some(dims) = self.dims(value).filter(|dims| (2..=4).contains(&dims.len())) else { continue };
            let cut = Cut { value: value.to_owned(), at: at + 1, dims };
            if !(1..=MOST_CHANNELS).contains(&cut.channels()) {
                continue;
            }
            if cuts.last().is_some_and(|(before, _)| *before == passed) {
                cuts.pop();
            }
            cuts.push((passed, cut));
        }
        cuts.into_iter().map(|(_, cut)| cut).collect()
    }
}

/// Pairs of corresponding places: those that are equally deep among the places of their size.
pub(super) fn pairs(small: &[Cut], large: &[Cut]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut rest = small;
    while let Some(first) = rest.first() {
        let size = first.places();
        let (stage, behind) = rest.split_at(rest.iter().take_while(|cut| cut.places() == size).count());
        rest = behind;
        let others: Vec<&Cut> = large.iter().filter(|cut| cut.places() == size).collect();
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
        let cut = |(at, &side): (usize, &usize)| Cut { value: at.to_string(), at, dims: vec![1, 8, side, side] };
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
