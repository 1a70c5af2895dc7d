//! Operators whose operands share named sizes: RNN, GRU, LSTM, attention, rotary embeddings.

use super::*;

/// Dimensions of `X, W, R, B, initial_h`.
type Operands = [&'static [i64]; 5];

fn recurrence(op: &str, operands: Operands, attributes: &[Message]) -> Vec<u8> {
    let [x, w, r, b, h] = operands;
    let initializers = [zeros("w", w), zeros("r", r), zeros("b", b), zeros("h", h)];
    one(x, op, &["x", "w", "r", "b", "", "h"], attributes, &initializers)
}

/// Operands for batch 2, sequence 5, input 4, hidden size 3.
fn sound_operands(op: &str) -> Operands {
    match op {
        "LSTM" => [&[5, 2, 4], &[1, 12, 4], &[1, 12, 3], &[1, 24], &[1, 2, 3]],
        "GRU" => [&[5, 2, 4], &[1, 9, 4], &[1, 9, 3], &[1, 18], &[1, 2, 3]],
        _ => [&[5, 2, 4], &[1, 3, 4], &[1, 3, 3], &[1, 6], &[1, 2, 3]],
    }
}

#[test]
fn recurrences() {
    for op in ["RNN", "GRU", "LSTM"] {
        let sound = sound_operands(op);
        accepts(&recurrence(op, sound, &[]));
        accepts(&recurrence(op, sound, &[int("hidden_size", 3), text("direction", "forward")]));
        refuses(&recurrence(op, sound, &[int("hidden_size", 4)]), "model.shape");
        refuses(&recurrence(op, sound, &[text("direction", "bidirectional")]), "model.shape");
        refuses(&recurrence(op, sound, &[text("direction", "sideways")]), "model.attribute");
        refuses(&recurrence(op, sound, &[int("layout", 1)]), "model.shape");
        for changed in 0..5 {
            for axis in 0..sound[changed].len() {
                // The sequence length may be any size.
                if (changed, axis) == (0, 0) {
                    continue;
                }
                let mut dims = sound[changed].to_vec();
                dims[axis] += 1;
                let mut operands = sound;
                operands[changed] = dims.leak();
                refuses(&recurrence(op, operands, &[]), "model.shape");
            }
            let mut operands = sound;
            operands[changed] = &[2];
            refuses(&recurrence(op, operands, &[]), "model.shape");
        }
    }
}

#[test]
fn a_bidirectional_recurrence_has_weights_for_both_directions() {
    let both: Operands = [&[5, 2, 4], &[2, 12, 4], &[2, 12, 3], &[2, 24], &[2, 2, 3]];
    accepts(&recurrence("LSTM", both, &[text("direction", "bidirectional")]));
    refuses(&recurrence("LSTM", both, &[]), "model.shape");
    let batch_first: Operands = [&[2, 5, 4], &[2, 12, 4], &[2, 12, 3], &[2, 24], &[2, 2, 3]];
    accepts(&recurrence("LSTM", batch_first, &[text("direction", "bidirectional"), int("layout", 1)]));
}

#[test]
fn an_lstm_has_cells_and_peepholes_of_its_hidden_size() {
    let with = |lengths: [i64; 2], cells: &[i64], peepholes: &[i64]| {
        let initializers = [
            zeros("w", &[1, 12, 4]),
            zeros("r", &[1, 12, 3]),
            head("l", INT32, &[2]).bytes(9, &lengths.map(|length| (length as i32).to_le_bytes()).concat()),
            zeros("c", cells),
            zeros("p", peepholes),
        ];
        one(&[5, 2, 4], "LSTM", &["x", "w", "r", "", "l", "", "c", "p"], &[], &initializers)
    };
    accepts(&with([5, 3], &[1, 2, 3], &[1, 9]));
    refuses(&with([5, 6], &[1, 2, 3], &[1, 9]), "model.index");
    refuses(&with([-1, 5], &[1, 2, 3], &[1, 9]), "model.index");
    refuses(&with([5, 3], &[1, 2, 4], &[1, 9]), "model.shape");
    refuses(&with([5, 3], &[1, 2, 3], &[1, 12]), "model.shape");
}

#[test]
fn recurrences_of_several_types_and_functions() {
    let doubles = head("w", 11, &[1, 3, 4]).bytes(9, &[0; 96]);
    let initializers = [doubles, zeros("r", &[1, 3, 3])];
    refuses(&one(&[5, 2, 4], "RNN", &["x", "w", "r"], &[], &initializers), "model.data-type");
    let functions = |names: &[&str]| {
        let names = names.iter().fold(message().text(1, "activations"), |message, name| message.text(9, name));
        recurrence("GRU", sound_operands("GRU"), &[names.int(20, 8)])
    };
    accepts(&functions(&["Sigmoid", "tanh"]));
    refuses(&functions(&["Sigmoid"]), "model.attribute");
    refuses(&functions(&["Sigmoid", "Frobnicate"]), "model.attribute");
}

fn opset_23(nodes: &[Message], inputs: &[Message], initializers: &[Message]) -> Vec<u8> {
    let graph = graph(nodes, initializers, inputs, &[message().text(1, "y")]);
    message().int(1, 10).nested(7, &graph).nested(8, &opset("", 23)).nested(8, &opset("com.microsoft", 1)).0
}

/// Attention with `q, k, v`, and with a mask, past keys and past values if dimensions are given.
fn attend(operands: &[&[i64]], attributes: &[Message]) -> Vec<u8> {
    let names = ["q", "k", "v", "m", "pk", "pv"];
    let inputs: Vec<_> = names.iter().zip(operands).map(|(name, dims)| value(name, FLOAT, dims)).collect();
    opset_23(&[node("Attention", &names[..operands.len()], &["y"], attributes)], &inputs, &[])
}

#[test]
fn attention() {
    let [q, k, v]: [&[i64]; 3] = [&[2, 4, 3, 8], &[2, 2, 5, 8], &[2, 2, 5, 6]];
    accepts(&attend(&[q, k, v], &[]));
    for (k, v) in [
        (&[2, 2, 5, 9], v),
        (&[2, 2, 6, 8], v),
        (&[1, 2, 5, 8], v),
        (k, &[2, 2, 6, 6]),
        (k, &[2, 1, 5, 6]),
        (&[2, 3, 5, 8], &[2, 3, 5, 6]),
        (&[2, 0, 5, 8], &[2, 0, 5, 6]),
        (&[2, 5, 8], v),
    ] as [(&[i64], &[i64]); 8]
    {
        refuses(&attend(&[q, k, v], &[]), "model.shape");
    }
    let [pk, pv]: [&[i64]; 2] = [&[2, 2, 7, 8], &[2, 2, 7, 6]];
    accepts(&attend(&[q, k, v, &[3, 12], pk, pv], &[]));
    accepts(&attend(&[q, k, v, &[2, 1, 1, 12], pk, pv], &[]));
    refuses(&attend(&[q, k, v, &[3, 11], pk, pv], &[]), "model.shape");
    refuses(&attend(&[q, k, v, &[3, 12], pk, &[2, 2, 6, 6]], &[]), "model.shape");
    refuses(&attend(&[q, k, v, &[3, 12], &[2, 2, 7, 9], pv], &[]), "model.shape");
    refuses(&attend(&[q, k, v, &[3, 12], pk], &[]), "model.arity");
    let long: &[i64] = &[1, 1, 1 << 20, 1];
    refuses(&attend(&[long, long, long], &[]), "model.generated-size");
}

#[test]
fn attention_of_heads_side_by_side() {
    let [q, k, v]: [&[i64]; 3] = [&[2, 3, 32], &[2, 5, 16], &[2, 5, 12]];
    let heads = |queries, keys| [int("q_num_heads", queries), int("kv_num_heads", keys)];
    accepts(&attend(&[q, k, v], &heads(4, 2)));
    refuses(&attend(&[q, k, v], &heads(4, 4)), "model.shape");
    refuses(&attend(&[q, k, v], &heads(5, 2)), "model.shape");
    refuses(&attend(&[q, k, v], &heads(0, 2)), "model.attribute");
    refuses(&attend(&[q, k, v], &[]), "model.attribute");
    let contrib = |dims: [&[i64]; 3], heads: i64| {
        let inputs: Vec<_> = ["q", "k", "v"].iter().zip(dims).map(|(name, dims)| value(name, FLOAT, dims)).collect();
        let node = node("MultiHeadAttention", &["q", "k", "v"], &["y"], &[int("num_heads", heads)]);
        opset_23(&[node.text(7, "com.microsoft")], &inputs, &[])
    };
    accepts(&contrib([&[2, 3, 32], &[2, 5, 32], &[2, 5, 16]], 4));
    refuses(&contrib([&[2, 3, 32], &[2, 5, 16], &[2, 5, 16]], 4), "model.shape");
    refuses(&contrib([&[2, 3, 32], &[2, 5, 32], &[2, 6, 16]], 4), "model.shape");
    refuses(&contrib([&[2, 3, 32], &[2, 5, 32], &[2, 5, 16]], 3), "model.shape");
    // In com.microsoft, operand 3 is a bias, not a mask.
    let biased = node("MultiHeadAttention", &["q", "q", "q", "b"], &["y"], &[int("num_heads", 4)]);
    let biased = biased.text(7, "com.microsoft");
    accepts(&opset_23(&[biased], &[value("q", FLOAT, &[2, 3, 32])], &[zeros("b", &[96])]));
}

#[test]
fn rotary_embeddings() {
    let positions = |most: i64| i64s("p", &[2, 3], &[0, 1, 2, 0, 1, most]);
    let with = |x: &[i64], cos: &[i64], sin: &[i64], most: i64, attributes: &[Message]| {
        let inputs = [value("x", FLOAT, x)];
        let initializers = [zeros("c", cos), zeros("s", sin), positions(most)];
        opset_23(&[node("RotaryEmbedding", &["x", "c", "s", "p"], &["y"], attributes)], &inputs, &initializers)
    };
    let x: &[i64] = &[2, 4, 3, 8];
    accepts(&with(x, &[10, 4], &[10, 4], 9, &[]));
    accepts(&with(x, &[10, 2], &[10, 2], 9, &[int("rotary_embedding_dim", 4)]));
    accepts(&with(&[2, 3, 32], &[10, 4], &[10, 4], 9, &[int("num_heads", 4)]));
    refuses(&with(x, &[10, 4], &[10, 4], 10, &[]), "model.index");
    refuses(&with(x, &[10, 4], &[10, 4], -1, &[]), "model.index");
    refuses(&with(x, &[10, 4], &[9, 4], 8, &[]), "model.shape");
    refuses(&with(x, &[10, 4], &[10, 1], 9, &[]), "model.shape");
    refuses(&with(x, &[10, 8], &[10, 8], 9, &[]), "model.shape");
    refuses(&with(x, &[10, 4], &[10, 4], 9, &[int("rotary_embedding_dim", 6)]), "model.shape");
    refuses(&with(x, &[10, 5], &[10, 5], 9, &[int("rotary_embedding_dim", 10)]), "model.shape");
    refuses(&with(&[2, 4, 3, 7], &[10, 3], &[10, 3], 9, &[]), "model.shape");
    refuses(&with(&[2, 3, 32], &[10, 4], &[10, 4], 9, &[]), "model.attribute");
    let whole = |cos: &[i64], sin: &[i64]| {
        let node = node("RotaryEmbedding", &["x", "c", "s"], &["y"], &[]);
        opset_23(&[node], &[value("x", FLOAT, &[2, 4, 3, 8])], &[zeros("c", cos), zeros("s", sin)])
    };
    accepts(&whole(&[2, 3, 4], &[2, 3, 4]));
    refuses(&whole(&[2, 3, 4], &[2, 1, 4]), "model.shape");
    refuses(&whole(&[10, 4], &[10, 4]), "model.shape");
    let contrib = |positions: &[i64], sin: &[i64]| {
        let node = node("RotaryEmbedding", &["x", "p", "c", "s"], &["y"], &[]).text(7, "com.microsoft");
        let count = positions.iter().product::<i64>() as usize;
        let initializers = [i64s("p", positions, &vec![0; count]), zeros("c", &[10, 4]), zeros("s", sin)];
        opset_23(&[node], &[value("x", FLOAT, &[2, 4, 3, 8])], &initializers)
    };
    accepts(&contrib(&[2, 3], &[10, 4]));
    refuses(&contrib(&[2, 3], &[10, 3]), "model.shape");
    // One position is that of the first row; as many as there are rows are not.
    accepts(&contrib(&[1], &[10, 4]));
    refuses(&contrib(&[3], &[10, 4]), "model.shape");
}
