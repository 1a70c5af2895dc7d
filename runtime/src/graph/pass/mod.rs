//! The passes and their order. Each is one file: what it turns into what, when it may, and a
//! test on the smallest graph that shows it.

mod dead;

use super::Graph;
use crate::error::Result;

/// A rewrite of the graph that keeps its answer.
struct Pass {
    name: &'static str,
    run: fn(&mut Graph) -> Result<()>,
}

/// In order; a pass that leaves rubbish behind relies on `dead` after it.
const PASSES: &[Pass] = &[Pass { name: "dead", run: dead::run }];

/// Runs every pass once, in order.
///
/// # Errors
/// What a pass could not rewrite: always a bug, since the graph was valid.
pub fn optimise(graph: &mut Graph) -> Result<()> {
    for pass in PASSES {
        (pass.run)(graph)?;
        debug_assert!(graph.check().is_ok(), "pass {} left an invalid graph: {:?}", pass.name, graph.check());
    }
    Ok(())
}
