"""Conformance of a perturbation that no circuit is needed for."""

from __future__ import annotations

import pytest
import torch

from qsgd_core.perturbation import ClassicalPerturbation
from qsgd_core.plugins.registry import default_registry
from qsgd_core.testing.measuring import assert_light
from qsgd_core.testing.perturbation import DEVICES, _require_device, provider_of
from qsgd_core.testing.purity import no_global_randomness
from qsgd_core.testing.standard import Standard

LENGTHS = (0, 1, 2, 7, 1000)


class ClassicalPerturbationConformance(Standard):
    """Tests of a :class:`~qsgd_core.perturbation.ClassicalPerturbation`: give ``perturbation``."""

    GIVEN = frozenset({"perturbation"})

    @pytest.fixture(scope="class")
    @classmethod
    def perturbation(cls) -> ClassicalPerturbation:
        """The perturbation under test."""
        raise NotImplementedError(
            "Define the fixture: "
            '@pytest.fixture(scope="class") @classmethod def perturbation(cls): …'
        )

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
    def test_s_has_the_shape_dtype_and_device_of_theta(
        self, perturbation: ClassicalPerturbation, dtype: torch.dtype, device: str
    ) -> None:
        """For parameters of any length, entries in [-1, 1], inputs untouched.

        If this fails: make every tensor inside with ``dtype=theta.dtype, device=theta.device``,
        draw on the CPU and move the draws; handle a parameter without selected coordinates.
        """
        _require_device(device, dtype)
        for length in LENGTHS:
            inputs = _inputs(perturbation, length, dtype, device)
            kept = [None if x is None else x.clone() for x in inputs]
            s = _modulation(perturbation, inputs)
            assert s.shape == (length,), f"shape {tuple(s.shape)} for {length} coordinates"
            assert s.dtype == dtype, f"dtype {s.dtype}"
            assert s.device.type == device, f"device {s.device}"
            assert torch.isfinite(s).all(), "s is not finite"
            assert not length or float(s.abs().max()) <= 1 + 1e-6, "s leaves [-1, 1]"
            for x, before in zip(inputs, kept, strict=True):
                assert x is None or (before is not None and torch.equal(x, before)), "input changed"

    def test_the_same_inputs_give_the_same_s(self, perturbation: ClassicalPerturbation) -> None:
        """s depends on its arguments alone: twice the same, whatever was asked in between.

        If this fails: draw from a generator of your own, seeded with
        ``derive_seed(…, seed, step, name)``; keep no state and leave global generators alone.
        """
        inputs = _inputs(perturbation, 50, torch.float64, "cpu")
        with no_global_randomness():
            first = _modulation(perturbation, inputs)
            _modulation(perturbation, inputs, step=5)
            _modulation(perturbation, inputs, name="other.bias")
            second = _modulation(perturbation, inputs)
        assert torch.equal(first, second), "asked twice, s differs"

    def test_what_it_is_matched_to_exists(self, perturbation: ClassicalPerturbation) -> None:
        """``match`` names an installed perturbation, if it names one.

        If this fails: use a name that ``qsgd perturbations`` lists, or None.
        """
        if perturbation.match is None:
            pytest.skip("match is None: it needs no reference")
        names = {registered.spec.name for registered in default_registry().perturbations()}
        assert perturbation.match in names, f"{perturbation.match!r} is not among {sorted(names)}"

    def test_its_plugin_stays_light(self, perturbation: ClassicalPerturbation) -> None:
        """It is installed, and listing its plugin imports no torch and no SDK.

        If this fails: install it (``pip install -e .``); name code in specs by strings
        (``"package.module:Class"``), and import nothing but qsgd_core's hookspecs and specs in the
        plugin's module and its package's ``__init__``.
        """
        assert_light(provider_of(perturbation))


Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def _inputs(
    perturbation: ClassicalPerturbation, length: int, dtype: torch.dtype, device: str
) -> Inputs:
    generator = torch.Generator("cpu").manual_seed(length)

    def draw() -> torch.Tensor:
        return torch.randn(length, generator=generator, dtype=dtype, device="cpu").to(device)

    reference = None if perturbation.match is None else torch.sin(draw())
    return draw(), draw(), reference


def _modulation(
    perturbation: ClassicalPerturbation,
    inputs: Inputs,
    *,
    step: int = 4,
    name: str = "layer.weight",
) -> torch.Tensor:
    theta, grad, reference = inputs
    return perturbation.modulation(theta, grad, step=step, name=name, seed=3, reference=reference)
