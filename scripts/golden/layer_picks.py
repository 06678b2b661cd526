"""Entries that kvpress keeps of a layer with three KV heads, for methods that look at a layer or a model.

  .deps/golden/bin/python scripts/golden/layer_picks.py > harness/testing/golden/layer_picks.json

The layer's heads are those of harness/testing/golden/captured_heads.safetensors, one query head each, at positions 0, 1, ...; its output
projection is made by output_weights() below, as the test makes it. Scores are kvpress's own presses; what they would project from hidden
states is given to them. The lower index is taken of equal scores. `sizes` is the number of entries that each head keeps. For the budget
zigzag the heads are three layers of one head; its rule is typed anew from the paper (arXiv:2412.09036), since the press for it (pull request
238) was closed.
"""
import json
import math
import sys
import types

sys.path.pop(0)  # statistics.py beside this file hides the standard library's

import kvpress
import numpy as np
import safetensors.torch
import torch
from kvpress.presses import dms_press, kvzip_press, leverage_press, non_causal_attention_press

HEADS = ["L2H0", "L14H1", "L27H2"]
RATIOS = [0.5, 0.2, 0.05]
HIDDEN, D = 48, 64


def output_weights():
    j, i = torch.arange(HIDDEN, dtype=torch.float64)[:, None], torch.arange(3 * D, dtype=torch.float64)[None]
    return torch.sin(0.7 * j + 1.3 * i + 0.01 * j * i).float() / 8


def inverse_frequencies():
    return 10000.0 ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)


def turned(x, positions):
    angle = positions.double()[:, None] * inverse_frequencies()[None]
    cos, sin = (torch.cat([f(angle)] * 2, -1).float() for f in (torch.cos, torch.sin))
    half = torch.cat([-x[..., D // 2:], x[..., :D // 2]], -1)
    return x * cos + half * sin


def best(scores, t):
    return [torch.sort(s, stable=True, descending=True).indices[:t].sort().values.tolist() for s in scores[0]]


def kept_of_mask(masked, length):
    kept = torch.ones(3, length, dtype=torch.bool)
    kept[masked[1], masked[2]] = False
    return [torch.nonzero(row).flatten().tolist() for row in kept]


def numbers(keys):
    return torch.arange(keys.shape[2], dtype=torch.float32)[None, None, :, None].expand_as(keys)


def numbered(values):
    return [[int(x) for x in head[:, 0]] for head in values[0]]


def sketchless(call):
    """Leverage scores with the identity as the sketch."""
    real = torch.randn
    torch.randn = lambda b, h, rows, k, **kw: torch.eye(rows).expand(b, h, rows, k) * math.sqrt(k)
    try:
        return call()
    finally:
        torch.randn = real


class Layer:
    def __init__(self):
        heads = safetensors.torch.load_file("harness/testing/golden/captured_heads.safetensors")
        self.k, self.v, self.q = (torch.stack([heads[f"{h}.{x}"].float() for h in HEADS])[None] for x in "KVQ")
        self.length = self.k.shape[2]
        config = types.SimpleNamespace(num_attention_heads=3, num_key_value_heads=3, head_dim=D, hidden_size=HIDDEN,
                                       _attn_implementation="sdpa")
        self.module = types.SimpleNamespace(
            config=config, head_dim=D, num_key_value_groups=1, layer_idx=0, masked_key_indices=None,
            o_proj=types.SimpleNamespace(weight=output_weights()),
            rotary_emb=types.SimpleNamespace(inv_freq=inverse_frequencies().float()))

    def ratio(self, t):
        return 1 - (t + 1e-6) / self.length

    def chunk_kv(self, t, chunk):
        press = kvpress.ChunkKVPress(kvpress.KeyDiffPress(compression_ratio=self.ratio(t)), chunk_length=chunk)
        return numbered(press.compress(self.module, None, self.k, numbers(self.k), None, {})[1])

    def compactor(self, t, chunk):
        press = kvpress.CompactorPress(compression_ratio=1 - t / self.length, chunk_size=chunk, sketch_dimension=D)
        plain = turned(self.k, -torch.arange(self.length))
        leverage_press.get_prerope_key_states = lambda module, hidden: plain[:, :, 8:-4]
        non_causal_attention_press.get_prerope_query_states = lambda module, hidden: self.q[:, :, 8:self.length - 4]
        still = (torch.ones(1, self.length, D), torch.zeros(1, self.length, D))
        hidden = torch.zeros(1, self.length, HIDDEN)
        return best(sketchless(lambda: press.score(self.module, hidden, self.k, self.v, None, {"position_embeddings": still})), t)

    def kvcompose(self, t):
        press = kvpress.KVComposePress()
        press.num_layers, press.num_att_heads, press.num_kv_heads, press.num_kv_groups = 1, 3, 3, 1
        press.device, press.context_len = "cpu", self.length
        press._init_statistics()
        weights = torch.softmax(self.q @ self.k.transpose(2, 3) / math.sqrt(D), -1)
        for head in range(3):
            press.task_aggregators[0][head].partial_fit(weights[:, head])
        press.compute_scores()
        press.enhance_scores()
        return best(press.scores, t)

    def critical_kv(self, t):
        press = kvpress.CriticalKVPress(kvpress.CURPress(compression_ratio=self.ratio(t), num_sinks=0))
        return best(press.score(self.module, None, self.k, self.v.clone(), None, {}), t)

    def threshold(self, above):
        press = kvpress.DMSPress(kvpress.CURPress(num_sinks=0), threshold=above, sliding_window_size=0)
        dms_press.extract_keys_and_values = lambda cache, layer: (self.k, self.v)
        self.module.masked_key_indices = None
        kwargs = {"hidden_states": torch.zeros(1, self.length, HIDDEN), "past_key_values": None,
                  "cache_position": torch.arange(self.length)}
        press.forward_hook(self.module, [], kwargs, [])
        return kept_of_mask(self.module.masked_key_indices, self.length)

    def threshold_for(self, kept):
        scores = kvpress.CURPress(num_sinks=0).score(None, None, self.k, self.v, None, None).flatten().sort(descending=True).values
        n = int(kept * scores.numel())
        return float((scores[n - 1].double() + scores[n].double()) / 2)

    def q_filters(self, t):
        filters = []
        for q in self.q[0].double():
            u = torch.linalg.svd(q, full_matrices=False).Vh[0]
            filters.append(u if (q.mean(0) @ u) > 0 else -u)
        press = kvpress.QFilterPress()
        press.q_filters = -torch.stack(filters)[None]  # the published ones point the other way
        return best(press.score(self.module, None, self.k.double(), None, None, None), t)

    def simlayer_kv(self, threshold, recent):
        press = kvpress.SimLayerKVPress(lazy_threshold=threshold, n_last=1, n_recent=recent, n_initial=4)
        kvpress.SnapKVPress.compute_window_attention = staticmethod(
            lambda *a: torch.softmax(self.q[:, :, -1:] @ self.k.transpose(2, 3) / math.sqrt(D), -1))
        return numbered(press.compress(self.module, None, self.k, numbers(self.k), None, {"position_embeddings": None})[1])

    def kvzip_plus(self, t):
        press = kvpress.KVzipPress(kvzip_plus_normalization=True)
        n = self.q.shape[2]
        kvzip_press.get_prerope_query_states = lambda module, hidden: self.q
        press.start_idx, press.end_idx, press.context_length = 0, self.length, self.length
        press.score_val = torch.zeros(1, 1, 3, self.length)

        def article_alone(weights, window):
            weights[..., -window:] = torch.finfo(weights.dtype).min
        press._mask_causal = article_alone
        norms = 1 + 0.5 * torch.sin(torch.arange(n, dtype=torch.float64)).float()
        hidden = torch.zeros(1, n, HIDDEN)
        hidden[0, :, 0] = norms
        still = (torch.ones(1, n, D), torch.zeros(1, n, D))
        filler = torch.zeros(1, 3, n, D)
        press.score_kvzip(self.module, hidden, torch.cat([self.k, filler], 2), torch.cat([self.v, filler], 2), None,
                          {"position_embeddings": still})
        return best(press.score_val[0], t)

    def rerotated(self, t):
        """Products of moved sinks with recent keys, which tell how far apart they stand."""
        press = kvpress.KeyRerotationPress(kvpress.StreamingLLMPress(compression_ratio=1 - (t + 1e-3) / self.length, n_sink=4))
        keys, values = press.compress(self.module, None, self.k, numbers(self.k), None, {})
        recent = [t - 1, t - 4, t - 9]
        products = [[round(float(head[i] @ head[j]), 4) for i in range(4) for j in recent] for head in keys[0]]
        return numbered(values), products

    def duo_attention(self, streaming, gates):
        press = kvpress.DuoAttentionPress(head_compression_ratio=streaming / 3)
        press.load_attention_pattern = lambda model: (8, 16, np.array([gates]))
        press.post_init_from_model(types.SimpleNamespace(device="cpu"))
        press.compress(self.module, None, self.k, self.v, None, {})
        return kept_of_mask(self.module.masked_key_indices, self.length)

    def lu_kv(self, t, shares):
        press = kvpress.LUKVPress(kvpress.CURPress(num_sinks=0), compression_ratio=1 - t / self.length, sink=0, window=0)
        press._budget_curves = np.broadcast_to(1 - t / self.length * np.array(shares), (99, 1, 3))
        press.compress(self.module, None, self.k, self.v, None, {})
        return kept_of_mask(self.module.masked_key_indices, self.length)


    def zigzag(self, t, mass, floor):
        """Layers' lengths: floor of an equal share, and the rest by how many entries hold `mass` of the scores."""
        scores = kvpress.CURPress(num_sinks=0).score(None, None, self.k, self.v, None, None)[0].double()
        uncertainty = []
        for own in scores.sort(descending=True).values:
            held = own.cumsum(0)
            uncertainty.append(int((held < mass * own.sum()).sum()) + 1)
        exact = [t * (floor + (1 - floor) * 3 * u / sum(uncertainty)) for u in uncertainty]
        lengths = [int(x) for x in exact]
        for layer in sorted(range(3), key=lambda l: lengths[l] - exact[l])[:3 * t - sum(lengths)]:
            lengths[layer] += 1
        return [best(scores[None, l:l + 1], lengths[l])[0] for l in range(3)]


def main():
    layer, cases = Layer(), []

    def add(method, options, indices, **more):
        cases.append({"method": method, "options": options, "sizes": [len(head) for head in indices], **more, "indices": indices})

    length, n = layer.length, layer.q.shape[2]
    curdkv = {"method": "curdkv", "n_sink": 0}
    for kept in RATIOS:
        t = int(length * kept + 1e-9)
        for chunk in [10, 20]:
            add("chunk_kv", {"scores": {"method": "keydiff"}, "chunk_length": chunk}, layer.chunk_kv(t, chunk))
        for chunk in [length - 12, (length - 12) // 3]:
            add("compactor", {"sketch": 0, "chunk": chunk}, layer.compactor(t, chunk), queries=length)
        add("kvcompose", {}, layer.kvcompose(t), queries=n)
        add("critical_kv", {"scores": curdkv}, layer.critical_kv(t))
        above = layer.threshold_for(kept)
        add("threshold", {"scores": curdkv, "above": above}, layer.threshold(above))
        add("q_filters", {}, layer.q_filters(t), queries=n)
        add("kvzip", {"output_weighted": True, "softmax_over": "article"}, layer.kvzip_plus(t), queries=n)
        indices, products = layer.rerotated(t)
        add("streaming_llm", {"n_sink": 4, "rerotate": True}, indices, products=products)
        shares = [0.5, 1.7, 0.8]
        add("curdkv", {"n_sink": 0}, layer.lu_kv(t, shares), target=t, lu_kv=shares)
        for mass, floor in [(0.9, 0.2), (0.5, 0), (0.1, 0)]:
            add("curdkv", {"n_sink": 0}, layer.zigzag(t, mass, floor), target=t, zigzag={"mass_fraction": mass, "floor_fraction": floor})
    for threshold in [0.05, 0.3, 0.6, 0.9]:
        for recent in [16, 64]:
            add("simlayer_kv", {"threshold": threshold, "n_recent": recent}, layer.simlayer_kv(threshold, recent), queries=n)
    for streaming in [1, 2]:
        gates = [0.9, 0.1, 0.5]
        indices = layer.duo_attention(streaming, gates)
        add("streaming_llm", {"n_sink": 8}, indices, target=sum(map(len, indices)) // 3, duo_attention=gates)
    from importlib.metadata import version
    text = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    print('{"made_by": "scripts/golden/layer_picks.py", "versions": {"torch": "%s", "kvpress": "%s"}, "cases": [\n%s\n]}' %
          (torch.__version__, version("kvpress"), text))


if __name__ == "__main__":
    main()
