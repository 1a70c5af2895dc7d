//! Sums over the layers of a network.

use crate::cases::Work;
use crate::cases::zoo::{Layer, LayerShape};

/// Kinds of layers, by what limits their speed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pointwise,
    Dense,
    Depthwise,
    /// A product of a single row: classifiers, squeeze-and-excite. Bound by reading weights.
    Row,
    Pooling,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Pointwise, Kind::Dense, Kind::Depthwise, Kind::Row, Kind::Pooling];

    pub fn of(shape: &LayerShape) -> Kind {
        match shape {
            LayerShape::Pooling(..) => Kind::Pooling,
            LayerShape::Convolution(s) if s.groups > 1 => Kind::Depthwise,
            LayerShape::Convolution(s) if s.pixels() == 1 => Kind::Row,
            LayerShape::Convolution(s) if s.taps() == 1 => Kind::Pointwise,
            LayerShape::Convolution(_) => Kind::Dense,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Pointwise => "1x1",
            Kind::Dense => "dense",
            Kind::Depthwise => "depthwise",
            Kind::Row => "one row",
            Kind::Pooling => "pooling",
        }
    }
}

/// Times of a network's layers.
#[derive(Default)]
pub struct Summary {
    rows: Vec<LayerTime>,
}

struct LayerTime {
    kind: Kind,
    layer: String,
    count: f64,
    /// Per call.
    operations: f64,
    seconds: f64,
    /// Whether the layer is one that should be fast: 1x1 or 3x3, with many channels.
    is_marked: bool,
}

/// A 1x1 or 3x3 convolution with at least this many input and output channels should come near the peak.
const MANY: usize = 64;

impl Summary {
    pub fn add(&mut self, layer: &Layer, work: Work, seconds: f64) {
        let kind = Kind::of(&layer.shape);
        let operations = match work {
            Work::MultiplyAdds(count) => 2.0 * count as f64,
            Work::Elements(_) => 0.0,
        };
        let is_marked = match &layer.shape {
            LayerShape::Convolution(s) => {
                matches!(kind, Kind::Pointwise | Kind::Dense)
                    && (s.kernel == [1, 1] || s.kernel == [3, 3])
                    && s.in_c.min(s.out_c) >= MANY
            }
            LayerShape::Pooling(..) => false,
        };
        let (layer, count) = (layer.shape.to_string(), layer.count as f64);
        self.rows.push(LayerTime { kind, layer, count, operations, seconds, is_marked });
    }

    pub fn print(&self, peak: f64) {
        for kind in Kind::ALL {
            print_sum(kind.name(), peak, self.rows.iter().filter(|row| row.kind == kind));
        }
        print_sum("all", peak, self.rows.iter());
        let share = |row: &LayerTime| row.operations / row.seconds / 1e9 / peak;
        let marked = self.rows.iter().filter(|row| row.is_marked);
        if let Some(least) = marked.min_by(|a, b| share(a).total_cmp(&share(b))) {
            let percent = 100.0 * share(least);
            println!("  least share of 1x1 and 3x3 with {MANY} channels or more: {percent:.0} % ({})", least.layer);
        }
    }
}

/// Prints the sum of some layers, each as often as the network has it.
fn print_sum<'a>(name: &str, peak: f64, rows: impl Iterator<Item = &'a LayerTime> + Clone) {
    let sum = |f: fn(&LayerTime) -> f64| -> f64 { rows.clone().map(|row| row.count * f(row)).sum() };
    let (layers, seconds, operations) = (sum(|_| 1.0), sum(|row| row.seconds), sum(|row| row.operations));
    if layers == 0.0 {
        return;
    }
    let rate = operations / seconds / 1e9;
    let share = if operations > 0.0 { format!("{:3.0} % of peak", 100.0 * rate / peak) } else { String::new() };
    println!("  {name:9} {layers:3} layers  {:8.3} ms  {share}", seconds * 1e3);
}
