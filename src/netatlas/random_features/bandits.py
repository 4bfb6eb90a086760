r"""Contextual bandits by online neural regression: perturbed predictions, inverse-gap weighting, and their rivals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite


def _losses(predicted: Tensor) -> None:
    require(predicted.is_floating_point(), "predicted losses of floating-point numbers", predicted.dtype)
    require(predicted.ndim >= 1 and predicted.shape[-1] >= 1, "at least one arm", tuple(predicted.shape))
    require_finite("predicted", predicted)


def inverse_gap_weighting(predicted: Float[Tensor, "*batch K"], gamma: float | Tensor) -> Float[Tensor, "*batch K"]:
    r"""Probabilities that fall with the gap to the arm of least predicted loss.

    .. math::

        p_a = \frac{1}{K + \gamma\,(\hat y_a - \hat y_b)} \ (a \ne b),
        \qquad p_b = 1 - \sum_{a \ne b} p_a,
        \qquad b = \arg\min_a \hat y_a

    Args:
        predicted: Predicted losses of K arms.
        gamma: :math:`\gamma \ge 0`; 0 is uniform play, infinity is greedy.

    Raises:
        ValueError: For values that are not finite, or a negative gamma.

    Source:
        deb2023contextual (NeuSquareCB).
    """
    _losses(predicted)
    gamma = torch.as_tensor(gamma, dtype=predicted.dtype, device=predicted.device)
    if predicted.device.type != "meta":
        require(bool((gamma >= 0).all()), "a gamma of at least 0", float(gamma.min()))
    arms = predicted.shape[-1]
    least, best = predicted.min(-1, keepdim=True)
    p = 1 / (arms + gamma[..., None] * (predicted - least))
    p = p.scatter(-1, best, 0.0)
    return p.scatter(-1, best, (1 - p.sum(-1, keepdim=True)).clamp_min(0))


def fast_cb_weighting(
    predicted: Float[Tensor, "*batch K"], gamma: float | Tensor, *, floor: float = 1e-3
) -> Float[Tensor, "*batch K"]:
    r"""Probabilities that also fall with the least predicted loss itself: little exploration where nothing is lost.

    .. math::

        p_a = \frac{\hat y_b}{K \hat y_b + \gamma\,(\hat y_a - \hat y_b)} \ (a \ne b),
        \qquad p_b = 1 - \sum_{a \ne b} p_a

    Args:
        predicted: Predicted losses of K arms, not negative.
        gamma: :math:`\gamma \ge 0`.
        floor: Losses below are raised to it, since an exact zero would end all exploration.

    Raises:
        ValueError: For values that are not finite, negative losses, a negative gamma, or a floor that is not positive.

    Source:
        deb2023contextual (NeuFastCB).
    """
    _losses(predicted)
    require(floor > 0, "a positive floor", floor)
    gamma = torch.as_tensor(gamma, dtype=predicted.dtype, device=predicted.device)
    if predicted.device.type != "meta":
        require(bool((gamma >= 0).all()), "a gamma of at least 0", float(gamma.min()))
        require(bool((predicted >= 0).all()), "losses of at least 0", float(predicted.min()))
    y = predicted.clamp_min(floor)
    arms = y.shape[-1]
    least, best = y.min(-1, keepdim=True)
    p = least / (arms * least + gamma[..., None] * (y - least))
    p = p.scatter(-1, best, 0.0)
    return p.scatter(-1, best, (1 - p.sum(-1, keepdim=True)).clamp_min(0))


def epsilon_greedy(predicted: Float[Tensor, "*batch K"], epsilon: float | Tensor) -> Float[Tensor, "*batch K"]:
    r"""The arm of least predicted loss, but any arm with probability :math:`\epsilon`.

    .. math:: p_a = \epsilon / K + (1 - \epsilon)\, \mathbf 1[a = b]

    Args:
        predicted: Predicted losses of K arms.
        epsilon: In [0, 1].

    Raises:
        ValueError: For values that are not finite, or an epsilon outside [0, 1].

    Source:
        deb2023contextual (a baseline).
    """
    _losses(predicted)
    epsilon = torch.as_tensor(epsilon, dtype=predicted.dtype, device=predicted.device)
    if predicted.device.type != "meta":
        require(bool(((epsilon >= 0) & (epsilon <= 1)).all()), "an epsilon in [0, 1]", epsilon)
    share = (epsilon / predicted.shape[-1])[..., None].expand(predicted.shape)
    best = predicted.argmin(-1, keepdim=True)
    return share.scatter_add(-1, best, (1 - epsilon)[..., None].expand(best.shape))


def classification_bandit(
    inputs: Float[Tensor, "N d"], labels: Int[Tensor, " N"], rounds: int, *, seed: int
) -> Int[Tensor, " T"]:
    r"""The order in which a classification set is played, resampled with replacement.

    Arm :math:`a` has the context with :math:`x` in block :math:`a` of :math:`\mathbb R^{dK}`; its loss is 0 if
    :math:`a` is the label, else 1.

    Args:
        inputs: N points.
        labels: Their classes.
        rounds: :math:`T`.
        seed: Seeds the order.

    Raises:
        ValueError: For lengths that differ, or no rounds.

    Source:
        deb2023contextual (bandits made of classification sets).
    """
    require(len(inputs) == len(labels) and len(labels) > 0, f"{len(inputs)} labels", len(labels))
    require(rounds >= 1, "at least one round", rounds)
    return torch.randint(len(labels), (rounds,), generator=torch.Generator().manual_seed(seed))


class BanditRun(NamedTuple):
    """Cumulative losses ``[rounds, B]`` of B runs."""

    regret: Float[Tensor, "T B"]


LOSSES = ("square", "kl")
WEIGHTINGS = {"square_cb": inverse_gap_weighting, "fast_cb": fast_cb_weighting, "epsilon_greedy": epsilon_greedy}
RULES = ("square_cb", "fast_cb", "epsilon_greedy", "neural_ucb", "uniform")


def play_neural(
    inputs: Float[Tensor, "N d"],
    labels: Int[Tensor, " N"],
    order: Int[Tensor, "B T"],
    *,
    arms: int,
    rule: str | Sequence[str],
    loss: str | Sequence[str],
    strength: Float[Tensor, " B"],
    rate: Float[Tensor, " B"],
    width: int = 32,
    perturbation: float | Float[Tensor, " B"] = 0.0,
    perturbations: int = 0,
    seeds: Int[Tensor, " B"] | None = None,
    regularization: float = 1.0,
) -> BanditRun:
    r"""Play B bandits at once, each with its own network, order of contexts, exploration and learning rate.

    A context :math:`x` in block :math:`a` meets its own columns of the first layer, so all arms' predictions are one
    product, and only the chosen
    block is updated. The network is :math:`f_a(x) = m^{-1/2}\, v \cdot \operatorname{relu}(W_a x)`, a loss is
    predicted by :math:`s(f)` with the sigmoid :math:`s`, and one
    gradient step a round is taken on

    .. math::

        \frac1S \sum_s \ell\Bigl(y_t,\ f(\theta; x_t) + \frac{c_p}{m^{1/4}} \sum_j \varepsilon^{(s)}_j (\theta_j -
        \theta_{0,j})\Bigr)

    To second order the mean over :math:`\varepsilon` is a pull to :math:`\theta_0` of strength
    :math:`\ell''(f)\, c_p^2/\sqrt m`, which ``perturbations = 0`` uses with the curvature at an undecided prediction:
    1/4 for KL, 1/8 for the square loss behind the sigmoid.

    Args:
        inputs: N points.
        labels: Their classes, which are the arms.
        order: Which point each run meets in each round.
        arms: :math:`K`.
        rule: ``"square_cb"`` and ``"fast_cb"`` (gamma), ``"epsilon_greedy"`` (epsilon; 0 is greedy), ``"neural_ucb"``
            (width of the bound, from a diagonal Gram
            matrix of gradients; not beside other rules) or ``"uniform"``; one for all, or one a run.
        loss: ``"square"`` or ``"kl"``, on the predicted loss; one for all, or one a run.
        strength: The rule's parameter in each run.
        rate: Learning rate of each run.
        width: Hidden units :math:`m`.
        perturbation: :math:`c_p`, one for all or one a run.
        perturbations: :math:`S` draws a round; 0 is the pull alone. Draws need one loss and one perturbation for all.
        seeds: One a run; runs with equal seeds share initial weights and the stream of random numbers.
        regularization: Start of the Gram matrix's diagonal.

    Returns:
        Cumulative regret against always playing the label.

    Raises:
        ValueError: For an unknown rule or loss, numbers of runs that differ, or labels outside the arms.

    Source:
        deb2023contextual (NeuSquareCB and NeuFastCB); NeuralUCB after Zhou et al. (2020) with a diagonal matrix.
    """
    runs, rounds = order.shape
    rules = [rule] * runs if isinstance(rule, str) else list(rule)
    losses = [loss] * runs if isinstance(loss, str) else list(loss)
    require(len(rules) == runs and len(losses) == runs, f"{runs} rules and losses", (len(rules), len(losses)))
    require(set(rules) <= set(RULES), f"a rule out of {RULES}", sorted(set(rules)))
    require(set(losses) <= set(LOSSES), f"a loss out of {LOSSES}", sorted(set(losses)))
    bound = "neural_ucb" in rules
    require(not bound or len(set(rules)) == 1, "neural_ucb alone", sorted(set(rules)))
    require(
        not perturbations or (isinstance(perturbation, float | int) and len(set(losses)) == 1),
        "one loss and one perturbation where signs are drawn",
        (perturbation, sorted(set(losses))),
    )
    require(
        strength.shape == (runs,) and rate.shape == (runs,), f"{runs} strengths and rates", (strength.shape, rate.shape)
    )
    require(bool((labels >= 0).all() and (labels < arms).all()), f"labels from 0 to {arms - 1}", int(labels.max()))
    require_finite("inputs", inputs)
    d, like = inputs.shape[1], inputs.dtype
    seeds = torch.arange(runs) if seeds is None else seeds
    first = torch.empty(runs, arms, width, d, dtype=like)
    last = torch.empty(runs, width, dtype=like)
    dice = torch.empty(rounds, runs, dtype=like)
    for seed in seeds.unique().tolist():
        g = torch.Generator().manual_seed(int(seed))
        w = torch.randn(arms, width, d, generator=g, dtype=like)
        v = torch.randn(width, generator=g, dtype=like)
        u = torch.rand(rounds, generator=g, dtype=like)
        same = seeds == seed
        first[same], last[same], dice[:, same] = w, v, u[:, None]
    first, last, dice = first.to(inputs.device), last.to(inputs.device), dice.to(inputs.device)
    device = inputs.device
    pulled = bool((torch.as_tensor(perturbation) != 0).any())
    first0, last0 = (first.clone(), last.clone()) if pulled else (first, last)
    gram_first, gram_last = (torch.full_like(p, regularization) for p in (first, last)) if bound else (None, None)
    row, scale = torch.arange(runs, device=device), width**-0.5
    entropic = torch.tensor([name == "kl" for name in losses], device=device)
    tilt = torch.as_tensor(perturbation, dtype=like, device=device) / width**0.25
    # Curvatures in f of both losses at a prediction of one half.
    curve = (tilt.square() * torch.where(entropic, 0.25, 0.125)).to(like)[:, None]
    groups = {name: torch.tensor([r == name for r in rules], device=device).nonzero()[:, 0] for name in set(rules)}
    noise = torch.Generator(device=device).manual_seed(int(seeds.max()) + 1)
    mistakes = torch.zeros(rounds, runs, dtype=like, device=device)
    for t in range(rounds):
        x, y = inputs[order[:, t]], labels[order[:, t]]
        z = torch.bmm(first.reshape(runs, -1, d), x[:, :, None]).reshape(runs, arms, width)
        hidden = torch.relu(z)
        f = (hidden @ last[:, :, None])[..., 0] * scale
        predicted = torch.sigmoid(f)
        if bound:
            # Gradient of f with respect to block a's weights and the output weights; squares factorise.
            outer = (last[:, None] * (z > 0) * scale).square()
            bonus = torch.einsum("bkm,bkmd,bd->bk", outer, 1 / gram_first, x.square())
            bonus = bonus + ((hidden * scale).square() / gram_last[:, None]).sum(-1)
            action = (predicted - strength[:, None] * bonus.sqrt()).argmin(1)
        else:
            p = torch.full_like(predicted, 1 / arms)
            for name, own in groups.items():
                if name in WEIGHTINGS:
                    p[own] = WEIGHTINGS[name](predicted[own], strength[own])
            action = (p.cumsum(1) < dice[t][:, None]).sum(1).clamp_max(arms - 1)
        observed = (action != y).to(like)
        mistakes[t] = observed
        h, block = hidden[row, action], first[row, action]
        back = last * (h > 0) * scale
        if bound:
            gram_first[row, action] += back.square()[:, :, None] * x.square()[:, None]
            gram_last += (h * scale).square()
        if pulled and perturbations:
            g_block, g_last = _perturbed_gradient(
                f[row, action],
                observed,
                h * scale,
                back,
                x,
                block - first0[row, action],
                last - last0,
                float(tilt),
                perturbations,
                losses[0],
                noise,
            )
        else:
            s = predicted[row, action]
            # Both losses' slopes at f: the square loss goes through the sigmoid, KL cancels it.
            error = (s - observed) * torch.where(entropic, torch.ones_like(s), 2 * s * (1 - s))
            g_last = error[:, None] * h * scale
            g_block = (error[:, None] * back)[:, :, None] * x[:, None]
            if pulled:
                g_last = g_last + curve * (last - last0)
                g_block = g_block + curve[:, :, None] * (block - first0[row, action])
        first[row, action] = block - rate[:, None, None] * g_block
        last = last - rate[:, None] * g_last
    return BanditRun(mistakes.cumsum(0))


def _perturbed_gradient(f, y, g_out, g_in, x, moved_block, moved_last, tilt, draws, loss, generator):
    """The gradient through sampled signs: the perturbation's own slope, tilt times the signs, belongs to it."""
    runs, width, d = moved_block.shape
    options = {"generator": generator, "device": f.device}
    signs = torch.randint(0, 2, (draws, runs, width, d + 1), **options).to(f.dtype) * 2 - 1
    shift = tilt * ((signs[..., :d] * moved_block).sum((-1, -2)) + (signs[..., d] * moved_last).sum(-1))
    s = torch.sigmoid(f + shift)
    error = (s - y) if loss == "kl" else 2 * (s - y) * s * (1 - s)
    mean = error.mean(0)
    tilted = tilt * (error[..., None, None] * signs).mean(0)
    block = (mean[:, None] * g_in)[:, :, None] * x[:, None] + tilted[..., :d]
    return block, mean[:, None] * g_out + tilted[..., d]


def play_linucb(
    inputs: Float[Tensor, "N d"],
    labels: Int[Tensor, " N"],
    order: Int[Tensor, "B T"],
    *,
    arms: int,
    strength: Float[Tensor, " B"],
    regularization: float = 1.0,
) -> BanditRun:
    r"""Disjoint LinUCB on losses: a ridge regression an arm with its exact inverse, updated by Sherman and Morrison.

    .. math:: a_t = \arg\min_a\ \hat\theta_a \cdot x - \alpha \sqrt{x^\top A_a^{-1} x}

    Args:
        inputs, labels, order, arms: As in :func:`play_neural`.
        strength: :math:`\alpha` of each run.
        regularization: :math:`A_a` starts at this multiple of the identity.

    Returns:
        Cumulative regret.

    Raises:
        ValueError: For numbers of runs that differ.

    Source:
        Li et al. (2010); a baseline for deb2023contextual.
    """
    runs, rounds = order.shape
    require(strength.shape == (runs,), f"{runs} strengths", tuple(strength.shape))
    x_all = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
    d, like = x_all.shape[1], {"dtype": inputs.dtype, "device": inputs.device}
    inverse = torch.eye(d, **like).expand(runs, arms, d, d).clone() / regularization
    moment = torch.zeros(runs, arms, d, **like)
    row, mistakes = torch.arange(runs, device=inputs.device), torch.zeros(rounds, runs, **like)
    for t in range(rounds):
        x, y = x_all[order[:, t]], labels[order[:, t]]
        ax = torch.einsum("bkij,bj->bki", inverse, x)
        mean = (ax * moment).sum(-1)
        bonus = (ax * x[:, None]).sum(-1).clamp_min(0).sqrt()
        action = (mean - strength[:, None] * bonus).argmin(1)
        observed = (action != y).to(inputs.dtype)
        mistakes[t] = observed
        a = ax[row, action]
        inverse[row, action] -= a[:, :, None] * a[:, None] / (1 + (a * x).sum(1))[:, None, None]
        moment[row, action] += observed[:, None] * x
    return BanditRun(mistakes.cumsum(0))


class Hindsight(NamedTuple):
    """Eigenvalues ``[B, min(c, p + 1)]`` of the first c rounds' Gram matrix, and the labels in its eigenvectors, by
    checkpoint; with fewer features than rounds one zero stands for all."""

    values: dict[int, Tensor]
    turned: dict[int, Tensor]


def hindsight(features: Float[Tensor, "B T p"], labels: Float[Tensor, "B T"], checkpoints: list[int]) -> Hindsight:
    """Decompose the streams' Gram matrices once, for the regret of every learner on them.

    Args:
        features: Gradients of B streams.
        labels: Their labels.
        checkpoints: Rounds.

    Raises:
        ValueError: For checkpoints beyond the stream.

    Source:
        deb2023contextual (regret of online regression).
    """
    require(max(checkpoints) <= features.shape[1], f"checkpoints up to {features.shape[1]}", checkpoints)
    values, turned = {}, {}
    for c in checkpoints:
        if features.shape[2] < c:
            # The spectrum from the smaller matrix; what the features cannot reach goes to one eigenvalue of zero.
            spectrum, vectors = torch.linalg.eigh(features[:, :c].mT @ features[:, :c])
            root = spectrum.clamp_min(torch.finfo(spectrum.dtype).eps * spectrum.amax(-1, keepdim=True)).sqrt()
            moment = (features[:, :c].mT @ labels[:, :c, None])[..., 0]
            reached = (vectors.mT @ moment[..., None])[..., 0] / root
            rest = (labels[:, :c].square().sum(1) - reached.square().sum(1)).clamp_min(0).sqrt()
            values[c] = torch.cat([spectrum.clamp_min(0), torch.zeros_like(rest)[:, None]], 1)
            turned[c] = torch.cat([reached, rest[:, None]], 1)
            continue
        spectrum, vectors = torch.linalg.eigh(features[:, :c] @ features[:, :c].mT)
        values[c] = spectrum.clamp_min(0)
        turned[c] = (vectors.mT @ labels[:, :c, None])[..., 0]
    return Hindsight(values, turned)


def least_total(known: Hindsight, rounds: int, pull: Tensor, radius: Tensor) -> Float[Tensor, "*arms B"]:
    r"""Least total surrogate loss over a ball, by bisection on the multiplier of a ridge regression.

    .. math:: \min_{|\delta| \le \rho} \sum_{t} (y_t - \phi_t \cdot \delta)^2 + \tfrac{\mu}{2} |\delta|^2

    Args:
        known: From :func:`hindsight`.
        rounds: One of its checkpoints.
        pull: :math:`\mu`, ``[..., 1]``.
        radius: :math:`\rho` of each stream.

    Source:
        deb2023contextual (regret over a ball around the initial weights).
    """
    values, turned = known.values[rounds], known.turned[rounds]
    base = rounds * pull / 2

    def norm(extra: Tensor) -> Tensor:
        return (values * (turned / (values + extra[..., None])).square()).sum(-1).sqrt()

    top = values.amax(-1)
    floor = torch.maximum(base.expand(*pull.shape[:-1], len(radius)), 1e-9 * top)
    low, high = floor.log(), (top * 1e3 + floor).log()
    for _ in range(50):
        middle = (low + high) / 2
        wide = norm(middle.exp()) > radius
        low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
    extra = torch.where(norm(floor) <= radius, floor, high.exp())
    residual = (extra[..., None] / (values + extra[..., None]) * turned).square().sum(-1)
    return residual + base * norm(extra).square()


class OnlineRegression(NamedTuple):
    """Regret of the surrogate loss and excess square loss over the teacher's, ``[checkpoints, arms, B]``."""

    regret: Float[Tensor, "C A B"]
    excess: Float[Tensor, "C A B"]


def online_regression(
    features: Float[Tensor, "B T p"],
    teacher: Float[Tensor, "B p"],
    noise: Float[Tensor, "B T"],
    *,
    pull: Float[Tensor, " A"],
    power: Float[Tensor, " A"],
    rate: Float[Tensor, " A"],
    checkpoints: list[int],
    curvature: Float[Tensor, " A"] | None = None,
    known: Hindsight | None = None,
    sampled: int = 0,
    seed: int = 0,
) -> OnlineRegression:
    r"""Online gradient descent on the perturbed square loss of a linearised network, and its regret in hindsight.

    With :math:`\delta = \theta - \theta_0` and the signs averaged out the loss of a round is

    .. math::

        L_t(\delta) = (y_t - \phi_t \cdot \delta)^2 + \tfrac{\mu}{2} |\delta|^2,
        \qquad \mu = 2 c_p^2/\sqrt m, \qquad
        \delta_{t+1} = \Pi_\rho\bigl(\delta_t - \eta_t \nabla L_t\bigr)

    Steps are :math:`\eta_t = \eta`, :math:`\eta/\sqrt t`, or :math:`\min(\eta, 1/h t)` with :math:`h = \mu` unless
    another curvature is assumed. Regret is taken against the best :math:`\delta` of the teacher's norm or less, for
    every
    :math:`\mu` alike. All A arms see the same B streams.

    Args:
        features: Gradients :math:`\phi_t` of B streams.
        teacher: The teacher's :math:`\delta^*`.
        noise: Noise of the labels.
        pull: :math:`\mu` of each arm.
        power: Decay of each arm's steps: 0, 0.5, or 1 for :math:`\min(\eta, 1/h t)`.
        rate: :math:`\eta` of each arm.
        checkpoints: Rounds at which regret is taken.
        curvature: The curvature :math:`h` that steps of power 1 count on; default the pull.
        known: From :func:`hindsight` with these labels, to be computed once.
        sampled: Draws of signs a round; 0 uses their exact mean.
        seed: Seeds the signs.

    Returns:
        Regret and excess at the checkpoints.

    Raises:
        ValueError: For shapes that differ, a negative pull, an unknown decay, or steps of :math:`1/\mu t` without a
            pull.

    Source:
        deb2023contextual (perturbed predictions make the loss grow quadratically; logarithmic regret).
    """
    require(pull.shape == power.shape == rate.shape, f"{len(pull)} powers and rates", (power.shape, rate.shape))
    require(bool((pull >= 0).all()), "a pull of at least 0", float(pull.min()))
    require(set(power.tolist()) <= {0.0, 0.5, 1.0}, "powers out of 0, 0.5, 1", power.tolist())
    bend = pull if curvature is None else curvature
    require(bool(((power < 1) | (bend > 0)).all()), "a positive curvature for steps of 1/(h t)", bend.tolist())
    require_finite("features", features)
    batch, rounds, p = features.shape
    options = {"dtype": features.dtype, "device": features.device}
    g = torch.Generator(device=features.device).manual_seed(seed)
    y = (features @ teacher[..., None])[..., 0] + noise
    known = hindsight(features, y, checkpoints) if known is None else known
    radius = teacher.norm(dim=1)
    delta = torch.zeros(len(pull), batch, p, **options)
    square, gap = torch.zeros(rounds, len(pull), batch, **options), torch.zeros(rounds, len(pull), batch, **options)
    mu, eta = pull[:, None], rate[:, None]
    for t in range(rounds):
        phi = features[:, t]
        residual = (phi * delta).sum(-1) - y[:, t]
        square[t] = residual.square() + mu / 2 * delta.square().sum(-1)
        gap[t] = residual.square() - noise[:, t].square()
        if sampled:
            signs = torch.randint(0, 2, (sampled, 1, batch, p), generator=g, device=y.device).to(y.dtype) * 2 - 1
            tilt = (mu / 2).sqrt()
            shifted = residual + tilt * (signs * delta).sum(-1)
            gradient = 2 * (shifted.mean(0)[..., None] * phi + tilt[..., None] * (shifted[..., None] * signs).mean(0))
        else:
            gradient = 2 * residual[..., None] * phi + mu[..., None] * delta
        decayed = torch.where(power[:, None] == 0.5, eta / (t + 1) ** 0.5, eta)
        strong = torch.minimum(eta, 1 / (bend[:, None].clamp_min(1e-30) * (t + 1)))
        step = torch.where(power[:, None] == 1, strong, decayed)
        delta = delta - step[..., None] * gradient
        delta = delta * (radius / delta.norm(dim=-1).clamp_min(1e-30)).clamp_max(1)[..., None]
    places = torch.tensor(checkpoints) - 1
    best = torch.stack([least_total(known, c, mu, radius) for c in checkpoints])
    return OnlineRegression(square.cumsum(0)[places] - best, gap.cumsum(0)[places])


def network_gradients(
    inputs: Float[Tensor, "B T d"], width: int, *, generator: torch.Generator
) -> Float[Tensor, "B T p"]:
    r"""Gradients of random two-layer tanh networks at their initialisation, one network a stream,
    :math:`p = m (d + 1)`.

    .. math:: \nabla f = m^{-1/2} \bigl[\tanh(W x),\ v \odot \tanh'(W x)\, x^\top\bigr]

    Args:
        inputs: Inputs of B streams.
        width: Hidden units :math:`m`.
        generator: Draws the networks.

    Raises:
        ValueError: For a width below 1.

    Source:
        deb2023contextual (network with a smooth activation and last layer over the root of the width).
    """
    require(width >= 1, "a width of at least 1", width)
    batch, _, d = inputs.shape
    options = {"generator": generator, "dtype": inputs.dtype, "device": inputs.device}
    w, v = torch.randn(batch, d, width, **options) / d**0.5, torch.randn(batch, 1, width, **options)
    h = torch.tanh(inputs @ w)
    inner = (v * (1 - h.square()))[..., None] * inputs[..., None, :]
    return torch.cat([h, inner.flatten(-2)], -1) / width**0.5
