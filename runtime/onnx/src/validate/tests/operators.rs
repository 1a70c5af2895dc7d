//! Attributes, signatures, and the rules of operators.

use super::*;

#[test]
fn signatures() {
    refuses(&one(&[1], "Concat", &[], &[int("axis", 0)], &[]), "model.arity");
    refuses(&one(&[1], "Split", &[], &[], &[]), "model.arity");
    refuses(&one(&[1], "Squeeze", &[], &[], &[]), "model.arity");
    refuses(&one(&[1], "Unsqueeze", &["x"], &[], &[]), "model.arity");
    refuses(&one(&[1], "Relu", &["x", "x"], &[], &[]), "model.arity");
    refuses(&with(&[1], &[node("Relu", &["x"], &["y", "z"], &[])], &[]), "model.arity");
    refuses(&with(&[1], &[node("Relu", &["x"], &[], &[]), node("Abs", &["x"], &["y"], &[])], &[]), "model.arity");
    refuses(&one(&[1], "Concat", &["x"], &[], &[]), "model.attribute");
}

#[test]
fn attributes_in_general() {
    let leaky = |attributes: &[Message]| one(&[1], "LeakyRelu", &["x"], attributes, &[]);
    accepts(&leaky(&[float("alpha", 0.1)]));
    // An omitted value is zero.
    accepts(&leaky(&[message().text(1, "alpha").int(20, 1)]));
    refuses(&leaky(&[float("alpha", 0.1), float("alpha", 0.2)]), "model.attribute");
    refuses(&leaky(&[float("", 0.1)]), "model.attribute");
    refuses(&leaky(&[float("alpha", f32::NAN)]), "model.attribute");
    refuses(&leaky(&[float("alpha", f32::INFINITY)]), "model.attribute");
    refuses(&leaky(&[message().text(1, "alpha").float(2, 0.1)]), "model.attribute");
    refuses(&leaky(&[message().text(1, "alpha").float(2, 0.1).int(20, 99)]), "model.attribute");
    refuses(&leaky(&[message().text(1, "alpha").int(3, 1).int(20, 1)]), "model.attribute");
    refuses(&leaky(&[float("alpha", 0.1).int(3, 1)]), "model.attribute");
    refuses(&leaky(&[message().text(1, "alpha").int(20, 4)]), "model.attribute");
    refuses(&leaky(&[message().text(1, "alpha").text(21, "outer").int(20, 1)]), "model.attribute");
    let infinite = [message().text(1, "value_float").float(2, f32::NEG_INFINITY).int(20, 1)];
    accepts(&with(&[1], &[node("Constant", &[], &["m"], &infinite), node("Add", &["x", "m"], &["y"], &[])], &[]));
    refuses(&one(&[1, 2], "Softmax", &["x"], &[int("axis", 1 << 40)], &[]), "model.attribute");
    refuses(&one(&[1, 2], "ReduceMean", &["x"], &[ints("axes", &[i64::MIN])], &[]), "model.attribute");
    refuses(&with(&[1], &[node("Constant", &[], &["y"], &[])], &[]), "model.attribute");
}

#[test]
fn axes_exist_in_the_input() {
    for op in ["Softmax", "LogSoftmax", "ArgMax", "LpNormalization"] {
        accepts(&one(&[2, 3], op, &["x"], &[int("axis", 1)], &[]));
        accepts(&one(&[2, 3], op, &["x"], &[int("axis", -2)], &[]));
        refuses(&one(&[2, 3], op, &["x"], &[int("axis", 2)], &[]), "model.index");
        refuses(&one(&[2, 3], op, &["x"], &[int("axis", -3)], &[]), "model.index");
    }
    for op in ["ReduceSum", "ReduceL2"] {
        let reduce = |axes: &[i64]| one(&[2, 3], op, &["x", "a"], &[], &[i64s("a", &[axes.len() as i64], axes)]);
        accepts(&reduce(&[0, -1]));
        refuses(&reduce(&[2]), "model.index");
        refuses(&reduce(&[1, -1]), "model.index");
    }
}

fn conv(attributes: &[Message], weights: &[i64], bias: i64) -> Vec<u8> {
    one(&[1, 4, 8, 8], "Conv", &["x", "w", "b"], attributes, &[zeros("w", weights), zeros("b", &[bias])])
}

#[test]
fn convolutions() {
    accepts(&conv(&[], &[6, 4, 3, 3], 6));
    accepts(&conv(&[int("group", 2), ints("strides", &[2, 2]), ints("dilations", &[2, 2])], &[6, 2, 3, 3], 6));
    accepts(&conv(&[text("auto_pad", "SAME_UPPER")], &[6, 4, 9, 9], 6));
    for (attribute, values) in [
        ("kernel_shape", [0, 3]),
        ("kernel_shape", [5, 3]),
        ("strides", [0, 1]),
        ("strides", [-1, 1]),
        ("strides", [i64::MAX, 1]),
        ("dilations", [0, 1]),
    ] {
        refuses(&conv(&[ints(attribute, &values)], &[6, 4, 3, 3], 6), "model.attribute");
    }
    refuses(&conv(&[ints("strides", &[1])], &[6, 4, 3, 3], 6), "model.attribute");
    refuses(&conv(&[ints("pads", &[0, 0])], &[6, 4, 3, 3], 6), "model.attribute");
    refuses(&conv(&[ints("pads", &[-1, 0, 0, 0])], &[6, 4, 3, 3], 6), "model.attribute");
    refuses(&conv(&[ints("pads", &[i64::MAX; 4])], &[6, 4, 3, 3], 6), "model.attribute");
    refuses(&conv(&[ints("pads", &[1; 1000])], &[6, 4, 3, 3], 6), "model.attribute");
    refuses(&conv(&[int("group", 0)], &[6, 4, 3, 3], 6), "model.attribute");
    refuses(&conv(&[int("group", -1)], &[6, 4, 3, 3], 6), "model.attribute");
    refuses(&conv(&[int("group", 4)], &[6, 1, 3, 3], 6), "model.attribute");
    refuses(&conv(&[text("auto_pad", "SOMEHOW")], &[6, 4, 3, 3], 6), "model.attribute");
    refuses(&conv(&[int("strides", 1)], &[6, 4, 3, 3], 6), "model.attribute");
    refuses(&conv(&[], &[6, 3, 3, 3], 6), "model.shape");
    refuses(&conv(&[], &[6, 4, 3], 6), "model.shape");
    refuses(&conv(&[], &[6, 4], 6), "model.shape");
    refuses(&conv(&[], &[6, 4, 0, 3], 6), "model.shape");
    refuses(&conv(&[], &[6, 4, 3, 3], 5), "model.shape");
    refuses(&conv(&[], &[6, 4, 9, 9], 6), "model.shape");
}

#[test]
fn transposed_convolutions() {
    let with = |attributes: &[Message], weights: &[i64], bias: i64| {
        one(&[1, 4, 8, 8], "ConvTranspose", &["x", "w", "b"], attributes, &[zeros("w", weights), zeros("b", &[bias])])
    };
    accepts(&with(&[int("group", 2), ints("output_padding", &[1, 1]), ints("strides", &[2, 2])], &[4, 3, 3, 3], 6));
    refuses(&with(&[], &[3, 3, 3, 3], 3), "model.shape");
    refuses(&with(&[int("group", 3)], &[4, 3, 3, 3], 9), "model.attribute");
    refuses(&with(&[ints("output_padding", &[-1, 0])], &[4, 3, 3, 3], 3), "model.attribute");
    refuses(&with(&[ints("output_shape", &[0, 0])], &[4, 3, 3, 3], 3), "model.attribute");
    refuses(&with(&[], &[4, 3, 3, 3], 4), "model.shape");
}

#[test]
fn pools() {
    let with = |op: &str, attributes: &[Message]| one(&[1, 4, 8, 8], op, &["x"], attributes, &[]);
    accepts(&with("MaxPool", &[ints("kernel_shape", &[8, 8])]));
    accepts(&with("AveragePool", &[ints("kernel_shape", &[9, 9]), ints("pads", &[1, 1, 0, 0])]));
    refuses(&with("MaxPool", &[]), "model.attribute");
    refuses(&with("MaxPool", &[ints("kernel_shape", &[])]), "model.shape");
    refuses(&with("MaxPool", &[ints("kernel_shape", &[0, 2])]), "model.attribute");
    refuses(&with("AveragePool", &[ints("kernel_shape", &[2, 2]), ints("strides", &[0, 0])]), "model.attribute");
    refuses(&with("MaxPool", &[ints("kernel_shape", &[9, 9])]), "model.shape");
    refuses(&with("MaxPool", &[ints("kernel_shape", &[2])]), "model.shape");
    refuses(&with("LpPool", &[ints("kernel_shape", &[2, 2]), int("p", 0)]), "model.attribute");
}

#[test]
fn reshapes() {
    let with = |target: &[i64], attributes: &[Message]| {
        one(&[2, 6], "Reshape", &["x", "s"], attributes, &[i64s("s", &[target.len() as i64], target)])
    };
    accepts(&with(&[3, 4], &[]));
    accepts(&with(&[0, -1, 2], &[]));
    refuses(&with(&[-1, -1], &[]), "model.shape");
    refuses(&with(&[-2, 6], &[]), "model.shape");
    refuses(&with(&[5, 3], &[]), "model.shape");
    refuses(&with(&[5, -1], &[]), "model.shape");
    refuses(&with(&[1, 12, 0], &[]), "model.shape");
    refuses(&with(&[0, -1], &[int("allowzero", 1)]), "model.shape");
    refuses(&with(&[i64::MAX, i64::MAX], &[]), "model.shape");
    refuses(&with(&[1; 50], &[]), "model.shape");
    refuses(&with(&[1; 5000], &[]), "model.shape");
}

#[test]
fn axes_and_permutations() {
    accepts(&one(&[2, 3], "Transpose", &["x"], &[ints("perm", &[1, 0])], &[]));
    for perm in [&[0, 0][..], &[0, 2], &[-1, 0], &[0, 1, 2]] {
        refuses(&one(&[2, 3], "Transpose", &["x"], &[ints("perm", perm)], &[]), "model.attribute");
    }
    let squeeze = |op: &str, axes: &[i64]| one(&[1, 2], op, &["x", "a"], &[], &[i64s("a", &[axes.len() as i64], axes)]);
    accepts(&squeeze("Squeeze", &[0]));
    accepts(&squeeze("Unsqueeze", &[0, -1]));
    refuses(&squeeze("Squeeze", &[1]), "model.shape");
    refuses(&squeeze("Squeeze", &[0, -2]), "model.index");
    refuses(&squeeze("Squeeze", &[2]), "model.index");
    refuses(&squeeze("Unsqueeze", &[i64::MIN]), "model.index");
    refuses(&squeeze("Unsqueeze", &[1, 1]), "model.index");
    refuses(&one(&[1, 2], "Concat", &["x", "x"], &[int("axis", 2)], &[]), "model.index");
    refuses(&one(&[1, 2], "Flatten", &["x"], &[int("axis", 3)], &[]), "model.index");
    refuses(&one(&[1, 5, 2, 2], "DepthToSpace", &["x"], &[int("blocksize", 2)], &[]), "model.attribute");
    refuses(&one(&[1, 4, 2, 2], "DepthToSpace", &["x"], &[int("blocksize", 0)], &[]), "model.attribute");
}

#[test]
fn splits() {
    let with = |parts: &[i64], attributes: &[Message]| {
        let nodes = [node("Split", &["x", "p"], &["y", "z"], attributes)];
        super::with(&[4, 6], &nodes, &[i64s("p", &[parts.len() as i64], parts)])
    };
    accepts(&with(&[1, 3], &[]));
    accepts(&with(&[1, 5], &[int("axis", -1)]));
    refuses(&with(&[1, 2], &[]), "model.shape");
    refuses(&with(&[-1, 5], &[]), "model.shape");
    refuses(&with(&[4], &[]), "model.shape");
    refuses(&with(&[i64::MAX, i64::MAX], &[]), "model.shape");
    refuses(&with(&[1, 3], &[int("axis", 2)]), "model.index");
    refuses(
        &super::with(&[4], &[node("Split", &["x"], &["y", "z"], &[int("num_outputs", 3)])], &[]),
        "model.attribute",
    );
    refuses(
        &super::with(&[4], &[node("Split", &["x"], &["y", "z"], &[int("num_outputs", 0)])], &[]),
        "model.attribute",
    );
}

#[test]
fn gathers_and_scatters() {
    let gather = |index: i64| one(&[3, 2], "Gather", &["x", "i"], &[], &[i64s("i", &[1], &[index])]);
    accepts(&gather(-3));
    for index in [3, -4, i64::MIN, i64::MAX] {
        refuses(&gather(index), "model.index");
    }
    let nd =
        |width: i64, indices: &[i64]| one(&[3, 2], "GatherND", &["x", "i"], &[], &[i64s("i", &[1, width], indices)]);
    accepts(&nd(2, &[2, 1]));
    refuses(&nd(2, &[2, 2]), "model.index");
    refuses(&nd(3, &[0, 0, 0]), "model.shape");
    let elements = |index: i64| one(&[3, 2], "GatherElements", &["x", "i"], &[], &[i64s("i", &[1, 1], &[index])]);
    accepts(&elements(2));
    refuses(&elements(3), "model.index");
    let scatter = |index: i64| {
        one(&[3, 2], "ScatterElements", &["x", "i", "u"], &[], &[i64s("i", &[1, 1], &[index]), zeros("u", &[1, 1])])
    };
    accepts(&scatter(2));
    refuses(&scatter(-4), "model.index");
}

#[test]
fn slices() {
    let with = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        let list = |name: &str, values: &[i64]| i64s(name, &[values.len() as i64], values);
        let lists = [list("s", starts), list("e", ends), list("a", axes), list("t", steps)];
        one(&[4, 4], "Slice", &["x", "s", "e", "a", "t"], &[], &lists)
    };
    accepts(&with(&[0, 1], &[i64::MAX, 3], &[0, 1], &[1, -1]));
    refuses(&with(&[0], &[3], &[0], &[0]), "model.index");
    refuses(&with(&[0], &[3], &[2], &[1]), "model.index");
    refuses(&with(&[0, 0], &[3, 3], &[0, -2], &[1, 1]), "model.index");
    refuses(&with(&[0, 0], &[3], &[0], &[1]), "model.shape");
    refuses(&with(&[0; 3], &[1; 3], &[0, 1, 0], &[1; 3]), "model.shape");
}

#[test]
fn top_k() {
    let with = |k: i64| super::with(&[2, 3], &[node("TopK", &["x", "k"], &["y", "i"], &[])], &[i64s("k", &[1], &[k])]);
    accepts(&with(3));
    refuses(&with(4), "model.index");
    refuses(&with(-1), "model.index");
}

#[test]
fn large_tensors_made_from_small_files() {
    let shape = |dims: &[i64]| i64s("s", &[dims.len() as i64], dims);
    let filled = |dims: &[i64]| {
        let nodes = [node("ConstantOfShape", &["s"], &["c"], &[]), node("Add", &["x", "c"], &["y"], &[])];
        with(&[1], &nodes, &[shape(dims)])
    };
    accepts(&filled(&[10, 10]));
    accepts(&filled(&[]));
    refuses(&filled(&[1 << 20, 1 << 20]), "model.generated-size");
    refuses(&filled(&[1 << 29]), "model.generated-size");
    refuses(&filled(&[0, i64::MAX, i64::MAX]), "model.generated-size");
    refuses(&filled(&[-1]), "model.shape");
    refuses(&one(&[1], "Expand", &["x", "s"], &[], &[shape(&[1 << 20, 1 << 20])]), "model.generated-size");
    refuses(&one(&[1, 1], "Tile", &["x", "s"], &[], &[shape(&[1 << 20, 1 << 20])]), "model.generated-size");
    refuses(&one(&[1 << 10, 1 << 10], "Tile", &["x", "s"], &[], &[shape(&[1 << 10, 1 << 10])]), "model.generated-size");
    refuses(&one(&[1, 1], "Tile", &["x", "s"], &[], &[shape(&[-1, 1])]), "model.shape");
    refuses(&one(&[1], "Pad", &["x", "s"], &[], &[shape(&[1 << 40, 0])]), "model.generated-size");
    refuses(&one(&[1], "Pad", &["x", "s"], &[], &[shape(&[1 << 30, 1 << 30])]), "model.generated-size");
    refuses(&one(&[1], "Pad", &["x", "s"], &[], &[shape(&[-1, -1])]), "model.shape");
    refuses(&one(&[1], "Pad", &["x", "s"], &[], &[shape(&[1])]), "model.shape");
    let depth = i64s("d", &[], &[1 << 40]);
    refuses(&one(&[4], "OneHot", &["x", "d", "v"], &[], &[depth, zeros("v", &[2])]), "model.generated-size");
    let random = [ints("shape", &[1 << 20, 1 << 20])];
    refuses(&one(&[4], "RandomNormal", &[], &random, &[]), "model.generated-size");
}

#[test]
fn ranges() {
    let with = |start: i64, limit: i64, delta: i64| {
        let scalars = [i64s("a", &[], &[start]), i64s("b", &[], &[limit]), i64s("c", &[], &[delta])];
        one(&[4], "Range", &["a", "b", "c"], &[], &scalars)
    };
    accepts(&with(0, 10, 1));
    accepts(&with(10, 0, 1));
    refuses(&with(0, 10, 0), "model.generated-size");
    refuses(&with(0, 1 << 40, 1), "model.generated-size");
    refuses(&with(i64::MIN, i64::MAX, 1), "model.generated-size");
    let nan = [f32s("a", &[], &[0.0]), f32s("b", &[], &[f32::NAN]), f32s("c", &[], &[1.0])];
    refuses(&one(&[4], "Range", &["a", "b", "c"], &[], &nan), "model.generated-size");
}

#[test]
fn sizes_that_grow_over_several_nodes() {
    let repeats = i64s("r", &[2], &[1 << 10, 1 << 10]);
    let nodes = [
        node("Tile", &["one", "r"], &["a"], &[]),
        node("Tile", &["a", "r"], &["b"], &[]),
        node("Add", &["x", "b"], &["y"], &[]),
    ];
    refuses(&with(&[1], &nodes, &[repeats, zeros("one", &[1, 1])]), "model.generated-size");
    // The outer product of two vectors.
    let vectors = [zeros("u", &[1 << 16, 1]), zeros("v", &[1, 1 << 16])];
    for op in ["Mul", "MatMul"] {
        let nodes = [node(op, &["u", "v"], &["p"], &[]), node("Add", &["x", "p"], &["y"], &[])];
        refuses(&with(&[1], &nodes, &vectors), "model.generated-size");
    }
    // Each is within the limits, but their sum is not.
    let mut nodes: Vec<_> = (0..100).map(|i| node("ConstantOfShape", &["s"], &[&format!("c{i}")], &[])).collect();
    nodes.push(node("Relu", &["x"], &["y"], &[]));
    refuses(&with(&[1], &nodes, &[i64s("s", &[1], &[1 << 24])]), "model.generated-size");
}

#[test]
fn resizes() {
    let by = |scales: &[f32]| {
        one(&[1, 3, 8, 8], "Resize", &["x", "", "s"], &[], &[f32s("s", &[scales.len() as i64], scales)])
    };
    let to = |sizes: &[i64]| {
        one(&[1, 3, 8, 8], "Resize", &["x", "", "", "s"], &[], &[i64s("s", &[sizes.len() as i64], sizes)])
    };
    accepts(&by(&[1.0, 1.0, 2.0, 0.5]));
    accepts(&to(&[1, 3, 16, 16]));
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30] {
        refuses(&by(&[1.0, 1.0, scale, 1.0]), "model.shape");
    }
    refuses(&by(&[1.0, 1.0]), "model.shape");
    refuses(&by(&[1.0, 1.0, 1e6, 1e6]), "model.generated-size");
    refuses(&to(&[1, 3, 0, 16]), "model.shape");
    refuses(&to(&[1, 3, -16, 16]), "model.shape");
    refuses(&to(&[1, 3, 1 << 20, 1 << 20]), "model.generated-size");
}

#[test]
fn divisions() {
    let by = |divisors: &[i64]| {
        let inputs = [value("x", INT64, &[2])];
        let nodes = [node("Div", &["x", "d"], &["y"], &[])];
        model(&graph(&nodes, &[i64s("d", &[divisors.len() as i64], divisors)], &inputs, &[message().text(1, "y")]))
    };
    accepts(&by(&[1, -1]));
    refuses(&by(&[1, 0]), "model.division");
    accepts(&one(&[2], "Div", &["x", "d"], &[], &[f32s("d", &[1], &[0.0])]));
    let least = [i64s("a", &[1], &[i64::MIN]), i64s("b", &[1], &[-1])];
    refuses(&one(&[1], "Div", &["a", "b"], &[], &least), "model.division");
    refuses(&one(&[1], "Mod", &["a", "b"], &[], &[i64s("a", &[1], &[1]), i64s("b", &[1], &[0])]), "model.division");
}

#[test]
fn quantization() {
    let with = |scales: &[f32], zeros: usize, attributes: &[Message]| {
        let scale = f32s("s", &[scales.len() as i64], scales);
        let zero_point = head("z", 2, &[zeros as i64]).bytes(9, &vec![128; zeros]);
        one(&[1, 3, 8, 8], "QuantizeLinear", &["x", "s", "z"], attributes, &[scale, zero_point])
    };
    accepts(&with(&[0.1; 3], 3, &[]));
    accepts(&with(&[0.1; 8], 8, &[int("axis", -1)]));
    accepts(&with(&[0.1], 1, &[]));
    for scale in [0.0, -0.1, f32::NAN, f32::INFINITY] {
        refuses(&with(&[0.1, 0.1, scale], 3, &[]), "model.quantization");
    }
    refuses(&with(&[0.1; 4], 4, &[]), "model.quantization");
    refuses(&with(&[0.1; 3], 2, &[]), "model.quantization");
    refuses(&with(&[0.1; 3], 3, &[int("axis", 4)]), "model.index");
}

#[test]
fn casts_normalization_and_equations() {
    refuses(&one(&[1], "Cast", &["x"], &[int("to", 99)], &[]), "model.data-type");
    refuses(&one(&[1], "Cast", &["x"], &[], &[]), "model.attribute");
    accepts(&one(&[1], "Cast", &["x"], &[int("to", 10)], &[]));
    let norm = |lengths: [i64; 4]| {
        let [s, b, m, v] = lengths;
        let parts = [zeros("s", &[s]), zeros("b", &[b]), zeros("m", &[m]), zeros("v", &[v])];
        one(&[1, 3, 4, 4], "BatchNormalization", &["x", "s", "b", "m", "v"], &[], &parts)
    };
    accepts(&norm([3; 4]));
    refuses(&norm([3, 3, 3, 2]), "model.shape");
    refuses(&norm([4; 4]), "model.shape");
    accepts(&one(&[2, 2], "Einsum", &["x"], &[text("equation", "ii->i")], &[]));
    refuses(&one(&[2, 2], "Einsum", &["x"], &[text("equation", &"i".repeat(5000))], &[]), "model.attribute");
    let upsample = node("Upsample", &["x"], &["y"], &[floats("scales", &[1.0, 0.0])]);
    let graph = graph(&[upsample], &[], &[value("x", FLOAT, &[2, 2])], &[message().text(1, "y")]);
    refuses(&message().int(1, 8).nested(7, &graph).nested(8, &opset("", 8)).0, "model.shape");
}

#[test]
fn constants_are_seen_through_identities() {
    let shape = message().text(1, "value").nested(5, &i64s("", &[2], &[1 << 20, 1 << 20])).int(20, 4);
    let nodes = [
        node("Constant", &[], &["a"], &[shape]),
        node("Identity", &["a"], &["b"], &[]),
        node("Expand", &["x", "b"], &["y"], &[]),
    ];
    refuses(&with(&[1], &nodes, &[]), "model.generated-size");
}

#[test]
fn experts() {
    let with = |k: i64| {
        let nodes = [node("MoE", &["x", "p", "w"], &["y"], &[int("k", k)]).text(7, "com.microsoft")];
        let initializers = [zeros("w", &[4, 2, 2]), zeros("p", &[2, 4])];
        let graph = graph(&nodes, &initializers, &[value("x", FLOAT, &[2, 2])], &[message().text(1, "y")]);
        message().int(1, 8).nested(7, &graph).nested(8, &opset("", 17)).nested(8, &opset("com.microsoft", 1)).0
    };
    accepts(&with(4));
    refuses(&with(5), "model.attribute");
    refuses(&with(0), "model.attribute");
}

#[test]
fn attributes_belong_to_their_opset() {
    let with = |op: &str, attributes: &[Message], version: i64| {
        let nodes = [node(op, &["x"], &["y"], attributes)];
        let graph = graph(&nodes, &[], &[value("x", FLOAT, &[1, 2, 3, 3])], &[message().text(1, "y")]);
        message().int(1, 8).nested(7, &graph).nested(8, &opset("", version)).0
    };
    let pool = |name: &str, values: &[i64]| [ints("kernel_shape", &[2, 2]), ints(name, values)];
    accepts(&with("AveragePool", &pool("dilations", &[2, 2]), 19));
    refuses(&with("AveragePool", &pool("dilations", &[2, 2]), 18), "model.attribute");
    refuses(&with("Squeeze", &[ints("axes", &[0])], 13), "model.attribute");
    accepts(&with("Squeeze", &[ints("axes", &[0])], 12));
    refuses(&with("Relu", &[float("alpha", 0.1)], 13), "model.attribute");
    refuses(&with("LeakyRelu", &[float("alhpa", 0.1)], 13), "model.attribute");
    // Notes of tools.
    accepts(&with("Relu", &[float("__alpha", 0.1)], 13));
}

#[test]
fn a_node_has_so_many_inputs() {
    let most = Limits::default().max_operands;
    let concat = |count: usize| one(&[1], "Concat", &vec!["x"; count], &[int("axis", 0)], &[]);
    accepts(&concat(most));
    refuses(&concat(most + 1), "model.limit");
}

#[test]
fn a_mel_matrix_is_no_larger_than_a_tensor() {
    let with = |bins: i64, transform: i64| {
        let constants = [i64s("b", &[], &[bins]), i64s("t", &[], &[transform]), i64s("r", &[], &[16_000])];
        let edges = [f32s("l", &[], &[0.0]), f32s("u", &[], &[8_000.0])];
        one(&[1], "MelWeightMatrix", &["b", "t", "r", "l", "u"], &[], &[&constants[..], &edges].concat())
    };
    accepts(&with(80, 512));
    for (bins, transform) in [(1 << 40, 512), (80, 1 << 40), (1 << 20, 1 << 20)] {
        refuses(&with(bins, transform), "model.generated-size");
    }
    refuses(&with(-1, 512), "model.shape");
}

/// Nodes that depend only on constants are computed while the model is loaded.
#[test]
fn work_on_constants_has_a_bound() {
    let pool = |size: i64| {
        let kernel = [ints("kernel_shape", &[size, size]), ints("pads", &[size / 2; 4])];
        let nodes = [node("MaxPool", &["c"], &["p"], &kernel), node("Add", &["x", "p"], &["y"], &[])];
        with(&[1], &nodes, &[zeros("c", &[1, 1, 64, 64])])
    };
    accepts(&pool(64));
    refuses(&pool(4096), "model.generated-size");
    let product = |size: i64| {
        let nodes = [node("MatMul", &["a", "a"], &["p"], &[]), node("Add", &["x", "p"], &["y"], &[])];
        with(&[1], &nodes, &[zeros("a", &[size, size])])
    };
    accepts(&product(128));
    refuses(&product(2048), "model.generated-size");
}

/// Operators of the fallback whose result sizes depend on data: the largest possible size is limited.
#[test]
fn results_that_depend_on_data_are_bounded() {
    accepts(&one(&[1, 3, 8, 8], "GridSample", &["x", "g"], &[], &[zeros("g", &[1, 4, 4, 2])]));
    refuses(&one(&[1, 3, 8, 8], "GridSample", &["x", "g"], &[], &[zeros("g", &[1, 4, 4, 3])]), "model.shape");
    refuses(&one(&[1, 3, 8, 8], "GridSample", &["x", "g"], &[], &[zeros("g", &[2, 4, 4, 2])]), "model.shape");
    let transform = |length: i64| one(&[1, 64, 1], "DFT", &["x", "n"], &[], &[i64s("n", &[], &[length])]);
    accepts(&transform(128));
    refuses(&transform(0), "model.shape");
    refuses(&transform(1 << 40), "model.generated-size");
    accepts(&one(&[4, 4], "NonZero", &["x"], &[], &[]));
    refuses(&one(&[1 << 14, 1 << 13, 2], "NonZero", &["x"], &[], &[]), "model.generated-size");
}

/// Detectors compare thousands of boxes for every class, but keep few; nothing else may take as long.
#[test]
fn boxes_are_compared_with_those_that_may_be_kept() {
    let select = |count: i64, classes: i64, most: i64| {
        let inputs = [value("x", FLOAT, &[1, count, 4]), value("s", FLOAT, &[1, classes, count])];
        let node = node("NonMaxSuppression", &["x", "s", "m"], &["y"], &[]);
        model(&graph(&[node], &[i64s("m", &[1], &[most])], &inputs, &[message().text(1, "y")]))
    };
    accepts(&select(8, 1, 8));
    refuses(&one(&[1, 8, 4], "NonMaxSuppression", &["x", "s"], &[], &[zeros("s", &[1, 1, 9])]), "model.shape");
    // YOLOv8 and YOLOv5, with the number of boxes that exporters write, and with any.
    for (count, classes) in [(8400, 80), (25_200, 80)] {
        accepts(&select(count, classes, 300));
        accepts(&select(count, classes, i64::MAX));
    }
    // What is found does not fit memory, unless few are kept.
    refuses(&select(25_200, 1000, i64::MAX), "model.generated-size");
    accepts(&select(25_200, 1000, 100));
    // While loading, less work is done than in a run.
    let folded = |count: i64, most: i64| {
        let held = [zeros("b", &[1, count, 4]), zeros("s", &[1, 1, count]), i64s("m", &[1], &[most])];
        let found = node("NonMaxSuppression", &["b", "s", "m"], &["f"], &[]);
        let nodes = [found, node("Size", &["f"], &["n"], &[]), node("Relu", &["x"], &["y"], &[])];
        with(&[1], &nodes, &held)
    };
    accepts(&folded(1 << 10, i64::MAX));
    accepts(&folded(1 << 15, 16));
    refuses(&folded(1 << 15, i64::MAX), "model.generated-size");
}
