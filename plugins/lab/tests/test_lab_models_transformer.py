"""The paper's transformer with quantum attention, and the task that trains it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import default_registry
from qsgd_lab.models import QuantumAttention, TextTransformer
from qsgd_lab.sequences import QuantumSequences, Sequences


def make(attention: str = "quantum", seed: int = 0, **options: object) -> TextTransformer:
    torch.manual_seed(seed)
    return TextTransformer(n_tokens=8, length=12, n_classes=2, attention=attention, **options)


def tokens(n: int = 4) -> torch.Tensor:
    return torch.randint(8, (n, 12), generator=torch.Generator().manual_seed(1))


def test_one_flag_puts_the_papers_circuit_into_every_layer():
    for layer in make().layers:
        attention = layer.attention
        assert isinstance(attention, QuantumAttention)
        assert attention.score_feature.theta.shape == (4,)
        assert attention.score_feature.phi.shape == (2, 4)
        assert attention.score_feature.feature == "amplitude"
        assert (attention.embed_dim, attention.num_heads, attention.dropout) == (64, 4, 0.1)
    assert {layer.attention.score_feature.feature for layer in make(feature="z").layers} == {"z"}
    assert {type(layer.attention) for layer in make("classical").layers} == {nn.MultiheadAttention}


def test_layers_have_circuits_of_their_own():
    first, second = (layer.attention.score_feature for layer in make().layers)
    assert not torch.equal(first.theta, second.theta)


def test_classical_and_quantum_models_of_a_seed_share_weights_and_what_is_drawn_next():
    classical, drawn = make("classical").state_dict(), torch.rand(3)
    quantum = make("quantum").state_dict()
    assert torch.equal(drawn, torch.rand(3))
    assert set(quantum) - set(classical) == {
        f"layers.{i}.attention.score_feature.{name}" for i in (0, 1) for name in ("theta", "phi")
    }
    for name, weights in classical.items():
        assert torch.equal(quantum[name], weights)


def test_the_circuit_changes_what_the_model_says():
    classical, quantum = make("classical").eval(), make("quantum").eval()
    with torch.no_grad():
        assert (classical(tokens()) - quantum(tokens())).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient():
    model = make()
    model(tokens()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().min() >= 0 for p in model.parameters())
    for layer in model.layers:
        assert layer.attention.score_feature.theta.grad.abs().min() > 0
        assert layer.attention.score_feature.phi.grad.abs().min() > 0


def test_a_compiled_model_is_the_model():
    # aot_eager: forward and backward are traced in one graph each, without generating code.
    check_compiled(make(dropout=0.0, n_layers=1), backend="aot_eager")


@pytest.mark.slow
def test_a_model_compiled_to_machine_code_is_the_model():
    check_compiled(make(feature="z", dropout=0.0, n_layers=1), backend="inductor")


def check_compiled(model: TextTransformer, *, backend: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    found = []
    for function in (model, compiled):
        model.zero_grad()
        logits = function(tokens())
        logits.square().sum().backward()
        found.append((logits, *(p.grad.clone() for p in model.parameters())))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_an_unknown_attention_is_refused():
    with pytest.raises(ConfigError, match="'classical' or 'quantum', not 'linear'"):
        make("linear")
    with pytest.raises(ConfigError, match="'amplitude' or 'z', not 'y'"):
        make(feature="y")


def test_the_installed_provider_serves_the_task_with_quantum_attention():
    task = default_registry().make_task("sequences-quantum")
    assert isinstance(task, QuantumSequences)
    assert task.name == "sequences-quantum"
    assert task.defaults == Sequences.defaults


def test_both_tasks_have_the_same_texts_in_the_same_order_for_a_seed():
    batches, models = [], []
    for task in (Sequences(), QuantumSequences()):
        torch.manual_seed(3)
        built = task.build(3)
        batches.append(next(iter(built.train_loader)))
        models.append(built.model)
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
    assert isinstance(models[1].layers[0].attention, QuantumAttention)
    assert torch.equal(models[0].head.weight, models[1].head.weight)


def test_the_quantum_model_learns_and_its_circuits_move():
    # 60 batches; chance is 50 %, with a standard error of 0.8 points on 4,000 texts.
    task = QuantumSequences()
    torch.manual_seed(0)
    built = task.build(0)
    before = {name: p.detach().clone() for name, p in built.model.named_parameters()}
    optimizer = torch.optim.Adam(built.model.parameters(), lr=1e-3)
    for _, batch in zip(range(60), built.train_loader, strict=False):
        optimizer.zero_grad()
        task.loss(built.model, batch).backward()
        optimizer.step()
    assert built.evaluate(built.model)["accuracy"] > 0.58
    for name, p in built.model.named_parameters():
        if "score_feature" in name:
            assert (p - before[name]).abs().min() > 1e-4
