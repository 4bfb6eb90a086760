"""Message passing over one graph: a sparse product that members share, and full-batch training of node classifiers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import normalized_adjacency
from netatlas.core.train import Ensemble, PerMember, minimize, stack_members


class SparseOperator:
    r"""A fixed sparse matrix :math:`S` that multiplies features, :math:`x \mapsto S x`.

    The product is differentiable in ``x`` any number of times, forward and backward, and under ``torch.func.vmap``
    the members' features are laid side by side, so that all of them take one product.

    Args:
        matrix: Sparse matrix ``[m, n]``, real or complex, of SciPy, or a dense array.

    Raises:
        ValueError: For a matrix that is not two-dimensional, has no rows or columns, or holds NaN or infinities.

    Attributes:
        matrix: The matrix in SciPy's CSR form.
        shape: ``(m, n)``.
    """

    def __init__(self, matrix: Any) -> None:
        kind = matrix.dtype if sp.issparse(matrix) else (matrix := np.asarray(matrix)).dtype
        require(kind.kind in "fciub", "a matrix of numbers", kind)
        found = sp.csr_array(matrix)
        require(found.ndim == 2 and min(found.shape) > 0, "a matrix with rows and columns", found.shape)
        if found.dtype.kind not in "fc":
            found = found.astype(np.float64)
        require(bool(np.isfinite(found.data).all()), "a matrix of finite entries", "NaN or infinite ones")
        found.sum_duplicates()
        self.matrix = found
        self.shape: tuple[int, int] = found.shape
        self._forms: dict[tuple[torch.dtype, torch.device, bool], Tensor] = {}

    def __repr__(self) -> str:
        return f"SparseOperator({self.shape[0]} x {self.shape[1]}, {self.matrix.nnz} entries)"

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseOperator:
        return self

    def form(self, dtype: torch.dtype, device: torch.device, adjoint: bool) -> Tensor:
        """The matrix, or its conjugate transpose, as a sparse CSR tensor, made once for each type and device."""
        key = (dtype, device, adjoint)
        if key not in self._forms:
            matrix = sp.csr_array(self.matrix.conj().T) if adjoint else self.matrix
            with warnings.catch_warnings():
                # Torch announces once a process that its CSR tensors are young; a reader of a chapter need not know.
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
                # Short indices save a tenth of the time: a product is bound by memory.
                index = np.int32 if max(matrix.nnz, *matrix.shape) < 2**31 else np.int64
                self._forms[key] = torch.sparse_csr_tensor(
                    torch.from_numpy(matrix.indptr.astype(index)),
                    torch.from_numpy(matrix.indices.astype(index)),
                    torch.from_numpy(matrix.data).to(dtype),
                    size=matrix.shape,
                    device=device,
                    check_invariants=False,
                )
        return self._forms[key]

    def __call__(self, x: Float[Tensor, "n *F"]) -> Float[Tensor, "m *F"]:
        """The product :math:`S x` with the first axis of ``x``.

        Raises:
            ValueError: For a length other than ``n``, or ``x`` that is not floating-point.
        """
        require(x.ndim >= 1 and x.shape[0] == self.shape[1], f"{self.shape[1]} rows", tuple(x.shape))
        require(x.is_floating_point() or x.is_complex(), "floating-point features", x.dtype)
        require(x.is_complex() or self.matrix.dtype.kind != "c", "complex features for a complex operator", x.dtype)
        return _Product.apply(x, self, False)

    __matmul__ = __call__


class _Product(torch.autograd.Function):
    """The operator stays outside of the tensors that torch tracks: sparse tensors know no vmap."""

    @staticmethod
    def forward(x: Tensor, operator: SparseOperator, adjoint: bool) -> Tensor:
        rows = operator.shape[1 if adjoint else 0]
        if x.device.type == "meta":
            return x.new_empty((rows, *x.shape[1:]))
        flat = x.reshape(x.shape[0], -1)
        if flat.shape[1] == 0:
            return x.new_empty((rows, *x.shape[1:]))
        return (operator.form(x.dtype, x.device, adjoint) @ flat).reshape(rows, *x.shape[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, SparseOperator, bool], output: Tensor) -> None:
        _, ctx.operator, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _Product.apply(grad, ctx.operator, not ctx.adjoint), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]
        return _Product.apply(tangent, ctx.operator, ctx.adjoint)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, operator: SparseOperator, adjoint: bool
    ) -> tuple[Tensor, int]:
        return _Product.apply(x.movedim(in_dims[0] or 0, 1), operator, adjoint), 1


def gcn_operator(graph: Any, *, kind: Literal["row", "sym"] = "sym", self_loops: bool = True) -> SparseOperator:
    r"""The propagation of a graph convolution, :math:`\tilde D^{-1/2}(A + I)\tilde D^{-1/2}`, as an operator.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes.
        kind, self_loops: As in :func:`netatlas.core.graph.normalized_adjacency`.

    Raises:
        ValueError: For a bad graph.

    Source: Kipf and Welling (2017), arXiv:1609.02907.
    """
    return SparseOperator(normalized_adjacency(graph, kind, self_loops=self_loops))


class GCN(nn.Module):
    r"""A graph convolutional network, or without an operator the same network on every node alone.

    .. math:: H_{l+1} = \sigma(S\, \mathrm{dropout}(H_l) W_l + b_l), \qquad H_0 = X

    Weights are Glorot-uniform, biases zero. The product with :math:`S` is taken on the narrower side of :math:`W_l`.

    Args:
        widths: Features, hidden widths, outputs.
        operator: The propagation :math:`S`; ``None`` is a multilayer perceptron.
        dropout: Share of entries dropped before every layer.
        residual: Whether to add the input of every hidden layer that keeps its width.

    Raises:
        ValueError: For fewer than two widths, a width below 1, or a dropout outside of [0, 1).
    """

    def __init__(
        self,
        widths: Sequence[int],
        operator: SparseOperator | None = None,
        *,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        require(len(widths) >= 2 and min(widths) >= 1, "two or more widths of at least 1", tuple(widths))
        require(0 <= dropout < 1, "a dropout in [0, 1)", dropout)
        self.operator, self.dropout, self.residual = operator, dropout, residual
        layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n C"]:
        """Outputs of every node."""
        return self.hidden(x)[-1]

    def hidden(self, x: Float[Tensor, "n F"]) -> list[Float[Tensor, "n _"]]:
        """The features after every layer, the outputs last."""
        features = self.layers[0].in_features
        require(x.shape[-1] == features, f"{features} features", tuple(x.shape))
        states = []
        for depth, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            kept = x
            x = nn.functional.dropout(x, self.dropout, self.training)
            if self.operator is None:
                x = layer(x)
            elif layer.in_features <= layer.out_features:
                x = layer(self.operator(x))
            else:
                x = self.operator(x @ layer.weight.T) + layer.bias
            if depth + 1 < len(self.layers):
                x = torch.relu(x)
                if self.residual and x.shape == kept.shape:
                    x = x + kept
            states.append(x)
        return states


@dataclass
class NodeFit:
    """Node classifiers, each at its best epoch on the validation nodes.

    Attributes:
        ensemble: The classifiers, with the parameters of their best epochs.
        epoch: Best epoch of each, ``[M]``.
        validation: Accuracy on the validation nodes there, ``[M]``.
        logits: Outputs in evaluation mode, ``[M, n, C]``.
    """

    ensemble: Ensemble
    epoch: Int[Tensor, " M"]
    validation: Float[Tensor, " M"]
    logits: Float[Tensor, "M n C"]

    def accuracy(self, y: Int[Tensor, " n"], mask: Bool[Tensor, "*M n"]) -> Float[Tensor, " M"]:
        """Share of the nodes of ``mask`` whose largest output is their label, one value a member.

        Raises:
            ValueError: For labels or a mask of another form, or a member without a node in the mask.
        """
        members, nodes = self.logits.shape[:2]
        require(tuple(y.shape) == (nodes,), f"labels of {nodes} nodes", tuple(y.shape))
        mask = _node_mask("counted", mask, members, nodes)
        return _masked_mean((self.logits.argmax(-1) == y).double(), mask.double())


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(-1) / mask.sum(-1)


def _node_mask(name: str, mask: Tensor, members: int, nodes: int) -> Tensor:
    require(mask.dtype == torch.bool, f"a boolean mask of {name} nodes", mask.dtype)
    require(
        tuple(mask.shape) in ((nodes,), (members, nodes)),
        f"a mask of {name} nodes of shape ({nodes},) or ({members}, {nodes})",
        tuple(mask.shape),
    )
    require(bool(mask.any(-1).all()), f"at least one {name} node a member", "none")
    return mask.expand(members, nodes)


def fit_nodes(
    build: Callable[[], nn.Module],
    x: Tensor,
    y: Int[Tensor, " n"],
    train: Bool[Tensor, "*M n"],
    validation: Bool[Tensor, "*M n"],
    *,
    seeds: Sequence[int],
    epochs: int,
    lr: PerMember = 0.01,
    weight_decay: PerMember = 0.0,
    every: int = 1,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    per_member_data: bool = False,
    device: str | torch.device = "cpu",
    **options: Any,
) -> NodeFit:
    r"""Train node classifiers on one graph, all seeds, splits and hyper-parameters at once, by full-batch steps.

    Each member descends the mean loss of its training nodes. It ends at the parameters of the epoch with the highest
    accuracy on its validation nodes; among equals the one with the lowest cross-entropy there. Without dropout a member
    takes the very steps that it would take alone; with it the members draw from one stream seeded by all ``seeds``.

    Args:
        build: Makes one member, a module from ``x`` to logits ``[n, C]`` that holds its graph's operators;
            called once a member under its seed.
        x: Features of the nodes, ``[n, ...]``, or ``[M, n, ...]`` with ``per_member_data``.
        y: Labels of the nodes.
        train: Training nodes, the same for all members or one row a member.
        validation: Validation nodes, likewise.
        seeds: One a member; equal seeds with different ``lr`` are a sweep.
        epochs: Number of steps.
        lr, weight_decay: One for all or one a member, as in :func:`netatlas.core.train.minimize`.
        every: How many steps lie between two looks at the validation nodes; the last step is always looked at.
        loss: ``loss(outputs [n, C], y [n])`` giving one value a node; default: cross-entropy.
        per_member_data: Whether each member has features of its own.
        device: Where to train.
        options: Passed to :func:`netatlas.core.train.minimize`; the optimizer defaults to ``"adam"``.

    Raises:
        ValueError: For no seeds, no epochs, no training or validation node, masks of another form, labels that are not
            integers from 0 on or out of range, or NaN features.
    """
    members, nodes = len(seeds), len(y)
    require(y.ndim == 1 and nodes > 0 and not y.is_floating_point(), "integer labels [n]", (tuple(y.shape), y.dtype))
    lowest, highest = int(y.min()), int(y.max())
    require(lowest >= 0, "labels from 0 on", lowest)
    require(members > 0, "at least one seed", 0)
    require(epochs >= 1 and every >= 1, "epochs and every of at least 1", (epochs, every))
    leading = (members, nodes) if per_member_data else (nodes,)
    require(tuple(x.shape[: len(leading)]) == leading, f"features of shape {(*leading, '...')}", tuple(x.shape))
    require_finite("features", x)
    train, validation = (
        _node_mask("training", train, members, nodes),
        _node_mask("validation", validation, members, nodes),
    )
    x, y, train, validation = (t.to(device) for t in (x, y, train.to(x.dtype), validation.to(x.dtype)))
    modules = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules.append(build().to(device))
    params, buffers = stack_members(modules)
    skeleton = modules[0]
    entropy = partial(nn.functional.cross_entropy, reduction="none")
    criterion = loss or entropy
    data_dim = 0 if per_member_data else None

    def forward(p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor) -> Tensor:
        outputs = functional_call(skeleton, (p, b), (x,))
        require(highest < outputs.shape[-1], f"labels in [0, {outputs.shape[-1]})", highest)
        return outputs

    def training_loss(p: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        skeleton.train()
        each = vmap(
            lambda p, b, x, mask: _masked_mean(criterion(forward(p, b, x), y), mask),
            in_dims=(0, 0, data_dim, 0),
            randomness="different",
        )
        return each(p, buffers, x, train)

    best = {name: value.clone() for name, value in params.items()}
    score = torch.full((members,), -1.0, device=device, dtype=torch.float64)
    score_loss, epoch = torch.full_like(score, torch.inf), torch.zeros(members, dtype=torch.int64, device=device)
    predict = vmap(forward, in_dims=(0, 0, data_dim))

    @torch.no_grad()
    def keep_best(step: int, p: dict[str, Tensor]) -> None:
        if step % every and step != epochs:
            return
        skeleton.eval()
        outputs = predict(p, buffers, x)
        accuracy = _masked_mean((outputs.argmax(-1) == y).double(), validation.double())
        losses = vmap(entropy, in_dims=(0, None))(outputs, y).double()
        entropies = torch.where(validation > 0, losses, 0.0).sum(-1) / validation.double().sum(-1)
        better = (accuracy > score) | ((accuracy == score) & (entropies < score_loss))
        score[better], score_loss[better], epoch[better] = accuracy[better], entropies[better], step
        for name, value in p.items():
            best[name][better] = value[better]

    with torch.random.fork_rng(devices=[]):
        # Dropout draws from torch's own generator: seeded here, so that a training does not depend on what ran before.
        torch.manual_seed(int(np.random.SeedSequence([*map(int, seeds)]).generate_state(1)[0]))
        _, trace = minimize(
            training_loss,
            params,
            steps=epochs,
            lr=lr,
            weight_decay=weight_decay,
            observe=keep_best,
            **options,
        )
    skeleton.eval()
    with torch.no_grad():
        logits = predict(best, buffers, x)
    return NodeFit(Ensemble(skeleton, best, buffers, trace, trace), epoch, score, logits)
