"""Which variants of a network the steps of a run compute, and in which programs."""

from __future__ import annotations

import dataclasses

import numpy as np

from sws_jax import trees
from sws_jax.errors import UserError
from sws_jax.models import networks
from sws_jax.specs import Spec
from sws_jax.specs.variants import Computation, Pick
from sws_jax.training.step import Recipe, Student

# What names the compiled program of a step, and what each variant passes to it.
Program = tuple[Recipe, tuple[Student, ...]]

# Programs are counted over so many steps at most, as a long run has a million.
_COUNTED_STEPS = 10_000


@dataclasses.dataclass(frozen=True)
class Picks:
    """What each step of a run computes.

    Attributes:
      recipe: of a step, without variants.
      variants: computations over the weights of the recipe's network; empty where a
        step computes that network.
      pick: chooses those of a step; it is not asked where there are none.
      seed: of the run.
    """

    recipe: Recipe
    variants: tuple[Computation, ...]
    pick: Pick
    seed: int

    def at(self, step: int) -> Program:
        """The program of a step, and the arguments that its variants pass to it.

        Args:
          step: its number, from 0.

        Returns:
          The recipe, with the forms of the variants that are picked; and one `Student`
          for each of these.

        Raises:
          UserError: as `picked`.
        """
        if not self.variants:
            return self.recipe, ()
        picked = self.picked(step)
        forms = tuple(computation.form for computation in picked)
        recipe = dataclasses.replace(self.recipe, forms=forms)
        return recipe, tuple(map(_student, picked))

    def picked(self, step: int) -> tuple[Computation, ...]:
        """The variants that a step computes.

        Args:
          step: its number, from 0.

        Raises:
          UserError: it picks nothing, or a variant that is not there.
        """
        places = tuple(self.pick(self.seed, step))
        if not places or not set(places) <= set(range(len(self.variants))):
            raise UserError(
                f"step {step} picks {places} of {len(self.variants)} variants: a pick "
                f"is one or more of their places, from 0 to {len(self.variants) - 1}"
            )
        return tuple(self.variants[place] for place in places)

    def programs(self, steps: int) -> list[Program]:
        """The programs of a run, each as `at` returns it where it is first needed.

        Args:
          steps: of the run. Of a longer one than 10,000 only these are looked at.

        Raises:
          UserError: as `picked`, or a variant needs weights that the network lacks.
        """
        if not self.variants:
            return [(self.recipe, ())]
        for form in dict.fromkeys(variant.form for variant in self.variants):
            self._check(form)
        programs: dict[Recipe, tuple[Student, ...]] = {}
        for step in range(min(steps, _COUNTED_STEPS)):
            programs.setdefault(*self.at(step))
        return list(programs.items())

    def _check(self, form: Spec) -> None:
        """Refuses a form that the network has no weights for."""
        abstract = map(networks.abstract_params, (form, self.recipe.spec))
        lacking = [line for line in trees.difference(*abstract) if line[0] != "+"]
        if lacking:
            raise UserError(
                f"{form.name} is no variant of {self.recipe.spec.name}, which lacks "
                f"weights that it needs (- missing, ! of another shape): "
                f"{'; '.join(lacking[:4])}"
            )


def _student(computation: Computation) -> Student:
    """The part of a variant that its program takes as arguments."""
    ranges, rates = computation.ranges, None
    if np.any(computation.form.drop_path_rates):
        rates = np.asarray(computation.rates, np.float32)
    return Student(None if ranges is None else np.asarray(ranges, np.int32), rates)
