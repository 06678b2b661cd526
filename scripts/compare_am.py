#!/usr/bin/env python3
"""Attention Matching of kvc beside the published algorithm in plain PyTorch: the same heads, one thread, processor time.

    PYTHON scripts/compare_am.py [--heads FILE] [--shapes 1021x2042x64:51,204,510;3000x4096x64:60,300,600] [--rounds 3] [--kvc PATH]

PYTHON needs torch and safetensors (`.deps/golden/bin/python`, see scripts/export_golden.py). The published side is written here from the
paper's algorithms (arXiv:2602.16284, Algorithms 1 to 3), with their solvers (QR least squares, `gels`) and constants; the authors' repository
is no package. It does what their loops do: a table of all exponentials, for the pursuit a pass over it with every pick and a solve from
scratch every time. Shapes are TxNxD:targets; their heads are random, with logits of a few units. --heads takes a file of `kvc capture`
(K, V, Q of real heads) instead. Figures are medians over rounds in turns; both sides' errors of the attention output are printed, so that
a faster fit that fits worse shows.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import safetensors.torch
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent


def lstsq(a, b):
    return torch.linalg.lstsq(a, b, driver="gels").solution


def boxed(columns, mass, low, high, steps):
    """Clamped least squares, then projected-gradient steps (Algorithm 3)."""
    w = lstsq(columns, mass).clamp(low, high)
    if steps == 0:
        return w
    u = torch.randn(columns.shape[1], 1)
    for _ in range(3):
        u = columns.T @ (columns @ (u / u.norm()))
    eta = 1 / max(u.norm().item(), 1e-6)
    for _ in range(steps):
        w = (w - eta * (columns.T @ (columns @ w - mass))).clamp(low, high)
    return w


def tables(q, k):
    logits = (q @ k.T) * k.shape[1] ** -0.5
    e = (logits - logits.amax(1, keepdim=True)).exp()
    mass = e.sum(1, keepdim=True)
    return e, mass, e / mass


def values_of(q, k, chosen, w, attention, v):
    x = torch.softmax((q @ k[chosen].T) * k.shape[1] ** -0.5 + w.log().T, 1)
    return lstsq(x, attention @ v)


def highest_attention(q, k, v, t):
    e, mass, attention = tables(q, k)
    chosen = attention.square().mean(0).sqrt().topk(t).indices
    w = boxed(e[:, chosen], mass, math.exp(-3), math.exp(3), 2)
    return chosen, w, values_of(q, k, chosen, w, attention, v)


def pursue(e, mass, t, k_choice, interval, drop=-7.0):
    """Orthogonal matching pursuit (Algorithms 1 and 2), with the drop rule: at most three refinements."""
    chosen, banned, w, current, iteration, refinements = [], set(), None, torch.zeros_like(mass), 0, 0
    while True:
        while len(chosen) < t:
            correlation = (e * (mass - current)).sum(0)
            correlation[chosen + sorted(banned)] = -math.inf
            n = min(k_choice, e.shape[1] - len(chosen) - len(banned), t - len(chosen))
            if n == 0:
                break
            chosen += correlation.topk(n).indices.tolist()
            columns = e[:, chosen]
            if w is None or iteration % interval == 0:
                w = boxed(columns, mass, 1e-12, math.exp(7), 0)
            else:
                w = torch.cat([w, torch.full((n, 1), 1e-12)])
            current = columns @ w
            iteration += 1
        w = boxed(e[:, chosen], mass, 1e-12, math.exp(7), 0)
        weak = (w.log().flatten() < drop).tolist()
        if not any(weak) or refinements == 3 or len(chosen) < t:
            return torch.tensor(chosen), w
        refinements += 1
        banned |= {c for c, bad in zip(chosen, weak) if bad}
        chosen = [c for c, bad in zip(chosen, weak) if not bad]
        w = w[~torch.tensor(weak)]
        current, w = e[:, chosen] @ w, None


def omp(q, k, v, t, k_choice=1, interval=1):
    e, mass, attention = tables(q, k)
    chosen, w = pursue(e, mass, t, k_choice, interval)
    return chosen, w, values_of(q, k, chosen, w, attention, v)


def omp_fast(q, k, v, t):
    return omp(q, k, v, t, 4, 2)


METHODS = {"am_highest_attention": highest_attention, "am_omp": omp, "am_omp_fast": omp_fast}


def random_head(source_len, n, d, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator) / 4
    return {"K": torch.randn(source_len, d, generator=generator) @ mix, "V": torch.randn(source_len, d, generator=generator),
            "Q": torch.randn(n, d, generator=generator) @ mix}


def output_error(head, chosen, bias, values):
    q, k, v = (head[x].double() for x in "QKV")
    scale = k.shape[1] ** -0.5
    exact = torch.softmax(q @ k.T * scale, 1) @ v
    found = torch.softmax(q @ k[chosen].T * scale + bias.double().flatten(), 1) @ values.double()
    return ((found - exact).norm() / exact.norm()).item()


def by_kvc(kvc, head, method, t, folder):
    # A program's first fit pays for its start (pages, library set-up); theirs runs in a process that is warm. So: the head four times.
    safetensors.torch.save_file({f"h{i}.{x}": head[x].clone() for i in range(4) for x in "KVQ"}, f"{folder}/heads.safetensors")
    subprocess.run([kvc, "--threads", "1", "fit", "--in", f"{folder}/heads.safetensors", "--method", method, "--target", str(t), "--out",
                    f"{folder}/out.safetensors", "--report", f"{folder}/report.json", "--held-out", "0", "--force"], check=True,
                   stdout=subprocess.DEVNULL)
    report = json.loads(pathlib.Path(f"{folder}/report.json").read_text(encoding="utf-8"))["heads"]
    seconds = statistics.median(report[f"h{i}"]["fit_processor_s"] for i in (1, 2, 3))
    out = safetensors.torch.load_file(f"{folder}/out.safetensors")
    return seconds, out["h3.indices"], out["h3.bias"], out["h3.values"], report["h3"]["notes"]


def compare(kvc, name, head, targets, methods, rounds):
    with tempfile.TemporaryDirectory() as folder:
        for t in targets:
            for method in methods:
                ours, theirs = [], []
                for _ in range(rounds):
                    begin = time.process_time()
                    chosen, w, values = METHODS[method](head["Q"], head["K"], head["V"], t)
                    theirs.append(time.process_time() - begin)
                    seconds, indices, bias, fitted, notes = by_kvc(kvc, head, method, t, folder)
                    ours.append(seconds)
                same = len(set(chosen.tolist()) & set(indices.tolist()))
                a, b = statistics.median(theirs), statistics.median(ours)
                print(f"| {name} | {method} | {t} | {a * 1e3:.0f} | {b * 1e3:.0f} | {a / b:.1f} | {same} of {t} | "
                      f"{output_error(head, chosen, w.log(), values):.2e} | {output_error(head, indices, bias, fitted):.2e} | "
                      f"{', '.join(k for k, x in notes.items() if x and 'deficient' in k)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--heads")
    parser.add_argument("--targets", default="51,204,510", help="with --heads")
    parser.add_argument("--shapes", default="1021x2042x64:51,204,510;3000x4096x64:60,300,600")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kvc", default=str(ROOT / "build" / "release" / "kvc"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one thread, medians of {options.rounds}, processor milliseconds")
    print("| head | method | t | published | kvc | times | same picks | error, published | error, kvc | rank |\n|---|---|---|---|---|---|---|---|---|---|")
    methods = options.methods.split(",")
    if options.heads:
        stored = safetensors.torch.load_file(options.heads)
        for name in sorted({key.rpartition(".")[0] for key in stored}):
            head = {x: stored[f"{name}.{x}"].float() for x in "KVQ"}
            compare(options.kvc, name, head, [int(t) for t in options.targets.split(",")], methods, options.rounds)
        return 0
    for shape in options.shapes.split(";"):
        sizes, _, targets = shape.partition(":")
        compare(options.kvc, sizes, random_head(*map(int, sizes.split("x"))), [int(t) for t in targets.split(",")], methods, options.rounds)
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
