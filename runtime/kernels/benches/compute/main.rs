//! Throughput of the kernels on the layers of real networks, as a share of this core's peak.
//!
//! `cargo bench -p skipstone-kernels --bench compute -- --network skipnet_m` times every layer of a network with the
//! kernel that the runtime chooses, and sums the times by kind of layer, each layer as often as it occurs. Layers are
//! timed separately; what the runtime fuses (a bottleneck, for example) takes less time. Every time is the best of many
//! calls on one thread, in processor time, so that it depends on the kernel and not on other load on the machine. The
//! share of the peak uses the multiply-adds of the plain convolution and the f32 peak: Winograd computes fewer, and
//! bytes have a higher peak, hence more than 100 %.

#[path = "../cases/mod.rs"]
mod cases;
mod clock;
mod peak;
mod summary;

use skipstone_kernels::conv::ConvShape;
use skipstone_kernels::isa::Isa;

use cases::zoo::{self, Layer, LayerShape};
use cases::{Case, Work, convolution};
use summary::{Kind, Summary};

const USAGE: &str = "\
usage: compute [--network NAME] [--isa NAME] [--family NAME] [--all] [FILTER]
  --network NAME  layers of this network, not of all
  --isa NAME      kernels of this instruction set, not of all that the CPU has
  --family NAME   kernels of this family: gemm, winograd, depthwise, stem, pool, reduce, qgemm or qdepthwise; without it, all
                  that compute with floats
  --all           every kernel that can compute a layer, not the chosen one alone (marked *)
  FILTER          kernels whose name contains it";

/// What to run.
#[derive(Default)]
struct Options {
    network: Option<String>,
    isa: Option<Isa>,
    family: Option<String>,
    all: bool,
    filter: String,
}

fn main() {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            std::process::exit(2);
        }
    };
    let isas = Isa::available().filter(|&isa| isa != Isa::Scalar);
    for isa in isas.filter(|&isa| options.isa.is_none_or(|wanted| wanted == isa)) {
        let peak = peak::peak(isa);
        println!("{isa}: peak {peak:.1} GFLOP/s");
        for network in zoo::networks() {
            if options.network.as_deref().is_none_or(|wanted| wanted == network) {
                run(isa, network, peak, &options);
            }
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--network" => options.network = Some(value()?),
            "--isa" => options.isa = Some(value()?.parse().map_err(|e| format!("{e}"))?),
            "--family" => options.family = Some(value()?),
            "--all" => options.all = true,
            // Passed by cargo.
            "--bench" => {}
            flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
            filter => options.filter = filter.to_owned(),
        }
    }
    match &options.network {
        Some(name) if !zoo::networks().contains(&name.as_str()) => {
            Err(format!("no network {name}; there are {}", zoo::networks().join(", ")))
        }
        _ => Ok(options),
    }
}

/// Times the layers of a network and sums them up.
fn run(isa: Isa, network: &str, peak: f64, options: &Options) {
    let mut summary = Summary::default();
    println!("{network}, {isa}");
    for layer in zoo::layers().filter(|layer| layer.network == network) {
        for (case, is_chosen) in cases(isa, &layer, options) {
            let mut call = case.ready();
            let seconds = clock::best(&mut call);
            report(&layer, &case, is_chosen, seconds, peak);
            if is_chosen {
                summary.add(&layer, case.work, seconds);
            }
        }
    }
    summary.print(peak);
}

/// The requested kernels for a layer, and whether the runtime would choose them.
fn cases(isa: Isa, layer: &Layer, options: &Options) -> Vec<(Case, bool)> {
    let of_convolution = |shape: &ConvShape| {
        let kernels = convolution::kernels().into_iter().filter(|kernel| kernel.takes(shape));
        let kernels = kernels.map(|kernel| (kernel, kernel.is_chosen(isa, shape)));
        let kernels = kernels.filter(|&(kernel, is_chosen)| is_chosen || options.all && kernel.isa() == isa);
        kernels.map(|(kernel, is_chosen)| (kernel.case(shape), is_chosen)).collect()
    };
    let mut cases = match &layer.shape {
        LayerShape::Convolution(shape) => of_convolution(shape),
        LayerShape::Pooling(f, shape) => vec![(convolution::pooling(isa, *f, *shape), true)],
    };
    cases.retain(|(case, _)| {
        let family = case.kernel.split('_').next().unwrap_or_default();
        let is_wanted = options.family.as_ref().map_or(!family.starts_with('q'), |wanted| wanted == family);
        is_wanted && case.kernel.contains(&options.filter)
    });
    cases
}

fn report(layer: &Layer, case: &Case, is_chosen: bool, seconds: f64, peak: f64) {
    let mark = if is_chosen { "*" } else { " " };
    let speed = match case.work {
        Work::MultiplyAdds(count) => {
            let rate = 2.0 * count as f64 / seconds / 1e9;
            format!("{rate:6.1} GFLOP/s  {:3.0} %", 100.0 * rate / peak)
        }
        Work::Elements(_) => format!("{:6.1} GB/s", case.bytes as f64 / seconds / 1e9),
    };
    println!(
        "{mark} {:2} of {:34} {:12} {:34} {:8.1} us  {speed}",
        layer.count,
        case.layer,
        Kind::of(&layer.shape).name(),
        case.kernel,
        seconds * 1e6,
    );
}
