"""Golden results of Attention Matching (highest-attention keys) on synthetic and captured heads, in float64 with numpy.

Run from the repository's root:
    python scripts/golden/attention_matching.py > harness/testing/golden/attention_matching.json

An implementation of its own: selection, box-constrained mass fit (clamped least squares, no gradient steps, so that no random start
enters) and value fit, with numpy's SVD-based lstsq. Inputs are made by integer arithmetic that the reader repeats, so they are not stored;
those of `captured` cases are in harness/testing/golden/captured_heads.safetensors (heads of the demo model on real text, bfloat16).
"""
import json
import platform
import sys

import numpy as np
from safetensors import safe_open

HEADS = "harness/testing/golden/captured_heads.safetensors"


def synthetic(shape, seed):
    """Float32 numbers of about unit variance from a 64-bit linear congruential generator: sums of four uniform numbers."""
    state, out = seed, []
    for _ in range(int(np.prod(shape))):
        total = 0.0
        for _ in range(4):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            total += (state >> 40) / 2**24 - 0.5
        out.append(total * 1.75)
    return np.array(out, dtype=np.float64).astype(np.float32).reshape(shape)


def attention_matching(q, k, v, b, t, bound):
    d = q.shape[1]
    s = q @ k.T / np.sqrt(d) + b
    e = np.exp(s - s.max(1, keepdims=True))
    mass = e.sum(1)
    a = e / mass[:, None]
    order = np.argsort(-np.sqrt((a**2).mean(0)), kind="stable")[:t]
    w = np.linalg.lstsq(e[:, order], mass, rcond=1e-6)[0].clip(np.exp(-bound), np.exp(bound))
    x = s[:, order] + np.log(w)
    x = np.exp(x - x.max(1, keepdims=True))
    x /= x.sum(1, keepdims=True)
    values = np.linalg.lstsq(x, a @ v, rcond=1e-6)[0]
    return order, b[order] + np.log(w), values


def case(T, n, d, t, bias, seed):
    q, k, v = (synthetic((rows, d), seed + i).astype(np.float64) for i, rows in enumerate((n, T, T)))
    q = q * 2  # sharper attention, closer to real heads; exact in float32
    b = synthetic((T,), seed + 3).astype(np.float64) if bias else np.zeros(T)
    return {"T": T, "n": n, "d": d, "old_bias": bias, "seed": seed} | fitted(q, k, v, b, t)


def captured(head, t):
    with safe_open(HEADS, "pt") as file:
        k, v, q = (file.get_tensor(f"{head}.{name}").double().numpy() for name in "KVQ")
    return {"captured": head, "T": len(k)} | fitted(q, k, v, np.zeros(len(k)), t)


def fitted(q, k, v, b, t):
    order, beta, values = attention_matching(q, k, v, b, t, 3.0)
    return {"t": t, "indices": order.tolist(),
            "bias": [round(float(x), 9) for x in beta], "values_row_norms": [round(float(x), 9) for x in np.linalg.norm(values, axis=1)],
            "values_first_rows": [[round(float(x), 9) for x in row] for row in values[:4]]}


if __name__ == "__main__":
    cases = [case(64, 200, 16, 8, False, 11), case(128, 300, 32, 20, False, 21), case(200, 500, 64, 40, True, 31),
             case(256, 600, 16, 64, True, 41), case(96, 160, 32, 1, False, 51),
             case(4096, 1024, 128, 80, True, 61), case(300, 40, 64, 60, False, 71),  # the last has fewer queries than keys
             captured("L2H0", 31), captured("L14H1", 63), captured("L27H2", 16)]
    json.dump({"made_by": "python scripts/golden/attention_matching.py", "python": platform.python_version(),
               "numpy": np.__version__, "cases": cases}, sys.stdout, indent=0)
    print()
