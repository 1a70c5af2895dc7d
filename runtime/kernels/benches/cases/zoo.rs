//! The layers of networks of the zoo, read from zoo.txt, which tests/benches/layers.py writes.

use std::fmt;
use std::str::FromStr;

use skipstone_kernels::conv::ConvShape;
use skipstone_kernels::pool::{PoolFn, PoolShape};

/// A layer of a network.
pub struct Layer {
    /// The network's name.
    pub network: &'static str,
    /// How often the layer occurs in the network.
    pub count: usize,
    /// Its sizes.
    pub shape: LayerShape,
}

/// The sizes of a layer.
#[derive(Clone)]
pub enum LayerShape {
    /// A convolution. A matrix product counts as a convolution over an image of one row, whose pixels are the rows of
    /// the matrix.
    Convolution(ConvShape),
    /// A pooling.
    Pooling(PoolFn, PoolShape),
}

/// All layers of all networks.
pub fn layers() -> impl Iterator<Item = Layer> {
    let lines = include_str!("zoo.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| layer(line).unwrap_or_else(|| panic!("zoo.txt: {line}")))
}

/// The names of the networks.
pub fn networks() -> Vec<&'static str> {
    let mut names: Vec<&str> = layers().map(|layer| layer.network).collect();
    names.dedup();
    names
}

fn layer(line: &'static str) -> Option<Layer> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let &[network, count, operator, input, output, kernel, stride, pads, groups] = columns.as_slice() else {
        return None;
    };
    let [in_h, in_w, in_c] = sizes(input, 'x')?;
    let [out_h, out_w, out_c] = sizes(output, 'x')?;
    let [pad_top, pad_left, pad_bottom, pad_right] = sizes(pads, ',')?;
    let (kernel, stride) = (sizes(kernel, 'x')?, sizes(stride, 'x')?);
    let pooling = |f| {
        let shape = PoolShape {
            batch: 1,
            in_h,
            in_w,
            channels: in_c,
            out_h,
            out_w,
            kernel,
            stride,
            dilation: [1, 1],
            pad_top,
            pad_left,
            pad_bottom,
            pad_right,
        };
        LayerShape::Pooling(f, shape)
    };
    let shape = match operator {
        "conv" | "matmul" => LayerShape::Convolution(ConvShape {
            batch: 1,
            in_h,
            in_w,
            in_c,
            out_h,
            out_w,
            out_c,
            kernel,
            stride,
            dilation: [1, 1],
            pad_top,
            pad_left,
            groups: groups.parse().ok()?,
        }),
        "maxpool" => pooling(PoolFn::Max),
        "averagepool" => pooling(PoolFn::Average { count_padding: false }),
        _ => return None,
    };
    Some(Layer { network, count: count.parse().ok()?, shape })
}

fn sizes<const N: usize>(text: &str, separator: char) -> Option<[usize; N]> {
    let sizes: Result<Vec<usize>, _> = text.split(separator).map(usize::from_str).collect();
    sizes.ok()?.try_into().ok()
}

impl fmt::Display for LayerShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, channels, kernel, stride) = match self {
            LayerShape::Convolution(s) => ([s.in_h, s.in_w], [s.in_c, s.out_c], s.kernel, s.stride[0]),
            LayerShape::Pooling(_, s) => ([s.in_h, s.in_w], [s.channels; 2], s.kernel, s.stride[0]),
        };
        let ([h, w], [inputs, outputs], [rows, columns]) = (size, channels, kernel);
        write!(f, "{h}x{w}, {inputs} to {outputs}, {rows}x{columns} / {stride}")
    }
}
