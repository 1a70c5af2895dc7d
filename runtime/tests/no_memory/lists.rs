//! A model of many small parts: nodes, values, texts and outputs, in branches, loops and functions too.

use skipstone_onnx::write::{
    FLOAT, INT64, Message, body, f32s, i64s, int, ints, model_with, named, node, opset, tensor, value,
};

use super::{BOOL, UINT8, weights};

/// Dimensions of every image.
const DIMS: [i64; 4] = [1, 8, 2, 2];
/// Constants that nodes read.
const CONSTANTS: usize = 96;

/// The file.
pub fn file() -> Vec<u8> {
    let mut main = Chain::new("main", "x");
    main.elementwise(220);
    main.convolutions(12);
    main.quantized(4);
    main.turned(6);
    main.split();
    let before = main.last.clone();
    main.nodes.push(node("ReduceSum", &[&before], &["sum"], &[int("keepdims", 0)]));
    main.nodes.push(node("Greater", &["sum", "zero"], &["positive"], &[]));
    let branches = [body("then_branch", &branch("then", &before)), body("else_branch", &branch("else", &before))];
    main.nodes.push(node("If", &["positive"], &["taken"], &branches));
    main.nodes.push(node("Loop", &["three", "true", "taken"], &["carried", "all"], &[body("body", &iteration())]));
    main.nodes.push(node("Called", &["carried"], &["called"], &[]).text(7, "local"));
    main.nodes.push(node("Called", &["called"], &["again"], &[]).text(7, "local"));
    main.last = "again".into();
    main.elementwise(100);

    let small = (0..CONSTANTS).map(|at| f32s(&format!("c{at}"), &[8, 1, 1], &[0.5 + at as f32 / 128.0; 8]));
    let filters = (0..12).map(|at| weights(&format!("w{at}"), &[8, 8, 1, 1]));
    let others = [
        f32s("zero", &[], &[0.0]),
        i64s("three", &[], &[3]),
        tensor("true", BOOL, &[], &[1]),
        f32s("scale", &[], &[0.05]),
        tensor("origin", UINT8, &[], &[128]),
        i64s("parts", &[8], &[1; 8]),
    ];
    let initializers: Vec<Message> = small.chain(filters).chain(others).collect();
    let outputs = (0..80).map(|at| named(&format!("main.{}", 2 * at))).chain([named(&main.last), named("all")]);
    let outputs: Vec<Message> = outputs.collect();
    let graph = Message::new()
        .all(1, &main.nodes)
        .text(2, "g")
        .all(5, &initializers)
        .nested(11, &value("x", FLOAT, &DIMS))
        .all(12, &outputs);
    let texts = (0..100).map(|at| Message::new().text(1, &format!("key {at}")).text(2, "text"));
    let model = Message::of(&model_with(&graph, &[opset("", 18), opset("local", 1)]));
    texts.fold(model.nested(25, &function()), |model, text| model.nested(14, &text)).into_bytes()
}

/// A function of its input.
fn function() -> Message {
    let mut chain = Chain::new("inner", "given");
    chain.activations(80);
    let head = Message::new().text(1, "Called").text(4, "given").text(5, &chain.last);
    head.all(7, &chain.nodes).nested(9, &opset("", 18)).text(10, "local")
}

/// A branch that reads `from`, a value outside.
fn branch(name: &str, from: &str) -> Message {
    let mut chain = Chain::new(name, from);
    chain.elementwise(150);
    let graph = Message::new().all(1, &chain.nodes).text(2, name);
    graph.nested(12, &value(&chain.last, FLOAT, &DIMS))
}

/// The body of a loop with a carried value, which is also collected.
fn iteration() -> Message {
    let mut chain = Chain::new("iteration", "state");
    chain.elementwise(150);
    chain.nodes.push(node("Identity", &["go"], &["on"], &[]));
    chain.nodes.push(node("Relu", &[&chain.last], &["kept"], &[]));
    let inputs = [value("at", INT64, &[]), value("go", BOOL, &[]), value("state", FLOAT, &DIMS)];
    let outputs = [value("on", BOOL, &[]), value(&chain.last, FLOAT, &DIMS), value("kept", FLOAT, &DIMS)];
    Message::new().all(1, &chain.nodes).text(2, "iteration").all(11, &inputs).all(12, &outputs)
}

/// Nodes that each read the result of the one before.
struct Chain {
    name: String,
    nodes: Vec<Message>,
    last: String,
}

impl Chain {
    fn new(name: &str, from: &str) -> Self {
        Self { name: name.to_owned(), nodes: Vec::new(), last: from.to_owned() }
    }

    fn add(&mut self, op: &str, beside: &[&str], attributes: &[Message]) {
        let result = format!("{}.{}", self.name, self.nodes.len());
        let inputs: Vec<&str> = [self.last.as_str()].into_iter().chain(beside.iter().copied()).collect();
        self.nodes.push(node(op, &inputs, &[&result], attributes));
        self.last = result;
    }

    fn activations(&mut self, count: usize) {
        (0..count).for_each(|at| self.add(["Tanh", "Sigmoid", "Softsign"][at % 3], &[], &[]));
    }

    /// Functions of two operands, of which one is a constant, and of one.
    fn elementwise(&mut self, count: usize) {
        for at in 0..count {
            match at % 4 {
                0 => self.add("Add", &[&format!("c{}", at % CONSTANTS)], &[]),
                1 => self.add("Tanh", &[], &[]),
                2 => self.add("Mul", &[&format!("c{}", at % CONSTANTS)], &[]),
                _ => self.add("Sigmoid", &[], &[]),
            }
        }
    }

    fn convolutions(&mut self, count: usize) {
        for at in 0..count {
            self.add("Conv", &[&format!("w{at}")], &[]);
            self.add("Relu", &[], &[]);
        }
    }

    fn quantized(&mut self, count: usize) {
        for _ in 0..count {
            self.add("QuantizeLinear", &["scale", "origin"], &[]);
            self.add("DequantizeLinear", &["scale", "origin"], &[]);
            self.add("Tanh", &[], &[]);
        }
    }

    fn turned(&mut self, count: usize) {
        for _ in 0..count {
            self.add("Transpose", &[], &[ints("perm", &[0, 2, 3, 1])]);
            self.add("Softmax", &[], &[]);
            self.add("Transpose", &[], &[ints("perm", &[0, 3, 1, 2])]);
        }
    }

    fn split(&mut self) {
        let parts: Vec<String> = (0..8).map(|at| format!("part {at}")).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let last = self.last.clone();
        self.nodes.push(node("Split", &[&last, "parts"], &parts, &[int("axis", 1)]));
        self.nodes.push(node("Concat", &parts, &["whole"], &[int("axis", 1)]));
        self.last = "whole".into();
    }
}
