"""How fast lit_purify is beside plain code and other libraries, as one table.

    python scripts/bench.py                      # on the CPU; some twenty minutes on two cores
    python scripts/bench.py --device cuda        # on a GPU, in a few minutes
    python scripts/bench.py --only gradient      # the rows whose names hold the word
    python scripts/bench.py --json bench.json

Both sides of a row compute the same thing in alternating rounds, so that a ratio means something on
a busy machine too. On the CPU it is CPU time that counts, of all threads; on a GPU, and where
processes are compared, the time on the wall. A ratio is the median of the rounds, with the lowest
and the highest.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lit_purify import PGD, Defence, DiffusionPurifier, FixedNoise, embedded_resnet18, evaluate
from lit_purify.callbacks import OutputVariability
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import ddpm_unet, small_unet
from lit_purify.diffusion.live_bytes import LiveBytes
from lit_purify.functional import JacobianOperator, largest_singular
from lit_purify.precision import float32_mode

Work = Callable[[], object]
GOALS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Result:
    """A row of the table.

    Attributes:
        name: what is compared.
        ours, reference: seconds of the quickest round, or the unit that the name says.
        ratio, low, high: what the goal is about: median, lowest and highest of the rounds.
        goal: such as ``<= 1.05``; empty where there is none.
    """

    name: str
    ours: float
    reference: float
    ratio: float
    low: float
    high: float
    goal: str = ""

    @property
    def met(self) -> bool | None:
        if not self.goal:
            return None
        sign, limit = self.goal.split()
        return bool(GOALS[sign](self.ratio, float(limit)))


class Bench:
    """Measures pairs of computations on one device."""

    def __init__(self, device: str, rounds: int) -> None:
        self.device = torch.device(device)
        self.rounds = rounds

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def seconds(self, work: Work) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            torch.cuda.synchronize()
            return time.perf_counter() - start
        start = time.process_time()
        work()
        return time.process_time() - start

    def compare(
        self,
        name: str,
        ours: Work,
        reference: Work,
        goal: str = "",
        *,
        rounds: int | None = None,
        seconds: Callable[[Work], float] | None = None,
        speedup: bool = False,
        warm: bool = True,
    ) -> Result:
        """Time both in alternating rounds, either first.

        Args:
            name: what the row is called.
            ours: our side.
            reference: the other side.
            goal: of the ratio.
            rounds: alternating rounds; ``None`` takes the table's.
            seconds: measures a side; ``None`` takes the device's clock.
            speedup: the ratio is reference / ours instead of ours / reference.
            warm: run both once before.
        """
        seconds = seconds or self.seconds
        if warm:
            ours()
            reference()
        times: list[tuple[float, float]] = []
        for number in range(rounds or self.rounds):
            first, second = (ours, reference) if number % 2 == 0 else (reference, ours)
            a, b = seconds(first), seconds(second)
            times.append((a, b) if number % 2 == 0 else (b, a))
        ratios = [b / a if speedup else a / b for a, b in times]
        mine, others = zip(*times, strict=True)
        return Result(
            name,
            min(mine),
            min(others),
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            goal,
        )

    def images(self, n: int, size: int = 32) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.rand(n, 3, size, size, generator=generator).to(self.device)

    def purifier(self, network: str, num_steps: int, **options: object) -> DiffusionPurifier:
        """A purifier with random weights: what a step costs does not hang on them."""
        torch.manual_seed(0)
        denoiser = small_unet() if network == "small" else ddpm_unet()
        for parameter in denoiser.parameters():  # untrained, its last layers are zero
            nn.init.normal_(parameter, std=0.02)
        options = {"t_star": 100, "memory_budget_gib": 0, **options}
        return DiffusionPurifier(denoiser, num_steps=num_steps, **options).to(self.device)  # type: ignore[arg-type]


class PlainChain:
    """The chain as one would write it down: DDPM with the predicted image clipped, plain autograd.

    Args:
        purifier: whose network, steps and schedule it takes.
        keyed: take the noise that the purifier takes; otherwise the device's own generator.
    """

    def __init__(self, purifier: DiffusionPurifier, *, keyed: bool = False) -> None:
        self.network = purifier.denoiser
        self.steps = purifier.timesteps
        self.alpha_bar = purifier.schedule.alpha_bar.tolist()
        self.keyed = keyed

    def noise(self, x: Tensor, process: str, t: int) -> Tensor:
        if self.keyed:
            return FixedNoise(0).normal(torch.arange(len(x)), process, t, like=x)  # type: ignore[arg-type]
        return torch.randn_like(x)

    def __call__(self, images: Tensor) -> Tensor:
        x, previous = images * 2 - 1, 1.0
        for t in self.steps:
            ratio = self.alpha_bar[t] / previous
            x = ratio**0.5 * x + (1 - ratio) ** 0.5 * self.noise(x, "forward", t)
            previous = self.alpha_bar[t]
        for t, below in zip(self.steps[::-1], [*self.steps[-2::-1], 0], strict=True):
            now, then = self.alpha_bar[t], self.alpha_bar[below] if below else 1.0
            alpha = now / then
            eps = self.network(x, t)
            clean = ((x - (1 - now) ** 0.5 * eps) / now**0.5).clamp(-1, 1)
            x = (then**0.5 * (1 - alpha) * clean + alpha**0.5 * (1 - then) * x) / (1 - now)
            if below:
                x = x + ((1 - then) / (1 - now) * (1 - alpha)) ** 0.5 * self.noise(x, "reverse", t)
        return (x + 1) / 2


def gradient_of(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    x = images.detach().requires_grad_()
    output = function(x)
    (gradient,) = torch.autograd.grad(output, x, torch.ones_like(output))
    return gradient


def bound(purifier: DiffusionPurifier, n: int) -> Callable[[Tensor], Tensor]:
    """Under noise that is drawn once, as an attack meets it."""
    indices = torch.arange(n)
    noise = FixedNoise(0).cached(indices)
    return lambda x: purifier.purify(x, noise, indices)


def bare_cost(purifier: DiffusionPurifier, images: Tensor) -> None:
    """Two passes up and one down for every step: what recomputation cannot do without."""
    x = images * 2 - 1
    for t in purifier.timesteps:
        with torch.no_grad():
            purifier.denoiser(x, t)
        gradient_of(partial(purifier.denoiser, t=t), x)


def gradient(bench: Bench) -> Iterator[Result]:
    cases = (
        [("small", 1), ("small", 16), ("small", 128), ("35.7 M", 16), ("35.7 M", 128)]
        if bench.on_gpu
        else [("small", 1), ("small", 4), ("small", 16), ("35.7 M", 1), ("35.7 M", 4)]
    )
    for network, n in cases:
        purifier = bench.purifier(network, 10 if network == "small" else 3)
        images, ours = bench.images(n), bound(purifier, n)
        plain = PlainChain(purifier, keyed=True)
        torch.testing.assert_close(ours(images), plain(images), atol=1e-4, rtol=1e-4)
        result = bench.compare(
            f"gradient over its bare cost, {network}, batch {n}",
            partial(gradient_of, ours, images),
            partial(bare_cost, purifier, images),
            "<= 1.05",
        )
        yield result
        rate = n * len(purifier.timesteps) / result.ours
        print(f"{network}, batch {n}: {rate:.0f} image-steps/s", flush=True)


def kept(bench: Bench) -> Iterator[Result]:
    for network, n in (("small", 16), ("35.7 M", 16 if bench.on_gpu else 2)):
        purifier = bench.purifier(network, 10 if network == "small" else 3, memory_budget_gib=64)
        yield bench.compare(
            f"activations kept over plain autograd, {network}, batch {n}",
            partial(gradient_of, bound(purifier, n), bench.images(n)),
            partial(gradient_of, PlainChain(purifier), bench.images(n)),
            "<= 1.02",
        )


def memory(bench: Bench) -> Iterator[Result]:
    peaks = []
    for num_steps in (20, 200):
        purifier = bench.purifier("small", num_steps, t_star=200)
        function, images = bound(purifier, 2), bench.images(2)
        function(images)  # the noise is drawn
        with LiveBytes() as live:
            gradient_of(function, images)
        peaks.append(live.peak - num_steps * images.nbytes)  # but for the states
    ratio = peaks[1] / peaks[0]
    yield Result(
        "memory beside the states, 200 steps over 20 (bytes)",
        peaks[1],
        peaks[0],
        ratio,
        ratio,
        ratio,
        "<= 1.05",
    )


def purification(bench: Bench) -> Iterator[Result]:
    purifier, images = bench.purifier("small", 10), bench.images(16)
    function = bound(purifier, 16)

    def forwards() -> None:
        x = images * 2 - 1
        for t in purifier.timesteps:
            purifier.denoiser(x, t)

    with torch.no_grad():
        yield bench.compare(
            "purification over its forward passes", partial(function, images), forwards, "<= 1.03"
        )


def noise(bench: Bench) -> Iterator[Result]:
    images, indices = bench.images(16), torch.arange(16)
    yield bench.compare(
        "noise keyed by sample over the device's own, 100 draws",
        lambda: [FixedNoise(0).normal(indices, "forward", t, like=images) for t in range(1, 101)],
        lambda: [torch.randn_like(images) for _ in range(100)],
    )


def attack(bench: Bench) -> Iterator[Result]:
    import foolbox

    n = 16
    images, indices = bench.images(n), torch.arange(n)
    classifier = embedded_resnet18().to(bench.device)
    labels = classifier(images).argmax(1)
    defence = Defence(classifier, bench.purifier("small", 5))

    def ours() -> None:
        PGD(steps=5)(defence.bind(FixedNoise(0), indices), images, labels, indices)

    def theirs() -> None:
        model = foolbox.PyTorchModel(
            defence.bind(FixedNoise(0), indices), bounds=(0, 1), device=bench.device
        )
        search = foolbox.attacks.LinfPGD(steps=5, rel_stepsize=0.01 / 0.3)
        search.run(model, images, foolbox.criteria.Misclassification(labels), epsilon=8 / 255)

    yield bench.compare("PGD over foolbox's, equal iterations", ours, theirs, "<= 1.02")


def protocol(bench: Bench) -> Iterator[Result]:
    """The paper's way: one image at a time, every iteration, the generator seeded at every pass."""
    n, steps = 8, 40
    images, indices = bench.images(n), torch.arange(n)
    classifier = embedded_resnet18().to(bench.device)
    purifier = bench.purifier("small", 3)
    defence, plain = Defence(classifier, purifier), PlainChain(purifier)
    labels = classifier(images).argmax(1)

    def ours() -> None:
        bound_defence = defence.bind(FixedNoise(0), indices)
        PGD(steps=steps, early_stop=True)(bound_defence, images, labels, indices)

    def theirs() -> None:
        eps = 8 / 255
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            x = image + eps * (2 * torch.rand_like(image) - 1)
            for _ in range(steps):
                x = x.clamp(0, 1).detach().requires_grad_()
                torch.manual_seed(0)
                loss = nn.functional.cross_entropy(classifier(plain(x)), label)
                (slope,) = torch.autograd.grad(loss, x)
                x = image + (x + eps / 30 * slope.sign() - image).clamp(-eps, eps)

    yield bench.compare(
        "attack: the paper's protocol over ours",
        ours,
        theirs,
        ">= 4",
        rounds=1,
        speedup=True,
        warm=False,
    )


def jacobian(bench: Bench) -> Iterator[Result]:
    size = 16
    torch.manual_seed(0)
    denoiser = small_unet(image_size=size)
    purifier = DiffusionPurifier(denoiser, t_star=20, num_steps=2).to(bench.device)
    image = bench.images(1, size)
    noise = FixedNoise(0).cached(torch.zeros(1, dtype=torch.int64))

    def rows(x: Tensor) -> Tensor:
        return purifier.purify(x, noise, torch.zeros(len(x), dtype=torch.int64))

    dense = JacobianOperator(function=rows, image=image[0], rows_per_pass=64)
    yield bench.compare(
        f"dense Jacobian over torch.autograd.functional.jacobian, {3 * size * size} rows",
        dense.dense,
        lambda: torch.autograd.functional.jacobian(rows, image),
        ">= 5",
        rounds=1,
        speedup=True,
        warm=False,
    )
    purifier = bench.purifier("small", 2, t_star=20)
    dense = JacobianOperator(function=rows, image=bench.images(1)[0], rows_per_pass=64)
    start = torch.rand(dense.size, dtype=torch.float64) - 0.5
    yield bench.compare(
        "top 10 singular values over the dense Jacobian's, 3072 rows",
        lambda: largest_singular(dense.push, dense.pull, start, 10),
        lambda: torch.linalg.svdvals(dense.dense().double()),
        ">= 30",
        rounds=1,
        speedup=True,
        warm=False,
    )


def variance(bench: Bench) -> Iterator[Result]:
    inputs, draws, n = 4, 8, 4
    purifier = bench.purifier("small", 5)
    defence = Defence(embedded_resnet18(), purifier)
    data = CIFAR10DataModule(limit=n, batch_size=n)
    data.setup("test")
    images = torch.stack([data.test_set[i]["image"] for i in range(n)]).to(bench.device)
    plain = PlainChain(purifier)
    kind = "gpu" if bench.on_gpu else "cpu"

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            evaluate(
                defence,
                data,
                protocols=[],
                measurements=[OutputVariability(inputs=inputs, draws=draws)],
                root=folder,
                progress=False,
                trainer={"accelerator": kind},
            )

    def theirs() -> None:
        with torch.no_grad():
            for image in images.split(1):
                for _ in range(inputs):
                    moved = image + 8 / 255 * (2 * torch.rand_like(image) - 1)
                    torch.stack([plain(moved) for _ in range(draws)]).var(0)

    yield bench.compare(
        "variance measurement over a loop, images one by one", ours, theirs, speedup=True, rounds=2
    )


def linearity(bench: Bench) -> Iterator[Result]:
    """R2 of the straight line through the seconds."""
    for what, sizes in (("images", (4, 8, 16, 24, 32)), ("steps", (5, 10, 20, 30, 40))):
        seconds = []
        for size in sizes:
            n, num_steps = (size, 5) if what == "images" else (4, size)
            function, images = bound(bench.purifier("small", num_steps), n), bench.images(n)
            work = partial(gradient_of, function, images)
            work()
            seconds.append(min(bench.seconds(work) for _ in range(bench.rounds)))
        fit = np.corrcoef(sizes, seconds)[0, 1] ** 2
        yield Result(
            f"gradient: linear in {what} (R2)", seconds[-1], seconds[0], fit, fit, fit, ">= 0.99"
        )


def child(*command: str, wall: bool = False) -> float:
    """Seconds of CPU, or on the wall, that a process of its own takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if wall:
        return time.perf_counter() - start
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start_up(bench: Bench) -> Iterator[Result]:
    python, ours = sys.executable, (sys.executable, "-m", "lit_purify")
    imports = (python, "-c", "import torch, lightning")

    def timed(command: tuple[str, ...]) -> float:
        return child(*command)

    def compare(name: str, command: tuple[str, ...], goal: str) -> Result:
        return bench.compare(
            name,
            command,  # type: ignore[arg-type]
            imports,  # type: ignore[arg-type]
            goal,
            rounds=3,
            seconds=timed,  # type: ignore[arg-type]
            warm=False,
        )

    yield compare("--help over import torch, lightning", (*ours, "--help"), "")
    yield compare("weights list over import torch, lightning", (*ours, "weights", "list"), "")
    with tempfile.TemporaryDirectory() as folder:
        first = ("--data.limit=1", "--model.protocols=[]", "--measure.images=null")
        command = (*ours, "test", "--config=cifar_fixed", "--model.purifier.num_steps=1")
        root = f"--trainer.default_root_dir={folder}"
        yield compare(
            "one image purified over import torch, lightning",
            (*command, *first, "--measure.compression=null", "--trainer.accelerator=cpu", root),
            "<= 1.3",
        )


def processes(bench: Bench) -> Iterator[Result]:
    if bench.on_gpu or (os.cpu_count() or 1) < 2:
        return
    with tempfile.TemporaryDirectory() as folder:
        command = (
            *(sys.executable, "-m", "lit_purify", "test", "--config=cifar_fixed"),
            *(
                "--data.limit=32",
                "--data.batch_size=4",
                "--attack.steps=5",
                "--measure.images=null",
            ),
            *("--model.protocols=[fixed]", f"--trainer.default_root_dir={folder}"),
            "--trainer.accelerator=cpu",
        )
        os.environ["OMP_NUM_THREADS"] = "1"

        def timed(more: tuple[str, ...]) -> float:
            return child(*command, *more, wall=True)

        yield bench.compare(
            "two processes over one, one thread each (wall)",
            ("--config=hardware/ddp", "--trainer.accelerator=cpu", "--trainer.devices=2"),  # type: ignore[arg-type]
            (),  # type: ignore[arg-type]
            rounds=2,
            seconds=timed,  # type: ignore[arg-type]
            warm=False,
        )
        del os.environ["OMP_NUM_THREADS"]


def compiled(bench: Bench) -> Iterator[Result]:
    """CUDA graphs of the step as it is, and of the step compiled."""
    if not bench.on_gpu:
        return
    for backend in (None, "inductor"):
        for network, n in (("small", 16), ("small", 128), ("35.7 M", 16), ("35.7 M", 128)):
            eager, quick = bench.purifier(network, 5), bench.purifier(network, 5)
            quick.compile_step(backend=backend)
            images = bench.images(n)
            how = "compiled" if backend else "CUDA graphs"
            result = bench.compare(
                f"{how} over eager, {network}, batch {n}",
                partial(gradient_of, bound(quick, n), images),
                partial(gradient_of, bound(eager, n), images),
            )
            yield result
            print(f"{how}, {network}, batch {n}: {n * 5 / result.ours:.0f} image-steps/s")


def low_precision(bench: Bench) -> Iterator[Result]:
    if not bench.on_gpu:
        return
    for network, n in (("small", 128), ("35.7 M", 16), ("35.7 M", 128)):
        purifier, images = bench.purifier(network, 5), bench.images(n)
        work = partial(gradient_of, bound(purifier, n), images)

        def low(work: Work = work) -> None:
            with torch.autocast("cuda", torch.bfloat16):
                work()

        yield bench.compare(f"bf16 over float32, {network}, batch {n}", low, work)


ROWS = (
    *(gradient, kept, memory, purification, noise, attack, protocol, jacobian, variance),
    *(linearity, start_up, processes, compiled, low_precision),
)


def show(results: list[Result]) -> None:
    table = Table("row", "ours", "reference", "ratio", "low - high", "goal", "met")
    for result in results:
        met = {None: "", True: "yes", False: "no"}[result.met]
        table.add_row(
            result.name,
            f"{result.ours:.4g}",
            f"{result.reference:.4g}",
            f"{result.ratio:.3f}",
            f"{result.low:.3f} - {result.high:.3f}",
            result.goal,
            met,
        )
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--only", default="", help="rows whose function's name holds this word")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of a row")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    args = parser.parse_args()
    bench = Bench(args.device, args.rounds)
    results: list[Result] = []
    with float32_mode():
        for rows in ROWS:
            if args.only in rows.__name__:
                for result in rows(bench):
                    results.append(result)
                    print(f"{result.name}: {result.ratio:.3f}", flush=True)
    show(results)
    if args.json is not None:
        machine = {
            "device": args.device,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        rows_ = [{**asdict(result), "met": result.met} for result in results]
        args.json.write_text(json.dumps({"machine": machine, "rows": rows_}, indent=2) + "\n")


if __name__ == "__main__":
    main()
