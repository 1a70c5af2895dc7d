"""Export published architectures as ONNX graphs without weights, for the test beside this file.

`python tests/architectures/export.py [NAME ...]` writes graphs/NAME.onnx.gz for all or some of them; it needs the
packages of requirements.txt beside it; the test itself does not. A large initializer loses its values but keeps its
shape, and its doc string records their mean, standard deviation, minimum and maximum, from which the test draws similar
values. Networks are built without downloaded weights. Parameters that frameworks initialize with a constant are
randomized first: many residual branches start with a last scale of 0, which would hide errors inside the branch.
"""

import argparse
import gzip
import io
import math
import warnings
from pathlib import Path

import onnx
import timm
import torch
import torchvision
from onnx import numpy_helper

GRAPHS = Path(__file__).parent / "graphs"

# Initializers of more elements lose their values.
KEPT = 64

# timm's names, the classic exporter.
TIMM = """
    bat_resnext26ts botnet26t_256 cait_xxs24_224 coat_lite_tiny coatnet_nano_rw_224 convit_tiny convmixer_768_32
    convnext_atto convnextv2_atto crossvit_tiny_240 cs3darknet_s cspresnet50 darknet53 davit_tiny deit_tiny_patch16_224
    densenet121 dla46_c dpn48b eca_nfnet_l0 edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0
    efficientvit_b0 efficientvit_m0 ese_vovnet19b_dw eva02_tiny_patch14_224 fastvit_t8 fasternet_t0 fbnetc_100
    fbnetv3_b focalnet_tiny_srf gcvit_xxtiny gernet_s ghostnet_100 ghostnetv2_100 gmlp_s16_224
    hardcorenas_a hgnetv2_b0 hiera_tiny_224 hrnet_w18_small inception_next_atto inception_v3 inception_v4
    lambda_resnet26t lcnet_050 levit_128s mambaout_femto maxvit_rmlp_pico_rw_256 mixer_s32_224 mixnet_s mnasnet_small
    mobilenetv1_100 mobilenetv2_100 mobilenetv3_small_100 mobilenetv4_conv_small mobilenetv4_hybrid_medium
    mobileone_s0 mobilevit_xxs mobilevitv2_050 nest_tiny nf_regnet_b0 pit_ti_224 poolformer_s12 poolformerv2_s12
    pvt_v2_b0 rdnet_tiny regnetx_002 regnety_002 repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_26w_4s resmlp_12_224
    resnest14d resnet18 resnet50 resnext50_32x4d rexnet_100 seresnet50 selecsls42b sequencer2d_s shvit_s1 skresnet18
    spnasnet_100 starnet_s1 swiftformer_xs swin_s3_tiny_224 swinv2_cr_tiny_ns_224 tf_efficientnet_lite0
    tf_efficientnetv2_b0 tf_mixnet_s tf_mobilenetv3_small_minimal_100 tinynet_a tiny_vit_5m_224 tnt_s_legacy_patch16_224
    twins_pcpvt_small vgg11_bn visformer_tiny vit_tiny_patch16_224 volo_d1_224 wide_resnet50_2 xception41
    xcit_nano_12_p16_224
""".split()
# torchvision's names, the classic exporter.
TORCHVISION = "alexnet googlenet mnasnet0_5 shufflenet_v2_x0_5 squeezenet1_1 swin_t".split()
# timm's names, the exporter built on torch.export.
DYNAMO = """
    convnext_atto efficientnet_b0 mobilenetv2_100 mobilenetv3_small_100 mobilenetv4_conv_small mobilevit_xxs
    resnet18 vit_tiny_patch16_224 swin_s3_tiny_224 ghostnet_100
""".split()

# Networks with attention over values that only their batch normalizations keep small: with random statistics they grow
# from block to block, until scores are so far apart that rounding decides which token is attended to.
CALIBRATED = ["visformer_tiny"]


def names() -> list[str]:
    """The architectures, as their files are named."""
    return sorted([*TIMM, *(f"tv_{name}" for name in TORCHVISION), *(f"dynamo_{name}" for name in DYNAMO)])


def shake(network: torch.nn.Module) -> None:
    """Randomize parameters that were initialized with a constant: scales around 1, shifts around 0."""
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if not tensor.dtype.is_floating_point or tensor.numel() < 2 or tensor.std() > 0:
            continue
        is_scale = tensor.flatten()[0] == 1 or name.endswith(("weight", "running_var"))
        is_layer_scale = any(part in name for part in ("gamma", "ls1", "ls2", "layer_scale", "alpha"))
        with torch.no_grad():
            if is_layer_scale:
                tensor.uniform_(0.1, 0.5)
            elif is_scale:
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(0, 0.05)


def calibrate(network: torch.nn.Module, shape: tuple[int, ...]) -> None:
    """Set the statistics of batch normalizations to those of random images, as training does."""
    normalizations = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in normalizations:
        module.momentum = None
        module.reset_running_stats()
        module.train()
    with torch.no_grad():
        network(torch.randn(4, *shape))
    network.eval()


def build(name: str) -> tuple[torch.nn.Module, tuple[int, ...], bool]:
    """A network in inference mode, the shape of its input, and whether to use the newer exporter."""
    torch.manual_seed(1)
    if name.startswith("tv_"):
        network, size = torchvision.models.get_model(name[3:], weights=None), (3, 224, 224)
    else:
        network = timm.create_model(name.removeprefix("dynamo_"), pretrained=False, exportable=True)
        size = network.default_cfg["input_size"]
    network.eval()
    shake(network)
    if name in CALIBRATED:
        calibrate(network, size)
    return network, (1, *size), name.startswith("dynamo_")


def strip(model: onnx.ModelProto) -> None:
    """Remove everything that is not the network, and the values of large initializers."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        value.doc_string = ""
        del value.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
        if tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) > KEPT:
            values = numpy_helper.to_array(tensor)
            tensor.doc_string = " ".join(f"{fact():.6g}" for fact in (values.mean, values.std, values.min, values.max))
            tensor.ClearField("raw_data")
            del tensor.float_data[:]


def export(name: str) -> Path:
    """Write graphs/`name`.onnx.gz and return its path."""
    network, shape, dynamo = build(name)
    image = torch.randn(shape)
    written = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            model = torch.onnx.export(network, (image,), dynamo=True, verbose=False).model_proto
        else:
            torch.onnx.export(
                network, (image,), written, dynamo=False, opset_version=17, input_names=["image"], output_names=["logits"]
            )
            model = onnx.load_from_string(written.getvalue())
    strip(model)
    path = GRAPHS / f"{name}.onnx.gz"
    # No time stamp: the same network is the same file.
    path.write_bytes(gzip.compress(model.SerializeToString(deterministic=True), mtime=0))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="architectures; all when none is given")
    GRAPHS.mkdir(exist_ok=True)
    for chosen in parser.parse_args().names or names():
        print(export(chosen), flush=True)
