"""Recipes of convolutions, pooling, resizing, and sampling of images."""

import numpy as np

from fuzz.draw import Draw
from fuzz.moving import ints
from fuzz.recipes import microsoft, recipe


def window(d: Draw, sides, kernel, dilated: bool = True, most=lambda k: k // 2) -> None:
    """Strides, dilations and padding for a window over `sides` that fits."""
    dilations = [d.pick(1, 1, 1, 2) if dilated and (k - 1) * 2 < side else 1 for k, side in zip(kernel, sides)]
    mode = d.pick("pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET")
    if mode == "pads":
        d.set(0.8, pads=[d.between(0, most(k)) for _ in range(2) for k in kernel])
    else:
        d.set(auto_pad=mode)
    if mode.startswith("SAME"):
        dilations = [1] * len(dilations)
    if any(n > 1 for n in dilations) or d.chance(0.3):
        d.set(dilations=dilations)
    strides = [d.pick(1, 1, 2, 3) for _ in kernel]
    if mode.startswith("SAME"):  # beyond the window, ONNX Runtime would need negative pads
        strides = [min(stride, k) for stride, k in zip(strides, kernel)]
    d.set(0.7, strides=strides)


def images(d: Draw, low: int = 3, high: int = 5, below: int = 10, **limits) -> tuple[int, ...]:
    """The first operand as a batch of images: without empty dimensions."""
    shape = d.main(low, high, below=below, empty=False, **limits)
    d.need(shape[0] < 5)
    return shape


@recipe("Conv")
def conv(d: Draw):
    _, channels, *sides = images(d)
    groups = d.pick(1, 1, channels, *(n for n in range(1, channels + 1) if channels % n == 0))
    kernel = [d.between(1, min(side, 4)) for side in sides]
    out = groups * d.pick(1, 2, 3, 8) if groups > 1 else d.size(18)
    dtype = d.dtype(0)
    d.put(1, d.values((out, channels // groups, *kernel), dtype, 0.5))
    d.maybe(d.schema.inputs[2][0], lambda: d.values((out,), dtype))
    d.set(group=groups if groups > 1 else d.pick(None, 1), kernel_shape=d.pick(None, kernel))
    window(d, sides, kernel)


@microsoft("FusedConv")
def fused_conv(d: Draw):
    d.dtypes["T"] = np.dtype("f4")
    conv(d)
    activation = d.pick("Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid")
    parameters = {"LeakyRelu": [0.1], "Clip": [-1.0, 1.0], "HardSigmoid": [0.2, 0.5]}
    d.set(activation=activation, activation_params=parameters.get(activation))


@recipe("ConvTranspose")
def conv_transpose(d: Draw):
    _, channels, *sides = images(d, below=8)
    groups = d.pick(1, 1, *(n for n in range(1, channels + 1) if channels % n == 0))
    kernel, strides = [d.between(1, 3) for _ in sides], [d.between(1, 3) for _ in sides]
    dilations = [d.pick(1, 1, 2) for _ in sides]
    out, dtype = d.size(6), d.dtype(0)
    d.put(1, d.values((channels, out, *kernel), dtype, 0.5))
    if groups == 1 or dtype.itemsize < 8:  # the reference evaluator adds the first group's bias to all
        d.maybe(d.schema.inputs[2][0], lambda: d.values((out * groups,), dtype))
    d.set(group=groups, kernel_shape=d.pick(None, kernel), strides=strides)
    reach = [(k - 1) * l + 1 for k, l in zip(kernel, dilations)]
    mode = d.pick("pads", "pads", "output_shape", "SAME_UPPER", "SAME_LOWER", "VALID")
    if mode == "pads":
        d.set(0.8, pads=[d.between(0, (k - 1) // 2) for k in kernel * 2])
    elif mode == "output_shape":
        whole = [(side - 1) * stride + r for side, stride, r in zip(sides, strides, reach)]
        d.set(output_shape=[size - d.between(0, min(2, size - 1)) for size in whole])
        d.set(auto_pad=d.pick(None, "SAME_UPPER", "SAME_LOWER"))
    else:
        d.set(auto_pad=mode)
    if mode != "output_shape":
        d.set(0.5, output_padding=[d.between(0, stride - 1) for stride in strides])
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        dilations = [1] * len(sides)
    if max(dilations) > 1:
        d.set(dilations=dilations)


@recipe("DeformConv")
def deform_conv(d: Draw):
    groups, offsets, kernel, dtype = d.between(1, 2), d.between(1, 2), [d.between(1, 3), d.between(1, 3)], d.dtype(0)
    batch, depth, filters = d.between(1, 2), d.between(1, 2) * offsets, d.between(1, 3) * groups
    strides, pads = [d.between(1, 2), d.between(1, 2)], [d.between(0, 1) for _ in range(4)]
    sides = [k + d.between(0, 5) for k in kernel]
    out = [(sides[i] + pads[i] + pads[2 + i] - kernel[i]) // strides[i] + 1 for i in range(2)]
    d.put(0, d.values((batch, depth * groups, *sides), dtype))
    d.put(1, d.values((filters, depth, *kernel), dtype))
    d.put(2, d.within(-2, 2, (batch, offsets * kernel[0] * kernel[1] * 2, *out), dtype))
    d.maybe("B", lambda: d.values((filters,), dtype))
    d.maybe("mask", lambda: d.within(0, 2, (batch, offsets * kernel[0] * kernel[1], *out), dtype))
    d.set(group=groups, offset_group=offsets, strides=strides, pads=pads, kernel_shape=d.pick(None, kernel))


@recipe("MaxPool", "AveragePool", "LpPool")
def pool(d: Draw):
    with_places = d.schema.name == "MaxPool" and d.opset >= 8 and d.chance(0.3)
    d.sharp = with_places
    sides = images(d)[2:]
    kernel = [d.between(1, min(side, 4)) for side in sides]
    d.set(kernel_shape=kernel)
    window(d, sides, kernel, "dilations" in d.schema.attributes, lambda k: k - 1)
    d.outputs = 2 if with_places else 1


@microsoft("NhwcMaxPool")
def nhwc_max_pool(d: Draw):
    n, h, w, c = d.shape(4, 4, 10, False)
    d.put(0, d.whole((n, h, w, c), d.restrict(0, "iu")))
    kernel = [d.between(1, min(side, 4)) for side in (h, w)]
    d.set(kernel_shape=kernel)
    window(d, (h, w), kernel, True, lambda k: k - 1)


@recipe("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(d: Draw):
    images(d, 3 if d.chance(0.9) else 2, below=18)


@recipe("MaxUnpool", sharp=True)
def max_unpool(d: Draw):
    axes = d.between(1, 3)
    kernel, strides = [2] * axes, [2] * axes
    small, dtype = [d.between(1, 4) for _ in range(axes)], d.dtype(0)
    n, c = d.between(1, 2), d.between(1, 3)
    d.put(0, d.values((n, c, *small), dtype))
    whole = [2 * side for side in small]
    places = d.random.permutation(int(np.prod(whole)) * n * c)[: int(np.prod(small)) * n * c]
    d.put(1, places.reshape(n, c, *small).astype(np.int64))
    d.set(kernel_shape=kernel, strides=strides)


@recipe("MaxRoiPool")
def max_roi_pool(d: Draw):
    n, c, h, w = images(d, 4, 4, below=17)
    count = d.between(1, 4)
    corners = d.random.integers(0, 9, (count, 2))
    corners = np.concatenate([d.random.integers(0, n, (count, 1)), corners, corners + d.random.integers(0, 6, (count, 2))], 1)
    d.put(1, corners.astype(d.dtype(0)))
    d.set(pooled_shape=[d.between(1, 4), d.between(1, 4)])
    d.set(0.6, spatial_scale=d.pick(0.5, 1.0))


@recipe("RoiAlign")
def roi_align(d: Draw):
    n, c, h, w = images(d, 4, 4, below=17)
    count, dtype = d.between(1, 4), d.dtype(0)
    corners = d.random.uniform(-2, 12, (count, 4))
    corners[:, 2:] = corners[:, :2] + d.random.uniform(0.1, 9, (count, 2))
    d.put(1, corners.astype(dtype))
    d.put(2, d.random.integers(0, n, count))
    d.set(0.7, mode=d.pick("avg", "max"))
    d.set(0.7, coordinate_transformation_mode=d.pick("half_pixel", "output_half_pixel"))
    d.set(0.8, output_height=d.between(1, 4), output_width=d.between(1, 4))
    d.set(0.8, sampling_ratio=d.between(0, 3), spatial_scale=d.pick(0.5, 1.0))


@recipe("GridSample")
def grid_sample(d: Draw):
    d.restrict(0, "f")
    n, c, *sides = images(d, 4, 5 if d.opset >= 20 else 4)
    out = [d.size(8) for _ in sides]
    d.put(1, d.within(-1.4, 1.4, (n, *out, len(sides)), d.like(1, d.dtype(0))))
    modes = ("linear", "nearest", "cubic") if d.opset >= 20 else ("bilinear", "nearest", "bicubic")
    _sampled(d, modes[: 3 if len(sides) == 2 else 2])


def _sampled(d: Draw, modes) -> None:
    """A mode, and what is outside of the image."""
    mode = d.pick(*modes) if d.chance(0.8) else modes[0]
    if mode != modes[0] or d.chance():
        d.set(mode=mode)
    # With cubic, ONNX Runtime moves both coordinates to the border if one of them is outside.
    paddings = ("zeros", "reflection") if "cubic" in mode else ("zeros", "border", "reflection")
    d.set(0.7, padding_mode=d.pick(*paddings))
    d.attributes.setdefault("padding_mode", "zeros")


@microsoft("GridSample")
def microsoft_grid_sample(d: Draw):
    n, c, h, w = images(d, 4, 4)
    d.put(1, d.within(-1.4, 1.4, (n, d.size(8), d.size(8), 2), d.like(1, d.dtype(0))))
    _sampled(d, ("bilinear", "nearest", "bicubic"))


@recipe("AffineGrid")
def affine_grid(d: Draw):
    axes, batch, dtype = d.pick(2, 3), d.between(1, 2), d.dtype(0)
    d.put(0, d.values((batch, axes, axes + 1), dtype))
    d.put("size", ints(batch, d.between(1, 3), *(d.between(2, 7) for _ in range(axes))), shaping=True)


TRANSFORMS = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@recipe("Resize", "Upsample")
def resize(d: Draw):
    up = d.schema.name == "Upsample"
    modes = ("nearest", "linear") if d.opset < 11 else ("nearest", "linear", "cubic")
    mode = d.pick(*modes)
    d.sharp = mode == "nearest"
    low = 4 if mode == "cubic" or d.chance(0.8) else 1
    d.restrict(0, "f" if mode != "nearest" else "fiu")  # of integers it is not said how they are rounded
    shape = d.main(low, 4 if mode != "nearest" else 5, below=10, empty=False)
    if mode != "nearest" or d.chance(0.8):
        d.set(mode=mode)
    d.need("mode" in d.attributes or mode == "nearest")
    rank = len(shape)
    axes = list(range(max(0, rank - 2), rank)) if rank > 2 or mode != "nearest" else list(range(rank))
    if mode == "nearest" and d.chance(0.3):
        axes = list(range(rank))
    factor = lambda: d.pick(1.0, 2.0, 3.0, 1.5, 2.5) if up else d.pick(1.0, 2.0, 3.0, 0.5, 1.5, 0.7, 2.5)
    factors = [factor() if at in axes else 1.0 for at in range(rank)]
    coordinates = "half_pixel"
    if "coordinate_transformation_mode" in d.schema.attributes and d.chance(0.8):
        more = ("tf_half_pixel_for_nn",) if d.opset < 13 else ()
        if d.opset >= 19 and mode != "nearest":  # whose positions may be whole, but for the rounding
            more = ("half_pixel_symmetric",)
        coordinates = d.pick(*TRANSFORMS, *more)
        d.set(coordinate_transformation_mode=coordinates)
    region = coordinates == "tf_crop_and_resize"
    shifted = coordinates == "tf_half_pixel_for_nn" and mode != "nearest"
    chosen = list(range(rank))
    if "axes" in d.schema.attributes and d.chance(0.4):
        chosen = [axes[at] for at in d.random.permutation(len(axes))]
        d.set(axes=[at - rank if d.chance(0.3) else at for at in chosen])
    if region:
        start = [d.random.uniform(0, 0.4) if at in axes else 0 for at in chosen]
        stop = [d.random.uniform(0.6, 1.2) if at in axes else 1 for at in chosen]
        d.put("roi", np.concatenate([start, stop]).astype(np.float32), shaping=True)
        d.set(0.6, extrapolation_value=0.5)
    elif 11 <= d.opset < 13:
        d.put("roi", np.zeros(0, np.float32), shaping=True)
    # ONNX Runtime differs for a region by scales, and for smaller results in opset 10.
    d.need(d.opset >= 11 or mode != "nearest" or min(factors) >= 1)
    if not up and d.opset >= 11 and (region or d.chance()):
        sizes = [max(1, int(shape[at] * factors[at])) + d.between(0, 2 if at in axes else 0) for at in chosen]
        if d.opset < 13:
            d.put("scales", np.zeros(0, np.float32), shaping=True)
        # ONNX Runtime neither crops nor shifts an axis that keeps its size.
        d.need(not (region or shifted) or all(size != shape[at] for at, size in zip(chosen, sizes) if at in axes))
        d.put("sizes", ints(*sizes), shaping=True)
        if not region and min(d.attributes.get("axes", [0])) >= 0:  # ONNX Runtime does not find negative ones
            d.set(0.5, keep_aspect_ratio_policy=d.pick("stretch", "not_larger", "not_smaller"))
    else:
        d.need(not shifted or all(factors[at] != 1 for at in axes))
        d.put("scales", np.array([factors[at] for at in chosen], np.float32), shaping=True)
    if mode == "nearest":
        d.set(0.7, nearest_mode=d.pick(*NEAREST))
    if mode == "cubic":
        d.set(0.5, cubic_coeff_a=-0.5)
        d.set(0.5, exclude_outside=1)
    if mode != "nearest":
        d.set(0.3, antialias=d.between(0, 1))


@recipe("LRN")
def local_response(d: Draw):
    images(d, 4, 4 if d.chance(0.8) else 5)
    d.set(size=d.pick(1, 2, 3, 5))
