//! Pooling.

use skipstone_kernels::pool::PoolFn;

use super::build::Imported;
use super::call::Call;
use super::table::{Entry, standard};
use super::volume;
use super::window::{Window, image_dims};
use crate::ops::image::Layout;
use crate::ops::pool::Pool;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::window_pool::Of;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["MaxPool"], max),
    standard(&["AveragePool"], average),
    standard(&["GlobalMaxPool", "GlobalAveragePool"], global),
];

fn pool(cx: &mut Call<'_, '_>, function: PoolFn) -> Imported {
    let x = cx.input(0)?;
    let from = cx.shape(x).clone();
    if from.rank() < 3 {
        return Err(cx.shape_error("images must have at least 3 dimensions", &[x]));
    }
    let window = Window::of(cx, &from[2..], None)?;
    let takes = match function {
        PoolFn::Max => matches!(cx.dtype(x), DType::F32 | DType::U8 | DType::I8),
        PoolFn::Average { .. } => cx.dtype(x) == DType::F32,
    };
    let Some(image) = window.as_image().filter(|_| takes) else {
        let of = match function {
            PoolFn::Max => Of::Max,
            PoolFn::Average { count_padding } => Of::Average { count_padding },
        };
        return volume::pool(cx, of, &window);
    };
    let out: Vec<usize> = from[..2].iter().chain(&window.out).copied().collect();
    let op = Pool {
        function,
        kernel: image.kernel,
        stride: image.stride,
        dilation: image.dilation,
        pads: image.pads,
        out: image.out,
        layout: Layout::Nchw,
    };
    let x = cx.reshape(x, &image_dims(&from))?;
    let y = cx.add(op, &[x])?;
    Ok(vec![cx.reshape(y, &out)?])
}

pub(super) fn max(cx: &mut Call<'_, '_>) -> Imported {
    if !cx.is_requested(1) {
        return pool(cx, PoolFn::Max);
    }
    let x = cx.input(0)?;
    let from = cx.shape(x).clone();
    if from.rank() < 3 {
        return Err(cx.shape_error("images must have at least 3 dimensions", &[x]));
    }
    let window = Window::of(cx, &from[2..], None)?;
    let columns_first = cx.flag("storage_order", false)?;
    volume::pool(cx, Of::MaxIndex { columns_first }, &window)
}

pub(super) fn average(cx: &mut Call<'_, '_>) -> Imported {
    let count_padding = cx.flag("count_include_pad", false)?;
    pool(cx, PoolFn::Average { count_padding })
}

/// One window over the whole image.
pub(super) fn global(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    if rank < 3 {
        return Err(cx.shape_error("images must have at least 3 dimensions", &[x]));
    }
    let kind = if cx.node.op_type == "GlobalMaxPool" { ReduceKind::Max } else { ReduceKind::Mean };
    cx.add_all(Reduce { axes: (2..rank).collect(), kind, keep_dims: true }, &[x])
}
