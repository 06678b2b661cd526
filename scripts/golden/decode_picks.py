"""Entries that are left of the layer of layer_picks.py while it grows, where it is cut every so many tokens: eviction during decoding.

  .deps/golden/bin/python scripts/golden/decode_picks.py R-KV TRIATTENTION > harness/testing/golden/decode_picks.json

R-KV: a checkout of github.com/Zefan-Cai/R-KV (made with rkv/compression/r1_kv.py of 31cf55549ba3a4bd29ee92ea895fd68f6d38afb9), whose
update_kv() is called with what is held, in the order in which it left it. TRIATTENTION: as in authors_layer_picks.py; its scores are those
of one round. tova: kvpress's TOVAPress, to which the last query is given. h2o is typed anew from its definition: the mean over all queries
so far of the attention that they give to what is held, the lower half of what is kept by that score, the upper half the most recent; a
query sees entries up to its own until the first cut, all that is held afterwards. Neither kvpress (its decoding keeps one step's weights)
nor the authors' loop over single tokens can be asked for it.

PROMPT entries are there at first; whenever EVERY more were read, `target` of those in front of the last `protected` are kept, and these.
"""
import importlib.util
import json
import math
import pathlib
import sys

sys.path.pop(0)  # statistics.py beside this file hides the standard library's


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layer_picks = load("layer_picks", pathlib.Path(__file__).parent / "layer_picks.py")
import kvpress  # noqa: E402
import torch  # noqa: E402

PROMPT, EVERY = 120, 65
HEADS, D = 3, layer_picks.D


def best(scores, t):
    return torch.sort(scores, stable=True, descending=True).indices[:t]


def tova(layer, held, n, protected):
    """Scores of the held entries, the same for all heads; held is the same for all heads too."""
    keys = layer.k[:, :, held[0]]
    weights = torch.softmax(layer.q[:, :, n - 1:n] @ keys.transpose(2, 3) / math.sqrt(D), -1)[..., :-1]
    kvpress.SnapKVPress.compute_window_attention = staticmethod(lambda *a: weights)
    scores = kvpress.TOVAPress().score(None, None, keys, None, None, {"position_embeddings": None})[0]
    return [scores[h, :-protected] for h in range(HEADS)]


def h2o(layer, held, n, protected, first):
    scores = []
    for h in range(HEADS):
        positions, queries = torch.tensor(held[h]), torch.arange(n)
        logits = layer.q[0, h, :n].double() @ layer.k[0, h, positions].double().T / math.sqrt(D)
        sees = positions[None] <= queries[:, None]
        if not first:
            sees[:] = True
        logits = logits.masked_fill(~sees, -math.inf)
        scores.append(torch.softmax(logits, -1).mean(0)[:-protected])
    return scores


def tri_attention(layer, code, held, n, protected):
    omega, ones = layer_picks.inverse_frequencies().float(), torch.ones(D // 2)
    offsets = code.build_geometric_offsets(65536, "cpu")
    scores = []
    for h in range(HEADS):
        positions = torch.tensor(held[h])
        pairs = code.to_complex_pairs(layer_picks.turned(layer.q[0, h, :n], -torch.arange(n)))
        amp, phi, extra = code.compute_frequency_statistics_from_means(
            pairs.mean(0), pairs.abs().mean(0), layer_picks.turned(layer.k[0, h, positions], -positions))
        every = code.score_keys_for_round_reference(positions, n, amp, phi, omega, extra, offsets, "mean", ones)
        scores.append(every[:-protected])
    return scores


def r_kv(layer, authors, held, n, protected, t, mix):
    """What R1KV.update_kv() leaves, known by values that are numbers."""
    cut = authors.R1KV(budget=t + protected, window_size=protected, kernel_size=7, mix_lambda=mix)
    left = []
    for h in range(HEADS):
        numbers = torch.tensor(held[h], dtype=torch.float32)[None, None, :, None].expand(1, 1, -1, D)
        values = cut.update_kv(layer.k[:, h:h + 1, held[h]], layer.q[:, h:h + 1, n - protected:n], numbers)[1]
        left.append([int(x) for x in values[0, 0, :, 0]])
    return left


def write(layer, scores, leave, t, protected):
    """The held entries of every head after each cut; scores(held, n, first), or leave(held, n) where the code cuts itself."""
    held, events, read = [list(range(PROMPT)) for _ in range(HEADS)], [], PROMPT
    while read + EVERY <= layer.length:
        held = [own + list(range(read, read + EVERY)) for own in held]
        read += EVERY
        if leave:
            held = leave(held, read)
        else:
            held = [sorted([own[i] for i in scores.pick(s, t)] + own[-protected:])
                    for own, s in zip(held, scores(held, read, not events))]
        events.append({"read": read, "indices": [sorted(own) for own in held]})
    return events


def main():
    sys.path.insert(0, sys.argv[1])
    authors = importlib.import_module("rkv.compression")
    code = load("tri_attention", sys.argv[2] + "/triattention/methods/pruning_utils.py")
    layer, cases = layer_picks.Layer(), []

    def heavy_and_recent(s, t):
        older = len(s) - t // 2
        return best(s[:older], t - t // 2).tolist() + list(range(older, len(s)))

    def scored(score, pick=lambda s, t: best(s, t).tolist()):
        score.pick = pick
        return score

    def add(method, options, t, protected, scores=None, leave=None):
        cases.append({"method": method, "options": options, "target": t, "protected": protected, "prompt": PROMPT, "every": EVERY,
                      "events": write(layer, scores, leave, t, protected)})

    for kept in layer_picks.RATIOS:
        t = int(layer.length * kept + 1e-9)
        add("tova", {}, t, 8, scored(lambda held, n, first: tova(layer, held, n, 8)))
        add("h2o", {}, t, 8, scored(lambda held, n, first: h2o(layer, held, n, 8, first), heavy_and_recent))
        add("tri_attention", {}, t, 20, scored(lambda held, n, first: tri_attention(layer, code, held, n, 20)))
        for mix in [0.1, 0.9]:
            add("r_kv", {"lambda": mix}, t, 8, leave=lambda held, n: r_kv(layer, authors, held, n, 8, t, mix))
    text = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    from importlib.metadata import version
    print('{"made_by": "scripts/golden/decode_picks.py", "versions": {"torch": "%s", "kvpress": "%s"}, "cases": [\n%s\n]}' %
          (torch.__version__, version("kvpress"), text))


if __name__ == "__main__":
    main()
