//! Checks that a list of nodes forms a graph: names are unique and resolve, and there are no
//! cycles.

use std::collections::{HashMap, HashSet};

use crate::limits::Limits;
use crate::order::{Unordered, order};
use crate::reserve;

use super::attributes::{self, is_standard};
use super::call::Call;
use super::checked::Checked;
use super::functions::Functions;
use super::schema;
use super::scope::{Producer, Scope, Summaries};
use super::{KNOWN_DOMAINS, control, generated, known, operators, tensor};
use crate::invalid::{Invalid, Place, Rule, quoted};
use crate::proto::{Dim, Function, Graph, Node, SparseTensor, Tensor, Type, ValueInfo};

/// The common part of graphs and functions.
pub(super) struct Body<'m> {
    nodes: &'m [Node<'m>],
    initializers: &'m [Tensor<'m>],
    sparse_initializers: &'m [SparseTensor<'m>],
    inputs: Vec<(&'m str, Option<&'m Type<'m>>)>,
    outputs: Vec<&'m str>,
    value_infos: &'m [ValueInfo<'m>],
    /// Whether attributes may refer to those of an enclosing function.
    in_function: bool,
}

impl<'m> Body<'m> {
    /// The main graph, or a subgraph.
    ///
    /// # Errors
    /// [`Rule::Memory`].
    pub fn of_graph(graph: &'m Graph<'m>, in_function: bool) -> Result<Self, Invalid> {
        Ok(Self {
            nodes: &graph.nodes,
            initializers: &graph.initializers,
            sparse_initializers: &graph.sparse_initializers,
            inputs: reserve::list(graph.inputs.iter().map(|info| (info.name, info.kind.as_ref())))?,
            outputs: reserve::list(graph.outputs.iter().map(|info| info.name))?,
            value_infos: &graph.value_infos,
            in_function,
        })
    }

    /// A local function.
    ///
    /// # Errors
    /// [`Rule::Memory`].
    pub fn of_function(function: &'m Function<'m>) -> Result<Self, Invalid> {
        Ok(Self {
            nodes: &function.nodes,
            initializers: &[],
            sparse_initializers: &[],
            inputs: reserve::list(function.inputs.iter().map(|name| (*name, None)))?,
            outputs: reserve::list(function.outputs.iter().copied())?,
            value_infos: &function.value_infos,
            in_function: true,
        })
    }
}

/// The problem with operators of the domain com.microsoft.nchwc.
const OF_ONE_CPU: &str = "ONNX Runtime optimized the model for the CPU that saved it, with operators of the domain \
                          com.microsoft.nchwc: save it with ORT_ENABLE_EXTENDED, not ORT_ENABLE_ALL";

/// Walks a body and its subgraphs. It recurses as deep as graphs nest, which the decoder bounds.
pub(super) struct Walker<'w, 'm> {
    limits: &'w Limits,
    functions: &'w Functions<'m>,
    opsets: HashMap<&'m str, i64>,
    checked: &'w mut Checked,
    summaries: Summaries,
    folded: generated::Folded,
}

impl<'w, 'm> Walker<'w, 'm> {
    /// A walker for one body; `opsets` are the operator sets that it imports.
    pub fn new(
        limits: &'w Limits,
        functions: &'w Functions<'m>,
        opsets: HashMap<&'m str, i64>,
        checked: &'w mut Checked,
    ) -> Self {
        Self {
            limits,
            functions,
            opsets,
            checked,
            summaries: Summaries::default(),
            folded: generated::Folded::default(),
        }
    }

    /// Checks a body. Its nodes may use the names of `parent`.
    pub fn walk(&mut self, body: &Body<'m>, parent: Option<&Scope<'_, 'm>>) -> Result<(), Invalid> {
        let mut scope = self.scope(body, parent)?;
        self.checked.nodes += body.nodes.len();
        for node in body.nodes {
            if let Some(name) = node.inputs.iter().find(|name| !name.is_empty() && !scope.defines(name)) {
                let what = format!("nothing produces the input '{}'", quoted(name));
                return Err(Invalid::new(Rule::UndefinedValue, node.place(), what));
            }
        }
        if let Some(name) = body.outputs.iter().find(|name| !scope.defines(name)) {
            return Err(Invalid::new(Rule::UndefinedValue, Place::Value(quoted(name)), "nothing produces this output"));
        }
        for position in order(body.nodes).map_err(|unordered| unordered_nodes(body, unordered))? {
            if let Some(node) = body.nodes.get(position) {
                self.node(node, body.in_function, &mut scope)?;
            }
        }
        Ok(())
    }

    /// Collects the names that a body defines, and checks that each is defined once.
    fn scope<'p>(&mut self, body: &Body<'m>, parent: Option<&'p Scope<'p, 'm>>) -> Result<Scope<'p, 'm>, Invalid> {
        let value = |rule, name: &str, what: &str| Err(Invalid::new(rule, Place::Value(quoted(name)), what));
        let mut values = HashMap::new();
        let mut types = HashMap::new();
        for (name, kind) in &body.inputs {
            if name.is_empty() {
                return value(Rule::Text, name, "an input has no name");
            }
            if reserve::insert(&mut values, *name, Producer::Outside)?.is_some() {
                return value(Rule::DuplicateValue, name, "two inputs have this name");
            }
            if let Some(kind) = kind {
                tensor::check_type(kind, false, self.limits, &Place::Value(quoted(name)))?;
                reserve::insert(&mut types, *name, *kind)?;
            }
        }
        for initializer in body.initializers {
            self.initializer(initializer, &types)?;
            // An input with an initializer has a default value.
            let before = reserve::insert(&mut values, initializer.name, Producer::Initializer(initializer))?;
            if !matches!(before, None | Some(Producer::Outside)) {
                return value(Rule::DuplicateValue, initializer.name, "two initializers have this name");
            }
        }
        for sparse in body.sparse_initializers {
            let name = sparse.values.name;
            let extent = tensor::check_sparse(sparse, self.limits)?;
            reserve::extend(&mut self.checked.external, extent.external)?;
            reserve::push(&mut self.checked.sparse_initializers, reserve::text(name)?)?;
            if name.is_empty() {
                return value(Rule::Text, name, "a sparse initializer has no name");
            }
            if reserve::insert(&mut values, name, Producer::Outside)?.is_some() {
                return value(Rule::DuplicateValue, name, "a sparse initializer has the name of another value");
            }
        }
        for node in body.nodes {
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                if reserve::insert(&mut values, *output, Producer::Node(node))?.is_some() {
                    let what = format!("the output '{}' is defined elsewhere too", quoted(output));
                    return Err(Invalid::new(Rule::DuplicateValue, node.place(), what));
                }
            }
        }
        for info in body.value_infos {
            if let Some(kind) = &info.kind {
                tensor::check_type(kind, false, self.limits, &Place::Value(quoted(info.name)))?;
                if !types.contains_key(info.name) {
                    reserve::insert(&mut types, info.name, kind)?;
                }
            }
        }
        Ok(Scope { values, types, shapes: HashMap::new(), folded: HashSet::new(), parent })
    }

    fn initializer(&mut self, initializer: &Tensor<'m>, types: &HashMap<&'m str, &'m Type<'m>>) -> Result<(), Invalid> {
        if initializer.name.is_empty() {
            return Err(Invalid::new(Rule::Text, initializer.place(), "an initializer has no name"));
        }
        let extent = tensor::check(initializer, self.limits)?;
        self.checked.initializers += 1;
        self.count_weights(&extent);
        reserve::extend(&mut self.checked.external, extent.external)?;
        if types.get(initializer.name).is_some_and(|kind| !fits(initializer, kind)) {
            return Err(Invalid::new(
                Rule::DuplicateValue,
                initializer.place(),
                "the initializer does not match the type or shape of the input of the same name",
            ));
        }
        Ok(())
    }

    fn count_weights(&mut self, extent: &tensor::Extent) {
        self.checked.parameters = self.checked.parameters.saturating_add(extent.elements);
        self.checked.weight_bytes = self.checked.weight_bytes.saturating_add(extent.bytes);
    }

    /// Checks a node, then its subgraphs, then records what is known of its outputs.
    fn node(&mut self, node: &'m Node<'m>, in_function: bool, scope: &mut Scope<'_, 'm>) -> Result<(), Invalid> {
        let invalid = |rule, what: String| Invalid::new(rule, node.place(), what);
        if node.op_type.is_empty() {
            return Err(invalid(Rule::Operator, "the node has no operator".into()));
        }
        if node.inputs.len() > self.limits.max_operands {
            let (count, most) = (node.inputs.len(), self.limits.max_operands);
            let what = format!("the node has {count} inputs, the limit 'inputs' is {most}");
            return Err(invalid(Rule::Limit, what));
        }
        for extent in attributes::check(node, in_function, self.limits)? {
            self.count_weights(&extent);
            reserve::extend(&mut self.checked.external, extent.external)?;
        }
        for graph in node.subgraphs() {
            self.checked.has_control_flow = true;
            self.walk(&Body::of_graph(graph, in_function)?, Some(scope))?;
        }
        if let Some(function) = self.functions.called_by(node) {
            self.checked.function_calls += 1;
            if node.inputs.len() > function.inputs.len() || node.outputs.len() > function.outputs.len() {
                return Err(invalid(Rule::Arity, "the node has more inputs or outputs than its function".into()));
            }
            return Ok(());
        }
        let domain = if is_standard(node.domain) { "" } else { node.domain };
        if !KNOWN_DOMAINS.contains(&domain) {
            let what = match domain {
                "com.microsoft.nchwc" => OF_ONE_CPU.to_owned(),
                _ => format!("the operator domain '{}' is unknown", quoted(domain)),
            };
            return Err(invalid(Rule::Domain, what));
        }
        let Some(&opset) = self.opsets.get(domain) else {
            let what = format!("the model imports no opset of the domain '{}'", quoted(domain));
            return Err(invalid(Rule::Domain, what));
        };
        let signature = schema::signature(node.op_type);
        let is_extension = schema::is_runtime_extension(domain, node.op_type);
        let op = quoted(node.op_type);
        match signature {
            Some(signature) if domain.is_empty() => check_arity(node, signature)?,
            None if domain.is_empty() && !is_extension => {
                return Err(invalid(Rule::Operator, format!("ai.onnx has no operator {op}")));
            }
            Some(_) if !domain.is_empty() && !is_extension => {
                return Err(invalid(Rule::Operator, format!("the domain '{domain}' has no operator {op}")));
            }
            _ => {}
        }
        let call = Call { node, scope, opset, limits: self.limits, summaries: &self.summaries };
        known::check(&call)?;
        operators::check(&call)?;
        control::check(&call)?;
        let outputs = generated::infer(&call, &mut self.folded, self.checked.parameters)?;
        if outputs.is_constant {
            for name in node.outputs.iter().filter(|name| !name.is_empty()) {
                reserve::add(&mut scope.folded, *name)?;
            }
        }
        if let (Some(shape), Some(name)) = (outputs.shape, node.outputs.first()) {
            reserve::insert(&mut scope.shapes, *name, shape)?;
        }
        Ok(())
    }
}

/// Whether a tensor matches the type declared for its name.
fn fits(tensor: &Tensor<'_>, kind: &Type<'_>) -> bool {
    let Type::Tensor(element, shape) = kind else {
        return false;
    };
    let same_element = *element == 0 || *element == tensor.data_type;
    let same_shape = shape.as_ref().is_none_or(|dims| {
        dims.len() == tensor.dims.len()
            && dims.iter().zip(&tensor.dims).all(|(dim, have)| match dim {
                Dim::Known(dim) => dim == have,
                _ => true,
            })
    });
    same_element && same_shape
}

/// Checks the counts of inputs and outputs of a node.
fn check_arity(node: &Node<'_>, signature: schema::Signature) -> Result<(), Invalid> {
    let invalid = |what: String| Err(Invalid::new(Rule::Arity, node.place(), what));
    let op = node.op_type;
    if let Some(missing) =
        (0..signature.required_inputs).find(|i| node.inputs.get(*i).is_none_or(|name| name.is_empty()))
    {
        return invalid(format!("{op} lacks input {missing}"));
    }
    if node.inputs.len() > signature.max_inputs {
        return invalid(format!("{op} takes at most {} inputs, not {}", signature.max_inputs, node.inputs.len()));
    }
    if node.outputs.len() < signature.required_outputs.max(1) || node.outputs.iter().all(|name| name.is_empty()) {
        return invalid(format!("{op} lacks outputs"));
    }
    if node.outputs.len() > signature.max_outputs {
        return invalid(format!("{op} has at most {} outputs, not {}", signature.max_outputs, node.outputs.len()));
    }
    Ok(())
}

/// The error of nodes without an order.
fn unordered_nodes(body: &Body<'_>, unordered: Unordered) -> Invalid {
    match unordered {
        Unordered::Cycle(at) => {
            let place = body.nodes.get(at).map_or(Place::Model, Node::place);
            Invalid::new(Rule::Cycle, place, "the node depends on its own output")
        }
        Unordered::Memory(no_memory) => no_memory.into(),
    }
}
