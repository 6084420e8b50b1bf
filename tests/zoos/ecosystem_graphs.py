"""Libraries of graphs, symmetries and tables, and some that fit nowhere else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.zoos.ecosystem import Made, Using, images, row, vectors


def _graph(n: int, features: int = 8) -> tuple[Tensor, Tensor]:
    nodes = 5 * n
    return torch.randn(nodes, features), torch.randint(nodes, (2, 4 * nodes))


@row("torch-geometric")
def gcn() -> Made:
    from torch_geometric.nn import GCN

    return GCN(8, 16, 2, 3, dropout=0.2, norm="batch_norm"), _graph


@row("torch-geometric")
def gat() -> Made:
    from torch_geometric.nn import GAT

    return GAT(8, 16, 2, 3, heads=2, dropout=0.2, v2=True), _graph


@row("torch-geometric")
def gin() -> Made:
    from torch_geometric.nn import GIN, global_add_pool

    def call(net: Any, x: Tensor, edges: Tensor) -> Tensor:
        return global_add_pool(net(x, edges), torch.arange(len(x)) // 5)

    return Using(GIN(8, 16, 2, 3), call), _graph


@row("torch-geometric")
def sage() -> Made:
    from torch_geometric.nn import GraphSAGE

    return GraphSAGE(8, 16, 2, 3, jk="lstm", aggr="max"), _graph


@row("torch-geometric")
def pna() -> Made:
    from torch_geometric.nn import PNA

    net = PNA(
        8, 16, 2, 3, aggregators=["mean", "min", "max", "std"], scalers=["identity", "amplification"],
        deg=torch.tensor([1, 2, 4, 8, 4, 2]),
    )  # fmt: skip
    return net, _graph


@row("torch-geometric")
def schnet() -> Made:
    from torch_geometric.nn import SchNet

    net = SchNet(hidden_channels=16, num_filters=16, num_interactions=2, num_gaussians=8)
    return Using(net, lambda net, z, pos: net(z, pos, torch.arange(len(z)) // 5)), lambda n: (
        torch.randint(1, 9, (5 * n,)),
        torch.randn(5 * n, 3),
    )


@row("torch-geometric")
def transformer_conv() -> Made:
    from torch_geometric.nn import GATv2Conv, GraphNorm, SAGPooling, TransformerConv, global_mean_pool

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm = TransformerConv(8, 4, heads=2, dropout=0.1, edge_dim=3), GraphNorm(8)
            self.pool, self.two = SAGPooling(8, ratio=0.6), GATv2Conv(8, 4)

        def forward(self, x: Tensor, edges: Tensor, kinds: Tensor) -> Tensor:
            batch = torch.arange(len(x)) // 5
            y = self.norm(self.one(x, edges, kinds), batch).relu()
            y, edges, _, batch, _, _ = self.pool(y, edges, None, batch)
            return global_mean_pool(self.two(y, edges), batch)

    return Net(), lambda n: (*_graph(n), torch.randn(20 * n, 3))


@row("torch-geometric")
def rgcn() -> Made:
    from torch_geometric.nn import RGCNConv

    return RGCNConv(8, 4, num_relations=3, num_bases=2), lambda n: (*_graph(n), torch.randint(3, (20 * n,)))


@row("torch-geometric")
def point_net() -> Made:
    from torch_geometric.nn import PointNetConv, global_max_pool

    net = PointNetConv(nn.Sequential(nn.Linear(11, 8), nn.ReLU()), nn.Linear(8, 4))

    def call(net: Any, x: Tensor, pos: Tensor, edges: Tensor) -> Tensor:
        return global_max_pool(net(x, pos, edges), torch.arange(len(x)) // 5)

    return Using(net, call), lambda n: (_graph(n)[0], torch.randn(5 * n, 3), _graph(n)[1])


@row("egnn-pytorch")
def egnn() -> Made:
    from egnn_pytorch import EGNN_Network

    net = EGNN_Network(num_tokens=10, dim=8, depth=2, num_nearest_neighbors=3, norm_coors=True)
    return net, lambda n: (torch.randint(10, (n, 6)), torch.randn(n, 6, 3))


@row("e3nn")
def tensor_product() -> Made:
    from e3nn import o3
    from e3nn.nn import BatchNorm, Gate

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            gate = Gate("4x0e", [torch.tanh], "2x0e", [torch.sigmoid], "2x1o")
            self.one = o3.FullyConnectedTensorProduct("2x0e+1x1o", "1x0e+1x1o", gate.irreps_in)
            self.gate, self.norm = gate, BatchNorm(gate.irreps_out)
            self.two = o3.Linear(gate.irreps_out, "1x0e")

        def forward(self, x: Tensor, r: Tensor) -> Tensor:
            y = o3.spherical_harmonics("1x0e+1x1o", r, normalize=True)
            return self.two(self.norm(self.gate(self.one(x, y))))

    return Net(), lambda n: (torch.randn(n + 2, 5), torch.randn(n + 2, 3))


@row("escnn")
def steerable() -> Made:
    from escnn import gspaces
    from escnn import nn as enn

    space = gspaces.rot2dOnR2(4)
    into, hidden = enn.FieldType(space, [space.trivial_repr]), enn.FieldType(space, 2 * [space.regular_repr])

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = enn.SequentialModule(
                enn.R2Conv(into, hidden, 3, padding=1), enn.InnerBatchNorm(hidden), enn.ReLU(hidden),
                enn.GroupPooling(hidden),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            return self.net(enn.GeometricTensor(x, into)).tensor

    return Net(), images(1, 8)


@row("neuraloperator")
def fno() -> Made:
    from neuralop.models import FNO

    return FNO(n_modes=(4, 4), in_channels=2, out_channels=1, hidden_channels=8, n_layers=2), images(2, 8)


@row("pykan")
def kan() -> Made:
    from kan import KAN

    return KAN(width=[3, 4, 1], grid=3, k=3, seed=0, auto_save=False), vectors(3)


@row("tab-transformer-pytorch")
def ft_transformer() -> Made:
    from tab_transformer_pytorch import FTTransformer

    net = FTTransformer(categories=(4, 3), num_continuous=3, dim=8, dim_out=1, depth=1, heads=2, attn_dropout=0.1)
    return net, lambda n: (torch.randint(3, (n, 2)), torch.randn(n, 3))


@row("pytorch-tabnet")
def tabnet() -> Made:
    from pytorch_tabnet.tab_network import TabNet

    net = TabNet(6, 3, n_d=4, n_a=4, n_steps=2, group_attention_matrix=torch.eye(6))
    return net, vectors(6)


@row("rtdl")
def rtdl_ft_transformer() -> Made:
    import rtdl

    net = rtdl.FTTransformer.make_baseline(
        n_num_features=3, cat_cardinalities=[4, 3], d_token=8, n_blocks=2, attention_dropout=0.1, ffn_d_hidden=16,
        ffn_dropout=0.1, residual_dropout=0.1, d_out=1,
    )  # fmt: skip
    return net, lambda n: (torch.randn(n, 3), torch.randint(3, (n, 2)))


@row("rtdl_num_embeddings")
def periodic() -> Made:
    from rtdl_num_embeddings import PeriodicEmbeddings, PiecewiseLinearEmbeddings

    bins = [torch.linspace(-2, 2, 5) for _ in range(3)]
    one = PeriodicEmbeddings(3, 4, lite=False)
    two = PiecewiseLinearEmbeddings(bins, 4, activation=True, version="B")
    return Using(nn.ModuleList([one, two]), lambda both, x: both[0](x) + both[1](x)), vectors(3)


@row("rtdl_revisiting_models")
def revisiting_resnet() -> Made:
    from rtdl_revisiting_models import ResNet

    net = ResNet(
        d_in=6, d_out=2, n_blocks=2, d_block=8, d_hidden=None, d_hidden_multiplier=2.0, dropout1=0.2, dropout2=0.1,
    )  # fmt: skip
    return net, vectors(6)


@row("torchrl")
def actor() -> Made:
    from torchrl.modules import MLP, NoisyLinear, TanhNormal

    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = MLP(in_features=4, out_features=4, num_cells=[8], layer_class=NoisyLinear)

        def forward(self, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
            loc, scale = self.net(x).chunk(2, -1)
            dist = TanhNormal(loc, scale.exp())
            return dist.rsample(), dist.log_prob(a.tanh() * 0.9)

    return Actor(), lambda n: (torch.randn(n, 4), torch.randn(n, 2))


@row("tensordict")
def tensordict_sequence() -> Made:
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule, TensorDictSequential

    net = TensorDictSequential(
        TensorDictModule(nn.Linear(4, 6), in_keys=["x"], out_keys=["h"]),
        TensorDictModule(nn.Tanh(), in_keys=["h"], out_keys=["h"]),
        TensorDictModule(nn.Linear(6, 2), in_keys=["h"], out_keys=["y"]),
    )
    return Using(net, lambda net, x: net(TensorDict({"x": x}, batch_size=[len(x)]))["y"]), vectors(4)


@row("higher")
def maml() -> Made:
    import higher

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            inner = torch.optim.SGD(self.net.parameters(), lr=0.1)
            with higher.innerloop_ctx(self.net, inner, track_higher_grads=False) as (fast, step):
                step.step((fast(x) - y).square().mean())
                return (fast(x) - y).square().mean() + self.net(x).mean()

    return Net(), lambda n: (torch.randn(n, 4), torch.randn(n, 2))


@row("entmax")
def entmax15() -> Made:
    import entmax

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.loss = nn.Linear(6, 6), nn.Linear(6, 6), entmax.Entmax15Loss()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            p = entmax.sparsemax(self.one(x), dim=-1) + entmax.entmax_bisect(self.one(x), 1.3, dim=-1)
            y = self.two(entmax.entmax15(p, dim=-1))
            return y, self.loss(y, torch.arange(len(x)) % 6)

    return Net(), vectors(6)


@row("vector-quantize-pytorch")
def vector_quantize() -> Made:
    from vector_quantize_pytorch import VectorQuantize

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)
            self.vq = VectorQuantize(dim=8, codebook_size=8, decay=0.8, commitment_weight=1.0)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y, _, loss = self.vq(self.one(x))
            return self.two(y), loss

    return Net(), vectors(6, 8)


@row("vector-quantize-pytorch")
def fsq() -> Made:
    from vector_quantize_pytorch import FSQ

    return nn.Sequential(nn.Linear(6, 8), FSQ(levels=[4, 3, 3], dim=8)), vectors(5, 6)
