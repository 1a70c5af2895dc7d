//! More layers with the same outputs: a deeper network that starts where a trained one is (T. Chen, I. Goodfellow and
//! J. Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", 2016).
//!
//! ```text
//! Relu -> ...   =>   Relu -> Conv (identity) -> Relu -> ...
//! ```
//!
//! The new layer gives back what it reads, and so does the activation, applied a second time: that holds for ReLU and for
//! limits (ReLU6), not for SiLU or Hardswish.

use skipstone::Options;
use skipstone::onnx::imported;

use crate::editor::{Attribute, Editor, Graph, Node, Tensor};
use crate::error::{Error, Result};
use crate::prepare;

/// Where layers are added, and of which kind.
#[derive(Clone, Debug)]
pub struct Deepening {
    /// Names of the activations that a layer is put behind.
    pub after: Vec<String>,
    /// Rows and columns of the new convolutions, odd.
    pub kernel: usize,
}

/// Deepens the model in `bytes`, an ONNX file.
///
/// # Errors
/// A model that is malformed; a node that is missing, or behind which no layer gives the same outputs.
pub fn deepen(bytes: &[u8], deepening: &Deepening, options: &Options) -> Result<Vec<u8>> {
    if deepening.kernel.is_multiple_of(2) {
        return Err(Error::Unsupported(format!("a kernel of {} has no middle; take an odd one", deepening.kernel)));
    }
    let mut editor = Editor::open(bytes)?;
    prepare::constants(&mut editor.graph);
    let known = imported(&editor.write(), &options.limits.file, &options.shapes)?;
    for name in &deepening.after {
        let at = find(&editor.graph, name)?;
        let output = editor.graph.nodes[at].outputs[0].clone();
        let dims = known.values.get(&output).map(|&id| known.graph.fact(id).shape.dims().to_vec()).unwrap_or_default();
        add(&mut editor, at, &dims, deepening.kernel, options.limits.file.max_tensor_elements)?;
    }
    Ok(editor.write())
}

/// The node of that name, if it is an activation that changes nothing when it is applied again.
fn find(graph: &Graph, name: &str) -> Result<usize> {
    let fits = |node: &Node| node.is("Relu") || node.is("Clip");
    if let Some(at) = graph.nodes.iter().position(|node| node.label() == name) {
        if fits(&graph.nodes[at]) {
            return Ok(at);
        }
        let op = &graph.nodes[at].op_type;
        return Err(Error::Unsupported(format!(
            "{name}: behind {op} a layer would change the outputs; name a Relu or Clip"
        )));
    }
    let names: Vec<String> = graph.nodes.iter().filter(|node| fits(node)).map(Node::label).collect();
    let there =
        if names.is_empty() { "it has no Relu and no Clip".into() } else { format!("there are {}", names.join(", ")) };
    Err(Error::Unsupported(format!("the model has no node '{name}'; {there}")))
}

/// Puts an identity layer of at most `limit` weights and the activation behind node `at`, whose result has these dimensions.
fn add(editor: &mut Editor, at: usize, dims: &[usize], kernel: usize, limit: u64) -> Result<()> {
    let activation = editor.graph.nodes[at].clone();
    let last = activation.outputs[0].clone();
    // The new nodes write what was written before, so that no reader has to change.
    let [first, layer, weights] = ["given", "identity", "identity_weights"].map(|suffix| editor.fresh(&last, suffix));
    let (operator, shape, attributes) = match *dims {
        [_, channels, _, _] => {
            let pads = Attribute::of_ints("pads", &[(kernel / 2) as i64; 4]);
            ("Conv", vec![channels, channels, kernel, kernel], vec![pads])
        }
        [.., features] if dims.len() > 1 => ("MatMul", vec![features, features], Vec::new()),
        _ => {
            let reason = format!("{}: its result {dims:?} is neither an image nor rows", activation.label());
            return Err(Error::Unsupported(reason));
        }
    };
    let elements = shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
    let elements = elements.filter(|&elements| elements as u64 <= limit).ok_or_else(|| {
        let reason = format!("{}: a layer behind it has {shape:?} weights, of at most {limit}", activation.label());
        Error::Unsupported(reason)
    })?;
    let mut values = vec![0.0; elements];
    let (side, taps) = (shape[0], shape[2..].iter().product::<usize>());
    (0..side).for_each(|i| values[(i * side + i) * taps + taps / 2] = 1.0);
    editor.graph.initializers.push(Tensor::of_floats(&weights, &shape, &values));
    editor.graph.nodes[at].outputs[0].clone_from(&first);
    let mut again = activation.clone();
    again.name = format!("{}_again", activation.label());
    again.inputs[0].clone_from(&layer);
    editor.graph.nodes.splice(at + 1..at + 1, [Node::new(operator, &[&first, &weights], &layer, attributes), again]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use skipstone::{Model, Tensor};
    use skipstone_onnx::write::{graph, model, node, value};

    use super::{Deepening, Editor, Options, deepen};

    fn network(dims: &[i64]) -> Vec<u8> {
        let nodes = [node("Relu", &["x"], &["r"], &[]), node("Neg", &["r"], &["y"], &[])];
        model(&graph(&nodes, &[], &[value("x", 1, dims)], &[value("y", 1, dims)]))
    }

    #[test]
    fn a_deeper_model_has_another_layer_and_the_same_outputs() {
        let options = Options::default();
        for (dims, op) in [(&[1, 3, 5, 4][..], "Conv"), (&[2, 3], "MatMul")] {
            let deepening = Deepening { after: vec!["Relu of 'r'".into()], kernel: 3 };
            let bytes = deepen(&network(dims), &deepening, &options).unwrap();
            assert!(Editor::open(&bytes).unwrap().graph.nodes.iter().any(|node| node.is(op)));
            let x: Vec<f32> = (0..dims.iter().product::<i64>()).map(|i| (i as f32 * 0.7).sin()).collect();
            let shape: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
            let mut session = Model::from_bytes(&bytes, &options).unwrap().session().unwrap();
            session.run(&[Tensor::from_slice(&shape, &x).unwrap().view()]).unwrap();
            let want: Vec<f32> = x.iter().map(|x| -x.max(0.0)).collect();
            assert_eq!(session.output(0).unwrap().elements::<f32>().unwrap(), want);
        }
    }

    #[test]
    fn unsuitable_layers_and_kernels_are_refused() {
        let error = |name: &str, kernel| {
            let deepening = Deepening { after: vec![name.into()], kernel };
            deepen(&network(&[1, 3, 5, 4]), &deepening, &Options::default()).unwrap_err().to_string()
        };
        assert!(error("Neg of 'y'", 3).contains("Neg"));
        assert!(error("missing", 3).contains("Relu of 'r'"));
        assert!(error("Relu of 'r'", 2).contains("odd"));
        assert!(error("Relu of 'r'", usize::MAX / 2).contains("at most"), "weights that no memory holds");
    }
}
