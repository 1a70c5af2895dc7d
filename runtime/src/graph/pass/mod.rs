//! The passes and their order. Each is one file: what it turns into what, when it may, and a
//! test on the smallest graph that shows it.

mod bottleneck;
mod bounds;
mod channels;
mod dead;
mod excite;
mod fold;
mod fuse;
mod gated;
mod hard;
mod identity;
mod integer;
mod layout;
mod mean;
mod normalise;
mod pattern;
mod power;
mod prelu;
mod quantize;
#[cfg(test)]
pub(in crate::graph) mod testing;
mod zero_channels;

use super::Graph;
use crate::error::Result;

/// A rewrite of the graph that keeps its answer.
struct Pass {
    name: &'static str,
    run: fn(&mut Graph) -> Result<()>,
}

/// In order; a pass that leaves rubbish behind relies on `dead` after it.
const PASSES: &[Pass] = &[
    Pass { name: "fold", run: fold::run },
    Pass { name: "identity", run: identity::run },
    Pass { name: "bounds", run: bounds::run },
    Pass { name: "dead", run: dead::run },
    Pass { name: "prelu", run: prelu::run },
    Pass { name: "hard", run: hard::run },
    Pass { name: "gated", run: gated::run },
    Pass { name: "mean", run: mean::run },
    Pass { name: "dead", run: dead::run },
    Pass { name: "quantize", run: quantize::run },
    Pass { name: "integer", run: integer::run },
    Pass { name: "normalise", run: normalise::run },
    Pass { name: "power", run: power::run },
    Pass { name: "dead", run: dead::run },
    Pass { name: "fuse", run: fuse::run },
    Pass { name: "zero channels", run: zero_channels::run },
    Pass { name: "excite", run: excite::run },
    Pass { name: "layout", run: layout::run },
    Pass { name: "bottleneck", run: bottleneck::run },
    Pass { name: "dead", run: dead::run },
];

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
