"""Golden results of Attention Matching with orthogonal matching pursuit on synthetic heads, in float64 with numpy.

Run from the repository's root:
    python scripts/golden/attention_matching_omp.py > harness/testing/golden/attention_matching_omp.json

The published loop word by word (Algorithm 1 of arXiv:2602.16284): a product with the whole table and an SVD-based least squares at every step, the drop rule with
its at most four entries, and a last solve over all picks. `smallest_gap` is that of all decisions between the last key taken and the first
one left, in units of the largest correlation with the whole mass: below the rounding of float32 logits picks would be undecided.
Inputs are made by integer arithmetic that the reader repeats, so they are not stored; those of `captured` cases are heads of the demo
model on real text, in bfloat16, in harness/testing/golden/captured_heads.safetensors (its metadata says how they were made).
"""
import json
import platform
import sys

import numpy as np
from safetensors import safe_open

from attention_matching import synthetic

HEADS = "harness/testing/golden/captured_heads.safetensors"
LOWER, UPPER = 1e-12, np.exp(7.0)


def pursue(e, mass, t, k_choice, interval, drop):
    def solve(order):
        return np.linalg.lstsq(e[:, order], mass, rcond=1e-10)[0].clip(LOWER, UPPER)

    scale, gap, dropped = (e.T @ mass).max(), np.inf, 0
    order, excluded, w, current, iteration, entry = [], [], None, np.zeros_like(mass), 0, 0
    while True:
        while len(order) < t:
            correlation = e.T @ (mass - current)
            correlation[order + excluded] = -np.inf
            k = min(k_choice, t - len(order))
            best = np.argsort(-correlation, kind="stable")
            gap = min(gap, (correlation[best[k - 1]] - correlation[best[k]]) / scale)
            order += best[:k].tolist()
            w = solve(order) if w is None or iteration % interval == 0 else np.concatenate([w, np.full(k, LOWER)])
            current = e[:, order] @ w
            iteration += 1
        entry += 1
        w = solve(order)
        weak = [key for key, x in zip(order, w) if drop is not None and np.log(x) < drop]
        if not weak or entry == 4:
            return order, w, gap, dropped
        dropped += len(weak)
        excluded += weak
        order = [key for key in order if key not in weak]
        current, w = e[:, order] @ solve(order), None
        iteration += 1


def case(T, n, d, t, bias, seed, sharpness=1.0, k_choice=1, interval=1, drop=-7.0):
    q, k, v = (synthetic((rows, d), seed + i) for i, rows in enumerate((n, T, T)))
    centres = synthetic((8, d), seed + 9)
    k = (k + centres[np.arange(T) * 5 % 8]).astype(np.float64)  # float32 sums: the reader's have the same bits
    q = ((q + centres[np.arange(n) * 3 % 8]) * np.float32(sharpness)).astype(np.float64)
    b = synthetic((T,), seed + 3).astype(np.float64) if bias else np.zeros(T)
    return {"T": T, "n": n, "d": d, "old_bias": bias, "seed": seed, "sharpness": sharpness} | fitted(q, k, v, b, t, k_choice, interval, drop)


def captured(head, t, k_choice=1, interval=1, drop=-7.0):
    with safe_open(HEADS, "pt") as file:
        k, v, q = (file.get_tensor(f"{head}.{name}").double().numpy() for name in "KVQ")
    return {"captured": head, "T": len(k), "n": len(q), "d": k.shape[1]} | fitted(q, k, v, np.zeros(len(k)), t, k_choice, interval, drop)


def fitted(q, k, v, b, t, k_choice, interval, drop):
    d = k.shape[1]
    s = q @ k.T / np.sqrt(d) + b
    e = np.exp(s - s.max(1, keepdims=True))
    mass = e.sum(1)
    order, w, gap, dropped = pursue(e, mass, t, k_choice, interval, drop)
    log_w = np.log(w).clip(-7, 7)  # fault I-9: a last solve and a last bound
    x = s[:, order] + log_w
    x = np.exp(x - x.max(1, keepdims=True))
    x /= x.sum(1, keepdims=True)
    y = (e / mass[:, None]) @ v.astype(np.float64)
    values = np.linalg.lstsq(x, y, rcond=1e-6)[0]
    return {"t": t, "k_choice": k_choice, "nnls_interval": interval, "drop_below": 0.0 if drop is None else drop, "indices": order,
            "bias": [round(float(x), 7) for x in b[order] + log_w], "n_dropped": dropped, "smallest_gap": float(f"{gap:.3g}"),
            "mass_residual": float(np.linalg.norm(e[:, order] @ np.exp(log_w) - mass)), "mass": float(np.linalg.norm(mass)),
            "output_residual": float(np.linalg.norm(x @ values - y)), "output": float(np.linalg.norm(y))}


if __name__ == "__main__":
    cases = [case(64, 200, 64, 12, False, 11), case(128, 400, 64, 20, True, 21), case(256, 600, 128, 30, False, 31),
             case(256, 500, 64, 40, True, 41, 2.0), case(512, 1200, 64, 51, False, 51, 2.0), case(1024, 800, 64, 60, False, 61),
             case(200, 60, 64, 24, False, 71), case(128, 300, 16, 50, False, 81, 0.25, drop=-2.0),
             case(160, 400, 16, 40, True, 91, 0.25, 8), case(256, 600, 64, 40, False, 101, 0.5, 4, 2),
             case(256, 600, 16, 41, False, 111, 0.25, 4, 2, drop=-1.0), case(128, 300, 64, 60, False, 121, 0.5, drop=None),
             case(4096, 1024, 128, 40, True, 131, 2.0), case(4096, 300, 64, 60, False, 141),
             captured("L2H0", 31), captured("L14H1", 63), captured("L27H2", 16), captured("L14H1", 40, 4, 2), captured("L27H2", 60, drop=-3.0)]
    json.dump({"made_by": "python scripts/golden/attention_matching_omp.py", "python": platform.python_version(),
               "numpy": np.__version__, "cases": cases}, sys.stdout)
    print()
