"""What all methods share: learngenes, descendants, and what a method brings."""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

import jax
from flax import linen as nn

from sws_jax import arguments, specs, trees
from sws_jax.errors import UserError
from sws_jax.methods import plans, surgery
from sws_jax.methods.objectives import Loss, Objective
from sws_jax.methods.plans import Plan
from sws_jax.models import networks, profiles, weights
from sws_jax.models.description import DESCRIPTION, Description
from sws_jax.specs import Spec, ViTSpec
from sws_jax.specs.variants import Pick, pick_first


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["description"],
)
@arguments.checked(
    params=arguments.anything,  # JAX puts placeholders of its own there
    description=DESCRIPTION,
)
@dataclasses.dataclass(frozen=True)
class Learngene:
    """The few trained layers that initialise descendants of any depth.

    A pytree whose only leaves are arrays: it goes through `jax.jit`,
    `jax.eval_shape` and `jax.tree.map` as it is.

    Attributes:
      params: of most methods ``blocks`` with a leading gene axis on every leaf,
        ``patch_embed``, ``pos_embed``, ``cls_token`` (if the network has one), ``norm``
        and ``head`` (if it has classes).
      description: static; network, stages, training and input of the network that it
        was taken from.
    """

    params: trees.Tree
    description: Description

    @property
    def num_genes(self) -> int:
        """How many genes it has."""
        return len(self.description.stages)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["spec", "description"],
)
@arguments.checked(
    spec=networks.SPEC,
    params=arguments.anything,
    description=arguments.optional(DESCRIPTION),
)
@dataclasses.dataclass(frozen=True)
class Descendant(networks.Network):
    """A Des-Net: a network initialised from a learngene, with no shared blocks.

    ``description.plan`` says which gene each block comes from.
    """

    @property
    def plan(self) -> Plan:
        """The gene of each block; empty where the description is not known."""
        return self.description.plan if self.description else ()


def _instead_of_learngene(value: Any) -> str:
    """The remedy, where another object is passed as a learngene."""
    if isinstance(value, (str, os.PathLike)):
        return "sws_jax.load_learngene reads one from a file"
    if isinstance(value, Descendant):
        return "a descendant has no genes left: expand the learngene that it came from"
    if isinstance(value, networks.Network):
        return (
            "sws_jax.extract takes one out of an Aux-Net, and other networks have none"
        )
    return ""


_IS_LEARNGENE = arguments.of(
    Learngene, called="a learngene", hint=_instead_of_learngene
)


def LEARNGENE(name: str, value: Any) -> Learngene:
    """Checks an argument: a `Learngene` whose description is that of a learngene."""
    description = _IS_LEARNGENE(name, value).description
    if description.kind != "learngene":
        raise UserError(
            f"{name} must be a learngene, and its description is of kind "
            f"{description.kind!r}"
        )
    return value


class Seed(NamedTuple):
    """A phase starts from the run's seed."""


class FromRun(NamedTuple):
    """A phase, or a descendant, goes on with the network that a phase trained.

    Attributes:
      phase: its name, or `ANCESTOR`.
    """

    phase: str


class FromNetwork(NamedTuple):
    """A phase goes on with the network of a weights file.

    Attributes:
      path: of the file, or of a run's directory.
    """

    path: str


class FromGene(NamedTuple):
    """A phase, or a descendant, starts as an expansion.

    Attributes:
      path: of the learngene; "" is that of the method itself.
      plan: the gene of each block of the descendant; None takes what the method's
        `plan` returns for its depth, as all plans of segments do.
    """

    path: str = ""
    plan: tuple[int, ...] | None = None


class Trained(NamedTuple):
    """What a phase leaves: what `Method.extract` and `Made` are handed.

    Attributes:
      network: with its description.
      own: the objective's own parameters; {} for most.
    """

    network: networks.Network
    own: trees.Tree


class Made(NamedTuple):
    """A phase starts from parameters that are computed from earlier phases.

    They are computed anew whenever the run starts, in each process.

    Attributes:
      make: from the earlier phases by name, and calibration images [images, height,
        width, channels], float32, normalised as in training, to the parameters of
        the phase's network. Pure, with the same bits for the same arguments; its
        arrays may be numpy's.
      after: names of the earlier phases that it needs.
      images: how many calibration images, which lie evenly over the training images;
        with 0, `make` gets None in their place.
    """

    make: Callable[[Mapping[str, Trained], Any], trees.Tree]
    after: tuple[str, ...] = ()
    images: int = 0


Start = Seed | FromRun | FromNetwork | FromGene | Made


class Length(NamedTuple):
    """How long a phase trains.

    Attributes:
      epochs: 0 trains nothing: a phase that only makes a learngene of what is there.
      rate: the peak of the learning rate, as ``schedule.rate``; None keeps the job's.
      warmup_epochs: None keeps the job's.
    """

    epochs: float
    rate: float | None = None
    warmup_epochs: float | None = None


# The name of the network that teaches, and that some methods take their learngene from:
# a job trains it before all phases, or names a file in its place.
ANCESTOR = "ancestor"


@dataclasses.dataclass(frozen=True)
class Phase:
    """One training before there is anything to expand.

    Two methods share the run of a phase that is equal in both, where the usual fields
    of a config describe it: see `sws_jax.jobs.phases`.

    Attributes:
      name: of its run: unique among all phases of all methods.
      spec: of the network that is trained; None takes that of the start.
      objective: what is minimised.
      teacher: "" (none), `ANCESTOR`, or the name of an earlier phase.
      length: None trains as long as the job says.
      start: where its first weights come from.
      variants: computations over the same parameters, of which `pick` chooses those of
        a step; the first is the reference, which is scored, saved and published. Empty:
        the network alone.
      pick: from (seed, step) to the variants of that step, by their places in
        `variants`. Pure: the same two numbers give the same picks.
      depth: of the one descendant that starts from it; None where all share it.
    """

    name: str
    spec: specs.Trained | None
    objective: Objective = Loss()
    teacher: str = ""
    length: Length | None = None
    start: Start = Seed()
    variants: tuple[specs.Trained, ...] = ()
    pick: Pick = pick_first
    depth: int | None = None


def is_usual(objective: Objective) -> TypeGuard[Loss]:
    """Whether an objective is a `Loss` as it stands here, and none derived from it.

    Such a one is described by the fields of a config, has no parameters of its own, and
    keeps no more for the backward pass where it is distilled.
    """
    return type(objective) is Loss


def initial_own(
    objective: Objective, key: jax.Array, student: Spec, teacher: Spec | None
) -> trees.Tree:
    """What an objective's `init` makes, if a file can hold it.

    Args:
      objective: whose parameters they are.
      key, student, teacher: as in `Objective.init`.

    Raises:
      UserError: it is no nested dict of arrays, or a key of it has a ``/``.
    """
    own = objective.init(key, student, teacher)
    what = f"what the objective {type(objective).__name__} makes"
    weights.check_names(what, nn.meta.unbox(own))
    return own


class Request(NamedTuple):
    """What a job asks of a method, besides the network.

    Attributes:
      stages: lengths of the stages that a method shares its blocks in.
      profile: which reading of the method; see `sws_jax.models.profiles`.
      loss: that of the job's config, with a teacher or without.
    """

    stages: tuple[int, ...] = ()
    profile: str = "consistent"
    loss: Loss = Loss()


class Method:
    """A learngene method: one file that has a class like this, and a line of a dict.

    The functions here that have a body are what most methods need.

    Attributes:
      name: in configs, files and results.
      paper: its reference.
      prefix: what the names of its descendants' runs and of its published learngene
        begin with.
    """

    name: str
    paper: str = ""

    @property
    def prefix(self) -> str:
        """The method's name and a hyphen, unless a method has another."""
        return f"{self.name}-"

    def phases(
        self, net: ViTSpec, request: Request, depths: tuple[int, ...]
    ) -> tuple[Phase, ...]:
        """What is trained before there is anything to expand, in order.

        Args:
          net: the network that the Aux-Net looks like, in its profile's reading.
          request: of the job.
          depths: of the descendants. What a phase is may depend on them only through
            `Phase.depth`, as a comparison may grow.
        """
        return ()

    def extract(self, trained: Mapping[str, Trained], net: ViTSpec) -> Learngene:
        """The learngene that the phases leave.

        Args:
          trained: what each phase leaves, by its name, in their order. Arrays, or
            tracers where a job is checked before it trains.
          net: as in `phases`: of the width and heads of descendants.

        Returns:
          One whose description has the ``kind`` "learngene" and this ``method``.
        """
        raise self._without_learngene()

    def abstract(self, about: Description) -> Learngene:
        """Names, shapes and dtypes of a learngene, which files are checked against.

        Args:
          about: description of the learngene.
        """
        raise self._without_learngene()

    def plan(self, about: Description, size: int) -> Plan:
        """The plan of a descendant.

        Args:
          about: description of the learngene.
          size: depth of the descendant.

        Raises:
          UserError: the learngene cannot fill it, with the reason.
        """
        raise self._without_learngene()

    def expand(
        self, gene: Learngene, plan: Plan, key: jax.Array
    ) -> tuple[specs.Trained, trees.Tree]:
        """The descendant of a plan: its spec, and parameters that are its own.

        Pure and traceable: no file, no leaf changed, numpy or JAX arrays. Head and
        position embedding are those of the learngene; `sws_jax.expand` replaces them.

        Args:
          gene: a learngene of this method.
          plan: as `plan` returns it, or as a user has given it.
          key: of what is random in the descendant.

        Raises:
          UserError: the plan is none of this learngene.
        """
        raise self._without_learngene()

    def auxiliary(self, gene: Learngene) -> tuple[specs.Trained, trees.Tree]:
        """The network that a learngene came from: spec and parameters.

        Args:
          gene: a learngene of this method.

        Raises:
          UserError: there is none.
        """
        raise UserError(f"a learngene of {self.name} comes from no single network")

    def start(self, depth: int) -> Start:
        """Where the descendant of a depth starts, before it is tuned."""
        return FromGene()

    def trains(self, spec: Spec) -> bool:
        """Whether any network of this spec is an Aux-Net of this method.

        `sws_jax.extract` takes a learngene from such a network alone, without its
        phases.
        """
        return False

    def _without_learngene(self) -> UserError:
        """The refusal of a method whose descendants start from no learngene."""
        return UserError(
            f"{self.name} leaves no learngene, from which anything could be expanded"
        )


class BlockMethod(Method, abc.ABC):
    """A method whose genes make the blocks of a descendant, and nothing else.

    Its learngene has the parameters of a ViT, with genes in place of ``blocks``. What
    such a method brings is `layers`, the rule `allot`, and its phases.
    """

    def genes(self, blocks: trees.Tree) -> trees.Tree:
        """The tree of genes, of which each gene is made like a block.

        Names, shapes and logical axes of genes are read from it; `begin` has values.

        Args:
          blocks: stacked, leaves [genes, ...].
        """
        return blocks

    def layers(self, genes: trees.Tree, plan: tuple[int, ...]) -> trees.Tree:
        """The stacked blocks of a plan, leaves [depth, ...]; pure, differentiable.

        Args:
          genes: as `genes` has them, leaves [genes, ...].
          plan: [depth] indices of genes.
        """
        return surgery.gather(genes, plan)

    @abc.abstractmethod
    def allot(self, depth: int, stages: tuple[int, ...]) -> tuple[int, ...]:
        """The plan of a depth.

        Args:
          depth: of the descendant.
          stages: how often the Aux-Net applied each gene, [genes].
        """

    def begin(self, key: jax.Array, blocks: trees.Tree) -> trees.Tree:
        """The genes of an `ExpandedSpec` before its first step.

        Args:
          key: of what is random in them besides the blocks.
          blocks: initialised as those of a ViT, leaves [genes, ...].
        """
        return self.genes(blocks)

    def extract(self, trained: Mapping[str, Trained], net: ViTSpec) -> Learngene:
        """The learngene of the network that the last phase trained.

        Of a plain ViT each block is a gene.
        """
        network = tuple(trained.values())[-1].network
        about, spec = network.description, network.spec
        assert about is not None
        fields: dict[str, Any] = dict(kind="learngene", method=self.name)
        if isinstance(spec, ViTSpec):
            fields |= dict(net=spec, source=spec, stages=(1,) * spec.depth)
        return Learngene(self.of_auxiliary(network), about.replace(**fields))

    def of_auxiliary(self, network: networks.Network) -> trees.Tree:
        """The parameters of a learngene from those of its Aux-Net."""
        return network.params

    def abstract(self, about: Description) -> Learngene:
        """See `Method.abstract`: a ViT's, with `genes` in place of ``blocks``."""
        net = about.vit.replace(depth=len(about.stages))
        params = networks.abstract_params(net)
        blocks = jax.eval_shape(self.genes, params["blocks"])
        return Learngene({**params, "blocks": blocks}, about)

    def plan(self, about: Description, size: int) -> tuple[int, ...]:
        """See `Method.plan`: that of `allot`, for the stages of the learngene."""
        allotted = plans.of_genes(self.allot(size, about.stages), len(about.stages))
        if len(allotted) != size:
            raise UserError(
                f"the rule of {self.name} makes a plan of {len(allotted)} blocks for a "
                f"depth of {size}: it must name a gene for each block of the depth"
            )
        return allotted

    def expand(
        self, gene: Learngene, plan: Plan, key: jax.Array
    ) -> tuple[ViTSpec, trees.Tree]:
        """See `Method.expand`: ``blocks`` are `layers` of the plan, and all else is
        copied.

        The head and embeddings are those of the learngene, and attention has the heads
        of the profile's descendants.

        Args:
          gene: a learngene of this method.
          plan: [depth] indices of genes.
          key: not used, as nothing is random in it.

        Raises:
          UserError: the plan is empty or too long, or an entry of it is no gene.
        """
        about = gene.description
        indices = plans.of_genes(plan, len(about.stages))
        net = profiles.find(about.profile).descendant(about.vit)
        spec = net.replace(depth=len(indices))
        rest = {name: leaf for name, leaf in gene.params.items() if name != "blocks"}
        blocks = self.layers(gene.params["blocks"], indices)
        if spec.heads != about.vit.heads:
            blocks = surgery.split_heads(blocks, spec)
        return spec, {**surgery.own(rest), "blocks": blocks}
