"""A compiled model, with the size of the term in TensorBoard and MLflow.

Look at it with: tensorboard --logdir runs; mlflow ui
"""

import mlflow
import torch

import qsgd_core as qsgd

torch.manual_seed(0)
x = torch.randn(512, 8)
y = (x[:, 0] * x[:, 1] > 0).long()
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
model = torch.compile(model)

with mlflow.start_run(run_name="xor"):
    opt = qsgd.QSGD(
        model.parameters(), lr=1e-2, quantum_weight=0.5, observers=["tensorboard", "mlflow"]
    )
    for _ in range(100):
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
    mlflow.log_metric("loss", loss.item(), step=100)
print(f"loss {loss:.3f}; the term was {opt.qsgd_stats().effect_size_mean:.2%} of the AdamW step")
