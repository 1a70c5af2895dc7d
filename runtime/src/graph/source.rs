//! The source of graphs: an importer, which lowers a model for given input shapes.

use super::Graph;
use crate::error::Result;
use crate::info::Shapes;
use crate::operator::Port;
use crate::ops::ForeignOp;

/// An importer that can lower a model for any input shapes.
pub(crate) trait Source: Send + Sync {
    /// Whether some input has a dynamic dimension.
    #[cfg(feature = "onnx")]
    fn is_dynamic(&self) -> bool;

    /// The graph for these shapes.
    fn lower(&self, shapes: &Shapes) -> Result<Lowered>;
}

/// The result of lowering a model.
pub(crate) enum Lowered {
    /// A graph.
    #[cfg_attr(
        not(any(feature = "passes", test)),
        expect(dead_code, reason = "packages store graphs after the passes")
    )]
    Graph(Graph),
    /// A model whose shapes depend on its data: the fallback runs it as a whole.
    #[cfg_attr(not(feature = "onnx"), expect(dead_code, reason = "only the importer has such models"))]
    Foreign(ForeignModel),
}

/// A model that the fallback runs as a whole.
pub struct ForeignModel {
    pub(crate) foreign: ForeignOp,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// Why it could not be planned.
    pub reason: String,
}
