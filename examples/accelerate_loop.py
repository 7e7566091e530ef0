"""The quantum term in an accelerate loop. Needs accelerate.

One process:   python examples/accelerate_loop.py
Two processes: torchrun --nproc-per-node 2 examples/accelerate_loop.py
"""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import qsgd_core as qsgd

torch.manual_seed(0)
x = torch.randn(512, 8)
y = (x[:, 0] * x[:, 1] > 0).long()
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
opt = qsgd.QSGD(model.parameters(), lr=1e-2, quantum_weight=0.5)
loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)

accelerator = Accelerator(gradient_accumulation_steps=2, cpu=not torch.cuda.is_available())
model, opt, loader = accelerator.prepare(model, opt, loader)
for _ in range(10):
    for inputs, labels in loader:
        with accelerator.accumulate(model):
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            opt.zero_grad()
qsgd_opt = opt.optimizer  # accelerate's wrapper keeps the QSGD that was given to it here
stats = qsgd_opt.qsgd_stats()
qsgd_opt.close()
accelerator.print(f"loss {loss:.3f}; the term was {stats.effect_size_mean:.2%} of the AdamW step")
