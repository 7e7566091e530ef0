"""The provider: names of Aer's simulators. Light; Aer is imported when one of them is made."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec


@hookimpl
def qsgd_register_backends() -> list[BackendSpec]:
    """``aer:METHOD``, and ``aer:METHOD@gpu`` where Aer knows the method on a GPU."""
    return [
        BackendSpec(
            prefix="aer",
            kind="simulator",
            devices=(
                "statevector",
                "density_matrix",
                "matrix_product_state",
                "statevector@gpu",
                "density_matrix@gpu",
            ),
            factory="qsgd_aer.backend:Aer",
            options="qsgd_aer.options:AerOptions",
            summary="Qiskit Aer on this machine, ideal or with a noise model, seeded. "
            "Option: noise_model (model.json, script.py:NAME, package.module:NAME).",
        )
    ]
