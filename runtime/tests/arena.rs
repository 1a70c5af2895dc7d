//! The layout of the arena that a report shows, against the planner's own figures.
#![cfg(feature = "onnx")]

use skipstone::measure::{Tenant, tenants};
use skipstone::plan::ALIGNMENT;
use skipstone::{Model, Options};

/// The sizes must add up to the planner's own lower bound.
#[test]
fn lifetimes_explain_the_arena() {
    let pretrained = "../models/pretrained/simplenet-310k-cifar10.onnx";
    for path in [pretrained, "../tests/fixtures/blocks.onnx"] {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        let model = Model::open(path, &Options::default().threads(2)).unwrap();
        let plan = model.plan().unwrap();
        let tenants = tenants(plan);
        let padded = |t: &Tenant| t.bytes.len().next_multiple_of(ALIGNMENT);
        let alive = |step| tenants.iter().filter(move |t| t.first <= step && step <= t.last).map(padded).sum();
        assert_eq!((0..=plan.steps.len()).map(alive).max(), Some(plan.arena_lower_bound));
        assert_eq!(tenants.iter().map(|t| t.bytes.start + padded(t)).max(), Some(plan.arena_bytes));
        for (i, a) in tenants.iter().enumerate() {
            for b in tenants[i + 1..].iter().filter(|b| a.first <= b.last && b.first <= a.last) {
                assert!(a.bytes.end <= b.bytes.start || b.bytes.end <= a.bytes.start, "{a:?} meets {b:?}");
            }
        }
    }
}
