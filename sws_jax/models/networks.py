"""A network with its weights: what is trained, saved, evaluated and taught by."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any, get_args

import jax
import numpy as np

from sws_jax import arguments, pixels, sharding, trees
from sws_jax.errors import UserError
from sws_jax.models import vit, weights
from sws_jax.models.description import DESCRIPTION, Description
from sws_jax.models.outputs import TAP_NAMES, Outputs
from sws_jax.pixels import INTERPOLATIONS, NORMALIZATION, Normalization
from sws_jax.specs import Compute, Spec
from sws_jax.specs.base import COMPUTE, DTYPE


def _instead_of_spec(value: Any) -> str:
    """A hint for a value that is no spec."""
    if isinstance(value, str):
        return "sws_jax.named makes one from a name"
    spec = getattr(value, "spec", None)
    return "its .spec is one" if isinstance(spec, Spec) else ""


SPEC = arguments.of(
    *get_args(Spec), called="a spec, like a ViTSpec", hint=_instead_of_spec
)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["spec", "description"],
)
@arguments.checked(
    spec=SPEC,
    params=arguments.anything,  # JAX puts anything there
    description=arguments.optional(DESCRIPTION),
)
@dataclasses.dataclass(frozen=True)
class Network:
    """A spec and the parameters that fit it; a pytree whose leaves are arrays.

    ``network.spec.build().apply({"params": network.params}, images)`` are logits.

    Attributes:
      spec: static; `spec.build()` is the linen module.
      params: nested dict, ``params["blocks"]`` stacked on a leading layer axis.
      description: static; where the weights come from, if known.
    """

    spec: Spec
    params: trees.Tree
    description: Description | None = None


def _instead_of_network(value: Any) -> str:
    """A hint for a value that is no network."""
    if isinstance(value, (str, os.PathLike)):
        return "sws_jax.load_network reads one from a file"
    if getattr(getattr(value, "description", None), "kind", "") == "learngene":
        return "it is a learngene, which sws_jax.expand makes one of"
    return ""


NETWORK = arguments.of(Network, called="a network", hint=_instead_of_network)


# JAX's names of the interpolations of `sws_jax.pixels`.
_RESIZE = {
    "bicubic": "cubic",
    "bilinear": "linear",
    "lanczos": "lanczos3",
    "nearest": "nearest",
}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["network"],
    meta_fields=["normalization", "compute", "interpolation", "order"],
)
@arguments.checked(
    network=arguments.anything,
    normalization=NORMALIZATION,
    compute=COMPUTE,
    interpolation=arguments.text(INTERPOLATIONS),
    order=arguments.wholes(0),
)
@dataclasses.dataclass(frozen=True)
class Predictor:
    """A frozen network that brings its own view of an image.

    Attributes:
      network: of any size and normalisation.
      normalization: static; what the network was trained with.
      compute: static; its own dtype.
      interpolation: static; how it wants images of another size resized.
      order: static; output ``order[i]`` is that of class i (see
        `sws_jax.data.classes.match`); empty takes the outputs as they are.
    """

    network: Network
    normalization: Normalization
    compute: Compute = Compute()
    interpolation: str = "bicubic"
    order: tuple[int, ...] = ()

    @arguments.checked(
        images=arguments.like("shape", "dtype", called="an array of images"),
        normalization=NORMALIZATION,
    )
    def logits(self, images, normalization: Normalization) -> jax.Array:
        """Logits of images that were normalised for another network.

        Args:
          images: [batch, height, width, channels], as that network sees them.
          normalization: of those images; they are mapped to this network's own,
            and resized (antialiased) if it wants another size.

        Returns:
          [batch, classes], float32, without gradient.

        Raises:
          UserError: `order` names an output that the network lacks, or arrays are
            split over explicit axes of a mesh.
        """
        return self.outputs(images, normalization).logits

    @arguments.checked(
        images=arguments.like("shape", "dtype", called="an array of images"),
        normalization=NORMALIZATION,
        taps=TAP_NAMES,
    )
    def outputs(
        self, images, normalization: Normalization, taps: tuple[str, ...] = ()
    ) -> Outputs:
        """`logits`, and what is tapped on the way to them.

        Args:
          images: [batch, height, width, channels], as `logits` takes them.
          normalization: of those images.
          taps: names of `sws_jax.models.outputs.TAPS`.

        Returns:
          Without gradient; `order` is that of the logits.

        Raises:
          UserError: as `logits`, or the network is no ViT and there are taps.
        """
        # JAX puts anything there, so that it is looked at when it is used.
        spec = NETWORK("network", self.network).spec
        if (last := max(self.order, default=-1)) >= spec.num_classes:
            raise UserError(  # indexing would take another in its place
                f"order names output {last}, and {spec.name} has "
                f"{spec.num_classes}, from 0"
            )
        sharding.refuse_explicit("images or weights", (images, self.network.params))
        x = pixels.renormalize(images, normalization, self.normalization)
        if x.shape[1:3] != spec.image_size:
            shape = (x.shape[0], *spec.image_size, x.shape[3])
            x = jax.image.resize(x, shape, _RESIZE[self.interpolation], antialias=True)
        module = spec.build(self.compute)

        def apply(params, x):
            result = module.apply({"params": params}, x, taps=taps)
            return result if taps else Outputs(result)

        # Networks that are trained place their activations themselves.
        if spec.trainable:
            outputs = apply(self.network.params, x)
        else:
            outputs = sharding.by_image(apply, self.network.params, x)
        if self.order:
            logits = outputs.logits[:, np.asarray(self.order)]
            outputs = outputs._replace(logits=logits)
        return jax.lax.stop_gradient(outputs)


def _instead_of_predictor(value: Any) -> str:
    """A hint for a value that is no predictor."""
    network = isinstance(value, Network)
    return "sws_jax.models.networks.predictor makes one of a network" if network else ""


PREDICTOR = arguments.of(Predictor, called="a Predictor", hint=_instead_of_predictor)


@arguments.checked(network=NETWORK, dtype=DTYPE)
def predictor(
    network: Network, *, dtype: str = "float32", order: tuple[int, ...] = ()
) -> Predictor:
    """A network, computing in `dtype`, with the view that its description names.

    Args:
      network: with its description.
      dtype: of its computation.
      order: of its outputs; see `Predictor`.

    Raises:
      UserError: the network has no description.
    """
    about = network.description
    if about is None:
        raise UserError(
            "network has no description, which says how it wants its images "
            "(dataclasses.replace one in)"
        )
    compute = Compute(dtype=dtype)
    return Predictor(network, about.normalization, compute, about.interpolation, order)


@arguments.checked(spec=SPEC)
def abstract_params(spec: Spec, *, boxed: bool = False) -> trees.Tree:
    """Names, shapes and dtypes of a network's parameters, without computing."""
    # A new tree for each caller, who may change it.
    return jax.tree.map(lambda leaf: leaf, _abstract_params(spec, boxed))


# Tracing takes up to a second, and one run asks for the same shapes a dozen times.
@functools.lru_cache(maxsize=64)
def _abstract_params(spec: Spec, boxed: bool) -> trees.Tree:
    # No shape depends on a backend's rules, and JAX need not start to look them up.
    module = spec.build(Compute(backend="plain"))
    init = functools.partial(vit.init_params, module, boxed=boxed)
    return jax.eval_shape(init, jax.eval_shape(jax.random.key, 0))


@arguments.checked(network=NETWORK)
def save_network(path: str | os.PathLike[str], network: Network) -> None:
    """Writes a network as one `.safetensors` file, which `load_network` reads.

    Raises:
      UserError: the network has no description (`dataclasses.replace` one in), or
        parameters of another one; or the path does not end in ``.safetensors``.
    """
    path = os.fspath(path)
    about = described(path, network)
    check_params(network)
    weights.save(path, network.params, about)


@arguments.checked(path=arguments.path, network=NETWORK)
def described(path: str, network: Network) -> Description:
    """The description that is written to a path beside a network.

    Raises:
      UserError: it has none, or that of another network, which could not be read.
    """
    about = network.description
    if about is None:
        raise UserError(
            f"{path}: a network without a description cannot be saved: "
            f"dataclasses.replace one in"
        )
    if about.kind == "learngene" or about.spec != network.spec:
        what = "a learngene" if about.kind == "learngene" else about.spec.name
        raise UserError(
            f"{path}: network is {network.spec.name} and its description is of {what}: "
            f"dataclasses.replace its own in"
        )
    return about


@arguments.checked()
def load_network(path: str | os.PathLike[str]) -> Network:
    """Reads what `save_network` wrote; numpy leaves.

    Raises:
      UserError: the file is missing, broken, or holds a learngene.
    """
    path = os.fspath(path)
    params, description = weights.load(path)
    check_network(path, description)
    weights.check(path, abstract_params(description.spec), params)
    return Network(description.spec, params, description)


@arguments.checked(network=NETWORK)
def check_params(network: Network) -> None:
    """Refuses parameters that are not those of their spec.

    Raises:
      UserError: naming what is missing, surplus or of another shape.
    """
    weights.check("network.params", abstract_params(network.spec), network.params)


@arguments.checked(path=arguments.path, description=DESCRIPTION)
def check_network(path: str, description: Description) -> None:
    """Refuses a file, named `path`, that holds a learngene."""
    if description.kind == "learngene":
        raise UserError(
            f"{path} holds a learngene, not a network: expand it to a depth first"
        )
