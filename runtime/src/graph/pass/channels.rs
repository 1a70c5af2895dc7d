//! Channels across a graph: which elements along the axes of values can only be removed together.
//!
//! A convolution or matrix product with constant weights starts channels, one per filter. Operators say which operand
//! axes their results' axes follow, and so propagate the channels:
//!
//! ```text
//! Conv -> Relu -> Conv depthwise -> Mul(gate) -> Conv
//! `------------ the same channels ----------'     `- others
//! ```
//!
//! In every value one axis is followed. A sum unites the channels of its operands, a concatenation has those of all its
//! operands, a reshape to attention heads unites all channels of a head, and a grouped convolution those of a group. A
//! channel that is read in any other way (as an output of the graph, or by an operator without axes) is bound: it must
//! not be removed.

use super::super::{Graph, Node, ValueId};
use super::filters::Filters;
use crate::error::Result;
use crate::operator::Semantics;
use crate::operator::axes::{How, Link};
use crate::reserve;

/// Most elements along all axes together; further ones are bound.
const MOST: usize = 1 << 24;

/// The followed axis of a value.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    /// The axis.
    pub axis: usize,
    /// Its length.
    pub len: usize,
    /// The index of its first element among those of all values.
    first: usize,
}

/// The channels of a graph.
pub struct Channels {
    tracks: Vec<Option<Track>>,
    /// For each element another one of the same channel, or itself: a union-find forest whose roots represent channels.
    parents: Vec<usize>,
    /// By root: whether the channel is bound.
    bound: Vec<bool>,
    /// If a reshape splits an axis, which of the parts is followed: 0 for the outermost.
    choice: usize,
    /// Whether there was more than one part to choose from.
    pub ambiguous: bool,
}

impl Channels {
    /// Follows the channels through a graph. If a reshape splits an axis, for example into heads, `choice` selects the
    /// part that is followed: 0 for the outermost.
    ///
    /// # Errors
    /// No memory.
    pub fn new(graph: &Graph, choice: usize) -> Result<Self> {
        let tracks = reserve::copies(None, graph.values().len())?;
        let mut channels = Self { tracks, parents: Vec::new(), bound: Vec::new(), choice, ambiguous: false };
        for node in &graph.nodes {
            if channels.follow(graph, node).is_none() {
                node.for_each_read(&mut |id| channels.bind(id));
                node.outputs.iter().for_each(|&id| channels.bind(id));
            }
        }
        for (_, id) in &graph.outputs {
            channels.bind(*id);
        }
        Ok(channels)
    }

    /// The followed axis of a value.
    #[must_use]
    pub fn track(&self, id: ValueId) -> Option<Track> {
        self.tracks.get(id.0).copied().flatten()
    }

    /// The channel of index `i` of the followed axis.
    #[must_use]
    pub fn channel(&self, track: Track, i: usize) -> usize {
        self.root(track.first + i)
    }

    /// Number of elements along all axes; every channel is below it.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.parents.len()
    }

    /// Whether a channel must not be removed.
    #[must_use]
    pub fn is_bound(&self, channel: usize) -> bool {
        self.bound.get(channel).copied().unwrap_or(true)
    }

    fn root(&self, mut at: usize) -> usize {
        while self.parents[at] != at {
            at = self.parents[at];
        }
        at
    }

    /// Like [`root`](Self::root), with path compression.
    fn find(&mut self, mut at: usize) -> usize {
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    fn bind(&mut self, id: ValueId) {
        if let Some(track) = self.track(id) {
            for i in 0..track.len {
                let root = self.find(track.first + i);
                self.bound[root] = true;
            }
        }
    }

    /// Follows an axis of `len` new elements; `None` if they are too many.
    fn begin(&mut self, id: ValueId, axis: usize, len: usize) -> Option<Track> {
        let first = self.parents.len();
        let end = first.checked_add(len).filter(|&end| end <= MOST)?;
        self.parents.try_reserve(len).ok()?;
        self.bound.try_reserve(len).ok()?;
        self.parents.extend(first..end);
        self.bound.resize(end, false);
        let track = Track { axis, len, first };
        self.tracks[id.0] = Some(track);
        Some(track)
    }

    /// Unites the channels of linked elements of both values; `None` if there is no memory for it.
    fn unite(&mut self, link: &Link, from: Track, to: Track) -> Option<()> {
        if link.how == How::Same && from.first == to.first {
            return Some(());
        }
        let mut parts = reserve::copies(None, from.len.max(to.len)).ok()?;
        let elements = (0..from.len).map(|i| (link.part_of_operand(i), from.first + i));
        let elements = elements.chain((0..to.len).map(|i| (link.part_of_result(i), to.first + i)));
        for (part, element) in elements {
            let Some(part) = part.and_then(|part| parts.get_mut(part)) else { continue };
            let mut root = self.find(element);
            if let Some(other) = part.map(|other| self.find(other))
                && other != root
            {
                // The later one joins the earlier one; path compression keeps the paths short.
                let (first, second) = (root.min(other), root.max(other));
                self.parents[second] = first;
                self.bound[first] |= self.bound[second];
                root = first;
            }
            *part = Some(root);
        }
        Some(())
    }

    /// Binds the elements of the result that are linked to `len` elements without a channel; `None` if there is no
    /// memory for it.
    fn bind_linked(&mut self, link: &Link, len: usize, to: Track) -> Option<()> {
        let mut parts = reserve::copies(false, len.max(to.len)).ok()?;
        for part in (0..len).filter_map(|i| link.part_of_operand(i)) {
            if let Some(part) = parts.get_mut(part) {
                *part = true;
            }
        }
        for i in 0..to.len {
            if link.part_of_result(i).and_then(|part| parts.get(part)) == Some(&true) {
                let root = self.find(to.first + i);
                self.bound[root] = true;
            }
        }
        Some(())
    }

    /// Propagates the channels of a node's operands to its result; `None` if the operator is not understood, or if
    /// there is no memory for it.
    fn follow(&mut self, graph: &Graph, node: &Node) -> Option<()> {
        let &[y] = node.outputs.as_slice() else { return None };
        let links = node.op.axes(&graph.facts(&node.inputs)).links;
        let filters = Filters::of(graph, node).filter(|filters| filters.groups == 1);
        let to = match &filters {
            Some(filters) => self.begin(y, filters.axis, filters.count)?,
            None => {
                let tracks: Vec<_> = node.inputs.iter().map(|&id| self.track(id)).collect();
                let tracked = || tracks.iter().enumerate().filter_map(|(at, &track)| Some((at, track?)));
                let (link, from) = tracked().find_map(|(at, from)| Some((self.chosen(&links, at, from)?, from)))?;
                if link.how == How::Same {
                    // No new elements.
                    let track = Track { axis: link.to, ..from };
                    self.tracks[y.0] = Some(track);
                    track
                } else {
                    self.begin(y, link.to, graph.fact(y).shape.get(link.to).copied()?)?
                }
            }
        };
        for (at, &id) in node.inputs.iter().enumerate() {
            let link = links.iter().find(|link| link.operand == at && link.to == to.axis && self.starts_at(link, id));
            match (self.track(id), link) {
                (Some(from), Some(link)) => self.unite(link, from, to)?,
                (Some(from), None) => {
                    // The channels that filters read end there.
                    let read = at == 0 && filters.as_ref().is_some_and(|filters| filters.axis == from.axis);
                    if !read {
                        self.bind(id);
                    }
                    if links.iter().any(|link| link.operand == at && link.to == to.axis) {
                        self.bind(y);
                    }
                }
                (None, Some(link)) if graph.constant(id).is_none() => {
                    let len = graph.fact(id).shape.get(link.from).copied()?;
                    self.bind_linked(link, len, to)?;
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Whether a link begins at the followed axis of `id`, or anywhere if none is followed.
    fn starts_at(&self, link: &Link, id: ValueId) -> bool {
        self.track(id).is_none_or(|track| track.axis == link.from)
    }

    /// The followed axis of the result if operand `at` is followed along `from`: preferably one that keeps channels
    /// apart.
    fn chosen(&mut self, links: &[Link], at: usize, from: Track) -> Option<Link> {
        let candidates: Vec<&Link> = links.iter().filter(|link| link.operand == at && link.from == from.axis).collect();
        if candidates.len() > 1 {
            let apart = candidates.iter().copied().find(|link| self.separates_channels(link, from));
            if let Some(link) = apart {
                return Some(*link);
            }
            self.ambiguous = true;
        }
        candidates.get(self.choice.min(candidates.len().checked_sub(1)?)).map(|&&link| link)
    }

    /// Whether every part of the link has elements of only one channel.
    fn separates_channels(&self, link: &Link, from: Track) -> bool {
        let Ok(mut parts) = reserve::copies(None, from.len) else { return false };
        (0..from.len).all(|i| {
            let channel = self.channel(from, i);
            let part = link.part_of_operand(i).and_then(|part| parts.get_mut(part));
            part.is_none_or(|part| *part.get_or_insert(channel) == channel)
        })
    }
}
