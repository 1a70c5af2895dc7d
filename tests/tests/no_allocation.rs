//! A run of native steps makes no heap allocation, as the README promises.

use skipstone::{Model, Options, TensorView};

/// The allocations of the calling thread during one run, after a first one.
fn allocations(model: &str, threads: usize) -> u64 {
    let path = format!("{}/fixtures/{model}", env!("CARGO_MANIFEST_DIR"));
    let model = Model::open(path, &Options::default().threads(threads)).unwrap();
    let plan = model.plan().unwrap();
    assert!(plan.steps.iter().all(|s| s.choice.kernel != "fallback"), "the model must be native to be counted");
    let mut session = model.session().unwrap();
    let inputs: Vec<Vec<f32>> = model.inputs().iter().map(|p| vec![0.5; p.fact.shape.elements()]).collect();
    let views: Vec<TensorView<'_>> =
        model.inputs().iter().zip(&inputs).map(|(p, x)| TensorView::new(&p.fact.shape, x).unwrap()).collect();
    session.run(&views).unwrap();
    allocation_counter::measure(|| session.run(&views).unwrap()).count_total
}

#[test]
fn a_run_allocates_nothing() {
    for model in ["../../models/pretrained/simplenet-310k-cifar10.onnx", "blocks.onnx"] {
        assert_eq!(allocations(model, 1), 0, "{model}");
        assert_eq!(allocations(model, 2), 0, "{model} with two threads");
    }
}
