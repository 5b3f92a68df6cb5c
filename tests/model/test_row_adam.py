"""Row after row, the compiled step is that of torch's sparse Adam."""

import torch
from torch import nn

from resolvi_sd._model.row_adam import RowAdam


def test_same_as_torch():
    torch.manual_seed(0)
    start, tables, optimizers = torch.randn(20, 3), [], []
    for kind in (RowAdam, torch.optim.SparseAdam):
        table = nn.Embedding.from_pretrained(start.clone(), freeze=False, sparse=True)
        tables.append(table)
        optimizers.append(kind(list(table.parameters()), lr=0.1))
    for step in range(5):
        rows = torch.randperm(20)[:7]
        target = torch.randn(7, 3)
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.zero_grad()
            (table(rows) - target).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight)
    assert not torch.allclose(tables[0].weight, start)
