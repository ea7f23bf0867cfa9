"""One step of each of our classical methods, to be plugged into `coarse_to_fine`.

Every step takes frame 1, frame 2 `(B, C, H, W)` in grey levels (0 to 255) and the flow so far w0 = (u0, v0), `(B, 2, H, W)`
[px], and returns a flow of that shape. Ix, Iy, It come from `linearize`. Flow beyond the frame is repeated from its edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .pyramid import blur, derivative, gradient, linearize, sample


@dataclass(frozen=True)
class HornSchunck:
    """Horn and Schunck, "Determining optical flow", Artificial Intelligence 1981.

    Minimises the sum over pixels of `sum_c (Ix (u - u0) + Iy (v - v0) + It)^2 + alpha^2 (|grad u|^2 + |grad v|^2)` by the
    paper's own iteration (its equations 12 and 13): `alpha` = `alpha` [grey levels], `iterations` times.
    """

    alpha: float = 8.0
    iterations: int = 60

    def __call__(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        tensor = data_tensor(*linearize(first, second, flow))
        start = flow
        for _ in range(self.iterations):
            flow = self.iterate(tensor, flow, start)
        return flow

    def iterate(self, tensor: tuple[Tensor, ...], flow: Tensor, start: Tensor) -> Tensor:
        """The flow at each pixel that is best given the mean flow of its neighbours.

        Args:
            tensor: of `data_tensor`, linearised around `start`.
        """
        return data_solution(tensor, neighbour_mean(flow), start, self.alpha**2)


def neighbour_mean(flow: Tensor) -> Tensor:
    """Horn and Schunck's mean of the eight neighbours: 1/6 each beside, 1/12 each across; edges repeat."""
    return F.conv2d(F.pad(flow.flatten(0, 1).unsqueeze(1), (1, 1, 1, 1), mode="replicate"), mean_kernel(flow)).view(flow.shape)


def mean_kernel(like: Tensor) -> Tensor:
    """Kernel `(1, 1, 3, 3)` of `neighbour_mean`."""
    return like.new_tensor([[1.0, 2.0, 1.0], [2.0, 0.0, 2.0], [1.0, 2.0, 1.0]]).view(1, 1, 3, 3) / 12


def data_tensor(dx: Tensor, dy: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sums over channels of Ix^2, Ix Iy, Iy^2, Ix It, Iy It, each `(B, 1, H, W)`."""
    products = (dx * dx, dx * dy, dy * dy, dx * dt, dy * dt)
    xx, xy, yy, xt, yt = (product.sum(dim=1, keepdim=True) for product in products)
    return xx, xy, yy, xt, yt


def data_solution(tensor: tuple[Tensor, ...], mean: Tensor, start: Tensor, weight: float | Tensor) -> Tensor:
    """The w that minimises `sum_c (Ix (u - u0) + Iy (v - v0) + It)^2 + weight |w - mean|^2` at each pixel.

    For one channel it is Horn and Schunck's equations 12 and 13.

    Args:
        tensor: of `data_tensor`. mean, start: `(B, 2, H, W)`; start = (u0, v0).
    """
    xx, xy, yy, xt, yt = tensor
    change = mean - start
    # The gradient of the data term at the mean; then one 2x2 system per pixel for the way from there.
    gx = xx * change[:, :1] + xy * change[:, 1:] + xt
    gy = xy * change[:, :1] + yy * change[:, 1:] + yt
    return mean - _solved(xx + weight, xy, yy + weight, gx, gy)


def _solved(a: Tensor, b: Tensor, d: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`[[a, b], [b, d]]^-1 (x, y)` for each pixel, `(B, 2, H, W)`."""
    determinant = a * d - b * b
    return torch.cat(((d * x - b * y) / determinant, (a * y - b * x) / determinant), dim=1)


@dataclass(frozen=True)
class LucasKanade:
    """Lucas and Kanade, "An iterative image registration technique", IJCAI 1981, at every pixel.

    Least squares of `Ix (u - u0) + Iy (v - v0) + It` over a Gaussian window of `sigma` [px]; `ridge` [grey levels^2] is
    added to the diagonal, which keeps the flow where the window shows no structure. No change is longer than `longest` [px]:
    the linearisation holds no further.
    """

    sigma: float = 3.0
    ridge: float = 10.0
    longest: float = 1.0

    def __call__(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        xx, xy, yy, xt, yt = (blur(part, self.sigma) for part in data_tensor(*linearize(first, second, flow)))
        change = _solved(xx + self.ridge, xy, yy + self.ridge, -xt, -yt)
        length = change.square().sum(dim=1, keepdim=True).add(1e-12).sqrt()
        return flow + change * (self.longest / length).clamp(max=1.0)


@dataclass(frozen=True)
class Brox:
    """Brox, Bruhn, Papenberg, Weickert, "High accuracy optical flow estimation based on a theory for warping", ECCV 2004.

    Minimises `Psi(|I2(x + w) - I1|^2 + gamma |grad I2(x + w) - grad I1|^2) + alpha Psi(|grad u|^2 + |grad v|^2)` with
    `Psi(s^2) = sqrt(s^2 + epsilon^2)`, gamma = `gamma`, alpha = `alpha`, epsilon = `epsilon`. The data term is summed over
    channels inside Psi. The gradient of I2(x + w) is that of the warped frame, so that it turns and stretches with what it belongs
    to. `fixed_points` times the weights Psi' are taken from the flow so far (the paper's inner fixed-point iteration), and each
    resulting linear system is solved by `iterations` of conjugate gradients, with the 2x2 block of each pixel as preconditioner,
    where the paper takes SOR.
    """

    alpha: float = 10.0
    gamma: float = 5.0
    epsilon: float = 0.1
    fixed_points: int = 3
    iterations: int = 20

    def __call__(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        warped, inside = sample(second, flow)
        xx, xy, yy, xt, yt, tt = robust_data_terms(first, warped, self.gamma)
        change = None
        for _ in range(self.fixed_points):
            residual = tt
            if change is not None:
                u, v = change.split(1, dim=1)
                residual = (xx * u * u + yy * v * v + tt + 2 * (xy * u * v + xt * u + yt * v)).clamp(min=0)
            data = inside * 0.5 * (residual + self.epsilon**2).rsqrt()
            solved = flow if change is None else flow + change
            across, down = (part.square().sum(dim=1, keepdim=True) for part in forward_differences(solved))
            smooth = self.alpha * 0.5 * (across + down + self.epsilon**2).rsqrt()
            system = NormalEquations(data * xx, data * xy, data * yy, smooth)
            target = torch.cat((-data * xt, -data * yt), dim=1) - system.smoothness(flow)
            change = conjugate_gradients(system, target, change, self.iterations)
        return flow if change is None else flow + change


def robust_data_terms(first: Tensor, warped: Tensor, gamma: float) -> list[Tensor]:
    """Of brightness constancy, and weighed by `gamma` of the constancy of gradients, the sums of Ix^2, Ix Iy, Iy^2, Ix It, Iy It
    and It^2, `(B, 1, H, W)` each.

    Derivatives along x and y are those of the mean of both frames.
    """
    channels, dt = first.shape[1], warped - first
    x, y = gradient(torch.cat(((first + warped) / 2, dt), dim=1))
    (dx, dxt), (dy, dyt) = x.split(channels, dim=1), y.split(channels, dim=1)
    along_x, along_y, along_t = [dx], [dy], [dt]
    if gamma:
        dxx, (dxy, dyy) = derivative(dx, -1), derivative(torch.cat((dx, dy), dim=1), -2).split(channels, dim=1)
        for maps, more in ((along_x, (dxx, dxy)), (along_y, (dxy, dyy)), (along_t, (dxt, dyt))):
            maps += [part * math.sqrt(gamma) for part in more]
    a, b, c = ([channel for part in parts for channel in part.split(1, dim=1)] for parts in (along_x, along_y, along_t))
    return [_inner(p, q) for p, q in ((a, a), (a, b), (b, b), (a, c), (b, c), (c, c))]


def _inner(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """The sum of the products of maps."""
    total = first[0] * second[0]
    for one, two in zip(first[1:], second[1:], strict=True):
        total.addcmul_(one, two)
    return total


def forward_differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x(right) - x` and `x(below) - x` of `(B, C, H, W)`, zero at the last column and row."""
    return F.pad(x[..., 1:] - x[..., :-1], (0, 1)), F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))


def divergence(px: Tensor, py: Tensor) -> Tensor:
    """The negative adjoint of `forward_differences`: backward differences, as if nothing flowed in or out at the border."""
    px, py = F.pad(px[..., :-1], (1, 1)), F.pad(py[..., :-1, :], (0, 0, 1, 1))
    return px[..., 1:] - px[..., :-1] + py[..., 1:, :] - py[..., :-1, :]


class NormalEquations:
    """`w -> [[a, b], [b, d]] w - div(smooth grad w)`, with `forward_differences` and `divergence`, for flows `(B, 2, H, W)`.

    Args:
        a, b, d, smooth: `(B, 1, H, W)`.
    """

    def __init__(self, a: Tensor, b: Tensor, d: Tensor, smooth: Tensor) -> None:
        # Of each difference that a pixel takes part in, its weight; none across the border.
        right, below = F.pad(smooth[..., :-1], (0, 1)), F.pad(smooth[..., :-1, :], (0, 0, 0, 1))
        left, above = F.pad(smooth[..., :-1], (1, 0)), F.pad(smooth[..., :-1, :], (0, 0, 1, 0))
        self._neighbours = left, right, above, below
        self._coupling = left + right + above + below
        self._across = b
        self._diagonal = torch.cat((a, d), dim=1) + self._coupling
        determinant = self._diagonal[:, :1] * self._diagonal[:, 1:] - b * b
        self._inverse_across = b / determinant
        self._inverse_diagonal = self._diagonal.flip(1) / determinant

    def __call__(self, w: Tensor) -> Tensor:
        """The left-hand side for w."""
        return self._less_neighbours((self._diagonal * w).addcmul_(self._across, w.flip(1)), w)

    def smoothness(self, w: Tensor) -> Tensor:
        """`-div(smooth grad w)` alone."""
        return self._less_neighbours(self._coupling * w, w)

    def precondition(self, w: Tensor) -> Tensor:
        """What solves each pixel's 2x2 block alone."""
        return (self._inverse_diagonal * w).addcmul_(self._inverse_across, w.flip(1), value=-1)

    def _less_neighbours(self, x: Tensor, w: Tensor) -> Tensor:
        """x, from which is taken what the four neighbours give."""
        height, width = w.shape[-2:]
        padded = F.pad(w, (1, 1, 1, 1))
        for weight, (top, left) in zip(self._neighbours, ((1, 0), (1, 2), (0, 1), (2, 1)), strict=True):
            x.addcmul_(weight, padded[..., top : top + height, left : left + width], value=-1)
        return x


def conjugate_gradients(system: NormalEquations, target: Tensor, start: Tensor | None, iterations: int) -> Tensor:
    """Solve `system(w) = target` from `start` on, or from zero."""
    tiny = torch.finfo(target.dtype).tiny
    solution, residual = (torch.zeros_like(target), target) if start is None else (start, target - system(start))
    direction: Tensor | None = None
    product: Tensor | None = None
    for _ in range(iterations):
        z = system.precondition(residual)
        new = _dot(residual, z)
        direction = z if direction is None or product is None else torch.addcmul(z, new / product.clamp(min=tiny), direction)
        product, image = new, system(direction)
        length = product / _dot(direction, image).clamp(min=tiny)
        solution = torch.addcmul(solution, length, direction)
        residual = torch.addcmul(residual, length, image, value=-1)
    return solution


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Of each of a batch, `(B, 1, 1, 1)`."""
    return torch.bmm(x.flatten(1).unsqueeze(1), y.flatten(1).unsqueeze(2)).unsqueeze(3)


@dataclass(frozen=True)
class TVL1:
    """Zach, Pock, Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007.

    Minimises `|grad u| + |grad v| + lambda |I2(x + w) - I1|` with lambda = `weight` [1/grey level], by alternating between
    thresholding the data term and Chambolle's dual iteration for the total variation, coupled by theta = `coupling`, with
    time step tau = `time_step`; `iterations` times. Of several channels the mean is taken: the thresholding needs one. The
    gradient is that of the warped frame 2, as in the paper.
    """

    weight: float = 0.15
    coupling: float = 0.3
    time_step: float = 0.25
    iterations: int = 40

    def __call__(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        first, second = first.mean(dim=1, keepdim=True), second.mean(dim=1, keepdim=True)
        warped, inside = sample(second, flow)
        dx, dy = gradient(warped)
        slope = torch.cat((dx, dy), dim=1) * inside
        dt = (warped - first) * inside
        squared = slope.square().sum(dim=1, keepdim=True)
        bound, divisor = self.weight * self.coupling * squared, squared.clamp(min=1e-9)
        limit = self.weight * self.coupling
        start = flow
        px, py = torch.zeros_like(flow), torch.zeros_like(flow)
        rate = self.time_step / self.coupling
        for _ in range(self.iterations):
            residual = dt + (slope * (flow - start)).sum(dim=1, keepdim=True)
            # Zach et al., equation 15: a full step to zero residual, or as far as lambda theta lets it go.
            step = torch.where(residual.abs() <= bound, residual / divisor, limit * residual.sign())
            flow = flow - step * slope + self.coupling * divergence(px, py)
            gx, gy = forward_differences(flow)
            norm = 1 + rate * (gx.square() + gy.square() + 1e-12).sqrt()
            px, py = (px + rate * gx) / norm, (py + rate * gy) / norm
        return flow
