//! Memory that runs out while tract makes or runs what we have no operator for: an error, not the end of the process.
//!
//! The allocator of this test can refuse all allocations from one on. tract runs out of memory once in a process, which
//! does not use it afterwards: each attempt is a process of its own, which is this test again, told by a variable of its
//! environment what to do.

use std::alloc::{GlobalAlloc, Layout, System};
use std::env;
use std::process::Command;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use skipstone::{Model, Options, Result, TensorView, WithSpare};
use skipstone_onnx::write::{FLOAT, f32s, float, graph, int, ints, model_with, named, node, opset, value};

/// The system's allocator, which refuses all allocations from one on.
struct Refusing;

/// Allocations so far.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// The first one to refuse.
static FIRST: AtomicUsize = AtomicUsize::new(usize::MAX);

// SAFETY: every call goes to the system's allocator, or returns null, which means that there is no memory.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNT.fetch_add(1, Relaxed) >= FIRST.load(Relaxed) {
            return null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: WithSpare<Refusing> = WithSpare::new(Refusing);

const VARIABLE: &str = "SKIPSTONE_TEST_ATTEMPT";

/// Attempts with each model.
const ATTEMPTS: usize = 40;

/// Models with a node that tract runs, with one that it computes while loading, and with one whose shape depends on data.
fn files() -> [Vec<u8>; 3] {
    let one = |nodes: &[_], initializers: &[_], dims: &[i64]| {
        let graph = graph(nodes, initializers, &[value("x", FLOAT, dims)], &[named("y")]);
        model_with(&graph, &[opset("", 17)])
    };
    let samples = node("Multinomial", &["x"], &["y"], &[int("sample_size", 1024)]);
    let sum = node("Add", &["x", "noise"], &["y"], &[]);
    let drawn = node("RandomUniform", &[], &["noise"], &[ints("shape", &[64, 64]), float("seed", 1.0)]);
    let range = node("Range", &["zero", "x", "step"], &["y"], &[]);
    let ends = [f32s("zero", &[], &[0.0]), f32s("step", &[], &[0.001])];
    [one(&[samples], &[], &[8, 1000]), one(&[drawn, sum], &[], &[64, 64]), one(&[range], &ends, &[])]
}

/// Opens a model and runs it.
fn attempt(file: &[u8]) -> Result<()> {
    let model = Model::from_bytes(file, &Options::default())?;
    let mut session = model.session()?;
    let [input] = model.inputs() else { panic!("one input") };
    let elements = vec![0.5f32; input.fact.shape.elements()];
    session.run(&[TensorView::new(&input.fact.shape, &elements).expect("as many")])
}

#[test]
fn no_memory_for_the_fallback_is_an_error() {
    if let Ok(told) = env::var(VARIABLE) {
        let (model, first) = told.split_once(' ').unwrap();
        let file = &files()[model.parse::<usize>().unwrap()];
        let first: usize = first.parse().unwrap();
        COUNT.store(0, Relaxed);
        FIRST.store(first, Relaxed);
        let result = attempt(file);
        FIRST.store(usize::MAX, Relaxed);
        println!("\nallocations {}\nresult {:?}", COUNT.load(Relaxed), result.map_err(|error| error.to_string()));
        return;
    }
    let line = |model: usize, first: usize, name: &str| -> String {
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg("--nocapture").env(VARIABLE, format!("{model} {first}"));
        let output = command.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "model {model}, allocation {first}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        printed.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    for model in 0..files().len() {
        assert_eq!(line(model, usize::MAX, "result"), "Ok(())", "model {model}");
        let count: usize = line(model, usize::MAX, "allocations").parse().unwrap();
        let mut refused = 0;
        for at in 0..ATTEMPTS {
            // An allocation between two others of the same list, now and then.
            let result = line(model, count * at / ATTEMPTS + at % 7, "result");
            refused += usize::from(result.contains("memory") || result.contains("no thread"));
        }
        println!("model {model}: {refused} errors of {ATTEMPTS}, of {count} allocations");
        assert!(refused > ATTEMPTS / 2, "model {model}: only {refused} of {ATTEMPTS} attempts ran out of memory");
    }
}
