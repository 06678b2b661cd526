"""Entries that kvpress keeps of captured heads, for the methods that follow it.

  .deps/golden/bin/python scripts/golden/kvpress_picks.py > harness/testing/golden/kvpress_picks.json

Keys, values and queries are those of harness/testing/golden/captured_heads.safetensors (heads of the demo model on real text), in
float32, each head alone: what comes first in it counts as the text's first tokens. Scores are kvpress's own; of equal ones the lower
index is taken, where its topk leaves the choice open. Nothing random is used: the sketch of the leverage scores is the identity.
Methods that score by queries get the first `queries` captured ones, as those of one query head: Compactor's as the entries' own, one each.
"""
import json
import math
import sys
import types

sys.path.pop(0)  # statistics.py beside this file hides the standard library's

import kvpress
import safetensors.torch
import torch
from kvpress.presses.leverage_press import LeverageScorePress

HEADS = "harness/testing/golden/captured_heads.safetensors"
RATIOS = [0.5, 0.2, 0.05]


def n_kept(length, kept):
    return max(1, int(length * kept + 1e-9))


def best(scores, t):
    return torch.sort(scores.flatten(), stable=True, descending=True).indices[:t].sort().values.tolist()


def exact_leverage(keys):
    """kvpress's leverage scores with the identity as the sketch."""
    real = torch.randn
    torch.randn = lambda b, h, d, k, **kw: torch.eye(d).expand(b, h, d, k) * math.sqrt(k)
    try:
        return LeverageScorePress.compute_leverage_scores(keys, keys.shape[-1])
    finally:
        torch.randn = real


def blockwise(press, keys, values, t, block):
    """BlockPress with a stable choice among equals."""
    kept = torch.arange(t)
    for first in range(t, keys.shape[2], block):
        there = torch.cat([kept, torch.arange(first, min(first + block, keys.shape[2]))])
        scores = press.score(None, None, keys[:, :, there], values[:, :, there], None, None)
        kept = there[torch.sort(scores.flatten(), stable=True, descending=True).indices[:t]]
    return sorted(kept.tolist())


def whole_chunks(keys, kept, length):
    """ChunkKVPress around KeyDiff; which entries it kept is read from values that number them."""
    press = kvpress.ChunkKVPress(kvpress.KeyDiffPress(compression_ratio=1 - kept), chunk_length=length)
    numbers = torch.arange(keys.shape[2], dtype=torch.float32)[None, None, :, None].expand_as(keys)
    _, left = press.compress(types.SimpleNamespace(head_dim=keys.shape[-1]), None, keys, numbers, None, {})
    return [int(x) for x in left[0, 0, :, 0]]


def compactor(keys, values, queries, t, chunk):
    """CompactorPress on arrays: what it would project from hidden states is given to it, before a rotation by nothing."""
    from kvpress.presses import leverage_press, non_causal_attention_press

    length, d = keys.shape[2:]
    press = kvpress.CompactorPress(compression_ratio=1 - t / length, chunk_size=chunk, sketch_dimension=d)
    leverage_press.get_prerope_key_states = lambda module, hidden: keys[:, :, 8:-4]
    non_causal_attention_press.get_prerope_query_states = lambda module, hidden: hidden[:, None]
    real = torch.randn
    torch.randn = lambda b, h, rows, k, **kw: torch.eye(rows).expand(b, h, rows, k) * math.sqrt(k)
    still = (torch.ones(1, length, d), torch.zeros(1, length, d))
    try:
        return press.score(None, queries[0, :, :length], keys, values, None, {"position_embeddings": still})
    finally:
        torch.randn = real


def composite(keys, queries):
    """KVComposePress's scores of one layer with one head."""
    press = kvpress.KVComposePress()
    press.num_layers = press.num_att_heads = press.num_kv_heads = press.num_kv_groups = 1
    press.device, press.context_len = "cpu", keys.shape[2]
    press._init_statistics()
    weights = torch.softmax(queries @ keys.transpose(2, 3) / math.sqrt(keys.shape[-1]), -1)
    press.task_aggregators[0][0].partial_fit(weights[:, 0])
    press.compute_scores()
    press.enhance_scores()
    return press.scores[0]


def main():
    heads = safetensors.torch.load_file(HEADS)
    scored = {
        ("lagkv", '{"lag_size": 32}'): lambda k, v: kvpress.LagKVPress(lag_size=32).score(None, None, k, v, None, None),
        ("lagkv", '{"lag_size": 4}'): lambda k, v: kvpress.LagKVPress(lag_size=4).score(None, None, k, v, None, None),
        ("lagkv", '{"lag_size": 32, "cross_scoring": true}'): lambda k, v: kvpress.LagKVPress(lag_size=32, cross_scoring=True).score(
            None, None, k, v, None, None),
        ("keydiff", "{}"): lambda k, v: kvpress.KeyDiffPress().score(None, None, k, v, None, None),
        ("leverage", '{"sketch": 0}'): lambda k, v: exact_leverage(k),
    }
    for leverage in ["kv_product", "kv_avg", "key", "value"]:
        scored["curdkv", json.dumps({"leverage": leverage})] = lambda k, v, leverage=leverage: kvpress.CURPress(
            leverage_type=leverage).score(None, None, k, v, None, None)
    scored["curdkv", '{"window": 0, "n_sink": 0}'] = lambda k, v: kvpress.CURPress(num_sinks=0, use_local_approximation=False).score(
        None, None, k, v, None, None)
    cases = []
    for head in ["L2H0", "L14H1", "L27H2"]:
        k, v, q = (heads[f"{head}.{x}"].float()[None, None] for x in "KVQ")
        for kept in RATIOS:
            t = n_kept(k.shape[2], kept)
            for (method, options), score in scored.items():
                # Sinks and window alone are more than what is kept: kvpress leaves open which of them.
                if method == "lagkv" and json.loads(options)["lag_size"] == 32 and kept == 0.05:
                    continue
                cases.append({"method": method, "options": json.loads(options), "captured": head, "t": t, "indices": best(score(k, v), t)})
            indices = whole_chunks(k, kept, 10)
            cases.append({"method": "chunk_kv", "options": {"scores": {"method": "keydiff"}, "chunk_length": 10}, "captured": head,
                          "t": len(indices), "indices": indices})
            length = k.shape[2]
            for chunk in [length - 12, (length - 12) // 3]:  # whole chunks: kvpress fills up the last one
                cases.append({"method": "compactor", "options": {"sketch": 0, "chunk": chunk}, "captured": head, "t": t, "queries": length,
                              "indices": best(compactor(k, v, q, t, chunk), t)})
            cases.append({"method": "kvcompose", "options": {}, "captured": head, "t": t, "queries": q.shape[2],
                          "indices": best(composite(k, q), t)})
            for block in [128, 32]:
                cases.append({"method": "keydiff", "options": {"block": block}, "captured": head, "t": t,
                              "indices": blockwise(kvpress.KeyDiffPress(), k, v, t, block)})
    versions = {p.__name__: getattr(p, "__version__", "?") for p in [torch, kvpress]}
    try:
        from importlib.metadata import version
        versions["kvpress"] = version("kvpress")
    except ImportError:
        pass
    text = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    print('{"made_by": "scripts/golden/kvpress_picks.py", "versions": %s, "cases": [\n%s\n]}' % (json.dumps(versions), text))


if __name__ == "__main__":
    main()
