"""Parameters and operations of networks, from formulas written here."""

from sws_jax import specs
from sws_jax.specs import Compute

S12 = specs.named("vit_small_patch16_L12")
NANO = specs.named("vit_nano_patch8_L2", image_size=32)
PLAIN, REMAT = (Compute(remat=remat, backend="plain") for remat in (False, True))
DEPTHS = range(6, 16)  # of the paper's tables: 105 blocks


def patch_flops(net):
    rows, columns = net.grid
    return 2 * rows * columns * net.patch_size**2 * net.channels * net.width


def block_flops(net):
    n, d, m = net.tokens, net.width, net.hidden
    qkv, attention, proj, mlp = 3 * n * d * d, 2 * n * n * d, n * d * d, 2 * n * d * m
    return 2 * (qkv + attention + proj + mlp)


def forward(net):
    """The operations of a transformer's matrix products, 2 for each multiply-add."""
    heads = 2 * net.width * net.num_classes * len(net.classifiers)
    return patch_flops(net) + net.depth * block_flops(net) + heads


def formula(spec):
    """The number of parameters, from the shapes of a transformer."""
    net = spec.net
    d, m = net.width, net.hidden
    blocks = len(spec.stages) if isinstance(spec, specs.AuxViTSpec) else spec.depth
    block = 4 * d + (d * 3 * d + 3 * d) + (d * d + d) + (d * m + m) + (m * d + d)
    patch = net.patch_size**2 * net.channels * d + d
    return patch + net.tokens * d + blocks * block + 2 * d + (d + 1) * net.num_classes
