//! Two networks of one family in one file, with a switch: the front of the small one, a stitch, and the back of the large
//! one. (Z. Pan, J. Cai and B. Zhuang, "Stitchable Neural Networks", CVPR 2023.)
//!
//! ```text
//! configuration 0      small network
//!               1      small network up to its last point  -> stitch -> rest of the large network
//!               ...
//!               n      small network up to its first point -> stitch -> rest of the large network
//!               n + 1  large network
//! ```
//!
//! A stitch maps the channels of the small network to those of the large one, at every position alike: a 1x1 convolution or
//! a matrix product, with a bias, that least squares finds on samples. The configuration is an input with a default, listed
//! as a setting of the session, and each is a branch of an If, so that only the nodes of the chosen one run. Weights are
//! stored once.

mod pairs;

use std::collections::{HashMap, HashSet};

use skipstone::Options;
use skipstone::onnx::{Imported, imported};

use crate::cuts::{Cut, cuts, parted};
use crate::editor::{Attribute, Editor, Graph, INT64, Node, Port, Tensor};
use crate::error::{Error, Result};
use crate::fit::{self, Fit, Stitch};
use crate::layers::Layer;
use crate::observe::{Observer, Samples};
use crate::prepare;
use pairs::Pair;

/// Name of the input that chooses the configuration.
pub const SETTING: &str = "configuration";

/// Key of the metadata that lists settings.
const SETTINGS: &str = "skipstone.settings";

/// Two networks in one file.
#[derive(Clone, Debug)]
pub struct Stitched {
    /// The model, as a file.
    pub bytes: Vec<u8>,
    /// What can be chosen, in order of the setting's value.
    pub configurations: Vec<Configuration>,
}

/// A network that can be chosen.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The last value of the small network that is computed; `None` if none is.
    pub small: Option<String>,
    /// The value of the large network that the stitch computes from it; `None` without a stitch.
    pub large: Option<String>,
    /// The share of that value's variance that the stitch does not explain, on the samples.
    pub unexplained: Option<f64>,
    /// A model of this configuration alone, as a file.
    pub alone: Vec<u8>,
}

/// Stitches `small` to `large`, two ONNX files, at no more than `points` places, evenly over their depth.
///
/// # Errors
/// Models that are malformed, or differ in inputs, outputs, metadata or operator versions, or have no common place to be cut
/// at; fewer samples than a stitch needs; errors of running the models.
pub fn stitch(
    small: &[u8],
    large: &[u8],
    points: usize,
    samples: &mut dyn Samples,
    options: &Options,
) -> Result<Stitched> {
    let parts = [Part::open(small, "the small", options)?, Part::open(large, "the large", options)?];
    let [front, back] = &parts;
    front.check_like(back)?;
    let mut pairs = pairs::pairs(&front.cuts(), &back.cuts());
    if pairs.is_empty() {
        let reason = "the networks have no common place to be stitched at: a single value, of equal height and width or of \
                      as many tokens, that everything behind it is computed from";
        return Err(Error::Unsupported(reason.into()));
    }
    // A pooled image, say, has a single position, and thousands of channels.
    pairs.retain(|pair| fit::suffices(pair.positions(), samples.len(), pair.channels()[0]));
    if pairs.is_empty() {
        let reason =
            format!("{} samples show fewer positions than a stitch has inputs; give more images", samples.len());
        return Err(Error::Calibration(reason));
    }
    let pairs = pairs::spread(&pairs, points);
    let stitches = fitted(&parts, &pairs, samples, options)?;
    let [front, back] = parts;
    Assembly::new(front, back)?.assemble(&pairs, &stitches)
}

/// One of the two networks.
struct Part {
    editor: Editor,
    /// Nodes that compute constants.
    constants: Vec<Node>,
    /// The other nodes, in order.
    nodes: Vec<Node>,
    input: String,
    output: String,
    known: Imported,
}

impl Part {
    fn open(bytes: &[u8], which: &str, options: &Options) -> Result<Self> {
        let mut editor = Editor::open(bytes)?;
        prepare::constants(&mut editor.graph);
        let known = imported(&editor.write(), &options.limits.file, &options.shapes)?;
        let graph = &mut editor.graph;
        graph.value_infos.clear();
        let inputs: Vec<String> = graph.inputs.iter().map(|port| port.name.clone()).collect();
        let inputs: Vec<String> = inputs.into_iter().filter(|name| graph.initializer(name).is_none()).collect();
        let ([input], [output]) = (inputs.as_slice(), graph.outputs.as_slice()) else {
            let reason = format!("{which} network has {} inputs and {} outputs", inputs.len(), graph.outputs.len());
            return Err(Error::Unsupported(format!("{reason}; a stitch takes networks with one of each")));
        };
        let (input, output) = (input.clone(), output.name.clone());
        let [constants, nodes] = parted(graph, &input);
        graph.nodes = constants.iter().chain(&nodes).cloned().collect();
        Ok(Self { editor, constants, nodes, input, output, known })
    }

    /// Where it can be cut: between every two layers, the last place.
    fn cuts(&self) -> Vec<Cut> {
        let layers: HashSet<String> = Layer::all(&self.editor.graph).into_iter().map(|layer| layer.output).collect();
        let all = cuts(&self.nodes, &self.input, &layers, &self.known);
        all.into_iter().filter_map(|mut between| between.pop()).collect()
    }

    /// Checks that one file can hold both networks.
    fn check_like(&self, other: &Self) -> Result<()> {
        let unlike = |what: &str, a: String, b: String| {
            Err(Error::Unsupported(format!("the networks are not of one family: {what} {a} and {b}")))
        };
        if self.editor.opset != other.editor.opset {
            return unlike("opsets", self.editor.opset.to_string(), other.editor.opset.to_string());
        }
        let fact = |part: &Self, value: &str| part.known.values.get(value).map(|&id| part.known.graph.fact(id).clone());
        for (what, a, b) in [("inputs", &self.input, &other.input), ("outputs", &self.output, &other.output)] {
            let facts = [fact(self, a), fact(other, b)];
            if facts[0] != facts[1] {
                let [a, b] = facts.map(|fact| fact.map_or_else(|| "unknown".into(), |fact| fact.to_string()));
                return unlike(what, a, b);
            }
        }
        if let Some(node) = self.nodes.iter().find(|node| !node.is(&node.op_type)) {
            let reason = format!("{}: {} of domain '{}' in the small network", node.label(), node.op_type, node.domain);
            return Err(Error::Unsupported(reason));
        }
        // How images are prepared, and the names of classes.
        let metadata = |part: &Self| -> Result<Vec<(String, String)>> {
            let mut pairs = part.editor.clone().take_metadata()?;
            pairs.retain(|(key, _)| key.starts_with("skipstone."));
            pairs.sort();
            Ok(pairs)
        };
        let (ours, theirs) = (metadata(self)?, metadata(other)?);
        let differs = ours.iter().find(|pair| !theirs.contains(pair));
        match differs.or_else(|| theirs.iter().find(|pair| !ours.contains(pair))) {
            Some((key, _)) => Err(Error::Unsupported(format!("the networks differ in the metadata '{key}'"))),
            None => Ok(()),
        }
    }
}

/// The stitch at each pair, found on the samples.
fn fitted(parts: &[Part; 2], pairs: &[Pair], samples: &mut dyn Samples, options: &Options) -> Result<Vec<Stitch>> {
    let observer = |side: usize| {
        let names: Vec<String> = pairs.iter().map(|pair| pair.0[side].value.clone()).collect();
        Observer::new(&parts[side].editor, &names, options)
    };
    let mut observers = [observer(0)?, observer(1)?];
    let mut fits: Vec<Fit> = pairs.iter().map(|pair| Fit::new(pair.channels())).collect();
    for at in 0..samples.len() {
        let mut sample = One(samples.sample(at)?);
        for (side, observer) in observers.iter_mut().enumerate() {
            observer.run(&mut sample, &mut |seen| {
                let axis = pairs[seen.tensor].0[side].axis;
                fits[seen.tensor].show(side, seen.dims, axis, seen.values);
                Ok(())
            })?;
        }
        fits.iter_mut().for_each(Fit::add);
    }
    let solved = |(fit, pair): (Fit, &Pair)| {
        let reason = || format!("'{}' holds values that no stitch can be computed from", pair.0[0].value);
        fit.solve().ok_or_else(|| Error::Calibration(reason()))
    };
    fits.into_iter().zip(pairs).map(solved).collect()
}

/// A single sample.
struct One(Vec<f32>);

impl Samples for One {
    fn len(&self) -> usize {
        1
    }

    fn sample(&mut self, _: usize) -> Result<Vec<f32>> {
        Ok(self.0.clone())
    }
}

/// A configuration's nodes, and the value that they compute in the end.
type Nodes = (Vec<Node>, String);

/// The file of both networks: the large one's, with the weights of the small one added under other names.
struct Assembly {
    editor: Editor,
    /// Nodes that compute constants, of both.
    constants: Vec<Node>,
    front: Vec<Node>,
    back: Vec<Node>,
    /// The names that values of the small network have here.
    renamed: HashMap<String, String>,
    /// The outputs of the small and the large network.
    outputs: [String; 2],
}

impl Assembly {
    fn new(front: Part, back: Part) -> Result<Self> {
        let mut editor = back.editor;
        let graph = &front.editor.graph;
        let mut renamed = HashMap::from([(front.input, back.input)]);
        let written = graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
        for name in graph.initializers.iter().map(|tensor| &tensor.name).chain(written) {
            renamed.insert(name.clone(), editor.fresh(name, "small"));
        }
        let here = |name: &String| renamed.get(name).unwrap_or(name).clone();
        let named = |tensor: &Tensor| {
            let mut tensor = tensor.clone();
            tensor.name = here(&tensor.name);
            tensor
        };
        editor.graph.initializers.extend(graph.initializers.iter().map(named));
        let moved = |node: &Node| {
            let mut node = node.clone();
            node.name = format!("{}_small", node.label());
            node.inputs.iter_mut().chain(&mut node.outputs).for_each(|name| *name = here(name));
            node
        };
        let constants = front.constants.iter().map(moved).chain(back.constants).collect();
        let nodes = front.nodes.iter().map(moved).collect();
        let outputs = [here(&front.output), back.output];
        Ok(Self { editor, constants, front: nodes, back: back.nodes, renamed, outputs })
    }

    fn assemble(mut self, pairs: &[Pair], stitches: &[Stitch]) -> Result<Stitched> {
        let mut all = vec![(self.front.clone(), self.outputs[0].clone())];
        let mut configurations = vec![Configuration {
            small: Some(self.named(&self.outputs[0])),
            large: None,
            unexplained: None,
            alone: Vec::new(),
        }];
        // The more of the large network, the later.
        for (pair, stitch) in pairs.iter().zip(stitches).rev() {
            let nodes = self.stitched(pair, stitch);
            all.push((nodes, self.outputs[1].clone()));
            let [small, large] = [0, 1].map(|side| Some(pair.0[side].value.clone()));
            configurations.push(Configuration {
                small,
                large,
                unexplained: Some(stitch.unexplained),
                alone: Vec::new(),
            });
        }
        all.push((self.back.clone(), self.outputs[1].clone()));
        configurations.push(Configuration { small: None, large: None, unexplained: None, alone: Vec::new() });
        for (configuration, nodes) in configurations.iter_mut().zip(&all) {
            configuration.alone = self.alone(nodes);
        }
        Ok(Stitched { bytes: self.switched(all)?, configurations })
    }

    /// The name that a value of the small network had.
    fn named(&self, name: &String) -> String {
        self.renamed.iter().find(|(_, here)| *here == name).map_or_else(|| name.clone(), |(before, _)| before.clone())
    }

    /// The nodes of both networks around a stitch, whose weights are added to the file.
    fn stitched(&mut self, pair: &Pair, stitch: &Stitch) -> Vec<Node> {
        let [small, large] = &pair.0;
        let read = self.renamed.get(&small.value).unwrap_or(&small.value).clone();
        let [weights, bias, out] = ["weights", "bias", "stitched"].map(|part| self.editor.fresh(&large.value, part));
        let [inner, outer] = pair.channels();
        let images = large.dims.len() == 4 && large.axis == 1;
        // A convolution has its filters first.
        let (shape, values) = if images {
            let values = (0..inner * outer).map(|i| stitch.weights[i % inner * outer + i / inner]).collect();
            (vec![outer, inner, 1, 1], values)
        } else {
            (vec![inner, outer], stitch.weights.clone())
        };
        let held = &mut self.editor.graph.initializers;
        held.push(Tensor::of_floats(&weights, &shape, &values));
        held.push(Tensor::of_floats(&bias, &[outer], &stitch.bias));
        let mut nodes = self.front[..small.at].to_vec();
        if images {
            nodes.push(Node::new("Conv", &[&read, &weights, &bias], &out, Vec::new()));
        } else {
            let product = self.editor.fresh(&large.value, "product");
            nodes.push(Node::new("MatMul", &[&read, &weights], &product, Vec::new()));
            nodes.push(Node::new("Add", &[&product, &bias], &out, Vec::new()));
        }
        let rest = nodes.len();
        nodes.extend_from_slice(&self.back[large.at..]);
        rename_reads(&mut nodes[rest..], &large.value, &out);
        nodes
    }

    /// A file with one configuration.
    fn alone(&self, (nodes, output): &Nodes) -> Vec<u8> {
        let mut editor = self.editor.clone();
        let wanted = editor.graph.outputs[0].name.clone();
        let mut nodes = nodes.clone();
        if *output != wanted {
            nodes.push(Node::new("Identity", &[output], &wanted, Vec::new()));
        }
        editor.graph.nodes = self.constants.iter().cloned().chain(nodes).collect();
        prepare::remove_dead(&mut editor.graph);
        editor.write()
    }

    /// The file with all configurations.
    fn switched(mut self, all: Vec<Nodes>) -> Result<Vec<u8>> {
        let last = all.len() - 1;
        let setting = self.editor.reserve(SETTING)?;
        let mut port = Port::of(&setting, INT64);
        port.set_dims(&[])?;
        self.editor.graph.inputs.push(port);
        self.editor.graph.initializers.push(Tensor::of_ints(&setting, &[], &[last as i64]));
        let mut metadata = self.editor.take_metadata()?;
        match metadata.iter_mut().find(|(key, _)| key == SETTINGS) {
            Some((_, list)) => *list = format!("{list}, {setting}"),
            None => metadata.push((SETTINGS.into(), setting)),
        }
        self.editor.add_metadata(&metadata);
        // Branches compute values of their own.
        let all: Vec<Nodes> =
            all.into_iter().enumerate().map(|(number, nodes)| self.branch(number, nodes)).collect::<Result<_>>()?;
        let (mut nodes, output) = self.choose(&all, 0);
        let wanted = self.editor.graph.outputs[0].name.clone();
        let last = nodes.last_mut().filter(|node| node.outputs[0] == output);
        last.ok_or_else(crate::editor::damaged)?.outputs[0] = wanted;
        self.editor.graph.nodes = self.constants.into_iter().chain(nodes).collect();
        prepare::remove_dead(&mut self.editor.graph);
        Ok(self.editor.write())
    }

    /// Gives the values of a configuration names of their own.
    fn branch(&mut self, number: usize, (mut nodes, output): Nodes) -> Result<Nodes> {
        let mut names = HashMap::new();
        for name in nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty()) {
            names.insert(name.clone(), self.editor.fresh(name, &format!("in{number}")));
        }
        for node in &mut nodes {
            node.name = format!("{}_in{number}", node.label());
            for name in node.inputs.iter_mut().chain(&mut node.outputs) {
                if let Some(new) = names.get(name) {
                    name.clone_from(new);
                }
            }
        }
        let output = names.remove(&output).ok_or_else(crate::editor::damaged)?;
        Ok((nodes, output))
    }

    /// Nodes that run one of `all`, whose first has the number `first`: a tree of Ifs, as flat as possible.
    fn choose(&mut self, all: &[Nodes], first: usize) -> Nodes {
        if let [one] = all {
            return one.clone();
        }
        let middle = all.len() / 2;
        let bound = first + middle;
        let [number, below, chosen] =
            ["number", "below", "chosen"].map(|part| self.editor.fresh(SETTING, &format!("{part}{bound}")));
        self.editor.graph.initializers.push(Tensor::of_ints(&number, &[], &[bound as i64]));
        let graphs = [&all[..middle], &all[middle..]].into_iter().zip([first, bound]);
        let graphs: Vec<Graph> = graphs
            .map(|(part, first)| {
                let (nodes, output) = self.choose(part, first);
                Graph::of_nodes(&output, nodes)
            })
            .collect();
        let branches = ["then_branch", "else_branch"].into_iter().zip(graphs);
        let branches = branches.map(|(name, graph)| Attribute::of_graph(name, graph)).collect();
        let nodes = vec![
            Node::new("Less", &[SETTING, &number], &below, Vec::new()),
            Node::new("If", &[&below], &chosen, branches),
        ];
        (nodes, chosen)
    }
}

/// Lets nodes read `new` instead of `old`.
fn rename_reads(nodes: &mut [Node], old: &str, new: &str) {
    for name in nodes.iter_mut().flat_map(|node| &mut node.inputs).filter(|name| *name == old) {
        new.clone_into(name);
    }
}
