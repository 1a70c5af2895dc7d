//! Control flow: the subgraphs of If, Loop and Scan have inputs and outputs that match their node.

use super::attributes::is_standard;
use super::call::Call;
use super::scope::Constant;
use crate::invalid::{Invalid, Rule};
use crate::proto::{Graph, Node};

/// `AttributeType` of a graph.
const GRAPH: i64 = 5;

/// Checks a control flow node and its subgraphs.
pub(super) fn check(call: &Call<'_, '_>) -> Result<(), Invalid> {
    if !is_standard(call.node.domain) {
        return Ok(());
    }
    match call.node.op_type {
        "If" => branches(call),
        "Loop" => repeated(call),
        "Scan" => scanned(call),
        "SequenceMap" => body(call, "body").map(drop),
        _ => Ok(()),
    }
}

/// Both branches have no inputs, and as many outputs as the node.
fn branches(call: &Call<'_, '_>) -> Result<(), Invalid> {
    for name in ["then_branch", "else_branch"] {
        let branch = body(call, name)?;
        if !branch.inputs.is_empty() {
            return Err(call.invalid(Rule::ControlFlow, format!("{name} has inputs")));
        }
        let (gives, wanted) = (branch.outputs.len(), call.node.outputs.len());
        if gives != wanted {
            return Err(call.invalid(Rule::ControlFlow, format!("{name} has {gives} outputs, the node {wanted}")));
        }
    }
    Ok(())
}

/// `Loop(trips, condition, carried...) -> carried..., scanned...` with a body
/// `(trip, condition, carried...) -> condition, carried..., scanned...`.
fn repeated(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let body = body(call, "body")?;
    let carried = call.node.inputs.len().saturating_sub(2);
    if body.inputs.len() != carried + 2 {
        let takes = body.inputs.len();
        return Err(call.invalid(Rule::ControlFlow, format!("the body has {takes} inputs, expected {}", carried + 2)));
    }
    if body.outputs.len() <= carried || call.node.outputs.len() > body.outputs.len() - 1 {
        let gives = body.outputs.len();
        return Err(call.invalid(Rule::ControlFlow, format!("the body has {gives} outputs, too few for the node")));
    }
    let starts = call.input(1).is_none() || call.constant(1).is_some_and(|constant| is_true(&constant));
    if call.input(0).is_none() && starts && never_stops(body) {
        return Err(call.invalid(Rule::ControlFlow, "the loop has no trip count, and its condition stays true"));
    }
    Ok(())
}

/// Whether the condition that the body returns is its input condition, or a constant true.
fn never_stops(body: &Graph<'_>) -> bool {
    let Some(mut name) = body.outputs.first().map(|info| info.name) else {
        return false;
    };
    let given = body.inputs.get(1).map(|info| info.name);
    // The body has no cycles, so this takes no more steps than there are nodes.
    for _ in 0..=body.nodes.len().min(16) {
        if Some(name) == given {
            return true;
        }
        if let Some(tensor) = body.initializers.iter().find(|tensor| tensor.name == name) {
            return is_true(&Constant::Tensor(tensor));
        }
        let producer = body.nodes.iter().find(|node| node.outputs.contains(&name));
        match producer {
            Some(Node { op_type: "Identity", inputs, .. }) => match inputs.first() {
                Some(input) => name = input,
                None => return false,
            },
            Some(node) => return Constant::of_node(node).is_some_and(|constant| is_true(&constant)),
            None => return false,
        }
    }
    false
}

fn is_true(constant: &Constant<'_>) -> bool {
    let Constant::Tensor(tensor) = constant else {
        return false;
    };
    tensor.raw.first().copied().unwrap_or(0) != 0 || tensor.int32_data.ints().next().unwrap_or(0) != 0
}

/// `Scan(states..., sequences...) -> states..., sequences...`, and the same for the body. Before
/// opset 9, the first input of the node was a tensor of sequence lengths.
fn scanned(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let body = body(call, "body")?;
    let inputs = call.node.inputs.len().saturating_sub(usize::from(call.opset < 9));
    let Some(sequences) = call.int_in("num_scan_inputs", 1..=inputs as i64)? else {
        return match call.has("num_scan_inputs") {
            true => Ok(()),
            false => call.bad_attribute("num_scan_inputs", "is missing"),
        };
    };
    let states = inputs.saturating_sub(usize::try_from(sequences).unwrap_or(0));
    if body.inputs.len() != inputs {
        let what = format!("the body has {} inputs, the node {inputs}", body.inputs.len());
        return Err(call.invalid(Rule::ControlFlow, what));
    }
    if body.outputs.len() < states.max(call.node.outputs.len()) {
        let what = format!("the body has {} outputs, too few for the node", body.outputs.len());
        return Err(call.invalid(Rule::ControlFlow, what));
    }
    for (name, count) in [
        ("scan_input_directions", inputs - states),
        ("directions", inputs - states),
        ("scan_output_directions", body.outputs.len() - states),
    ] {
        let directions = call.ints_in(name, 0..=1)?;
        call.must_have(name, directions.as_ref(), count)?;
    }
    Ok(())
}

fn body<'m>(call: &Call<'_, 'm>, name: &str) -> Result<&'m Graph<'m>, Invalid> {
    match call.node.attribute(name) {
        Some(attribute) if attribute.kind == GRAPH => match attribute.graphs.first() {
            Some(graph) => Ok(graph),
            None => call.bad_attribute(name, "has no graph"),
        },
        Some(_) => call.bad_attribute(name, "does not have the type that the operator requires"),
        None => call.bad_attribute(name, "is missing"),
    }
}
