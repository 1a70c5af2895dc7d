//! The passes and their order. Each is one file: the pattern before and after, its conditions, and a test on the
//! smallest graph that shows it.

mod ahead;
mod bottleneck;
mod bounds;
mod branches;
mod channels;
mod dead;
mod excite;
mod expand;
mod experts;
mod filters;
mod fold;
mod fuse;
mod gated;
mod gathered;
mod hard;
mod identity;
mod integer;
mod layout;
mod masked;
mod masks;
mod mean;
mod moves;
mod normalize;
mod padding;
mod pattern;
mod power;
mod prelu;
mod quantize;
#[cfg(test)]
mod random;
mod routed;
mod scores;
#[cfg(test)]
pub(in crate::graph) mod testing;
mod tokens;
mod uniform;
mod zero_channels;

pub use channels::{Channels, Track};

use super::Graph;
use crate::error::{Error, OpError, Result};

/// A rewrite of the graph that keeps its results.
#[derive(Clone, Copy)]
struct Pass {
    name: &'static str,
    run: fn(&mut Graph) -> Result<()>,
    /// Whether a graph cannot be planned without it.
    required: bool,
}

const fn pass(name: &'static str, run: fn(&mut Graph) -> Result<()>) -> Pass {
    Pass { name, run, required: false }
}

/// In order; a pass that leaves dead nodes relies on a `dead` after it.
const PASSES: &[Pass] = &[
    pass("fold", fold::run),
    pass("expand", expand::run),
    pass("gathered", gathered::run),
    pass("identity", identity::run),
    pass("bounds", bounds::run),
    pass("dead", dead::run),
    pass("prelu", prelu::run),
    pass("hard", hard::run),
    pass("scores", scores::run),
    pass("dead", dead::run),
    pass("gated", gated::run),
    pass("mean", mean::run),
    pass("experts", experts::run),
    pass("dead", dead::run),
    pass("routed", routed::run),
    pass("dead", dead::run),
    pass("quantize", quantize::run),
    pass("integer", integer::run),
    pass("normalize", normalize::run),
    pass("power", power::run),
    pass("dead", dead::run),
    pass("padding", padding::run),
    pass("masks", masks::run),
    pass("ahead", ahead::run),
    pass("branches", branches::run),
    pass("tokens", tokens::run),
    pass("fuse", fuse::run),
    pass("zero channels", zero_channels::run),
    pass("excite", excite::run),
    // Kernels take images in NHWC.
    Pass { required: true, ..pass("layout", layout::run) },
    pass("masked", masked::run),
    pass("moves", moves::run),
    pass("bottleneck", bottleneck::run),
    pass("dead", dead::run),
];

/// Most values that a pass visits over all blocks.
const LOOKS: usize = 1 << 24;

/// Whether a pass that breaks a graph is an error, so that bugs are noticed in tests.
const STRICT: bool = cfg!(any(test, debug_assertions));

/// Runs every pass on the graph, in order, and checks the graph after each.
///
/// A pass that fails or leaves an invalid graph is a bug. A release build then restores the original graph, runs only
/// the required passes, and returns a warning that names the pass.
///
/// # Errors
/// No memory. In debug builds, the pass's error or the broken invariant; in release builds only that of a required
/// pass.
pub fn optimize(graph: &mut Graph) -> Result<Option<String>> {
    optimize_by(graph, PASSES, STRICT)
}

fn optimize_by(graph: &mut Graph, passes: &[Pass], strict: bool) -> Result<Option<String>> {
    let given = if strict { None } else { Some(graph.copy()?) };
    let Err((failed, error)) = run_all(graph, passes.iter()) else { return Ok(None) };
    // That is no bug of the pass.
    if let Error::Node { source: OpError::NoMemory(_), .. } = error {
        return Err(error);
    }
    let reason = format!("the graph pass '{}' failed ({error})", failed.name);
    let Some(given) = given else { return Err(Error::Internal(reason)) };
    *graph = given;
    run_all(graph, passes.iter().filter(|pass| pass.required)).map_err(|(_, error)| error)?;
    Ok(Some(format!("{reason}; the model runs unoptimized. Please report it")))
}

/// Like [`optimize`], with bottlenecks around images of any size.
#[cfg(test)]
fn everywhere(graph: &mut Graph) -> Result<()> {
    let everywhere = |&given: &Pass| match given.name {
        "bottleneck" => pass("bottleneck", bottleneck::everywhere),
        _ => given,
    };
    optimize_by(graph, &PASSES.iter().map(everywhere).collect::<Vec<_>>(), true).map(|_| ())
}

/// Only the required passes.
#[cfg(test)]
fn required(graph: &mut Graph) -> Result<()> {
    let required: Vec<Pass> = PASSES.iter().copied().filter(|pass| pass.required).collect();
    optimize_by(graph, &required, true).map(|_| ())
}

/// Runs passes until one fails.
fn run_all<'a>(graph: &mut Graph, passes: impl Iterator<Item = &'a Pass>) -> Result<(), (&'a Pass, Error)> {
    for pass in passes {
        // A pass visits every value of the graph for every block: with very many blocks, none is optimized.
        let looks = graph.walk().map(|node| node.blocks.len()).sum::<usize>().saturating_mul(graph.values().len());
        let everywhere = pass.required || looks <= LOOKS;
        let done = if everywhere { in_every_block(graph, pass.run) } else { (pass.run)(graph) };
        done.and_then(|()| graph.check()).map_err(|error| (pass, error))?;
    }
    Ok(())
}

/// Runs a pass on the graph's own nodes, then on every block as if it were the graph: outer values are known and have
/// no writer, like inputs.
fn in_every_block(graph: &mut Graph, run: fn(&mut Graph) -> Result<()>) -> Result<()> {
    run(graph)?;
    for index in 0..graph.nodes.len() {
        for at in 0..graph.nodes[index].blocks.len() {
            let block = std::mem::take(&mut graph.nodes[index].blocks[at]);
            graph.enter(block)?;
            in_every_block(graph, run)?;
            graph.nodes[index].blocks[at] = graph.leave()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::activation::Activation;

    use super::testing::Build;
    use super::*;

    /// Removes the first node, although its result is read.
    const BROKEN: Pass = pass("broken", |graph| {
        graph.nodes.remove(0);
        Ok(())
    });

    fn two_activations() -> Graph {
        let mut build = Build::new(&[3]);
        let y = build.activate(Activation::Relu, build.x);
        let y = build.activate(Activation::Tanh, y);
        build.output(y);
        build.graph
    }

    #[test]
    fn a_pass_that_breaks_a_graph_is_named_and_the_graph_stays_as_it_was() {
        let mut graph = two_activations();
        let warning = optimize_by(&mut graph, &[BROKEN], false).unwrap().unwrap();
        assert!(warning.contains("'broken'"), "{warning}");
        graph.check().unwrap();
        assert_eq!(graph.nodes.len(), 2);
    }

    #[test]
    fn a_broken_pass_is_an_error_in_strict_mode() {
        let error = optimize_by(&mut two_activations(), &[BROKEN], true).unwrap_err();
        assert!(error.to_string().contains("'broken'"), "{error}");
    }
}
