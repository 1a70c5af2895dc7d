//! The content of a package's sections: a graph as plain data, and the location of its constants and packed weights.
//!
//! The graph has been through the passes. A package for one instruction set holds the weights of large products in
//! packed form instead of the original; opening it chooses kernels and places tensors again, which takes a millisecond,
//! checks all that planning checks, and packs nothing. So a package is treated like any other graph: every shape, type
//! and attribute goes through the shape rules, and a length that a kernel does not expect is an error.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use postcard::ser_flavors::Size;
use serde::{Deserialize, Serialize};
use skipstone_reserve::NoMemory;
use twox_hash::XxHash3_128;

use super::container::{ALIGNMENT, refused};
use crate::bytes::Bytes;
use crate::error::{Error, OpError, PackageFault, Result};
use crate::graph::{Block, Graph, MAX_DEPTH, Node, OutputLength, ValueId, Variable};
use crate::info::{Info, PackedFor};
use crate::operator::{Choice, Packing};
use crate::ops::Op;
use crate::reserve;
use crate::tensor::{Fact, Tensor};

/// Most bytes of all tensors of a graph together.
const MAX_BYTES: u64 = 1 << 32;

/// The section [`Kind::Graph`](super::container::Kind::Graph).
#[derive(Serialize, Deserialize)]
pub(super) struct Content {
    /// The target that the weights are packed for; `None` if they are not packed.
    pub target: Option<PackedFor>,
    #[serde(deserialize_with = "reserve::deserialize_list")]
    values: Vec<StoredValue>,
    /// Every node; nodes in blocks come after the node that owns them.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    nodes: Vec<StoredNode>,
    #[serde(deserialize_with = "reserve::deserialize_list")]
    inputs: Vec<usize>,
    #[serde(deserialize_with = "reserve::deserialize_list")]
    outputs: Vec<StoredOutput>,
}

#[derive(Serialize, Deserialize)]
struct StoredOutput {
    #[serde(deserialize_with = "reserve::deserialize_text")]
    name: String,
    value: usize,
}

#[derive(Serialize, Deserialize)]
struct StoredValue {
    #[serde(deserialize_with = "reserve::deserialize_text")]
    name: String,
    fact: Fact,
    data: Data,
}

/// The data of a value.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Data {
    /// None: it is computed, or an input.
    None,
    /// Only its packed form is stored.
    Packed,
    /// At this offset in the weights.
    At(usize),
}

#[derive(Serialize, Deserialize)]
struct StoredNode {
    #[serde(deserialize_with = "reserve::deserialize_text")]
    name: String,
    op: Op,
    #[serde(deserialize_with = "reserve::deserialize_list")]
    inputs: Vec<usize>,
    #[serde(deserialize_with = "reserve::deserialize_list")]
    outputs: Vec<usize>,
    packing: Option<StoredPacking>,
    #[serde(deserialize_with = "reserve::deserialize_list")]
    blocks: Vec<StoredBlock>,
}

/// A block. Its nodes are the next ones in the list; this is their number, without those in nested blocks.
#[derive(Serialize, Deserialize)]
struct StoredBlock {
    #[serde(deserialize_with = "reserve::deserialize_list")]
    parameters: Vec<usize>,
    nodes: usize,
    #[serde(deserialize_with = "reserve::deserialize_list")]
    results: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct StoredPacking {
    #[serde(deserialize_with = "reserve::deserialize_text")]
    form: String,
    #[serde(deserialize_with = "reserve::deserialize_list")]
    absorbed: Vec<usize>,
    /// Offset and length in the weights.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    packed: Vec<(usize, usize)>,
}

/// The section [`Kind::Variables`](super::container::Kind::Variables): for each of the last inputs, one plus the offset
/// of its initial value in the weights, and one plus the position of the output that replaces it; 0 if there is none.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct StoredVariables(#[serde(deserialize_with = "reserve::deserialize_list")] Vec<(usize, usize)>);

/// The section [`Kind::Lengths`](super::container::Kind::Lengths): what the last outputs are, the position of another
/// output and its axis.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct StoredLengths(#[serde(deserialize_with = "reserve::deserialize_list")] Vec<(usize, usize)>);

impl StoredLengths {
    /// Those of a graph.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn of(graph: &Graph) -> Result<Self> {
        Ok(Self(reserve::list(graph.lengths.iter().map(|length| (length.output, length.axis)))?))
    }
}

/// The section [`Kind::Info`](super::container::Kind::Info).
#[derive(Serialize, Deserialize)]
pub(super) struct StoredInfo<'a> {
    /// Keys and values.
    #[serde(borrow, deserialize_with = "reserve::deserialize_list")]
    metadata: Vec<(&'a str, &'a str)>,
    parameters: u64,
    weight_bytes: u64,
}

impl<'a> StoredInfo<'a> {
    /// Refers to this information.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn of(info: &'a Info) -> Result<Self> {
        let metadata = reserve::list(info.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
        Ok(Self { metadata, parameters: info.parameters, weight_bytes: info.weight_bytes })
    }
}

impl TryFrom<StoredInfo<'_>> for Info {
    type Error = Error;

    fn try_from(stored: StoredInfo<'_>) -> Result<Self> {
        let mut metadata = BTreeMap::new();
        for (key, value) in stored.metadata {
            metadata.insert(reserve::text(key)?, reserve::text(value)?);
        }
        Ok(Self {
            metadata,
            parameters: stored.parameters,
            weight_bytes: stored.weight_bytes,
            assumed_batch: Vec::new(),
            package: None,
        })
    }
}

/// Serializes `value` with postcard.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    let bad = |e| Error::Internal(format!("a package cannot be written: {e}"));
    let len = postcard::serialize_with_flavor(value, Size::default()).map_err(bad)?;
    let mut bytes = reserve::copies(0, len)?;
    postcard::to_slice(value, &mut bytes).map_err(bad)?;
    Ok(bytes)
}

/// Deserializes a section, which must not have extra bytes.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(refused(PackageFault::Format, "a section has extra bytes")),
        // Lists that do not fit memory have no error of their own here.
        Err(e @ postcard::Error::SerdeDeCustom) => {
            Err(refused(PackageFault::Format, &format!("a section cannot be read, or there is no memory for it: {e}")))
        }
        Err(e) => Err(refused(PackageFault::Format, &format!("a section cannot be read: {e}"))),
    }
}

/// The section of weights while it is being written. Graphs share what is equal in them, and the nodes of a graph the
/// packed weights that they share in memory.
pub(super) struct WeightBytes {
    pub bytes: Vec<u8>,
    /// Offset of the section in the file.
    start: usize,
    /// Offsets of the bytes of earlier graphs by hash and length, less those that this graph has used.
    left: HashMap<(u128, usize), Vec<usize>>,
    /// Those of all graphs, and of this one.
    all: HashMap<(u128, usize), Vec<usize>>,
}

impl WeightBytes {
    /// Nothing yet, of a section that will be at this offset of the file.
    pub fn at(start: usize) -> Self {
        Self { bytes: Vec::new(), start, left: HashMap::new(), all: HashMap::new() }
    }

    /// Appends bytes, and returns their offset.
    fn add(&mut self, bytes: &[u8]) -> Result<usize> {
        self.add_aligned(bytes, ALIGNMENT)
    }

    /// Appends bytes at a multiple of `alignment` in the file, unless an earlier graph has equal ones, and returns their
    /// offset in the section.
    fn add_aligned(&mut self, bytes: &[u8], alignment: usize) -> Result<usize> {
        let key = (XxHash3_128::oneshot(bytes), bytes.len());
        let equal = |&offset: &usize| self.bytes.get(offset..offset + bytes.len()) == Some(bytes);
        if let Some(offset) = self.left.get_mut(&key).and_then(|left| left.pop_if(|offset| equal(offset))) {
            return Ok(offset);
        }
        let offset = (self.start + self.bytes.len()).next_multiple_of(alignment) - self.start;
        let more = offset - self.bytes.len() + bytes.len();
        self.bytes.try_reserve(more).map_err(|_| OpError::no_memory(offset + bytes.len()).at("package"))?;
        self.bytes.resize(offset, 0);
        self.bytes.extend(bytes);
        match self.all.get_mut(&key) {
            Some(offsets) => reserve::push(offsets, offset)?,
            None => drop(reserve::insert(&mut self.all, key, vec![offset])?),
        }
        Ok(offset)
    }

    /// Appends the packed weights of a node: an expert that fills pages gets its own, so that it can be read and leave
    /// memory without its neighbors.
    fn add_packed(&mut self, op: &Op, bytes: &[u8]) -> Result<usize> {
        let own = PAGES.into_iter().find(|&page| matches!(op, Op::Routed(_)) && bytes.len() >= page);
        let Some(page) = own else { return self.add(bytes) };
        let offset = self.add_aligned(bytes, page)?;
        let end = (self.start + self.bytes.len()).next_multiple_of(page) - self.start;
        self.bytes.try_reserve(end - self.bytes.len()).map_err(|_| OpError::no_memory(end).at("package"))?;
        self.bytes.resize(end, 0);
        Ok(offset)
    }

    /// Begins another graph, which shares the bytes of those before it.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn share(&mut self) -> Result<()> {
        self.left.clear();
        for (&key, offsets) in &self.all {
            reserve::insert(&mut self.left, key, reserve::list(offsets.iter().copied())?)?;
        }
        Ok(())
    }
}

/// Nodes share packed weights: those of all may be this many times the bytes of the section.
const LISTED_AGAIN: usize = 64;

/// Sizes of pages of phones, the largest first.
const PAGES: [usize; 2] = [16 << 10, 4 << 10];

impl Content {
    /// Stores `graph`; for a package for one instruction set, `choices` holds the packed weights of each node, in the
    /// order of [`Graph::walk`].
    ///
    /// # Errors
    /// Not enough memory.
    pub fn store(
        graph: &Graph,
        target: Option<PackedFor>,
        choices: &[Option<Choice>],
        weights: &mut WeightBytes,
    ) -> Result<Self> {
        let packed = |index: usize| choices.get(index).and_then(Option::as_ref).filter(|choice| choice.form.is_some());
        let mut kept = Kept::of(graph, packed)?;
        // Offsets of packed weights by their place in memory.
        let mut stored = HashMap::new();
        let mut packing = |(op, choice): (&Op, &Choice)| {
            let packed = choice.packed.iter().map(|bytes| {
                let place = (bytes.as_ptr().addr(), bytes.len());
                let offset = match stored.get(&place) {
                    Some(&offset) if !matches!(op, Op::Routed(_)) => offset,
                    _ => {
                        let offset = weights.add_packed(op, bytes)?;
                        reserve::insert(&mut stored, place, offset)?;
                        offset
                    }
                };
                Ok::<_, Error>((offset, bytes.len()))
            });
            Ok::<_, Error>(StoredPacking {
                form: choice.form.clone().unwrap_or_default(),
                absorbed: choice.absorbed.clone(),
                packed: reserve::results(packed)?,
            })
        };
        let nodes = graph.walk().enumerate().map(|(index, node)| {
            Ok::<_, Error>(StoredNode {
                name: node.name.clone(),
                op: node.op.clone(),
                inputs: kept.indices(&node.inputs)?,
                outputs: kept.indices(&node.outputs)?,
                packing: packed(index).map(|choice| packing((&node.op, choice))).transpose()?,
                blocks: reserve::results(node.blocks.iter().map(|block| kept.block(block)))?,
            })
        });
        let nodes = reserve::results(nodes)?;
        let inputs = kept.indices(&graph.inputs)?;
        let outputs = graph.outputs.iter();
        let outputs =
            outputs.map(|(name, id)| Ok::<_, Error>(StoredOutput { name: name.clone(), value: kept.index(*id)? }));
        let outputs = reserve::results(outputs)?;
        let values = kept.ids.iter().map(|&id| {
            let value = graph.value(id);
            let data = match &value.constant {
                None => Data::None,
                Some(_) if !kept.read.contains(&id) => Data::Packed,
                Some(tensor) => Data::At(weights.add(tensor.bytes())?),
            };
            Ok::<_, Error>(StoredValue { name: value.name.clone(), fact: value.fact.clone(), data })
        });
        Ok(Self { target, values: reserve::results(values)?, nodes, inputs, outputs })
    }

    /// Stores the variables of `graph`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn store_variables(graph: &Graph, weights: &mut WeightBytes) -> Result<StoredVariables> {
        let mut offset = |tensor: &Arc<Tensor>| Ok::<_, Error>(weights.add(tensor.bytes())? + 1);
        let stored = graph.variables.iter().map(|Variable { initial, next }| {
            Ok::<_, Error>((initial.as_ref().map_or(Ok(0), &mut offset)?, next.map_or(0, |next| next + 1)))
        });
        reserve::results(stored).map(StoredVariables)
    }

    /// The graph and the packed weights of its nodes, restored with the section of weights.
    ///
    /// # Errors
    /// `package.format` for an invalid graph; errors of a node's shape rule.
    pub fn restore(
        self,
        weights: &Bytes,
        StoredVariables(variables): &StoredVariables,
        StoredLengths(lengths): &StoredLengths,
    ) -> Result<(Graph, Vec<Option<Packing>>)> {
        let odd = |what: &str| refused(PackageFault::Format, what);
        let part = |offset: usize, len: usize| {
            let end = offset.checked_add(len).filter(|_| offset.is_multiple_of(ALIGNMENT));
            end.and_then(|end| weights.part(offset..end)).ok_or_else(|| odd("weights are out of range"))
        };
        let total = self.values.iter().try_fold(0usize, |all, value| all.checked_add(value.fact.bytes()));
        if total.is_none_or(|bytes| bytes as u64 > MAX_BYTES) {
            return Err(odd("its tensors are too large"));
        }
        let mut graph = Graph::new();
        let constants = self.values.iter().filter(|value| matches!(value.data, Data::At(_))).map(|v| v.fact.bytes());
        let packed = self.nodes.iter().filter_map(|node| node.packing.as_ref()).flat_map(|packing| &packing.packed);
        let parts = reserve::set(packed.clone().copied())?;
        let stored = constants.chain(parts.iter().map(|(_, len)| *len)).try_fold(0usize, usize::checked_add);
        let listed = packed.map(|(_, len)| *len).try_fold(0usize, usize::checked_add);
        // Every node checks its packed weights.
        let most = weights.len().saturating_mul(LISTED_AGAIN);
        if stored.is_none_or(|bytes| bytes > weights.len()) || listed.is_none_or(|bytes| bytes > most) {
            return Err(odd("the same weights are listed twice"));
        }
        // Whether each value is written: so far only the constants.
        let mut written = reserve::empty(self.values.len())?;
        for StoredValue { name, fact, data } in self.values {
            let constant = match data {
                Data::At(offset) => {
                    let tensor = Tensor::shared(fact.clone(), part(offset, fact.bytes())?);
                    Some(Arc::new(tensor.map_err(|e| e.at(&name))?))
                }
                Data::None | Data::Packed => None,
            };
            written.push(data != Data::None);
            let id = graph.add_value(name, fact, constant)?;
            if data == Data::Packed {
                graph.set_packed(id);
            }
        }
        let count = written.len();
        let known = |id: usize| match id < count {
            true => Ok(ValueId(id)),
            false => Err(odd("a node refers to a value that does not exist")),
        };
        graph.inputs = reserve::results(self.inputs.into_iter().map(known))?;
        let outputs = self.outputs.into_iter().map(|output| Ok::<_, Error>((output.name, known(output.value)?)));
        graph.outputs = reserve::results(outputs)?;
        let given = graph.inputs.len().saturating_sub(variables.len());
        for (&(initial, next), &id) in variables.iter().zip(graph.inputs.iter().skip(given)) {
            let fact = graph.fact(id);
            let initial = initial.checked_sub(1).map(|offset| {
                let held = Tensor::shared(fact.clone(), part(offset, fact.bytes())?);
                held.map(Arc::new).map_err(|e| e.at(&graph.value(id).name))
            });
            let variable = Variable { initial: initial.transpose()?, next: next.checked_sub(1) };
            reserve::push(&mut graph.variables, variable)?;
        }
        if graph.variables.len() != variables.len() {
            return Err(odd("it has more variables than inputs"));
        }
        graph.lengths = reserve::list(lengths.iter().map(|&(output, axis)| OutputLength { output, axis }))?;
        graph.check_lengths().map_err(|_| odd("its lengths are invalid"))?;
        let mut packings = reserve::empty(self.nodes.len())?;
        let mut stored = self.nodes.into_iter();
        while stored.len() > 0 {
            let mut restore = Restore { stored: &mut stored, packings: &mut packings, known: &known, part: &part };
            let node = restore.node(0)?;
            reserve::push(&mut graph.nodes, node)?;
        }
        for id in graph.inputs.iter().chain(graph.walk().flat_map(results)) {
            match written.get_mut(id.0) {
                Some(by @ false) => *by = true,
                _ => return Err(odd("a value is written twice")),
            }
        }
        graph.check()?;
        Ok((graph, packings))
    }
}

/// The values that a node writes, also as the parameters of its blocks.
fn results(node: &Node) -> impl Iterator<Item = &ValueId> {
    node.outputs.iter().chain(node.blocks.iter().flat_map(|block| &block.parameters))
}

/// Nodes of a package being turned into those of a graph.
struct Restore<'a> {
    stored: &'a mut std::vec::IntoIter<StoredNode>,
    packings: &'a mut Vec<Option<Packing>>,
    known: &'a dyn Fn(usize) -> Result<ValueId>,
    part: &'a dyn Fn(usize, usize) -> Result<Bytes>,
}

impl Restore<'_> {
    /// The next node, nested in `depth` blocks, and the nodes in its own blocks.
    fn node(&mut self, depth: usize) -> Result<Node> {
        let odd = |what: &str| refused(PackageFault::Format, what);
        let of_file = self.known;
        let known = |ids: Vec<usize>| reserve::results(ids.into_iter().map(of_file));
        let stored = self.stored.next().ok_or_else(|| odd("a block has fewer nodes than it says"))?;
        let StoredNode { name, op, inputs, outputs, packing, blocks } = stored;
        let mut node =
            Node { name, op, inputs: known(inputs)?, outputs: known(outputs)?, blocks: reserve::empty(blocks.len())? };
        let packing = packing.map(|StoredPacking { form, absorbed, packed }| {
            let packed = reserve::results(packed.into_iter().map(|(offset, len)| (self.part)(offset, len)))?;
            Ok::<_, Error>(Packing { form, packed, absorbed })
        });
        reserve::push(self.packings, packing.transpose()?)?;
        for StoredBlock { parameters, nodes, results } in blocks {
            if depth == MAX_DEPTH {
                return Err(odd("blocks are nested too deep"));
            }
            let (parameters, results) = (known(parameters)?, known(results)?);
            // A file says any number of nodes: there is room for each that it has.
            let mut held = Vec::new();
            for _ in 0..nodes {
                let node = self.node(depth + 1)?;
                reserve::push(&mut held, node)?;
            }
            let nodes = held;
            node.blocks.push(Block { parameters, nodes, results });
        }
        Ok(node)
    }
}

/// The values of a graph that are used, in order of first use, and whether their data is read unpacked.
struct Kept {
    ids: Vec<ValueId>,
    at: HashMap<ValueId, usize>,
    read: HashSet<ValueId>,
}

impl Kept {
    fn of<'a>(graph: &Graph, packed: impl Fn(usize) -> Option<&'a Choice>) -> Result<Self> {
        let mut read = reserve::set(graph.outputs.iter().map(|(_, id)| *id))?;
        for (index, node) in graph.walk().enumerate() {
            let absorbed = packed(index).map_or(&[][..], |choice| &choice.absorbed);
            let unpacked = node.inputs.iter().enumerate().filter(|(position, _)| !absorbed.contains(position));
            for id in unpacked.map(|(_, id)| id).chain(node.blocks.iter().flat_map(|block| &block.results)) {
                reserve::add(&mut read, *id)?;
            }
        }
        Ok(Self { ids: Vec::new(), at: HashMap::new(), read })
    }

    fn block(&mut self, block: &Block) -> Result<StoredBlock, NoMemory> {
        let (parameters, results) = (self.indices(&block.parameters)?, self.indices(&block.results)?);
        Ok(StoredBlock { parameters, nodes: block.nodes.len(), results })
    }

    fn indices(&mut self, ids: &[ValueId]) -> Result<Vec<usize>, NoMemory> {
        reserve::results(ids.iter().map(|&id| self.index(id)))
    }

    fn index(&mut self, id: ValueId) -> Result<usize, NoMemory> {
        if let Some(&at) = self.at.get(&id) {
            return Ok(at);
        }
        reserve::push(&mut self.ids, id)?;
        reserve::insert(&mut self.at, id, self.ids.len() - 1)?;
        Ok(self.ids.len() - 1)
    }
}
