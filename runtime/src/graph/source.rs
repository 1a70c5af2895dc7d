//! Where graphs come from: a front end, which lowers a model for the shapes that its inputs are bound to.

use super::Graph;
use crate::error::Result;
use crate::info::Shapes;
use crate::operator::Port;
use crate::ops::Foreign;

/// A front end that can lower one for any set of input shapes.
pub(crate) trait Source: Send + Sync {
    /// Whether some input has a dimension that is not a number.
    #[cfg(feature = "onnx")]
    fn is_dynamic(&self) -> bool;

    /// The graph for these shapes.
    fn lower(&self, shapes: &Shapes) -> Result<Lowered>;
}

/// What a front end makes of a model.
pub(crate) enum Lowered {
    /// A graph of ours.
    #[cfg_attr(
        not(any(feature = "passes", test)),
        expect(dead_code, reason = "packages hold graphs behind the passes")
    )]
    Graph(Graph),
    /// A model whose shapes depend on its data: the front end runs it whole.
    #[cfg_attr(not(feature = "tract"), expect(dead_code, reason = "only a fallback has such models"))]
    Foreign(ForeignModel),
}

/// A model that the front end runs as a whole.
pub struct ForeignModel {
    pub(crate) foreign: Box<dyn Foreign>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// Why it could not be planned.
    pub reason: String,
}
