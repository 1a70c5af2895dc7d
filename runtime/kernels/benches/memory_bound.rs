//! Speed of the memory-bound kernels, in bytes read and written per second, next to a plain copy.
//!
//! `cargo bench -p skipstone-kernels --bench memory_bound [-- FILTER]`.

mod cases;

use divan::Bencher;
use divan::counter::BytesCount;
use skipstone_kernels::isa::Isa;

use cases::{Case, frame, memory, numbers};

fn main() {
    divan::main();
}

/// The cases of every instruction set of this CPU, sorted by what they compute.
fn all() -> Vec<Case> {
    let of = |isa| memory::cases(isa).into_iter().chain(frame::cases(isa)).enumerate();
    let mut all: Vec<(usize, Case)> = Isa::available().flat_map(of).collect();
    all.sort_by_key(|&(index, _)| index);
    all.into_iter().map(|(_, case)| case).collect()
}

#[divan::bench]
fn copy_112x112x16(bencher: Bencher) {
    let (x, mut y) = (numbers(112 * 112 * 16), numbers(112 * 112 * 16));
    bencher.counter(BytesCount::of_slice(&x[..])).bench_local(|| y.copy_from_slice(&x));
}

#[divan::bench(args = all())]
fn kernel(bencher: Bencher, case: &Case) {
    let call = case.ready();
    bencher.counter(BytesCount::new(case.bytes)).bench_local(call);
}
