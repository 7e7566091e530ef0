"""The quantum term on a model of your own, with AdamW and with an optimizer you already have."""

import torch

import qsgd_core as qsgd

torch.manual_seed(0)
x = torch.randn(512, 8)
y = (x[:, 0] * x[:, 1] > 0).long()
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))

# AdamW + λ·Q; the backend comes from QSGD_BACKEND, else the exact simulator.
opt = qsgd.QSGD(model.parameters(), lr=1e-2, quantum_weight=0.5)
for _ in range(100):
    opt.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    opt.step()
stats = opt.qsgd_stats()
print(f"loss {loss:.3f}; the term was {stats.effect_size_mean:.2%} of the AdamW step")

# The same term on an optimizer you have already.
sgd = torch.optim.SGD(model.parameters(), lr=0.1)
att = qsgd.attach(sgd, quantum_weight=0.5, perturbation="circuit", depth=2)
sgd.zero_grad()
torch.nn.functional.cross_entropy(model(x), y).backward()
sgd.step()
measured_on = att.qsgd_describe().backend
print(f"on SGD it was {att.qsgd_stats().effect_size:.2%}; s came from {measured_on!r}")
