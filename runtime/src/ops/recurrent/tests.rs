use skipstone_kernels::Isa;

use super::*;
use crate::ops::check::{Random, assert_close, check, check_fails, planned, single};
use crate::tensor::Tensor;

fn activation(activation: Activation) -> Gate {
    Gate::Activation(activation)
}

fn default(cell: Cell) -> Vec<Gate> {
    let (sigmoid, tanh) = (activation(Activation::Sigmoid), activation(Activation::Tanh));
    match cell {
        Cell::Rnn => vec![tanh],
        Cell::Gru(_) => vec![sigmoid, tanh],
        Cell::Lstm(_) => vec![sigmoid, tanh, tanh],
    }
}

/// Operands of a layer; `fill` makes a tensor for the n-th operand, in ONNX's order.
fn operands(
    op: &Recurrent,
    [steps, batch, inputs, size]: [usize; 4],
    lens: &[i32],
    mut fill: impl FnMut(usize, &[usize]) -> Tensor,
) -> Vec<Tensor> {
    let directions = if op.direction == Direction::Both { 2 } else { 1 };
    let rows = op.cell.gates() * size;
    let s = RecurrentSizes { steps, batch, inputs, hidden: size, directions };
    let x = if op.batch_first { [batch, steps, inputs] } else { [steps, batch, inputs] };
    let mut operands = vec![fill(1, &x), fill(2, &[directions, rows, inputs]), fill(3, &[directions, rows, size])];
    let Given { bias, lens: has_lens, hidden, cell, peepholes } = op.given;
    operands.extend(bias.then(|| fill(4, &[directions, 2 * rows])));
    operands.extend(has_lens.then(|| Tensor::from_slice(&[batch], lens).unwrap()));
    operands.extend(hidden.then(|| fill(5, &op.state(&s))));
    operands.extend(cell.then(|| fill(6, &op.state(&s))));
    operands.extend(peepholes.then(|| fill(7, &[directions, 3 * size])));
    operands
}

fn given(bits: usize, cell: Cell) -> Given {
    let lstm = matches!(cell, Cell::Lstm(_));
    let bit = |n: usize| bits >> n & 1 == 1;
    Given { bias: bit(0), lens: bit(1), hidden: bit(2), cell: bit(3) && lstm, peepholes: bit(4) && lstm }
}

#[test]
fn every_form_agrees_with_the_definition() {
    let mut random = Random(43);
    let cells = [Cell::Rnn, Cell::Gru(false), Cell::Gru(true), Cell::Lstm(false), Cell::Lstm(true)];
    for (case, cell) in (0..30).map(|case| (case, cells[case % 5])) {
        let direction = random.pick(&[Direction::Forward, Direction::Reverse, Direction::Both]);
        let directions = if direction == Direction::Both { 2 } else { 1 };
        let mut functions = default(cell).repeat(directions);
        if case % 3 == 0 {
            functions[0] = activation(Activation::HardSigmoid { alpha: 0.3, beta: 0.4 });
        }
        let op = Recurrent {
            cell,
            direction,
            functions,
            clip: random.pick(&[None, Some(0.7)]),
            batch_first: random.below(2) == 1,
            given: given(random.below(32), cell),
        };
        let sizes = [random.pick(&[1, 2, 5]), random.pick(&[1, 3]), random.pick(&[1, 3, 8]), random.pick(&[1, 4, 17])];
        let lens: Vec<i32> = (0..sizes[1]).map(|_| random.below(sizes[0] + 1) as i32).collect();
        // Small, so that steps do not amplify rounding differences.
        let mut small = |dims: &[usize]| {
            let values: Vec<f32> = random.floats(dims).elements().unwrap().iter().map(|v: &f32| v / 8.0).collect();
            Tensor::from_slice(dims, &values).unwrap()
        };
        let inputs = operands(&op, sizes, &lens, |_, dims| small(dims));
        let want = check(op.clone(), &inputs, 2e-5);
        let rest: Vec<Tensor> = [&inputs[..1], &inputs[3..]].concat();
        let graph = single(op, &inputs, &[1, 2]);
        for isa in Isa::available() {
            for (got, want) in planned(&graph, isa, &rest).unwrap().iter().zip(&want) {
                assert_close(got, want, 2e-5, "with constant weights");
            }
        }
    }
}

#[test]
fn empty_operands_give_empty_results() {
    let op = Recurrent {
        cell: Cell::Lstm(false),
        direction: Direction::Both,
        functions: default(Cell::Lstm(false)).repeat(2),
        clip: None,
        batch_first: false,
        given: given(0b1101, Cell::Lstm(false)),
    };
    for sizes in [[0, 2, 3, 4], [3, 0, 3, 4], [3, 2, 0, 4], [1 << 40, 0, 3, 4]] {
        check(op.clone(), &operands(&op, sizes, &[], |_, dims| Random(44).floats(dims)), 1e-6);
    }
}

/// The elements of the script that ran ONNX Runtime.
fn elements(seed: usize, dims: &[usize]) -> Tensor {
    let count = dims.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 29 + seed * 17 + i * i % 13) % 64) as f32 / 32.0 - 1.0).collect();
    Tensor::from_slice(dims, &values).unwrap()
}

#[track_caller]
fn check_values(op: Recurrent, steps: usize, lens: &[i32], wanted: &[f32]) {
    let inputs = operands(&op, [steps, lens.len().max(1), 2, 2], lens, elements);
    let got = check(op, &inputs, 1e-5);
    let got: Vec<f32> = got.iter().flat_map(|t| t.elements::<f32>().unwrap().to_vec()).collect();
    let tensor = |values: &[f32]| Tensor::from_slice(&[values.len()], values).unwrap();
    assert_close(&tensor(&got), &tensor(wanted), 2e-5, "ONNX Runtime 1.32");
}

#[test]
fn an_lstm_of_two_directions_with_everything() {
    let op = Recurrent {
        cell: Cell::Lstm(false),
        direction: Direction::Both,
        functions: default(Cell::Lstm(false)).repeat(2),
        clip: Some(0.4),
        batch_first: false,
        given: given(31, Cell::Lstm(false)),
    };
    #[rustfmt::skip]
    check_values(op, 3, &[3, 1], &[
        0.120146, -0.142543, 0.103719, -0.129251, 0.0194773, 0.0668969, -0.0651594, 0.26538, 0.0442285, -0.145648,
        0.0, 0.0, 0.00156155, -0.0363474, 0.0, 0.0, -0.0121228, -0.081203, 0.0, 0.0, -0.11246, -0.173681, 0.0, 0.0,
        -0.0121228, -0.081203, 0.103719, -0.129251, 0.0194773, 0.0668969, -0.0651594, 0.26538,
        -0.0302171, -0.205175, 0.227314, -0.333955, 0.0384301, 0.134726, -0.10927, 0.615505,
    ]);
}

#[test]
fn an_lstm_with_coupled_gates_and_other_functions() {
    let op = Recurrent {
        cell: Cell::Lstm(true),
        direction: Direction::Reverse,
        functions: vec![
            activation(Activation::HardSigmoid { alpha: 0.3, beta: 0.4 }),
            Gate::Curve(Curve::Softsign),
            Gate::Curve(Curve::ScaledTanh { alpha: 1.5, beta: 0.5 }),
        ],
        clip: None,
        batch_first: false,
        given: given(1, Cell::Lstm(true)),
    };
    let wanted = [0.0161162, 0.00485029, 0.00702005, 0.00182847, 0.0161162, 0.00485029, 0.0503639, 0.0195459];
    check_values(op, 2, &[], &wanted);
}

#[test]
fn a_gru_whose_reset_gate_comes_first() {
    let op = Recurrent {
        cell: Cell::Gru(false),
        direction: Direction::Both,
        functions: default(Cell::Gru(false)).repeat(2),
        clip: Some(0.5),
        batch_first: false,
        given: given(7, Cell::Gru(false)),
    };
    #[rustfmt::skip]
    check_values(op, 3, &[3, 2], &[
        0.15787, 0.081246, 0.134273, 0.143794, -0.472665, 0.354144, -0.482908, 0.300394, 0.342112, -0.101159,
        0.316162, -0.0846481, -0.486696, 0.412973, -0.512815, 0.357035, 0.389795, -0.192476, 0.0, 0.0,
        -0.526858, 0.524601, 0.0, 0.0,
        0.389795, -0.192476, 0.316162, -0.0846481, -0.472665, 0.354144, -0.482908, 0.300394,
    ]);
}

#[test]
fn a_gru_whose_reset_gate_comes_last() {
    let op = Recurrent {
        cell: Cell::Gru(true),
        direction: Direction::Reverse,
        functions: vec![activation(Activation::Sigmoid), Gate::Curve(Curve::Selu { alpha: 0.5, gamma: 1.0 })],
        clip: None,
        batch_first: false,
        given: given(5, Cell::Gru(true)),
    };
    check_values(op, 2, &[], &[1.45415, 0.21881, 1.11849, 0.377306, 1.45415, 0.21881]);
}

#[test]
fn an_rnn_with_functions_for_each_direction() {
    let op = Recurrent {
        cell: Cell::Rnn,
        direction: Direction::Both,
        functions: vec![Gate::Curve(Curve::Affine { alpha: 0.5, beta: 0.1 }), activation(Activation::LeakyRelu(0.2))],
        clip: None,
        batch_first: false,
        given: given(7, Cell::Rnn),
    };
    #[rustfmt::skip]
    check_values(op, 3, &[2, 3], &[
        -1.29648, -0.237891, -1.36289, -0.296484, 2.8842, 0.921765, 2.84422, 0.733288, -1.37758, -0.307385,
        -1.25758, -0.195935, 1.83008, -0.0738281, 2.42053, 0.523621, 0.0, 0.0, -0.918828, 0.0752857, 0.0, 0.0,
        0.822266, -0.211914,
        -1.37758, -0.307385, -0.918828, 0.0752857, 2.8842, 0.921765, 2.84422, 0.733288,
    ]);
}

/// As in ONNX Runtime: a sequence without steps leaves zeros, not the initial state.
#[test]
fn a_sequence_without_steps_leaves_zeros() {
    let op = Recurrent {
        cell: Cell::Gru(false),
        direction: Direction::Forward,
        functions: default(Cell::Gru(false)),
        clip: None,
        batch_first: false,
        given: given(7, Cell::Gru(false)),
    };
    #[rustfmt::skip]
    check_values(op, 3, &[0, 2], &[
        0.0, 0.0, 0.611481, 0.0214961, 0.0, 0.0, 0.762647, -0.140265, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.762647, -0.140265,
    ]);
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let op = Recurrent {
        cell: Cell::Gru(false),
        direction: Direction::Forward,
        functions: default(Cell::Gru(false)),
        clip: None,
        batch_first: false,
        given: given(7, Cell::Gru(false)),
    };
    let inputs = operands(&op, [3, 2, 2, 2], &[4, 1], elements);
    check_fails(op.clone(), &inputs);
    check_fails(op.clone(), &operands(&op, [3, 2, 2, 2], &[-1, 1], elements));
    let facts: Vec<&Fact> = inputs.iter().map(Tensor::fact).collect();
    assert!(op.infer(&facts).is_ok());
    for wrong in [
        Recurrent { direction: Direction::Both, ..op.clone() },
        Recurrent { batch_first: true, ..op.clone() },
        Recurrent { clip: Some(f32::NAN), ..op.clone() },
        Recurrent { functions: vec![], ..op.clone() },
        Recurrent { cell: Cell::Rnn, ..op.clone() },
        Recurrent { given: Given { peepholes: true, bias: false, ..op.given }, ..op.clone() },
    ] {
        assert!(wrong.infer(&facts).is_err());
    }
    for index in 0..facts.len() {
        let odd = Random(45).floats(&[3, 3, 3]);
        let mut facts = facts.clone();
        facts[index] = odd.fact();
        assert!(op.infer(&facts).is_err(), "operand {index}");
    }
}
