use std::io::Write;

use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;

use crate::graph::{Graph, ValueId};
use crate::info::Info;
use crate::ops::argmax::ArgMax;
use crate::ops::check::Random;
use crate::ops::matmul::MatMul;
use crate::ops::reshape::Reshape;
use crate::ops::routed::Routed;
use crate::plan::Target;
use crate::tensor::{DType, Fact, Shape, Tensor};
use crate::{ExpertUse, Memory, Model, Options, Precision, package};

const WIDTH: usize = 32;
const EXPERTS: usize = 8;
const LAYERS: usize = 3;
/// Bytes of each expert of a product.
const EACH: u64 = 2 * WIDTH as u64 * WIDTH as u64 * 4;

/// Layers with eight experts of two products each, for tokens `[tokens, 32]`; one router for all layers, or one each.
fn network(tokens: usize, one_router: bool) -> Graph {
    let (mut graph, mut random) = (Graph::new(), Random(11));
    let shape = |dims: &[usize]| Shape::new(dims).unwrap();
    let mut x = graph.add_input("x", Fact::new(DType::F32, shape(&[tokens, WIDTH]))).unwrap();
    let mut shared = None;
    for layer in 0..LAYERS {
        let add = |graph: &mut Graph, suffix: &str, op: crate::ops::Op, inputs: &[ValueId]| {
            graph.add_node(format!("{suffix}{layer}"), op, inputs).unwrap()[0]
        };
        let indices = shared.unwrap_or_else(|| {
            let gate = graph.add_constant(format!("gate{layer}"), random.floats(&[1, WIDTH, EXPERTS])).unwrap();
            let rows = add(&mut graph, "gates", Reshape { shape: shape(&[1, tokens, WIDTH]) }.into(), &[x]);
            let product = MatMul { transposed: false, activation: Activation::None };
            let logits = add(&mut graph, "logits", product.into(), &[rows, gate]);
            let best = ArgMax { axis: 2, largest: true, last: false };
            let best = add(&mut graph, "best", best.into(), &[logits]);
            add(&mut graph, "indices", Reshape { shape: shape(&[tokens]) }.into(), &[best])
        });
        shared = one_router.then_some(indices);
        let mut rows = add(&mut graph, "rows", Reshape { shape: shape(&[tokens, 1, WIDTH]) }.into(), &[x]);
        for (name, [from, to]) in [("up", [WIDTH, 2 * WIDTH]), ("down", [2 * WIDTH, WIDTH])] {
            let matrices = graph.add_constant(format!("{name}s{layer}"), random.floats(&[EXPERTS, from, to])).unwrap();
            let op = Routed { transposed: false, has_bias: false, activation: Activation::Tanh };
            rows = add(&mut graph, name, op.into(), &[rows, indices, matrices]);
        }
        x = add(&mut graph, "x", Reshape { shape: shape(&[tokens, WIDTH]) }.into(), &[rows]);
    }
    graph.outputs.push(("y".into(), x));
    graph
}

/// A package of the network in a file.
fn packed(graph: &Graph) -> tempfile::NamedTempFile {
    let target = Target { isa: Isa::detect(), threads: 1, memory: Memory::Fast, precision: Precision::F32 };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&package::write(graph, &Info::default(), Some(target), None).unwrap()).unwrap();
    file.as_file().sync_all().unwrap();
    file
}

/// The bits of the answers of some runs, and what the experts needed for them.
fn answers(file: &tempfile::NamedTempFile, options: &Options, tokens: usize) -> (Vec<u32>, Option<ExpertUse>) {
    let model = Model::open(file.path(), options).unwrap();
    let (mut session, mut random, mut bits) = (model.session().unwrap(), Random(5), Vec::new());
    for _ in 0..12 {
        session.run(&[random.floats(&[tokens, WIDTH]).view()]).unwrap();
        bits.extend(session.output(0).unwrap().elements::<f32>().unwrap().iter().map(|value| value.to_bits()));
        if let Some(usage) = model.expert_use() {
            assert!(usage.held_bytes <= usage.budget_bytes, "{usage:?}");
        }
    }
    (bits, model.expert_use())
}

#[test]
fn answers_are_the_same_bits_with_any_budget() {
    for (tokens, one_router) in [(1, true), (1, false), (7, true), (7, false)] {
        let file = packed(&network(tokens, one_router));
        let (want, unbudgeted) = answers(&file, &Options::default(), tokens);
        assert_eq!(unbudgeted, None);
        // An expert; three of eight; all.
        for budget in [EACH, 3 * 2 * LAYERS as u64 * EACH, u64::MAX] {
            for threads in [1, 3] {
                let options = Options::default().threads(threads).expert_budget(budget);
                let (got, usage) = answers(&file, &options, tokens);
                let usage = usage.unwrap();
                assert_eq!(got, want, "{tokens} tokens, a budget of {budget}");
                // Every product uses an expert at least once a run.
                let uses = usage.hits + usage.ahead + usage.misses;
                assert!(uses >= 12 * 2 * LAYERS as u64, "{usage:?}");
                assert!(budget < u64::MAX || usage.hits == uses, "{usage:?}");
            }
        }
    }
}

#[test]
fn experts_have_pages_of_their_own_and_one_router_is_known_for_all_layers() {
    for one_router in [true, false] {
        let file = packed(&network(2, one_router));
        let model = Model::open(file.path(), &Options::default()).unwrap();
        let plan = model.plan().unwrap();
        let experts = plan.steps.iter().filter(|step| step.op.entry() == "Routed").flat_map(|step| &step.choice.packed);
        for expert in experts.clone() {
            assert_eq!((expert.len() as u64, expert.as_ptr().addr() % 4096), (EACH, 0));
        }
        assert_eq!(experts.count(), 2 * LAYERS * EXPERTS);
        let experts = super::Experts::new(plan, u64::MAX, &[]).unwrap().unwrap();
        let known: Vec<&[usize]> = experts.routings.iter().map(|it| it.layers.as_slice()).collect();
        let want: &[&[usize]] = if one_router { &[&[0, 1, 2, 3, 4, 5]] } else { &[&[0, 1], &[2, 3], &[4, 5]] };
        assert_eq!(known, want);
        for routing in &experts.routings {
            let after = routing.after.unwrap();
            assert_eq!(plan.steps[after].op.entry(), "ArgMax");
            assert_eq!(experts.known(Some(after)).len(), 1);
            assert!(experts.known(Some(after + 1)).is_empty() && experts.known(None).is_empty());
        }
    }
}

#[test]
fn a_layer_with_a_router_of_its_own_is_forecast_by_the_layer_before() {
    for one_router in [true, false] {
        let file = packed(&network(3, one_router));
        let model = Model::open(file.path(), &Options::default().expert_budget(12 * EACH)).unwrap();
        let plan = model.plan().unwrap();
        let at = |name: &str| plan.steps.iter().position(|step| step.name == name);
        let ahead = |layer: usize| [at(&format!("logits{layer}.ahead")), at(&format!("best{layer}.ahead"))];
        assert_eq!(ahead(0), [None; 2]);
        for layer in 1..LAYERS {
            if one_router {
                assert_eq!(ahead(layer), [None; 2]);
                continue;
            }
            let (before, logits) = (at(&format!("best{}", layer - 1)).unwrap(), at(&format!("logits{layer}")).unwrap());
            let [gate, best] = ahead(layer).map(Option::unwrap);
            assert!(before < gate && gate < best && best < at(&format!("up{}", layer - 1)).unwrap());
            // The copy has the original's weights, and reads what the gate before reads.
            let [copy, original] = [gate, logits].map(|at| &plan.steps[at]);
            assert_eq!(copy.choice.packed[0].as_ptr(), original.choice.packed[0].as_ptr());
            let early = &plan.steps[at(&format!("logits{}", layer - 1)).unwrap()];
            assert_eq!(copy.operands.inputs[0], early.operands.inputs[0]);
        }
    }
}

#[test]
fn a_run_with_a_budget_allocates_nothing() {
    let file = packed(&network(4, true));
    let model = Model::open(file.path(), &Options::default().expert_budget(7 * EACH)).unwrap();
    let mut session = model.session().unwrap();
    let mut random = Random(3);
    let inputs: Vec<Tensor> = (0..6).map(|_| random.floats(&[4, WIDTH])).collect();
    session.run(&[inputs[0].view()]).unwrap();
    let runs = || inputs.iter().for_each(|x| session.run(&[x.view()]).unwrap());
    assert_eq!(allocation_counter::measure(runs).count_total, 0);
}

#[test]
fn a_budget_that_cannot_be_kept_is_refused() {
    let graph = network(1, true);
    let file = packed(&graph);
    let budget = |bytes| Options::default().expert_budget(bytes);
    let error = |opened: crate::Result<Model>| opened.err().unwrap().to_string();
    assert!(error(Model::open(file.path(), &budget(EACH - 1))).contains("raise it"));
    let bytes = std::fs::read(file.path()).unwrap();
    assert!(error(Model::from_bytes(&bytes, &budget(u64::MAX))).contains("open that from its file"));
    assert!(error(Model::of_optimized(graph, &budget(u64::MAX))).contains("compile the model"));
}
