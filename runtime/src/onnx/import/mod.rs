//! From the messages of a checked file to a Graph, for concrete input shapes.
//!
//! Nodes are walked in execution order. Each operator's importer, one file per family, translates the node to our
//! operators, by the specification of the opset that the file imports; constant results are computed at once
//! ([`build`]). Local functions are inlined at their calls, branches of an If with a known condition in place of the
//! node. A node without one of our operators becomes a fallback step, if that is built in.

mod activation;
mod attention;
mod build;
mod call;
mod control;
mod convolution;
mod coupling;
mod deferred;
mod determinant;
mod distance;
mod double;
mod elementwise;
mod experts;
mod index;
mod lengths;
mod loss;
mod measured;
mod ml;
mod ngrams;
mod nibbles;
mod normalization;
mod pad;
mod pool;
mod product;
mod quantization;
mod quantized;
mod rearrange;
mod recurrent;
mod reduce;
mod resize;
mod sampling;
mod selected;
mod selection;
mod sequence;
mod signal;
mod structure;
mod svm;
mod table;
pub(super) mod tensor;
mod trees;
mod unrolled;
mod unsupported;
mod variables;
mod volume;
mod window;

use std::collections::HashMap;
use std::rc::Rc;

use skipstone_onnx::proto::{
    Attribute, Dim, Function, Graph as GraphProto, Model, Node, SparseTensor, Tensor, Type, ValueInfo,
};
use skipstone_onnx::{Unordered, captures, is_standard, order};
use skipstone_reserve::NoMemory;

use self::build::{Build, Halt};
use self::call::Call;
use self::lengths::Measured;
pub(super) use self::ml::class_names;
use self::table::TypeOf;
use self::tensor::Files;
use self::variables::Declared;
use super::fallback;
use crate::error::{Error, Result, SHOWN, list};
use crate::graph::{Graph, OutputLength, ValueId};
use crate::info::Shapes;
use crate::ops::cast::Cast;
use crate::ops::trim::Trim;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape};

/// A graph, or the reason why there is none.
pub(super) enum ImportOutcome {
    Graph(Graph),
    /// A shape depends on data; the reason.
    Dynamic(String),
}

/// Imports a valid model, with `shapes` for its dynamic inputs.
///
/// # Errors
/// An operator's error, with the node's name; operators that nothing supports.
pub(super) fn import(model: &Model<'_>, files: &Files, shapes: &Shapes) -> Result<ImportOutcome> {
    import_named(model, files, shapes, &HashMap::new()).map(|(outcome, _)| outcome)
}

/// Like [`import`], with the values of the main graph by name; `values` are of inputs that become constants.
pub(super) fn import_named(
    model: &Model<'_>,
    files: &Files,
    shapes: &Shapes,
    values: &HashMap<String, crate::tensor::Tensor>,
) -> Result<(ImportOutcome, HashMap<String, ValueId>)> {
    let Some(main) = &model.graph else { return Err(Error::Internal("a checked model has no graph".into())) };
    let functions = reserve::map(model.functions.iter().map(|function| ((function.domain, function.name), function)))?;
    unsupported::check(main, &functions)?;
    let declared = Declared::read(model)?;
    let importer = |compact: bool| {
        Ok::<_, Error>(Importer {
            main,
            functions: reserve::map(functions.iter().map(|(name, function)| (*name, *function)))?,
            files,
            build: Build::of_file(files.model.len(), compact),
            scopes: Vec::new(),
            depth: 0,
            unrolling: 0,
            repeated: 0,
            repeated_bytes: 0,
        })
    };
    let opsets = Rc::new(opsets(&model.opset_imports)?);
    let mut importers = [importer(false)?, importer(true)?];
    let [selecting, compacting] = &mut importers;
    let mut imported = selecting.main(main, opsets.clone(), &declared, (shapes, values));
    // Positions that NonZero finds can be selected among all only if nothing needs their number.
    let again = imported.is_err() && selecting.build.selections.any();
    if again {
        imported = compacting.main(main, opsets, &declared, (shapes, values));
    }
    let [selecting, compacting] = importers;
    let importer = if again { compacting } else { selecting };
    match imported {
        Ok(()) => {
            let names = importer.scopes.into_iter().next().map(|scope| scope.names).unwrap_or_default();
            let values = names.into_iter().filter_map(|(name, binding)| match binding {
                Binding::Value(id) => Some((name.to_owned(), id)),
                Binding::Initializer(_) | Binding::Sparse(_) => None,
            });
            Ok((ImportOutcome::Graph(importer.build.graph), reserve::map(values)?))
        }
        Err(Halt::Error(error)) => Err(error),
        Err(Halt::Dynamic(reason)) if declared.any() => {
            let reason = format!("{reason}; models like that cannot have settings or state");
            Err(Error::Unsupported { node: "graph".into(), reason })
        }
        Err(Halt::Dynamic(reason)) => Ok((ImportOutcome::Dynamic(reason), HashMap::new())),
        Err(Halt::Foreign) => Err(Error::Internal("an operator was left over".into())),
    }
}

/// Opset versions by domain; `ai.onnx` is the empty one.
type Opsets<'m> = HashMap<&'m str, i64>;

fn opsets<'m>(imports: &[skipstone_onnx::proto::OpsetImport<'m>]) -> Result<Opsets<'m>, NoMemory> {
    let domain = |name: &'m str| if is_standard(name) { "" } else { name };
    reserve::map(imports.iter().map(|import| (domain(import.domain), import.version.unwrap_or(1))))
}

/// The meaning of a name.
#[derive(Clone, Copy)]
enum Binding<'m> {
    Value(ValueId),
    /// Read on first use.
    Initializer(&'m Tensor<'m>),
    Sparse(&'m SparseTensor<'m>),
}

/// The names of a graph, of a subgraph or of a function's body.
struct Scope<'m> {
    names: HashMap<&'m str, Binding<'m>>,
    /// Whether outer names are hidden, as in a function.
    isolated: bool,
    /// Attributes of the call of the function.
    attributes: Rc<HashMap<&'m str, &'m Attribute<'m>>>,
    opsets: Rc<Opsets<'m>>,
}

struct Importer<'m> {
    main: &'m GraphProto<'m>,
    functions: HashMap<(&'m str, &'m str), &'m Function<'m>>,
    files: &'m Files,
    build: Build,
    /// From the main graph to the innermost body.
    scopes: Vec<Scope<'m>>,
    /// Nesting depth of blocks at the node being imported.
    depth: usize,
    /// Number of loops being unrolled around it.
    unrolling: usize,
    /// Number of nodes from unrolled loops so far.
    repeated: usize,
    /// Bytes of constants that they added.
    repeated_bytes: usize,
}

impl<'m> Importer<'m> {
    fn main(
        &mut self,
        graph: &'m GraphProto<'m>,
        opsets: Rc<Opsets<'m>>,
        declared: &Declared<'_>,
        (shapes, values): (&Shapes, &HashMap<String, crate::tensor::Tensor>),
    ) -> Result<(), Halt> {
        self.scopes.push(Scope { names: HashMap::new(), isolated: true, attributes: Rc::default(), opsets });
        self.initializers(graph)?;
        for name in shapes.keys() {
            let inputs = || Ok::<_, NoMemory>(caller_inputs(graph)?.map(|info| info.name));
            if !inputs()?.any(|known| known == name) {
                let known = reserve::list(inputs()?.take(SHOWN))?.join(", ");
                return Err(Error::UnknownInput { name: name.clone(), known }.into());
            }
        }
        for info in caller_inputs(graph)?.filter(|info| !declared.contains(info.name)) {
            let fact = input_fact(info, shapes).map_err(|error| with_others(error, info, graph, declared, shapes))?;
            self.input(info, fact)?;
            if let Some(value) = values.get(info.name) {
                let constant = self.build.graph.add_constant(info.name, value.clone());
                self.define(info.name, constant?)?;
            }
        }
        self.variables(graph, declared, shapes)?;
        self.nodes(&graph.nodes)?;
        for (position, info) in graph.outputs.iter().enumerate() {
            let value = self.value(info.name)?;
            self.build.selections.refuse(&[value])?;
            if declared.carries(position) {
                self.build.refuse_measured(info.name, &[value])?;
            }
            if !self.build.is_indices(value) {
                self.build.readable(value, info.name)?;
            }
            let given = match self.build.half(value) {
                None => value,
                Some(to) => {
                    // The node that writes the output has its name.
                    let name = format!("{}.{}", info.name, to.name());
                    self.build.add(&name, Cast { to }.into(), &[value])?[0]
                }
            };
            let name = reserve::text(info.name)?;
            reserve::push(&mut self.build.graph.outputs, (name, given))?;
        }
        self.check_state()?;
        self.lengths_of_outputs()
    }

    /// Moves the elements of outputs together whose lengths only the run knows, and adds these lengths to the outputs.
    fn lengths_of_outputs(&mut self) -> Result<(), Halt> {
        let mut lengths = Vec::new();
        for index in 0..self.build.graph.outputs.len() {
            let (name, id) = self.build.graph.outputs[index].clone();
            let measured = self.build.lengths.of(id).to_vec();
            let Some(last) = measured.last() else { continue };
            let dims = &self.build.graph.fact(id).shape;
            // In front of the first index only axes of length one may stand: then nothing has to be moved.
            if measured.len() > 1 || dims[..last.axis].iter().any(|&dim| dim != 1) {
                let axes = measured.iter().map(|of| of.axis).collect();
                let inputs: Vec<ValueId> = std::iter::once(id).chain(measured.iter().map(|of| of.len)).collect();
                self.build.graph.outputs[index].1 =
                    self.build.add_raw(&format!("{name}.trimmed"), Trim { axes }, &inputs)?[0];
            }
            lengths.extend(measured.into_iter().map(|of| (index, of)));
        }
        for (output, Measured { axis, len }) in lengths {
            self.build.graph.outputs.push((String::new(), len));
            self.build.graph.lengths.push(OutputLength { output, axis });
        }
        Ok(())
    }

    /// Adds an input, and returns the value that nodes read.
    fn input(&mut self, info: &ValueInfo<'m>, fact: Fact) -> Result<ValueId> {
        let (dtype, declared) = tensor::computed_as(fact.dtype);
        let given = self.build.graph.add_input(info.name, fact)?;
        let value = match declared {
            None => given,
            Some(_) => self.build.graph.add_node(format!("{}.f32", info.name), Cast { to: dtype }, &[given])?[0],
        };
        self.build.declare(value, declared)?;
        self.define(info.name, value)?;
        Ok(value)
    }

    fn initializers(&mut self, graph: &'m GraphProto<'m>) -> Result<(), NoMemory> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        let dense = graph.initializers.iter().map(|tensor| (tensor.name, Binding::Initializer(tensor)));
        let sparse = graph.sparse_initializers.iter().map(|sparse| (sparse.values.name, Binding::Sparse(sparse)));
        for (name, held) in dense.chain(sparse) {
            reserve::insert(&mut scope.names, name, held)?;
        }
        Ok(())
    }

    fn define(&mut self, name: &'m str, value: ValueId) -> Result<(), NoMemory> {
        if let Some(scope) = self.scopes.last_mut()
            && !name.is_empty()
        {
            reserve::insert(&mut scope.names, name, Binding::Value(value))?;
        }
        Ok(())
    }

    /// The value of a name; constants are read from the file on first use.
    fn value(&mut self, name: &str) -> Result<ValueId, Halt> {
        for scope in self.scopes.iter_mut().rev() {
            if let Some(binding) = scope.names.get_mut(name) {
                let tensor = match *binding {
                    Binding::Value(id) => return Ok(id),
                    Binding::Initializer(tensor) => tensor::dense(tensor, self.files)?,
                    Binding::Sparse(sparse) => {
                        let dense = tensor::sparse(sparse, self.files)?;
                        self.build.count_made(dense.tensor.fact())?;
                        dense
                    }
                };
                let id = self.build.graph.add_constant(name, tensor.tensor)?;
                self.build.declare(id, tensor.declared)?;
                *binding = Binding::Value(id);
                return Ok(id);
            }
            if scope.isolated {
                break;
            }
        }
        Err(Error::Internal(format!("nothing produces '{name}' in a checked model")).into())
    }

    fn nodes(&mut self, nodes: &'m [Node<'m>]) -> Result<(), Halt> {
        let order = order(nodes).map_err(|unordered| match unordered {
            Unordered::Cycle(_) => Error::Internal("a checked model has a cycle".into()),
            Unordered::Memory(no_memory) => no_memory.into(),
        })?;
        for position in order {
            let node = &nodes[position];
            self.repeated += usize::from(self.unrolling > 0);
            if self.repeated > control::MAX_REPEATED {
                return Err(Halt::Dynamic("the loops have too many iterations to be unrolled".into()));
            }
            self.build.place = format!(" ({}, node {position})", node.op_type);
            let results = self.node(node).map_err(|halt| self.name_setting(node, halt))?;
            for (name, value) in node.outputs.iter().zip(results) {
                self.define(name, value)?;
            }
        }
        Ok(())
    }

    /// Imports one node; returns its results, where trailing unnamed ones may be missing.
    fn node(&mut self, node: &'m Node<'m>) -> Result<Vec<ValueId>, Halt> {
        let names = node.inputs.iter();
        let inputs = names.map(|name| if name.is_empty() { Ok(None) } else { self.value(name).map(Some) });
        let inputs = reserve::results(inputs)?;
        let Some(scope) = self.scopes.last() else { return Err(Halt::Foreign) };
        let (attributes, opsets) = (scope.attributes.clone(), scope.opsets.clone());
        if let Some(&function) = self.functions.get(&(node.domain, node.op_type)) {
            return self.function(node, function, &inputs, &attributes);
        }
        let domain = if is_standard(node.domain) { "" } else { node.domain };
        let opset = opsets.get(domain).copied().unwrap_or(1);
        self.build.selections.refuse_counts(node.op_type, &inputs)?;
        lengths::refuse(&self.build, call::name(node), node.op_type, &inputs)?;
        if control::is_control_flow(domain, node.op_type) {
            return self.control(node, &inputs, opset);
        }
        for &id in inputs.iter().flatten() {
            if !(sequence::takes_sequences(node.op_type) && self.build.sequence(id).is_some()) {
                self.build.readable(id, call::name(node))?;
            }
        }
        let mut imported = self.by_importer(node, domain, &inputs)?;
        if imported.is_err() && inputs.iter().flatten().any(|&id| self.build.is_deferred(id)) {
            // The operator may need the data of operands that are not computed yet.
            let compute = |id: Option<ValueId>| id.map(|id| self.build.computed(id, call::name(node))).transpose();
            let computed = reserve::results(inputs.iter().copied().map(compute))?;
            imported = self.by_importer(node, domain, &computed)?;
        }
        match imported {
            Ok(results) => {
                let shape = usize::from(node.op_type != "ConstantOfShape");
                if let (Some(&Some(shape)), "ConstantOfShape" | "Expand" | "Reshape") =
                    (inputs.get(shape), node.op_type)
                {
                    self.build.follow_shape(shape, &results)?;
                }
                self.declare_halves(node, &inputs, &results)?;
                Ok(results)
            }
            // The fallback computes different values.
            Err(Halt::Foreign) if domain == "ai.onnx.ml" => {
                let reason = format!("{} of these types is not supported", node.op_type);
                Err(Error::Unsupported { node: call::name(node).to_owned(), reason }.into())
            }
            Err(Halt::Foreign) => self.foreign(node, inputs, &opsets),
            // The lengths of a run may fit where the largest ones do not.
            Err(Halt::Error(error @ Error::Node { .. }))
                if inputs.iter().flatten().any(|&id| !self.build.lengths.of(id).is_empty()) =>
            {
                Err(Halt::Dynamic(error.to_string()))
            }
            Err(halt) => Err(halt),
        }
    }

    /// The results of the operator's importer.
    fn by_importer(
        &mut self,
        node: &'m Node<'m>,
        domain: &str,
        inputs: &[Option<ValueId>],
    ) -> Result<build::Imported, Halt> {
        let mut call = self.call(node, inputs)?;
        match table::importer(domain, node.op_type)? {
            Some(importer) => Ok(importer(&mut call)),
            None if unsupported::is_unsupported(node)? => Err(unsupported::all(self.main, &self.functions).into()),
            None => Ok(Err(Halt::Foreign)),
        }
    }

    /// Results computed from half precision are half precision.
    fn declare_halves(
        &mut self,
        node: &Node<'_>,
        inputs: &[Option<ValueId>],
        results: &[ValueId],
    ) -> Result<(), NoMemory> {
        for (index, &id) in results.iter().enumerate() {
            if self.build.graph.fact(id).dtype != DType::F32 || self.build.half(id).is_some() {
                continue;
            }
            let decides = match table::type_of(node.op_type, index) {
                TypeOf::Operator => None,
                TypeOf::Operand(operand) => inputs.get(operand).copied().flatten(),
                TypeOf::FirstFloat => {
                    inputs.iter().copied().flatten().find(|&id| self.build.graph.fact(id).dtype == DType::F32)
                }
            };
            self.build.declare(id, decides.and_then(|decides| self.build.half(decides)))?;
        }
        Ok(())
    }

    /// Imports the body of a local function in place of its call.
    fn function(
        &mut self,
        node: &'m Node<'m>,
        function: &'m Function<'m>,
        inputs: &[Option<ValueId>],
        around: &HashMap<&'m str, &'m Attribute<'m>>,
    ) -> Result<Vec<ValueId>, Halt> {
        let defaults = function.default_attributes.iter().map(|attribute| (attribute.name, attribute));
        let given = node.attributes.iter().filter_map(|a| Some((a.name, resolved(a, around)?)));
        let attributes = Rc::new(reserve::map(defaults.chain(given))?);
        let names = function.inputs.iter().zip(inputs).filter_map(|(&name, id)| Some((name, Binding::Value((*id)?))));
        let (names, opsets) = (reserve::map(names)?, Rc::new(opsets(&function.opset_imports)?));
        reserve::push(&mut self.scopes, Scope { names, isolated: true, attributes, opsets })?;
        let results = self
            .nodes(&function.nodes)
            .and_then(|()| reserve::results(function.outputs.iter().map(|name| self.value(name))));
        self.scopes.pop();
        results
    }

    /// A node for its importer.
    fn call<'a>(&'a mut self, node: &'m Node<'m>, inputs: &[Option<ValueId>]) -> Result<Call<'a, 'm>, Halt> {
        let domain = if is_standard(node.domain) { "" } else { node.domain };
        let scope = self.scopes.last();
        let opset = scope.and_then(|scope| scope.opsets.get(domain)).copied().unwrap_or(1);
        let around = scope.map(|scope| scope.attributes.clone()).unwrap_or_default();
        let attributes = node.attributes.iter().filter_map(|a| Some((a.name, resolved(a, &around)?)));
        let (attributes, inputs) = (reserve::list(attributes)?, reserve::list(inputs.iter().copied())?);
        Ok(Call { node, opset, attributes, inputs, build: &mut self.build, files: self.files })
    }

    /// Turns a node without one of our operators into a fallback step.
    fn foreign(
        &mut self,
        node: &'m Node<'m>,
        inputs: Vec<Option<ValueId>>,
        opsets: &Opsets<'m>,
    ) -> Result<Vec<ValueId>, Halt> {
        let name = call::name(node);
        if node.attributes.iter().any(|attribute| !attribute.reference.is_empty()) {
            let reason = format!("{} in a function, with attributes of its call", node.op_type);
            return Err(Error::Unsupported { node: name.to_owned(), reason }.into());
        }
        let mut operands: Vec<(&str, ValueId)> = Vec::new();
        let captured = node.subgraphs().map(captures).map(|names| Ok::<_, Halt>(names?));
        let captured = reserve::results(captured)?.into_iter().flatten();
        let captured = reserve::results(captured.map(|name| Ok::<_, Halt>((name, Some(self.value(name)?)))))?;
        for (name, id) in node.inputs.iter().copied().zip(inputs).chain(captured) {
            let Some(mut id) = id else { continue };
            self.build.readable(id, call::name(node))?;
            self.build.refuse_measured(call::name(node), &[id])?;
            if operands.iter().any(|(known, _)| *known == name) {
                continue;
            }
            if let Some(to) = self.build.half(id) {
                id = self.build.add(&format!("{name}.{}", to.name()), Cast { to }.into(), &[id])?[0];
            }
            reserve::push(&mut operands, (name, id))?;
        }
        let step = fallback::ForeignNode {
            node,
            opsets,
            operands: &operands,
            graph: &self.build.graph,
            room: self.build.folding_room(),
        };
        match fallback::node(&step)? {
            fallback::Made::Constants(tensors) => {
                self.build.count_folded(&tensors);
                let graph = &mut self.build.graph;
                let made = reserve::results(tensors.into_iter().map(|tensor| graph.add_constant(name, tensor)))?;
                Ok(spread(node, &made)?)
            }
            fallback::Made::Step(op, inputs) => {
                let results = self.build.add(name, op.into(), &inputs)?;
                let mut values = reserve::empty(results.len())?;
                for id in results {
                    let (to, declared) = tensor::computed_as(self.build.graph.fact(id).dtype);
                    let value = match declared {
                        None => id,
                        Some(_) => self.build.add(&format!("{name}.f32"), Cast { to }.into(), &[id])?[0],
                    };
                    self.build.declare(value, declared)?;
                    values.push(value);
                }
                Ok(spread(node, &values)?)
            }
            fallback::Made::Dynamic(reason) => Err(Halt::Dynamic(reason)),
        }
    }
}

/// The results of a node by the positions of its outputs, from those with a name.
fn spread(node: &Node<'_>, named: &[ValueId]) -> Result<Vec<ValueId>, NoMemory> {
    let mut next = named.iter().copied();
    let place = |name: &&str| if name.is_empty() { named.first().copied() } else { next.next() };
    reserve::list(node.outputs.iter().filter_map(place))
}

/// An attribute, or the attribute of the function's call that it refers to.
fn resolved<'m>(attribute: &'m Attribute<'m>, of: &HashMap<&'m str, &'m Attribute<'m>>) -> Option<&'m Attribute<'m>> {
    match attribute.reference {
        "" => Some(attribute),
        name => of.get(name).copied(),
    }
}

/// Type and shape of an input, with the caller's sizes for unknown dimensions.
pub(super) fn input_fact(info: &ValueInfo<'_>, shapes: &Shapes) -> Result<Fact> {
    let (name, bound) = (info.name, shapes.get(info.name));
    let unsupported = |reason: &str| Error::Unsupported { node: name.to_owned(), reason: reason.to_owned() };
    let Some(Type::Tensor(element, dims)) = &info.kind else {
        return Err(unsupported("the input is not a dense tensor"));
    };
    let dtype = tensor::known_dtype(*element, name)?;
    let shown = || match dims {
        None => "of unknown rank".to_owned(),
        Some(dims) => dims.iter().map(shown_dim).collect::<Vec<_>>().join(","),
    };
    let unbound = || {
        let example = dims.as_deref().map_or_else(|| "1x3x224x224".into(), example);
        Error::UnboundShape { input: name.to_owned(), shape: shown(), example }
    };
    let dims: Vec<usize> = match (bound, dims) {
        (Some(bound), None) => bound.clone(),
        (Some(bound), Some(dims)) => {
            let fits = |(dim, &asked): (&Dim<'_>, &usize)| known(dim).is_none_or(|dim| dim == asked);
            if dims.len() != bound.len() || !dims.iter().zip(bound).all(fits) {
                let got = format!("given {}", list(bound));
                return Err(Error::InputMismatch { name: name.to_owned(), got, want: format!("[{}]", shown()) });
            }
            bound.clone()
        }
        (None, Some(dims)) => {
            let mut known_dims: Vec<_> = dims.iter().map(known).collect();
            if is_open_batch(dims) {
                known_dims[0] = Some(1);
            }
            let dims: Option<Vec<usize>> = known_dims.into_iter().collect();
            dims.ok_or_else(unbound)?
        }
        (None, None) => return Err(unbound()),
    };
    Ok(Fact::new(dtype, Shape::new(&dims).map_err(|e| e.at(name))?))
}

/// The error for the first input with unknown sizes, with an example also of the others, so that a caller learns all of
/// them at once.
fn with_others(
    mut error: Error,
    first: &ValueInfo<'_>,
    graph: &GraphProto<'_>,
    declared: &Declared<'_>,
    shapes: &Shapes,
) -> Error {
    let (Error::UnboundShape { example, .. }, Ok(inputs)) = (&mut error, caller_inputs(graph)) else { return error };
    let others = inputs.filter(|info| info.name != first.name && !declared.contains(info.name));
    for other in others.take(SHOWN) {
        if let Err(Error::UnboundShape { input, example: another, .. }) = input_fact(other, shapes) {
            example.push_str(&format!(" --shape {input}={another}"));
        }
    }
    error
}

/// Sizes that fit a shape, as the command takes them: one image of 224x224 pixels, or a row of a few elements.
fn example(dims: &[Dim<'_>]) -> String {
    let size = |(axis, dim): (usize, &Dim<'_>)| match known(dim) {
        Some(dim) => dim,
        None if axis == 0 => 1,
        None => [16, 224][usize::from(dims.len() == 4)],
    };
    dims.iter().enumerate().map(|dim| size(dim).to_string()).collect::<Vec<_>>().join("x")
}

/// A dimension that the file specifies: exporters write 0 and -1 for unknown ones.
fn known(dim: &Dim<'_>) -> Option<usize> {
    match dim {
        Dim::Known(dim) => usize::try_from(*dim).ok().filter(|&dim| dim > 0),
        Dim::Symbol(_) | Dim::Unknown => None,
    }
}

/// Whether the batch is the only dynamic dimension: it is 1 unless it is set.
fn is_open_batch(dims: &[Dim<'_>]) -> bool {
    matches!(dims, [batch, rest @ ..] if !rest.is_empty() && known(batch).is_none() && rest.iter().all(|dim| known(dim).is_some()))
}

/// Names of the inputs whose batch size is assumed to be 1.
pub(super) fn assumed_batches(model: &Model<'_>, shapes: &Shapes) -> Result<Vec<String>, NoMemory> {
    let assumed = |info: &&ValueInfo<'_>| {
        let open = matches!(&info.kind, Some(Type::Tensor(_, Some(dims))) if is_open_batch(dims));
        open && !shapes.contains_key(info.name)
    };
    let mut names = Vec::new();
    if let Some(graph) = &model.graph {
        for info in caller_inputs(graph)?.filter(assumed) {
            reserve::push(&mut names, reserve::text(info.name)?)?;
        }
    }
    Ok(names)
}

/// Whether some input has a dimension that a caller has to set.
pub(super) fn is_dynamic(model: &Model<'_>) -> Result<bool, NoMemory> {
    let open = |info: &ValueInfo<'_>| match &info.kind {
        Some(Type::Tensor(_, Some(dims))) => dims.iter().any(|dim| !matches!(dim, Dim::Known(1..))),
        _ => true,
    };
    match &model.graph {
        Some(graph) => Ok(caller_inputs(graph)?.any(open)),
        None => Ok(false),
    }
}

/// The inputs that have no initializer.
///
/// # Errors
/// No memory.
pub(super) fn caller_inputs<'g, 'm>(
    graph: &'g GraphProto<'m>,
) -> Result<impl Iterator<Item = &'g ValueInfo<'m>>, NoMemory> {
    let dense = graph.initializers.iter().map(|tensor| tensor.name);
    let initialized = dense.chain(graph.sparse_initializers.iter().map(|sparse| sparse.values.name));
    let initialized = reserve::set(initialized)?;
    Ok(graph.inputs.iter().filter(move |info| !initialized.contains(info.name)))
}

fn shown_dim(dim: &Dim<'_>) -> String {
    match dim {
        Dim::Known(dim) => dim.to_string(),
        Dim::Symbol(name) if !name.is_empty() => skipstone_onnx::quoted(name),
        Dim::Symbol(_) | Dim::Unknown => "?".to_owned(),
    }
}
