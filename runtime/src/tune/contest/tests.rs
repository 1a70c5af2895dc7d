use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;

use super::*;
use crate::Model;
use crate::ops::check::{Random, assert_close};
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::options::{Options, Tune};
use crate::tensor::{DType, Fact, Shape, Tensor};
use crate::tune::Tuner;

/// Three convolutions, the last two of which have the same task.
fn network() -> Graph {
    let mut random = Random(3);
    let mut graph = Graph::new();
    let mut x = graph.add_input("x", Fact::new(DType::F32, Shape::new(&[1, 10, 12, 12]).unwrap())).unwrap();
    for (at, (channels, filters)) in [(10, 24), (24, 24), (24, 24)].into_iter().enumerate() {
        // Scaled so that a layer's result stays in the range of its input: larger values would amplify rounding
        // differences between kernels.
        let dims = [filters, channels, 3, 3];
        let weights: Vec<f32> = random.floats(&dims).elements().unwrap().iter().map(|w: &f32| w / 32.0).collect();
        let weights = graph.add_constant("weights", Tensor::from_slice(&dims, &weights).unwrap()).unwrap();
        let bias = graph.add_constant("bias", random.floats(&[filters])).unwrap();
        let conv = Conv {
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [1; 4],
            groups: 1,
            layout: Layout::Nchw,
            activation: Activation::Clip { min: -1.0, max: 1.0 },
            ..Conv::POINTWISE
        };
        x = graph.add_node(format!("conv{at}"), conv, &[x, weights, bias]).unwrap()[0];
    }
    graph.outputs = vec![("y".into(), x)];
    graph
}

fn kernels(model: &Model) -> Vec<String> {
    model.plan().unwrap().steps.iter().map(|step| step.choice.kernel.clone()).collect()
}

#[test]
fn a_measured_plan_computes_the_same_and_is_made_again_of_what_was_stored() {
    let x = Random(4).floats(&[1, 10, 12, 12]);
    let want = network().evaluate(std::slice::from_ref(&x)).unwrap();
    for threads in [1, 2] {
        let options = Options::default().isa(Isa::detect()).threads(threads);
        let model = Model::from_graph(network(), &options.clone().tune(Tune::Measure)).unwrap();
        let mut session = model.session().unwrap();
        session.run(&[x.view()]).unwrap();
        let got: Tensor = session.output(0).unwrap().to_tensor();
        assert_close(&got, &want[0], 1e-3, "a measured plan");

        let tuning = model.tuning().unwrap();
        if Isa::detect() != Isa::Scalar {
            assert_eq!(tuning.len(), 2);
        }
        let steps = &model.plan().unwrap().steps;
        for step in steps {
            let Some(measured) = tuning.task(&step.choice.candidates.task) else { continue };
            assert_eq!(measured.chosen().unwrap().kernel, step.choice.kernel);
            assert!(measured.kernels.len() > 1 && measured.kernels.iter().all(|timed| timed.nanos > 0));
        }
        let stored = Arc::new(Tuning::from_bytes(&tuning.to_bytes().unwrap()).unwrap());
        let again = Model::from_graph(network(), &options.clone().tune(Tune::Stored(stored.clone()))).unwrap();
        assert_eq!(kernels(&again), kernels(&model));
        assert!(Arc::ptr_eq(&again.tuning().unwrap(), &stored), "nothing was measured");
        assert!(Model::from_graph(network(), &options).unwrap().tuning().is_none());
    }
}

#[test]
fn known_tasks_are_not_measured_again() {
    let mut optimized = network();
    crate::graph::optimize(&mut optimized).unwrap();
    let target = Target {
        isa: Isa::detect(),
        threads: 1,
        memory: crate::options::Memory::Fast,
        precision: crate::options::Precision::F32,
    };
    let mut tuner = Tuner::new(&Tune::Measure, target).unwrap();
    tuner.tune(&optimized, target, None).unwrap();
    let known = tuner.tuning().unwrap().clone();
    assert!(measure(&optimized, target, None, &known).unwrap().is_empty());
    tuner.tune(&optimized, target, None).unwrap();
    assert!(Arc::ptr_eq(tuner.tuning().unwrap(), &known) || **tuner.tuning().unwrap() == *known);
}

#[test]
fn a_contest_compares_first_quartiles_averaged_over_its_steps() {
    let mut contest = Contest { kernels: vec!["a".into(), "b".into(), "c".into()], times: BTreeMap::new() };
    let mut record = |step, kernel, nanos| contest.record(step, kernel, Duration::from_nanos(nanos));
    for (step, kernel, nanos) in [(1, 0, 30), (1, 0, 40), (1, 1, 20), (4, 0, 10), (4, 1, 10), (4, 1, 90), (4, 2, 1)] {
        record(step, kernel, nanos);
    }
    // The third was not measured at step 1.
    let measured = contest.measured().unwrap();
    let times: Vec<(&str, u64)> = measured.kernels.iter().map(|timed| (timed.kernel.as_str(), timed.nanos)).collect();
    assert_eq!(times, [("a", 20), ("b", 15)]);
    assert_eq!(measured.chosen().unwrap().kernel, "b");
    let of = |count: u64| quartile(&(1..=count).rev().map(Duration::from_nanos).collect::<Vec<_>>());
    assert_eq!([of(0), of(1), of(4), of(9)], [None, Some(1), Some(2), Some(3)].map(|n| n.map(Duration::from_nanos)));
    let alone = Contest { kernels: vec!["a".into(), "b".into()], times: BTreeMap::new() };
    assert!(alone.measured().is_none());
}
