"""From an Aux-Net to a learngene, and from a learngene to a network of any depth."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence

import jax

from sws_jax import arguments, specs, trees
from sws_jax.errors import UserError
from sws_jax.methods import plans, surgery, sws, tleg
from sws_jax.methods.base import LEARNGENE, Descendant, Learngene, Method, Trained
from sws_jax.models import networks, profiles, weights
from sws_jax.models.description import DESCRIPTION, Description
from sws_jax.specs import AuxViTSpec, ExpandedSpec, ViTSpec
from sws_jax.specs.base import CLASSES

# The methods, by their names in configs, files and results. A new one is a line here.
METHODS: dict[str, Method] = {
    sws.NAME: sws.METHOD,
    tleg.NAME: tleg.METHOD,
}
assert all(name == method.name for name, method in METHODS.items())


def _aux_net(name: str, value: object) -> networks.Network:
    """Checks the argument of `extract`."""
    if isinstance(value, Learngene):
        raise UserError(f"{name} is a learngene already: nothing is left to extract")
    return networks.NETWORK(name, value)


def method_of(spec: specs.Spec | None) -> str:
    """The method whose Aux-Net a network is, by its spec alone; empty for none."""
    if isinstance(spec, ExpandedSpec):
        return spec.method
    return next((m.name for m in METHODS.values() if spec and m.trains(spec)), "")


def describe(spec: specs.Spec, **fields) -> Description:
    """The description of a network that nothing has trained.

    Args:
      spec: of the network; its kind, stages and method follow from it.
      **fields: the other fields of `Description`.
    """
    method = method_of(spec)
    fields |= dict(kind="aux_net" if method else "network", method=method)
    if isinstance(spec, AuxViTSpec):
        return Description(net=spec.net, stages=spec.stages, **fields)
    if isinstance(spec, ExpandedSpec):
        return Description(net=spec.net, stages=spec.stages, source=spec, **fields)
    return Description(net=spec, **fields)


def with_spec(description: Description, spec: specs.Spec) -> Description:
    """The description of a network of another spec, of the same kind.

    Args:
      description: of a network or an Aux-Net.
      spec: in place of its own, of the same family.
    """
    net = spec.net if isinstance(spec, (AuxViTSpec, ExpandedSpec)) else spec
    source = spec if isinstance(spec, ExpandedSpec) else None
    return description.replace(net=net, source=source)


def inherit(
    description: Description, origin: Description, plan: plans.Plan
) -> Description:
    """The description of a network that starts from other weights.

    Args:
      description: of the network as if it started from a seed.
      origin: of those weights, whose method, stages and teacher stay known.
      plan: the gene of every block, or empty.
    """
    return description.replace(
        method=origin.method, stages=origin.stages, plan=plan, teacher=origin.teacher
    )


@arguments.checked(network=_aux_net)
def extract(network: networks.Network) -> Learngene:
    """Takes the learngene out of a trained Aux-Net.

    Args:
      network: an Aux-Net with its description, which names its method.

    Returns:
      Its genes, stacked on a leading axis, with embeddings, norm and head.

    Raises:
      UserError: the network is not an Aux-Net, or has no description.

    Reference:
      SWS, 2404.16897, section 3.2.
    """
    about = network.description
    if about is None or about.kind != "aux_net":
        raise UserError(
            "a learngene is taken from an Aux-Net with a description, and this network "
            "is not one: load an Aux-Net's checkpoint"
        )
    networks.check_params(network)
    trained = {network.spec.name: Trained(network, {})}
    return find_method(about.method).extract(trained, about.vit)


def extracted_description(
    method: Method, trained: Mapping[str, Trained], net: ViTSpec
) -> Description | None:
    """The description of the learngene that phases would leave, from shapes alone.

    Args:
      method: theirs.
      trained: arrays, or shapes, by the names of the phases, in their order.
      net: the network that the method was asked with.

    Returns:
      None where it depends on the numbers that are trained.
    """
    names = tuple(trained)

    def extract(values):  # Not of a dict: JAX would sort its keys.
        return method.extract(dict(zip(names, values, strict=True)), net)

    try:
        return jax.eval_shape(extract, tuple(trained.values())).description
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):  # It needs a number.
        return None


@arguments.checked(
    learngene=LEARNGENE,
    num_classes=arguments.optional(CLASSES),
    image_size=arguments.optional(arguments.size),
    seed=arguments.SEED,
    **plans.REQUESTS,
)
def expand(
    learngene: Learngene,
    *,
    depth: int | None = None,
    plan: Sequence[int] | None = None,
    allotment: Sequence[int] | None = None,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
) -> Descendant:
    """Initialises a descendant: each gene copied as often as its stage needs.

    TLEG has one gene, from which the layers of a depth are computed. Pure: reads no
    file, changes no leaf, works under `jax.jit` and `jax.eval_shape`, on numpy and jax
    leaves, and keeps dtype and sharding.

    Args:
      learngene: from `extract` or `load_learngene`.
      depth: blocks of the descendant; the method's rule divides them.
      plan: instead, the gene of every block: ``(0, 0, 0, 1, 1, 2, ...)``.
      allotment: instead, how many copies of each gene: ``(3, 3, 2, 2, 2)``.
      num_classes: a fresh head of so many classes, from `seed`; 0 leaves it out;
        None inherits the learngene's head.
      image_size: height and width in pixels; the position embedding is resized.
      seed: of a fresh head, and of what a method draws.

    Returns:
      `Descendant(spec, params, description)`: ``spec.build()`` is the module, and
      ``params["blocks"]`` holds the blocks, stacked.

    Raises:
      UserError: a ValueError, for a request that cannot be met, or for an object that
        is no learngene: a path, say, or a descendant.

    Reference:
      SWS, 2404.16897, section 3.3; TLEG, 2312.05614, section 3.
    """
    origin = learngene.description
    method = find_method(origin.method)
    chosen = plan_of(origin, depth=depth, plan=plan, allotment=allotment)
    check_params(learngene)
    spec, params = method.expand(learngene, chosen, jax.random.key(seed))
    if image_size is not None:
        spec, params = _for_images(spec, params, image_size, origin.profile)
    if num_classes is not None:
        spec, params = _with_head(spec, params, num_classes, seed)
    description = origin.replace(
        kind="network",
        net=spec,
        plan=chosen,
        source=None,
        class_names=origin.class_names if num_classes is None else (),
        accuracy=-1.0,
    )
    return Descendant(spec, params, description)


def _for_images(
    spec: specs.Trained,
    params: trees.Tree,
    image_size: int | tuple[int, int],
    profile: str,
) -> tuple[specs.Trained, trees.Tree]:
    """Spec and params for images of another size: only positions depend on it."""
    new = spec.replace(image_size=image_size)
    pos_embed = surgery.resize_pos_embed(
        params["pos_embed"],
        spec.stem,
        new.stem,
        antialias=profiles.find(profile).antialias,
    )
    return new, {**params, "pos_embed": pos_embed}


def _with_head(
    spec: specs.Trained, params: trees.Tree, num_classes: int, seed: int
) -> tuple[specs.Trained, trees.Tree]:
    """Spec and params with a fresh head in place of another; 0 classes have none."""
    spec = spec.replace(num_classes=num_classes)
    params = {name: leaf for name, leaf in params.items() if name != "head"}
    if num_classes:
        like = params["norm"]["scale"]
        params["head"] = surgery.fresh_head(spec.tail, seed, like=like)
    return spec, params


def plan_of(
    description: Description,
    *,
    depth: int | None = None,
    plan: Sequence[int] | None = None,
    allotment: Sequence[int] | None = None,
) -> plans.Plan:
    """The gene of every block of a learngene's descendant.

    Args:
      description: of the learngene.
      depth, plan, allotment: as in `expand`.

    Raises:
      UserError: an unknown method, or a request that cannot be met.
    """
    method = find_method(description.method)
    return plans.resolve_plan(
        description.stages,
        functools.partial(method.plan, description),
        depth=depth,
        plan=plan,
        allotment=allotment,
    )


@arguments.checked(description=DESCRIPTION)
def abstract_descendant(
    description: Description, *, seed: int = 0, **request
) -> Descendant:
    """Spec, plan, names and shapes of a learngene's descendant, without computing.

    Args:
      description: of the learngene.
      seed: as in `expand`.
      **request: depth, plan or allotment, as in `expand`.

    Raises:
      UserError: as `expand`.
    """
    gene = abstract_learngene(description)
    return jax.eval_shape(functools.partial(expand, seed=seed, **request), gene)


@arguments.checked(learngene=LEARNGENE)
def auxiliary(learngene: Learngene) -> networks.Network:
    """The Aux-Net that a learngene came from: the inverse of `extract`.

    That of TLEG is the plain network which its one gene makes at the trained depth.
    """
    origin = learngene.description
    method = find_method(origin.method)
    check_params(learngene)
    spec, params = method.auxiliary(learngene)
    kind = "aux_net" if method_of(spec) else "network"
    source = origin.source if kind == "aux_net" else None
    description = origin.replace(kind=kind, source=source)
    return networks.Network(spec, params, description)


@arguments.checked(learngene=LEARNGENE)
def save_learngene(path: str | os.PathLike[str], learngene: Learngene) -> None:
    """Writes one `.safetensors` file, description in its header.

    Raises:
      UserError: the parameters are those of something else, or the path does not end
        in ``.safetensors``: `load_learngene` could not read it.
    """
    check_params(learngene)
    weights.save(path, learngene.params, learngene.description)


@arguments.checked()
def load_learngene(path: str | os.PathLike[str]) -> Learngene:
    """Reads and validates what `save_learngene` wrote; numpy leaves.

    Raises:
      UserError: the file is missing, broken, foreign, or no learngene.
    """
    path = os.fspath(path)
    params, description = weights.load(path)
    check_learngene(path, description)
    weights.check(path, abstract_learngene(description).params, params)
    return Learngene(params, description)


@arguments.checked(learngene=LEARNGENE)
def check_params(learngene: Learngene) -> None:
    """Refuses parameters that are not those of their description.

    Raises:
      UserError: naming what is missing, surplus or of another shape.
    """
    wanted = abstract_learngene(learngene.description).params
    weights.check("learngene.params", wanted, learngene.params)


@arguments.checked(path=arguments.path, description=DESCRIPTION)
def check_learngene(path: str, description: Description) -> None:
    """Refuses a file that holds no learngene, or one of an unknown method.

    Args:
      path: for the message.
      description: of what is in the file.

    Raises:
      UserError: naming the file.
    """
    if description.kind != "learngene":
        raise UserError(
            f"{path} holds a network ({description.spec.name}), not a learngene"
        )
    try:
        find_method(description.method)
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from None


@arguments.checked(description=DESCRIPTION)
def abstract_learngene(description: Description) -> Learngene:
    """Names, shapes and dtypes of a learngene, without computing."""
    return find_method(description.method).abstract(description)


@arguments.checked()
def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
      UserError: listing the known methods, for an unknown one.
    """
    if name not in METHODS:
        raise UserError(
            f"there is no learngene method {name!r}; the known ones are "
            f"{', '.join(METHODS)}"
        )
    return METHODS[name]


@arguments.checked(learngene=LEARNGENE)
def num_stored(learngene: Learngene) -> int:
    """Number of scalars in the file of a learngene."""
    return trees.count(learngene.params)


# What users call; other modules call more.
__all__ = [
    "METHODS",
    "Descendant",
    "Learngene",
    "Method",
    "abstract_learngene",
    "auxiliary",
    "check_learngene",
    "check_params",
    "expand",
    "extract",
    "find_method",
    "load_learngene",
    "num_stored",
    "save_learngene",
]
